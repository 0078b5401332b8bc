"""DualPipeV. https://github.com/deepseek-ai/DualPipe; Qi et al. 2025, "cut in half"."""

from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.placement import v_shape
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.dualpipe import eight_steps
from dualpipe_sim.schedules.registry import register


@register(
    "dualpipev",
    requires="at least 2 × ranks micro-batches",
    accepts=lambda ranks, micro_batches: micro_batches >= 2 * ranks,
)
def dualpipev(ranks: int, micro_batches: int) -> Schedule:
    """DualPipeV: half of DualPipe, folded to a V on half the ranks. https://github.com/deepseek-ai/DualPipe.

    Rank r is where one pipe of 2 × ranks stages passes on its way down (stage r) and back (stage 2 × ranks - 1 - r);
    its last rank does what DualPipe's middle ranks do.
    """
    order = OrderBuilder(v_shape(ranks), (micro_batches,))
    for rank in range(ranks):
        pairs = micro_batches - 2 * ranks + rank + 1
        eight_steps(order.rank(rank), rank, 2 * ranks - 1 - rank, rank, ranks, pairs)
    return order.schedule()
