"""V-Min. Qi et al., NeurIPS 2024, https://arxiv.org/abs/2405.15362, figure 4."""

from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import of_v
from dualpipe_sim.schedules.zero_bubble.building_block import Slots, build_v


def slots(ranks: int, rank: int) -> Slots:
    """Return the slots of a rank's building block."""
    shift = 2 if ranks % 3 == 0 else 0
    turn = 2 * ranks + shift
    return Slots(rank, 2 * ranks - 1 - rank, turn + rank, turn + 2 * ranks - 1 - rank)


@register("v-min", size=of_v(3))
def v_min(ranks: int, micro_batches: int) -> Schedule:
    """V-Min: a third of 1F1B's memory, two thirds of its bubble. Qi et al., NeurIPS 2024, https://arxiv.org/abs/2405.15362.

    A V that every tensor goes down and up one slot a rank. The order is the same for all times.

    Recipe, on rank r of P, which holds stages a = r and b = 2 P - 1 - r, in slots as long as an F, an I or a W:

    1. Micro-batch 0: F of a in slot r, F of b in slot 2 P - 1 - r, I of b in slot 2 P + δ + r, I of a in slot
       4 P + δ - 1 - r, with δ = 2 where 3 divides P, else 0.
    2. The same for each next micro-batch, six slots later.
    3. Ops of ramp-up and drain are pulled into earlier free slots, as far as the peak of memory does not grow.
    4. The W fill the gaps that are left.
    """
    return build_v(ranks, micro_batches, slots)
