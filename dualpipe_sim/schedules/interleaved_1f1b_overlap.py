"""Interleaved 1F1B with overlapped pairs, as Megatron-Core combines them, https://github.com/NVIDIA/Megatron-LM."""

from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.placement import loop
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.interleaved_1f1b import REQUIRES, accepts, turns_by_rank
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import of_loop


@register(
    "interleaved-1f1b-overlap",
    requires=REQUIRES,
    accepts=accepts,
    tries={"stages_per_rank": (2, 3, 4)},
    size=of_loop(),
)
def interleaved_1f1b_overlap(
    ranks: int, micro_batches: int, stages_per_rank: int = 2, group: int | None = None
) -> Schedule:
    """Interleaved 1F1B whose neighbours overlap, as Megatron-Core's combined 1F1B, https://github.com/NVIDIA/Megatron-LM.

    One more warm-up forward than interleaved 1F1B on each rank (there ``--overlap-moe-expert-parallel-comm``), so that
    no pair holds a forward that its own backward waits for.

    Recipe, on rank r of P:

    1. Forwards and backwards go by groups of g micro-batches and stage by stage, as in interleaved 1F1B.
    2. Warm-up: the first 2 (P - 1 - r) + (v - 1) g + 1 forwards.
    3. Steady state: the next forward and the next backward as an overlapped pair.
    4. Drain: the backwards that are left.

    Args:
        ranks: pipeline ranks.
        micro_batches: micro-batches of the step.
        stages_per_rank: v, the stages that a rank holds, 2 or more.
        group: micro-batches that run through one stage before the rank turns to its next.

    """
    order = OrderBuilder(loop(ranks, stages_per_rank), (micro_batches,))
    for rank, (forwards, backwards, filling) in turns_by_rank(
        "interleaved-1f1b-overlap", ranks, micro_batches, stages_per_rank, group
    ):
        line = order.rank(rank)
        warm_up = min(2 * (ranks - 1 - rank) + filling + 1, len(forwards))
        for stage in forwards[:warm_up]:
            line.forward(stage)
        for forward, backward in zip(forwards[warm_up:], backwards, strict=False):
            line.pair(forward, backward)
        for stage in backwards[len(forwards) - warm_up :]:
            line.backward(stage)
    return order.schedule()
