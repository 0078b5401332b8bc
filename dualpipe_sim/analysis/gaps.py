"""What a gap between two ops is to be blamed on: the tensor that the later op waits for, backwards in time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import UNSHARD

NO_OP = -1


class Gaps(NamedTuple):
    """The gap before each task, shape ``(tasks,)`` each; a rank's first task has none.

    Attributes:
        op: row of the op whose output reached the task last, or that it waited for last at a barrier; NO_OP where it
            waits for no other rank.
        seconds_by_cause: how much of the gap each cause explains; they sum to the gap. Backwards from its end:
            ``host``, while everything was there but the host had not issued the op; ``exposed_transfer``, while the
            tensor was under way; ``host`` again, while the host had not issued that; ``blocked``, while it was made
            already but stood behind other sends, receives and ops of its sender or receiver; ``exposed_alltoall``, as
            long as the all-to-all took that it came out of; ``waiting``, for the op that makes it. Where weights are
            gathered a stage at a time, ``exposed_gather`` comes right behind the first: all else was there but them.

    """

    op: IntArray
    seconds_by_cause: dict[str, FloatArray]


def gaps_of(timeline: Timeline) -> Gaps:
    """Return the gap before each task of a timeline, cut into causes.

    A gap of 5 s behind a transfer of 1 s out of an all-to-all of 2 s is 1 s exposed transfer, 2 s exposed all-to-all
    and 2 s waiting. Nothing is blocked unless transfers wait for each other (``transfers: rendezvous``).
    """
    graph = timeline.graph
    left = np.empty(len(timeline.rank))
    left[1:] = timeline.task_start_s[1:] - timeline.task_end_s[:-1]
    left[timeline.first_task_of_rank[:-1]] = 0.0  # what stands before a rank's first task is another rank's last one
    start_s, end_s = (times[graph.first_transfer :] for times in (timeline.start_s, timeline.end_s))
    passed, waiting = graph.barriers
    task = np.append(graph.schedule.task_of_op[graph.transfers.consumer], graph.task[waiting])
    made_by = np.append(graph.transfers.producer, graph.op_of_node[passed])
    # Of several writes to one task the last one stays, which is that of the tensor that came last.
    by_arrival = np.lexsort((np.append(end_s, timeline.end_s[passed]), task))
    reached = task[by_arrival]
    op = np.full(len(timeline.rank), NO_OP)
    op[reached] = made_by[by_arrival]
    made_s = timeline.end_s[graph.sender]
    not_issued_s = unissued_s(timeline)
    host_s = np.clip(not_issued_s[graph.first_phase_of_task], 0.0, left)
    left = left - host_s
    gathering = {}
    if graph.schedule.of_kinds(UNSHARD).any():
        gathering["exposed_gather"] = np.clip(ungathered_s(timeline), 0.0, left)
        left = left - gathering["exposed_gather"]
    is_alltoall = np.array([phase.is_alltoall for phase in graph.phases])[graph.phase[graph.sender]]
    exchange_s = np.where(is_alltoall, made_s - timeline.start_s[graph.sender], 0.0)
    seconds: dict[str, FloatArray] = {}
    for cause, of_transfer in (
        ("exposed_transfer", end_s - start_s),
        ("unissued", not_issued_s[graph.first_transfer :]),
        ("blocked", start_s - made_s),
        ("exposed_alltoall", exchange_s),
    ):
        of_task = np.zeros(len(timeline.rank))
        of_task[reached] = np.append(of_transfer, np.zeros(len(passed)))[by_arrival]  # (barriers take no time)
        seconds[cause] = np.clip(of_task, 0.0, left)
        left = left - seconds[cause]
    seconds["host"] = host_s + seconds.pop("unissued")
    return Gaps(op, seconds | gathering | {"waiting": left})


def ungathered_s(timeline: Timeline) -> FloatArray:
    """Return how long each task waited for its stage's weights alone, shape ``(tasks,)``; a rank's first one too."""
    graph = timeline.graph
    kinds = np.array([phase.kind for phase in graph.phases])[graph.phase]
    source, target = graph.edges
    weights = np.zeros(len(source), dtype=bool)
    phases = np.flatnonzero(source < graph.first_transfer)
    weights[phases] = kinds[source[phases]] == int(UNSHARD)
    there_s = np.zeros(graph.nodes)
    np.maximum.at(there_s, target[~weights], timeline.end_s[source[~weights]])
    behind = np.flatnonzero(graph.previous_on_lane >= 0)
    there_s[behind] = np.maximum(there_s[behind], timeline.end_s[graph.previous_on_lane[behind]])
    waits = np.zeros(graph.nodes, dtype=bool)
    waits[target[weights]] = True
    first = graph.first_phase_of_task
    return np.where(waits[first], np.maximum(timeline.start_s[first] - there_s[first], 0.0), 0.0)


def unissued_s(timeline: Timeline) -> FloatArray:
    """Return how long each node waited for its host alone, shape ``(nodes,)``."""
    graph = timeline.graph
    if graph.issue is None:
        return np.zeros(graph.nodes)
    there_s = np.zeros(graph.nodes)
    np.maximum.at(there_s, graph.edges[1], timeline.end_s[graph.edges[0]])
    behind = np.flatnonzero(graph.previous_on_lane >= 0)
    there_s[behind] = np.maximum(there_s[behind], timeline.end_s[graph.previous_on_lane[behind]])
    return np.maximum(timeline.start_s - there_s, 0.0)
