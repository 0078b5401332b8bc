"""Chimera. Li & Hoefler, SC'21, https://arxiv.org/abs/2107.06925, figures 3 and 7."""

from dualpipe_sim.ops import B, F
from dualpipe_sim.placement import opposed
from dualpipe_sim.registry import register
from dualpipe_sim.schedule import OrderBuilder, Schedule


@register(
    "chimera",
    needs="an even number of ranks and micro-batches that are a multiple of ranks",
    accepts=lambda ranks, micro_batches: ranks % 2 == 0 and micro_batches % ranks == 0,
)
def chimera(ranks: int, micro_batches: int) -> Schedule:
    """Chimera: two opposed 1F1B pipes merged. Li & Hoefler, SC'21, https://arxiv.org/abs/2107.06925, figure 3.

    More micro-batches than ranks run as directly concatenated blocks (the paper's section 3.5): every block of
    ``ranks`` micro-batches, half of them down and half up, is a table of slots, and a rank's order is its ops by slot.
    """
    half = ranks // 2
    order = OrderBuilder(opposed(ranks), (micro_batches // 2, micro_batches // 2))
    for rank in range(ranks):
        down, up = rank, 2 * ranks - 1 - rank
        line = order.rank(rank)
        for block in range(micro_batches // ranks):
            slots = {}
            for k in range(half):
                slots[rank + 2 * k] = (F, down, k)
                slots[2 * ranks - 1 - rank + 2 * k] = (B, down, k)
                slots[ranks - 1 - rank + 2 * k] = (F, up, k)
                slots[ranks + rank + 2 * k] = (B, up, k)
            for _, (kind, stage, k) in sorted(slots.items()):
                line.op(kind, stage, block * half + k)
    return order.schedule()
