"""V-Half. Qi et al., NeurIPS 2024, https://arxiv.org/abs/2405.15362, figure 4."""

from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import of_v
from dualpipe_sim.schedules.zero_bubble.building_block import Slots, build_v


def slots(ranks: int, rank: int) -> Slots:
    """Return the slots of a rank's building block."""
    shift = 3 if ranks % 2 == 0 else 0
    turn = 3 * ranks + shift - 1
    return Slots(2 * rank, 3 * ranks - 2 - rank, turn + 2 * rank, turn + 3 * ranks - 1 - rank)


@register("v-half", size=of_v(3))
def v_half(ranks: int, micro_batches: int) -> Schedule:
    """V-Half: half of 1F1B's memory, half of its bubble. Qi et al., NeurIPS 2024, https://arxiv.org/abs/2405.15362.

    A V whose forwards go down two slots a rank and come back one slot a rank, and likewise the backwards for the input.
    The order is the same for all times.

    Recipe, on rank r of P, which holds stages a = r and b = 2 P - 1 - r, in slots as long as an F, an I or a W:

    1. Micro-batch 0: F of a in slot 2 r, F of b in slot 3 P - 2 - r, I of b in slot 3 P + δ - 1 + 2 r, I of a in slot
       6 P + δ - 2 - r, with δ = 3 for an even P, else 0.
    2. The same for each next micro-batch, six slots later.
    3. Ops of ramp-up and drain are pulled into earlier free slots, as far as the peak of memory does not grow.
    4. The W fill the gaps that are left.
    """
    return build_v(ranks, micro_batches, slots)
