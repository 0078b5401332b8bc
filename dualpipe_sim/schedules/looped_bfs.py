"""Looped BFS. Lamy-Poirier, MLSys 2023, https://arxiv.org/abs/2211.05953."""

from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.ops import B, F
from dualpipe_sim.order.placement import loop
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import of_loop


@register(
    "looped-bfs",
    tries={"stages_per_rank": (2, 3, 4)},
    size=of_loop(),
)
def looped_bfs(ranks: int, micro_batches: int, stages_per_rank: int = 2) -> Schedule:
    """Looped BFS: GPipe over v stages a rank. Lamy-Poirier, MLSys 2023, https://arxiv.org/abs/2211.05953.

    All micro-batches run through a stage before the rank turns to its next. The backwards run in reverse micro-batch
    order, as ``torch.distributed.pipelining`` runs them.

    Recipe, on rank r of P, which holds stages r, r + P, …:

    1. From the rank's first stage to its last: the forwards of all M micro-batches.
    2. From its last stage to its first: the backwards of all of them, in reverse.

    Args:
        ranks: pipeline ranks.
        micro_batches: micro-batches of the step.
        stages_per_rank: v, the stages that a rank holds.

    """
    if stages_per_rank < 1:
        raise ScheduleError(f"looped-bfs: stages_per_rank must be 1 or more, got {stages_per_rank}")
    order = OrderBuilder(loop(ranks, stages_per_rank), (micro_batches,))
    for rank in range(ranks):
        line = order.rank(rank)
        stages = range(rank, ranks * stages_per_rank, ranks)
        for stage in stages:
            for micro_batch in range(micro_batches):
                line.op(F, stage, micro_batch)
        for stage in reversed(stages):
            for micro_batch in reversed(range(micro_batches)):
                line.op(B, stage, micro_batch)
    return order.schedule()
