"""TeraPipe. Li et al., ICML 2021, https://arxiv.org/abs/2102.07988, and https://github.com/zhuohan123/terapipe."""

from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.ops import B
from dualpipe_sim.order.placement import linear
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.seq1f1b import accepts
from dualpipe_sim.schedules.size import Size


@register(
    "terapipe",
    accepts=accepts,
    tries={"slices": (2, 4, 8)},
    size=lambda ranks, micro_batches, slices: Size(ranks, slices * micro_batches),
)
def terapipe(ranks: int, micro_batches: int, slices: int = 4) -> Schedule:
    """TeraPipe: GPipe on slices of sequences. Li et al., ICML 2021, https://arxiv.org/abs/2102.07988.

    All forwards, then all backwards in the reverse of their order.

    Recipe, on every rank, with k slices of each micro-batch:

    1. The forwards of all M k slices, in the order of the sequences.
    2. Their backwards, last slice of the last micro-batch first.

    Args:
        ranks: pipeline ranks.
        micro_batches: micro-batches of the step.
        slices: slices of each micro-batch along its sequence.

    """
    order = OrderBuilder(linear(ranks), (micro_batches,), slices)
    for rank in range(ranks):
        line = order.rank(rank)
        for _ in range(micro_batches * slices):
            line.forward(rank)
        for micro_batch in reversed(range(micro_batches)):
            for part in reversed(range(slices)):
                line.op(B, rank, micro_batch, part)
    return order.schedule()
