"""ZB-H2. Qi et al., ICLR 2024, https://arxiv.org/abs/2401.10241, figure 3 (bottom)."""

from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.placement import linear
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import of_line
from dualpipe_sim.schedules.zb_h1 import zero_bubble_line


@register("zb-h2", size=of_line(3))
def zb_h2(ranks: int, micro_batches: int) -> Schedule:
    """ZB-H2: no bubble, twice 1F1B's memory. Qi et al., ICLR 2024, https://arxiv.org/abs/2401.10241, figure 3 (bottom).

    ZB-H1 with twice the warm-up: no rank waits between its first op and its last when F, I and W take the same time
    and there are at least 2 × ranks - 1 micro-batches.

    Recipe, on rank r of P:

    1. Warm-up: 2 (P - 1 - r) forwards.
    2. For each micro-batch: the next forward, while there is one; its I; and, from the (2 r + 1)-th on, the oldest W
       that was put off.
    3. The 2 r W that are left.
    """
    order = OrderBuilder(linear(ranks), (micro_batches,))
    for rank in range(ranks):
        zero_bubble_line(order.rank(rank), rank, 2 * (ranks - 1 - rank), 2 * rank, micro_batches)
    return order.schedule()
