"""V-Min. Qi et al., NeurIPS 2024, https://arxiv.org/abs/2405.15362, figure 4."""

from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.zero_bubble.building_block import Slots, build_v


def slots(ranks: int, rank: int) -> Slots:
    """Return the slots of a rank's building block."""
    shift = 2 if ranks % 3 == 0 else 0
    turn = 2 * ranks + shift
    return Slots(rank, 2 * ranks - 1 - rank, turn + rank, turn + 2 * ranks - 1 - rank)


@register("v-min")
def v_min(ranks: int, micro_batches: int) -> Schedule:
    """V-Min: a third of 1F1B's memory, two thirds of its bubble. Qi et al., NeurIPS 2024, https://arxiv.org/abs/2405.15362.

    A V that every tensor goes down and up one slot a rank. The order is the same for all times.
    """
    return build_v(ranks, micro_batches, slots)
