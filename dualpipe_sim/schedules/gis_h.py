"""GIS-H: GIS in groups of half the ranks. Wan et al., ICML 2025, https://arxiv.org/abs/2503.01328."""

from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.gis import accepts, gis, half
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import of_loop


@register(
    "gis-h",
    accepts=accepts,
    tries={"stages_per_rank": (2, 3, 4)},
    size=of_loop(3),
)
def gis_h(ranks: int, micro_batches: int, stages_per_rank: int = 2) -> Schedule:
    """GIS-H: GIS in groups of half the ranks, which hold least. Wan et al., https://arxiv.org/abs/2503.01328.

    A group comes back when half of the ranks are through with it, so ranks wait longer while the pipe fills and drains.

    Recipe, on every rank:

    1. As GIS, in groups of half the ranks, rounded up.

    Args:
        ranks: pipeline ranks.
        micro_batches: micro-batches of the step.
        stages_per_rank: v, the stages that a rank holds.

    """
    return gis(ranks, micro_batches, stages_per_rank, half(ranks))
