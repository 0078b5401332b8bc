"""When ranks are idle, and why: idle time as spans, each of one cause."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dualpipe_sim.analysis.gaps import gaps_of, ungathered_s
from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import BESIDE, OF_WEIGHTS

_IN_A_GAP = ("waiting", "exposed_alltoall", "blocked", "exposed_transfer", "exposed_gather", "host")
"""Causes in the order in which they follow each other: made, out of its all-to-all, its turn come, sent, issued."""


class IdleSpans(NamedTuple):
    """Idle time in pieces, shape ``(spans,)`` each; none is empty, and none overlaps another of its rank.

    Attributes:
        causes: every cause there may be, as :func:`~dualpipe_sim.analysis.metrics.idle_s_by_cause` calls it.
        cause: place of each span's cause among them.
        rank: rank that is idle.
        begin_s: since when.
        end_s: until when.

    """

    causes: tuple[str, ...]
    cause: IntArray
    rank: IntArray
    begin_s: FloatArray
    end_s: FloatArray


def idle_spans(timeline: Timeline) -> IdleSpans:
    """Return every rank's idle time as spans; with the ops they fill the makespan.

    Where a gap has several causes, they lie in it in the order in which they held the next op up: until it was made,
    what it came out of, its turn, its way, its issue.

    >>> from dualpipe_sim import simulate
    >>> spans = idle_spans(simulate("figure5").played)
    >>> float((spans.end_s - spans.begin_s)[spans.rank == 0].sum())
    6.0
    """
    first = timeline.first_task_of_rank
    starts_s, ends_s = timeline.task_start_s[first[:-1]], timeline.task_end_s[first[1:] - 1]
    early_s, late_s = of_weights_s(timeline)
    ranks, zero_s = np.arange(timeline.ranks), np.zeros(timeline.ranks)
    parts = {
        "warm_up": [(ranks, zero_s, starts_s - early_s)],
        "drain": [(ranks, ends_s + late_s, np.full(timeline.ranks, timeline.makespan_s))],
        **{cause: [] for cause in _IN_A_GAP},
        "exposed_reduction": [(ranks, ends_s, ends_s + late_s)],
    }
    parts["exposed_gather"].append((ranks, starts_s - early_s, starts_s))
    end_s = timeline.task_start_s
    seconds = gaps_of(timeline).seconds_by_cause
    for cause in reversed(_IN_A_GAP):
        if cause in seconds:
            begin_s = end_s - seconds[cause]
            parts[cause].append((timeline.rank, begin_s, end_s))
            end_s = begin_s
    columns = [
        (np.full(len(rank), place), rank, begin_s, end_s)
        for place, pieces in enumerate(parts.values())
        for rank, begin_s, end_s in pieces
    ]
    code, rank, since_s, until_s = (np.concatenate(column) for column in zip(*columns, strict=True))
    there = until_s > since_s
    return IdleSpans(tuple(parts), code[there], rank[there], since_s[there], until_s[there])


def of_weights_s(timeline: Timeline) -> tuple[FloatArray, FloatArray]:
    """Return how long each rank's first op waits for its weights alone, and what reduces gradients after its last one.

    Shape ``(ranks,)`` each; both are 0 where weights are not gathered a stage at a time.
    """
    schedule, first = timeline.graph.schedule, timeline.first_task_of_rank
    if not schedule.of_kinds(*OF_WEIGHTS).any():
        return np.zeros(timeline.ranks), np.zeros(timeline.ranks)
    ends_s = np.maximum.reduceat(timeline.last_phase_end_s, first[:-1])
    late_s = ends_s - timeline.task_end_s[first[1:] - 1]
    beside = schedule.of_kinds(*BESIDE)[schedule.first_op]
    ungathered = np.where(beside, 0.0, ungathered_s(timeline))
    first_op = np.minimum.reduceat(np.where(beside, len(beside) - 1, np.arange(len(beside))), first[:-1])
    return ungathered[first_op], late_s
