"""Hanayo. Liu et al., SC'23, https://arxiv.org/abs/2308.15762."""

from heapq import heappop, heappush

from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.ops import B, F
from dualpipe_sim.order.placement import zigzag
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import Size

_SLOTS: dict[int, int] = {
    F: 1,
    B: 2,
}
"""How long an op takes in the table that the order is read from: the paper's B = 2 F."""


@register(
    "hanayo",
    tries={"waves": (1, 2, 3, 4)},
    size=lambda ranks, micro_batches, waves: Size(2 * waves * ranks, micro_batches),
)
def hanayo(ranks: int, micro_batches: int, waves: int = 2) -> Schedule:
    """Hanayo: one pipe that zigzags over the ranks in waves. Liu et al., SC'23, https://arxiv.org/abs/2308.15762.

    The order is greedy, backwards first: whenever a rank is free it runs the backward of the oldest micro-batch that
    is ready, or else the forward of the oldest. At most ranks micro-batches, the paper's case, are at most that many
    in flight; more run on without a break, and then fewer than 2 × ranks are in flight.

    Recipe, written down in slots as long as an F, with B = 2 F:

    1. The pipe runs down the ranks and back up w times: 2 P w stages.
    2. Whenever a rank is free: the backward of the oldest micro-batch that is ready.
    3. If there is none: the forward of the oldest micro-batch that is ready.

    Args:
        ranks: pipeline ranks.
        micro_batches: micro-batches of the step.
        waves: times that the pipe runs down the ranks and back up, 1 or more: 2 × ranks × waves stages.

    """
    if waves < 1:
        raise ScheduleError(f"hanayo: waves must be 1 or more, got {waves}")
    placement = zigzag(ranks, waves)
    rank_of_stage, last = placement.rank_of_stage.tolist(), placement.stages - 1
    order = OrderBuilder(placement, (micro_batches,))
    free_at = [0] * ranks
    ready: list[list[tuple[bool, int, int, int]]] = [[] for _ in range(ranks)]  # by urgency: (is F, micro-batch, …)
    ends: list[tuple[int, int, int, int]] = [(0, F, -1, micro_batch) for micro_batch in range(micro_batches)]
    while ends:  # (slot, the op that ends in it): at 0 all inputs
        now = ends[0][0]
        while ends and ends[0][0] == now:
            _, kind, stage, micro_batch = heappop(ends)
            if kind == F and stage < last:
                heappush(ready[rank_of_stage[stage + 1]], (True, micro_batch, F, stage + 1))
            elif kind == F or stage > 0:
                stage = last if kind == F else stage - 1
                heappush(ready[rank_of_stage[stage]], (False, micro_batch, B, stage))
        for rank in range(ranks):
            if ready[rank] and free_at[rank] <= now:
                _, micro_batch, kind, stage = heappop(ready[rank])
                order.rank(rank).op(kind, stage, micro_batch)
                free_at[rank] = now + _SLOTS[kind]
                heappush(ends, (free_at[rank], kind, stage, micro_batch))
    return order.schedule()
