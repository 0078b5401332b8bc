"""Memory of every rank where each stage's was measured: what ops hold, leave and need, in the order they run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dualpipe_sim.base.arrays import IntArray
from dualpipe_sim.costs.measured import StageMemory
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import B, F, I, Op, R
from dualpipe_sim.order.schedule import Schedule


def held_by_rank(timeline: Timeline) -> IntArray | None:
    """Return the most bytes that each rank holds beyond what it holds at rest, shape ``(ranks,)``.

    None where the costs do not know what stages hold, or not what a deferred W or a forward that runs again does.
    """
    schedule = timeline.graph.schedule
    memory: Sequence[StageMemory] | None = getattr(timeline.graph.costs, "memory", None)
    if memory is None or schedule.of_kinds(R).any():
        return None
    deferred = np.unique(schedule.stage[schedule.kind == I]).tolist()
    if any(memory[stage].activation and not memory[stage].held_for_weight for stage in deferred):
        return None
    return np.array([_most(schedule, rank, memory) for rank in range(schedule.ranks)], dtype=np.int64)


def _most(schedule: Schedule, rank: int, memory: Sequence[StageMemory]) -> int:
    """Return the most bytes of a rank.

    Outputs are kept until the next step begins, so those of the step before are part of what is held at rest.
    """
    kept = sum(memory[stage].output for stage in schedule.placement.stages_of_rank(rank)) * schedule.micro_batches
    live, most = -kept, 0.0
    with_gradients: set[int] = set()
    for op in (op for task in schedule.order[rank] for op in task.ops):
        held = memory[op.stage]
        before = live
        live += _change(op, held)
        if op.kind not in (F, I) and op.stage not in with_gradients:
            with_gradients.add(op.stage)
            live += held.gradients
        most = max(most, max(before, live) + (0.0 if op.kind == F else held.workspace))
    return round(max(most, live + kept))  # (in the end outputs are joined, which takes as much again)


def _change(op: Op, held: StageMemory) -> float:
    """Return what an op leaves behind, less what it frees."""
    if op.kind == F:
        return held.activation + held.output
    if op.kind == B:
        return -held.activation
    return held.held_for_weight - held.activation if op.kind == I else -held.held_for_weight
