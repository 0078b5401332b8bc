"""Seq1F1B. Ao et al., NAACL 2025, https://arxiv.org/abs/2406.03488, and https://github.com/thunlp/Seq1F1B."""

from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.placement import linear
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.one_f_one_b import in_turns
from dualpipe_sim.schedules.registry import register


def accepts(ranks: int, micro_batches: int, slices: int = 4) -> bool | str:  # noqa: ARG001 - as every schedule's
    """Whether micro-batches can be cut into so many slices, or why not."""
    return slices >= 1 or f"slices must be 1 or more, got {slices}"


@register("seq1f1b", accepts=accepts, tries={"slices": (2, 4, 8)})
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
    for rank in range(ranks):
        in_turns(order.rank(rank), rank, micro_batches * slices, warm_up=ranks - 1 - rank + slices - 1)
    return order.schedule()
