"""1F1B with recomputation as an op. Mario, PPoPP'25, https://doi.org/10.1145/3710848.3710878."""

from dataclasses import replace

from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.ops import B, F, R
from dualpipe_sim.order.placement import linear
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import of_line


@register("1f1b-recompute", size=of_line(3))
def one_f_one_b_recompute(ranks: int, micro_batches: int, early: bool = True, last: bool = True) -> Schedule:
    """1F1B whose forwards run again, before the gradient is there. Mario, PPoPP'25, https://doi.org/10.1145/3710848.3710878.

    A forward keeps its input alone; what its backward needs beside that comes from a second run of it, the op R.

    Recipe, on rank r of P:

    1. Warm-up: P - 1 - r forwards.
    2. Steady state: a forward; then the oldest micro-batch's forward again, R, and its backward. With ``early``, R does
       not wait for the gradient, and so stands in the bubble before it.
    3. Drain: R and the backward of the P - 1 - r micro-batches that are left.

    Args:
        ranks: pipeline ranks.
        micro_batches: micro-batches of the step.
        early: whether a forward runs again while its gradient is still on its way; else once that is there, as part
            of a backward would.
        last: whether the last rank's forwards run again too, whose backwards follow at once.

    """
    return replace(with_recomputation(ranks, micro_batches, last=last), late_again=not early)


def with_recomputation(ranks: int, micro_batches: int, *, last: bool, more: int = 0) -> Schedule:
    """Return 1F1B with each forward again before its backward.

    Args:
        ranks: pipeline ranks.
        micro_batches: micro-batches of the step.
        last: whether on the last rank, too.
        more: forwards that every rank but the last runs ahead beside 1F1B's.

    """
    order = OrderBuilder(linear(ranks), (micro_batches,))
    for rank in range(ranks):
        line, at_end = order.rank(rank), rank == ranks - 1
        warm_up = min(ranks - 1 - rank + (0 if at_end else more), micro_batches)
        for turn in range(micro_batches + warm_up):
            if turn < micro_batches:
                line.op(F, rank, turn)
            if turn >= warm_up:
                if last or not at_end:
                    line.op(R, rank, turn - warm_up)
                line.op(B, rank, turn - warm_up)
    return order.schedule()
