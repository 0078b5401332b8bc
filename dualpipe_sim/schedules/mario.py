"""Mario: 1F1B with recomputation and forwards in bubbles. Liu et al., PPoPP'25, https://doi.org/10.1145/3710848.3710878."""

from __future__ import annotations

from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.one_f_one_b_recompute import with_recomputation
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import of_line


def accepts(ranks: int, micro_batches: int, limit: int | None = None) -> bool | str:  # noqa: ARG001 - as every schedule's
    """Whether 1F1B stays within the limit, or why not."""
    return limit is None or limit >= ranks or f"limit must be at least {ranks}, what 1F1B has in flight, got {limit}"


@register("mario", accepts=accepts, size=of_line(3))
def mario(ranks: int, micro_batches: int, limit: int | None = None) -> Schedule:
    """Mario: forwards run again early, and first ones in bubbles while memory lasts. PPoPP'25, https://doi.org/10.1145/3710848.3710878.

    1F1B whose micro-batches keep their input alone, and have the rest anew before the gradient is there; the last rank
    has it at once and keeps all. Memory is left for more of them, so each rank but the last runs as many forwards more
    ahead as rank 0 has room for, in what were bubbles. The paper's rules as far as its abstract says them: it searches
    for where forwards go, here all ranks move alike, which never makes a step longer.

    Recipe, on rank r of P, with at most L micro-batches in flight:

    1. Warm-up: P - 1 - r forwards and L - P more; on the last rank none.
    2. Steady state: a forward; then the oldest micro-batch's forward again, R, and its backward; on the last rank no R.
    3. Drain: R and the backward of the micro-batches that are left.

    Args:
        ranks: pipeline ranks.
        micro_batches: micro-batches of the step.
        limit: most micro-batches in flight on a rank, at least as many as ranks; by default twice as many.

    """
    more = (2 * ranks if limit is None else limit) - ranks
    return with_recomputation(ranks, micro_batches, last=False, more=more)
