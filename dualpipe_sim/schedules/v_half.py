"""V-Half. Qi et al., NeurIPS 2024, https://arxiv.org/abs/2405.15362, figure 4."""

from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.zero_bubble.building_block import Slots, build_v


def slots(ranks: int, rank: int) -> Slots:
    """Return the slots of a rank's building block."""
    shift = 3 if ranks % 2 == 0 else 0
    turn = 3 * ranks + shift - 1
    return Slots(2 * rank, 3 * ranks - 2 - rank, turn + 2 * rank, turn + 3 * ranks - 1 - rank)


@register("v-half")
def v_half(ranks: int, micro_batches: int) -> Schedule:
    """V-Half: half of 1F1B's memory, half of its bubble. Qi et al., NeurIPS 2024, https://arxiv.org/abs/2405.15362.

    A V whose forwards go down two slots a rank and come back one slot a rank, and likewise the backwards for the input.
    The order is the same for all times.
    """
    return build_v(ranks, micro_batches, slots)
