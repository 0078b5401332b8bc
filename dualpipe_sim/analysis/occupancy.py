"""What is on a rank over time, as columns: what charts of memory, traces and the report draw, whatever is counted."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np

from dualpipe_sim.analysis.memory import COMPONENTS, Memory
from dualpipe_sim.base.arrays import BoolArray, FloatArray, IntArray
from dualpipe_sim.base.show import brief
from dualpipe_sim.graph.micro_batch_weights import size_of_op
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import COPIES, B, F, L, O, W
from dualpipe_sim.order.schedule import Schedule

Amounts: TypeAlias = FloatArray | IntArray

ACTIVATIONS = "activations"
IN_FLIGHT = "in flight"

_TICK = 1e-9


class Occupancy(NamedTuple):
    """What is on one rank, from each moment until the next, in bytes, activations or pairs in flight.

    Attributes:
        at_s: moments at which it changes, ascending, shape ``(moments,)``.
        amounts: how much of each kind is there from then on, shape ``(moments,)`` each; kinds stack from the first up.

    """

    at_s: FloatArray
    amounts: Mapping[str, Amounts]

    def __repr__(self) -> str:
        return brief(self)

    @property
    def total(self) -> FloatArray:
        """All kinds together, shape ``(moments,)``."""
        total: FloatArray = np.sum([*self.amounts.values()], axis=0)
        return total


def activations_over_time(timeline: Timeline) -> list[Occupancy]:
    """Return the activations on each rank, in those of a whole rank's share of the model.

    A (stage, micro-batch) pair counts from the start of its F to the end of its B, or of its W where split; not from
    the end of its copy to the host to the start of that back.
    """
    held = activations_of_op(timeline)
    if timeline.graph.schedule.of_kinds(*COPIES).any():
        return _on_gpus_over_time(timeline, held)
    return _live_over_time(timeline, held, ACTIVATIONS)


def in_flight_over_time(timeline: Timeline) -> list[Occupancy]:
    """Return the (stage, micro-batch) pairs that are live on each rank."""
    return _live_over_time(timeline, np.ones(len(timeline.graph.schedule.rank)), IN_FLIGHT)


def activations_of_op(timeline: Timeline) -> FloatArray:
    """Return what each op's stage and micro-batch hold, in activations of a whole rank's share, shape ``(ops,)``."""
    graph, schedule = timeline.graph, timeline.graph.schedule
    of_stage: FloatArray | None = getattr(graph.costs, "activations_of_stage", None)
    if of_stage is None:
        of_stage = schedule.placement.activations_of_stage
    held = schedule.micro_batch_share * of_stage[schedule.stage]
    size = size_of_op(schedule, graph.costs)
    return held if size is None else held * size


def bytes_over_time(memory: Memory) -> list[Occupancy]:
    """Return the bytes on each rank's GPU, by what they are used for."""
    found = []
    for rank in range(memory.ranks):
        at_s, size_bytes = memory.over_time(rank)
        found.append(Occupancy(at_s, {name: size_bytes[:, column] for column, name in enumerate(COMPONENTS)}))
    return found


def live_by_task(schedule: Schedule, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weight of what is live on a task's rank while the task runs, and once it has ended, shape ``(tasks,)`` each.

    Each op's stage and micro-batch weigh ``weight``, of shape ``(ops,)``.

    What enters with a task's F counts from its start, what leaves with its B or W to its end: the running sum over all
    tasks, each rank's after the other's, since ranks begin and end empty.
    """
    tasks = len(schedule.first_op)

    def by_task(chosen: BoolArray) -> FloatArray:
        of_op = np.where(chosen, weight, 0.0)
        return np.asarray(np.bincount(schedule.task_of_op, weights=of_op, minlength=tasks), dtype=np.float64)

    enters = by_task(schedule.of_kinds(F))
    leaves = by_task(schedule.of_kinds(B, W))
    during = np.cumsum(enters) - np.cumsum(leaves) + leaves
    return during, during - leaves


def _on_gpus_over_time(timeline: Timeline, weight: FloatArray) -> list[Occupancy]:
    """What stays on GPUs where copies to the host run beside compute, so that tasks' order does not say what is there.

    Moments closer than a billionth of the makespan are one, at which what goes makes room for what comes.
    """
    schedule = timeline.graph.schedule
    task = schedule.task_of_op
    comes, goes = (np.flatnonzero(schedule.of_kinds(*kinds)) for kinds in ((F, L), (B, W, O)))
    at_s = np.append(timeline.first_phase_start_s[task[comes]], timeline.last_phase_end_s[task[goes]])
    change = np.append(weight[comes], -weight[goes])
    rank = np.append(schedule.rank[comes], schedule.rank[goes])
    tick = np.rint(at_s / (_TICK * timeline.makespan_s or 1.0))
    in_order = np.lexsort((change, tick, rank))
    live = np.cumsum(change[in_order])  # ranks begin and end empty
    bounds = np.searchsorted(rank[in_order], np.arange(schedule.ranks + 1)).tolist()
    return [Occupancy(at_s[in_order][begin:end], {ACTIVATIONS: live[begin:end]}) for begin, end in pairwise(bounds)]


def _live_over_time(timeline: Timeline, weight: FloatArray, name: str) -> list[Occupancy]:
    """A task's start and end are moments, so that each rank has two for each of its tasks."""
    amounts = np.stack(live_by_task(timeline.graph.schedule, weight), axis=1)
    at_s = np.stack([timeline.task_start_s, timeline.task_end_s], axis=1)
    return [
        Occupancy(at_s[begin:end].ravel(), {name: amounts[begin:end].ravel()})
        for begin, end in pairwise(timeline.first_task_of_rank.tolist())
    ]
