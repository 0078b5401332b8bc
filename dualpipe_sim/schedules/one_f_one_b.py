"""1F1B (PipeDream-Flush, DAPPLE). Narayanan et al. 2021, https://arxiv.org/abs/2104.04473, figure 4 (top)."""

from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.placement import linear
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import register


@register("1f1b")
def one_f_one_b(ranks: int, micro_batches: int) -> Schedule:
    """1F1B: one forward, one backward. Narayanan et al. 2021, https://arxiv.org/abs/2104.04473, figure 4 (top)."""
    order = OrderBuilder(linear(ranks), (micro_batches,))
    for rank in range(ranks):
        line = order.rank(rank)
        warm_up = min(ranks - 1 - rank, micro_batches)
        for _ in range(warm_up):
            line.forward(rank)
        for _ in range(micro_batches - warm_up):
            line.forward(rank)
            line.backward(rank)
        for _ in range(warm_up):
            line.backward(rank)
    return order.schedule()
