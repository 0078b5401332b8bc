"""GPipe. Huang et al. 2018, https://arxiv.org/abs/1811.06965, figure 2c."""

from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.placement import linear
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import of_line


@register("gpipe", size=of_line())
def gpipe(ranks: int, micro_batches: int) -> Schedule:
    """GPipe: all forwards, then all backwards. Huang et al. 2018, https://arxiv.org/abs/1811.06965, figure 2c.

    The backwards run in micro-batch order, as ``torch.distributed.pipelining`` runs them.

    Recipe, on every rank:

    1. The forwards of all M micro-batches.
    2. Their backwards, in the same order.
    """
    order = OrderBuilder(linear(ranks), (micro_batches,))
    for rank in range(ranks):
        line = order.rank(rank)
        for _ in range(micro_batches):
            line.forward(rank)
        for _ in range(micro_batches):
            line.backward(rank)
    return order.schedule()
