"""DualPipeV. https://github.com/deepseek-ai/DualPipe; Qi et al. 2025, "cut in half"."""

from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.placement import v_shape
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.dualpipe import eight_steps
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import of_v


@register(
    "dualpipev",
    requires="at least 2 × ranks micro-batches",
    accepts=lambda ranks, micro_batches: micro_batches >= 2 * ranks,
    size=of_v(),
)
def dualpipev(ranks: int, micro_batches: int) -> Schedule:
    """DualPipeV: half of DualPipe, folded to a V on half the ranks. https://github.com/deepseek-ai/DualPipe.

    Rank r is where one pipe of 2 × ranks stages passes on its way down (stage r) and back (stage 2 × ranks - 1 - r);
    its last rank does what DualPipe's middle ranks do.

    Recipe, on rank r of P, with 0 the stage on the way down and 1 that on the way back:

    1. 2 (P - r - 1) times F0.
    2. r + 1 times F0, F1.
    3. P - r - 1 times I1, the oldest W put off, F1.
    4. M - 2 P + r + 1 times the pairs F0 with B1 and F1 with B0; on the last rank the very first F0 and B1 stand alone.
    5. P - r - 1 times B1 and the pair F1 with B0.
    6. r + 1 times B1, B0; the last r + 1 of them as I, their W put off.
    7. P - r - 1 times the oldest W put off, I0.
    8. The r + 1 W that are left.
    """
    order = OrderBuilder(v_shape(ranks), (micro_batches,))
    for rank in range(ranks):
        pairs = micro_batches - 2 * ranks + rank + 1
        eight_steps(order.rank(rank), rank, 2 * ranks - 1 - rank, rank, ranks, pairs)
    return order.schedule()
