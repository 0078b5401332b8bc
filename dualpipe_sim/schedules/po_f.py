"""PipeOffload, full: PO-F. Wan et al., ICML 2025, https://arxiv.org/abs/2503.01328."""

from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.gis import half
from dualpipe_sim.schedules.po_h import copies_fit, offloading
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import of_loop


@register(
    "po-f",
    accepts=copies_fit,
    tries={"stages_per_rank": (2, 3, 4)},
    size=of_loop(5),
)
def po_f(
    ranks: int, micro_batches: int, stages_per_rank: int = 2, group: int | None = None, apart: int = 1
) -> Schedule:
    """PO-F: GIS-H whose activations lie in the host's memory. Wan et al., https://arxiv.org/abs/2503.01328.

    All that lives long enough is copied out behind its forward and back before its backward, as in PO-H: a rank holds
    4 stages' activations at most, whatever the sizes. While out and back take an F, an I and a W at most, a step is as
    long as without.

    Recipe, on every rank:

    1. GIS in groups of half the ranks.
    2. What a forward leaves is copied out, O, in the first turn behind it in which the copy stream is free, and back,
       L, in the last such turn before its backward. What lives no longer than three round trips stays.
    3. A turn runs its forward, starts its copies and runs its backward, which waits for its L.

    Args:
        ranks: pipeline ranks.
        micro_batches: micro-batches of the step.
        stages_per_rank: v, the stages that a rank holds.
        group: micro-batches that run through one stage before the rank turns to its next; by default half the ranks.
        apart: turns, of an F, an I and a W, from one copy out and back to the next.

    """
    return offloading(ranks, micro_batches, stages_per_rank, stages_per_rank, group or half(ranks), apart)
