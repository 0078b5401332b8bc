"""Interleaved zero bubble, as ``torch.distributed.pipelining`` has it. https://arxiv.org/abs/2401.10241."""

from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.placement import loop
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.interleaved_1f1b import REQUIRES, accepts, turns_by_rank
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import of_loop


@register(
    "interleaved-zb",
    requires=REQUIRES,
    accepts=accepts,
    tries={"stages_per_rank": (2, 3, 4)},
    size=of_loop(3),
)
def interleaved_zb(ranks: int, micro_batches: int, stages_per_rank: int = 2, group: int | None = None) -> Schedule:
    """Interleaved zero bubble: ZB-H1 over v stages a rank. torch's ScheduleInterleavedZeroBubble.

    Interleaved 1F1B with half the warm-up per hop, as a backward for the input alone climbs back sooner; rank r puts
    off the weights of its first r backwards (ZB-H1's rule, https://arxiv.org/abs/2401.10241).

    Recipe, on rank r of P:

    1. Forwards and backwards go by groups of g micro-batches and stage by stage, as in interleaved 1F1B.
    2. Warm-up: the first P - 1 - r + (v - 1) g forwards.
    3. In turn: the next forward, while there is one; the next I; from the (r + 1)-th turn on, the oldest W put off.
    4. The r W that are left.

    Args:
        ranks: pipeline ranks.
        micro_batches: micro-batches of the step.
        stages_per_rank: v, the stages that a rank holds, 2 or more.
        group: micro-batches that run through one stage before the rank turns to its next.

    """
    order = OrderBuilder(loop(ranks, stages_per_rank), (micro_batches,))
    for rank, (forwards, backwards, filling) in turns_by_rank(
        "interleaved-zb", ranks, micro_batches, stages_per_rank, group
    ):
        line = order.rank(rank)
        warm_up = min(ranks - 1 - rank + filling, len(forwards))
        for stage in forwards[:warm_up]:
            line.forward(stage)
        for done, backward in enumerate(backwards):
            if warm_up + done < len(forwards):
                line.forward(forwards[warm_up + done])
            line.backward_input(backward)
            if done >= rank:
                line.weight()
        while line.deferred:
            line.weight()
    return order.schedule()
