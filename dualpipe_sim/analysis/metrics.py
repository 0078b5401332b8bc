"""What a timeline says: bubbles and their causes, what is in flight, the critical path. Pure functions.

Most of them work on columns of tasks, shape ``(tasks,)``. Tasks stand rank after rank in the order they run, so a sum
for each rank is one ``bincount`` by the tasks' ranks, a maximum for each rank one ``reduceat`` from the ranks' first
tasks, and the gap before a task is its start less the end of the row before it.
"""

from __future__ import annotations

import numpy as np

from dualpipe_sim.analysis.occupancy import live_by_task
from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.graph.timeline import Timeline
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

    Idle time before a rank's first op is warm-up, after its last op drain. A gap between two ops is explained by the
    latest tensor that the later op waits for, backwards in time. As much of the gap as that tensor was under way is
    exposed transfer. If it came out of an all-to-all, as much of what is left as that took is exposed all-to-all. The
    rest is waiting for the op that made it. A gap of 5 s behind a transfer of 1 s out of an all-to-all of 2 s is 1 s
    exposed transfer, 2 s exposed all-to-all and 2 s waiting.
    """
    first = timeline.first_task_of_rank
    gap = np.empty(len(timeline.rank))
    gap[1:] = timeline.task_start_s[1:] - timeline.task_end_s[:-1]
    gap[first[:-1]] = 0.0  # what stands before a rank's first task is another rank's last one
    transfer_s, alltoall_s = _latest_input_s(timeline)
    under_way = np.minimum(gap, transfer_s)
    exchanged = np.minimum(gap - under_way, alltoall_s)
    return {
        "warm_up": timeline.task_start_s[first[:-1]],
        "drain": timeline.makespan_s - timeline.task_end_s[first[1:] - 1],
        "exposed_transfer": _sum_by_rank(timeline, under_way),
        "exposed_alltoall": _sum_by_rank(timeline, exchanged),
        "waiting": _sum_by_rank(timeline, gap - under_way - exchanged),
    }


def peak_in_flight_by_rank(timeline: Timeline) -> IntArray:
    """Most (stage, micro-batch) pairs live at once on each rank, shape ``(ranks,)``.

    A pair lives from the start of its F to the end of its B, or of its W where the backward is split.
    """
    schedule = timeline.graph.schedule
    return _peak_by_rank(schedule, np.ones(schedule.placement.stages)).astype(np.int64)


def peak_activations_by_rank(timeline: Timeline) -> FloatArray:
    """Most activations held at once on each rank, in activations of a whole rank's share of the model.

    A (stage, micro-batch) pair counts ranks x share of the model that the stage holds. Shape ``(ranks,)``.
    """
    schedule = timeline.graph.schedule
    return _peak_by_rank(schedule, schedule.placement.activations_of_stage)


def critical_path(timeline: Timeline) -> list[int]:
    """Nodes of a longest chain of waits, from time 0 to the makespan.

    From the phase that ends last it goes back, each time to what was there last of all that the node waited for: its
    edges and the phase before it on its lane. Without contention the nodes' durations sum to the makespan.
    """
    graph = timeline.graph
    node = int(timeline.end_s[: graph.first_transfer].argmax())
    path = [node]
    while True:
        begin, end = graph.predecessor_start[node : node + 2]
        before = [
            *graph.edges[0][begin:end].tolist(),
            *[p for p in (int(graph.previous_on_lane[node]),) if p >= 0],
        ]
        if not before:
            return path[::-1]
        node = max(before, key=timeline.end_s.__getitem__)
        path.append(node)


def _latest_input_s(timeline: Timeline) -> tuple[FloatArray, FloatArray]:
    """How long the transfer that reached each task last was under way, and the all-to-all that it came out of took.

    Both of shape ``(tasks,)``, 0 where there is none. Transfers are sorted by the task that they reach and then by
    arrival; of several writes to one task the last one stays, which is that of the latest.
    """
    graph = timeline.graph
    seconds = timeline.end_s - timeline.start_s
    from_alltoall = graph.lane[graph.sender] == Lane.ALLTOALL
    task = graph.schedule.task_of_op[graph.transfers.consumer]
    by_arrival = np.lexsort((timeline.end_s[graph.first_transfer :], task))
    transfer_s, alltoall_s = np.zeros(len(timeline.rank)), np.zeros(len(timeline.rank))
    transfer_s[task[by_arrival]] = seconds[graph.first_transfer :][by_arrival]
    alltoall_s[task[by_arrival]] = np.where(from_alltoall, seconds[graph.sender], 0.0)[by_arrival]
    return transfer_s, alltoall_s


def _peak_by_rank(schedule: Schedule, weight_of_stage: FloatArray) -> FloatArray:
    """Most that is live at once on each rank, where a pair weighs what its stage does, shape ``(ranks,)``."""
    during, _ = live_by_task(schedule, weight_of_stage)
    return np.maximum.reduceat(during, schedule.first_task_of_rank[:-1])


def _sum_by_rank(timeline: Timeline, of_task: FloatArray) -> FloatArray:
    """Sum of what tasks have, of shape ``(tasks,)``, on each rank, shape ``(ranks,)``."""
    return np.asarray(np.bincount(timeline.rank, weights=of_task, minlength=timeline.ranks), dtype=np.float64)


def _ratio(part: FloatArray, whole: float) -> FloatArray:
    return part / whole if whole else np.zeros_like(part)
