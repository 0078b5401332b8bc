"""Seq1F1B. Ao et al., NAACL 2025, https://arxiv.org/abs/2406.03488, and https://github.com/thunlp/Seq1F1B."""

from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.placement import linear
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import register


@register(
    "seq1f1b",
    accepts=lambda ranks, micro_batches, slices=4: (  # noqa: ARG005 - same shape for every schedule
        slices >= 1 or f"slices must be 1 or more, got {slices}"
    ),
    tries={"slices": (2, 4, 8)},
)
def seq1f1b(ranks: int, micro_batches: int, slices: int = 4) -> Schedule:
    """Seq1F1B: 1F1B on slices of sequences. Ao et al., NAACL 2025, https://arxiv.org/abs/2406.03488.

    A slice attends to those before it, so a micro-batch's gradients come from its last slice on; that is why a rank
    takes all slices of one micro-batch in before it turns to one forward, one backward.

    Args:
        ranks: pipeline ranks.
        micro_batches: micro-batches of the step.
        slices: slices of each micro-batch along its sequence.

    """
    order = OrderBuilder(linear(ranks), (micro_batches,), slices)
    units = micro_batches * slices
    for rank in range(ranks):
        line = order.rank(rank)
        warm_up = min(ranks - 1 - rank + slices - 1, units)
        for _ in range(warm_up):
            line.forward(rank)
        for _ in range(units - warm_up):
            line.forward(rank)
            line.backward(rank)
        for _ in range(warm_up):
            line.backward(rank)
    return order.schedule()
