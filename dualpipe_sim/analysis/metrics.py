"""What a timeline says: bubbles and their causes, what is in flight. Pure functions.

Most of them work on columns of tasks, shape ``(tasks,)``. Tasks stand rank after rank in the order they run, so a sum
for each rank is one ``bincount`` by the tasks' ranks, and a maximum for each rank one ``reduceat`` from the ranks'
first tasks.
"""

from __future__ import annotations

import numpy as np

from dualpipe_sim.analysis.gaps import gaps_of
from dualpipe_sim.analysis.idle import of_weights_s
from dualpipe_sim.analysis.occupancy import activations_of_op, activations_over_time, live_by_task
from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import COPIES, OF_WEIGHTS
from dualpipe_sim.order.schedule import Schedule


def busy_s(timeline: Timeline) -> FloatArray:
    """Seconds in which an op is in progress on each rank, shape ``(ranks,)``."""
    return _sum_by_rank(timeline, timeline.task_end_s - timeline.task_start_s)


def idle_s(timeline: Timeline) -> FloatArray:
    """Seconds of the makespan in which no op is in progress on each rank, shape ``(ranks,)``."""
    return timeline.makespan_s - busy_s(timeline)


def bubble_ratio_by_rank(timeline: Timeline) -> FloatArray:
    """Share of the makespan that each rank is idle, shape ``(ranks,)``."""
    return _ratio(idle_s(timeline), timeline.makespan_s)


def bubble_ratio(timeline: Timeline) -> float:
    """Mean over ranks of the share of the makespan that a rank is idle."""
    return float(bubble_ratio_by_rank(timeline).mean())


def span_bubble_ratio(timeline: Timeline) -> float:
    """(longest rank span - busy time of the busiest rank) / longest rank span.

    A rank's span goes from its first start to its last end: the definition of the Zero Bubble papers
    (https://arxiv.org/abs/2401.10241, section 4).
    """
    first = timeline.first_task_of_rank
    spans = timeline.task_end_s[first[1:] - 1] - timeline.task_start_s[first[:-1]]
    longest = float(spans.max())
    return float(_ratio(np.array([longest - busy_s(timeline).max()]), longest)[0])


def compute_idle_ratio(timeline: Timeline) -> float:
    """Mean over ranks of the share of the makespan in which the compute lane is empty."""
    graph = timeline.graph
    phases = graph.first_transfer
    on_compute = graph.on(Lane.COMPUTE)
    seconds = np.where(on_compute, timeline.end_s[:phases] - timeline.start_s[:phases], 0.0)
    working = np.bincount(graph.rank, weights=seconds, minlength=timeline.ranks).astype(np.float64)
    return float(_ratio(timeline.makespan_s - working, timeline.makespan_s).mean())


def idle_s_by_cause(timeline: Timeline) -> dict[str, FloatArray]:
    """Idle seconds of each rank by cause, each of shape ``(ranks,)``; they sum to :func:`idle_s`.

    Idle time before a rank's first op is ``warm_up``, after its last op ``drain``; a gap between two ops is cut up by
    :func:`~dualpipe_sim.analysis.gaps.gaps_of`. Where weights are gathered a stage at a time, what the first op waits
    for its weights alone is ``exposed_gather``, as in gaps, and what reducing gradients takes beyond the last op
    ``exposed_reduction``.
    """
    first = timeline.first_task_of_rank
    causes = {
        "warm_up": timeline.task_start_s[first[:-1]],
        "drain": timeline.makespan_s - timeline.task_end_s[first[1:] - 1],
        **{cause: _sum_by_rank(timeline, seconds) for cause, seconds in gaps_of(timeline).seconds_by_cause.items()},
    }
    if not timeline.graph.schedule.of_kinds(*OF_WEIGHTS).any():
        return causes
    early_s, late_s = of_weights_s(timeline)
    return causes | {
        "warm_up": causes["warm_up"] - early_s,
        "drain": causes["drain"] - late_s,
        "exposed_gather": causes.get("exposed_gather", 0.0) + early_s,
        "exposed_reduction": late_s,
    }


def peak_in_flight_by_rank(timeline: Timeline) -> IntArray:
    """Most (stage, micro-batch) pairs live at once on each rank, shape ``(ranks,)``.

    A pair lives from the start of its F to the end of its B, or of its W where the backward is split.
    """
    schedule = timeline.graph.schedule
    return _peak_by_rank(schedule, np.ones(len(schedule.rank))).astype(np.int64)


def peak_activations_by_rank(timeline: Timeline) -> FloatArray:
    """Most activations held at once on each rank, in activations of a whole rank's share of the model.

    A (stage, micro-batch) pair counts ranks x share of the model that the stage holds x size of the micro-batch.
    What lies in the host's memory does not count. Shape ``(ranks,)``.
    """
    schedule = timeline.graph.schedule
    if schedule.of_kinds(*COPIES).any():
        return np.array([one.total.max() for one in activations_over_time(timeline)])
    return _peak_by_rank(schedule, activations_of_op(timeline))


def _peak_by_rank(schedule: Schedule, weight: FloatArray) -> FloatArray:
    """Most that is live at once on each rank, given what each op weighs, shape ``(ranks,)``."""
    during, _ = live_by_task(schedule, weight)
    return np.maximum.reduceat(during, schedule.first_task_of_rank[:-1])


def _sum_by_rank(timeline: Timeline, of_task: FloatArray) -> FloatArray:
    """Sum of what tasks have, of shape ``(tasks,)``, on each rank, shape ``(ranks,)``."""
    return np.asarray(np.bincount(timeline.rank, weights=of_task, minlength=timeline.ranks), dtype=np.float64)


def _ratio(part: FloatArray, whole: float) -> FloatArray:
    return part / whole if whole else np.zeros_like(part)
