"""1F1B (PipeDream-Flush, DAPPLE). Narayanan et al. 2021, https://arxiv.org/abs/2104.04473, figure 4 (top)."""

from dualpipe_sim.order.builder import Line, OrderBuilder
from dualpipe_sim.order.placement import linear
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import of_line


@register("1f1b", size=of_line())
def one_f_one_b(ranks: int, micro_batches: int) -> Schedule:
    """1F1B: one forward, one backward. Narayanan et al. 2021, https://arxiv.org/abs/2104.04473, figure 4 (top).

    The backward of a micro-batch begins as soon as it can, so a rank holds no more micro-batches than there are ranks
    from it to the end of the pipe, however many a step has. Known as PipeDream-Flush and DAPPLE, too.

    Recipe, on rank r of P:

    1. Warm-up: P - 1 - r forwards.
    2. Steady state: a forward, then the backward of the oldest micro-batch in flight, until no forward is left.
    3. Drain: the P - 1 - r backwards that are left.
    """
    order = OrderBuilder(linear(ranks), (micro_batches,))
    for rank in range(ranks):
        in_turns(order.rank(rank), rank, micro_batches, warm_up=ranks - 1 - rank)
    return order.schedule()


def in_turns(line: Line, stage: int, count: int, warm_up: int) -> None:
    """Append a stage's forwards and backwards, so many of each: a warm-up of forwards, then one of each in turn."""
    ahead = min(warm_up, count)
    for _ in range(ahead):
        line.forward(stage)
    for _ in range(count - ahead):
        line.forward(stage)
        line.backward(stage)
    for _ in range(ahead):
        line.backward(stage)
