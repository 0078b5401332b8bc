"""What a timeline shows, as spans on the lanes of each rank, in whole nanoseconds.

Trace viewers drop a span that overlaps another of its row by a rounding error. Here every moment is rounded once, and
durations are differences of rounded moments, so that what touches in seconds touches in nanoseconds. What truly runs at
the same time gets rows of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.errors import UserError
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import COPIES, OF_WEIGHTS, Kind, Op


class Span(NamedTuple):
    """Something that runs on a lane of a rank.

    Attributes:
        rank: the rank.
        lane: ``op`` (a whole task), ``compute``, ``alltoall``, ``copy``, ``data``, ``send`` or ``recv``.
        start_ns: when it starts.
        end_ns: when it ends.
        name: what it is.
        action: the task or op that it is or belongs to, in its text form.
        ops: the op, or the two of a pair.
        layer: layer of the model, or -1 where it belongs to none.
        row: which row of its lane, from 0, where a lane has several things under way.

    """

    rank: int
    lane: str
    start_ns: int
    end_ns: int
    name: str
    action: str
    ops: tuple[Op, ...]
    layer: int = -1
    row: int = 0


def whole_ns(seconds: FloatArray) -> IntArray:
    """Round moments to whole nanoseconds, same shape.

    Raises:
        UserError: there are more of them than a trace counts.

    """
    ns = np.rint(seconds * 1e9)
    if ns.max(initial=0.0) >= _MOST_NS:
        raise UserError(
            f"the run takes {seconds.max():.3g} s; a trace counts nanoseconds, up to {_MOST_NS / 1e9:.3g} s (292 years)"
        )
    return ns.astype(np.int64)


_MOST_NS = 2.0**63


def has_phases(timeline: Timeline) -> bool:
    """Return whether tasks are made of phases, and are not a single one each."""
    return timeline.graph.first_transfer > len(timeline.rank)


def tasks(timeline: Timeline) -> Iterator[Span]:
    """Yield a span for each task, from its first phase's start to its last phase's end, rank by rank."""
    starts, ends = whole_ns(timeline.first_phase_start_s).tolist(), whole_ns(timeline.last_phase_end_s).tolist()
    for index, rank in enumerate(timeline.rank.tolist()):
        task = timeline.graph.schedule.task(index)
        kind = task.ops[0].kind
        lane = "copy" if kind in COPIES else "data" if kind in OF_WEIGHTS else "op"
        yield Span(rank, lane, starts[index], ends[index], str(task), str(task), task.ops)


def phases(timeline: Timeline) -> Iterator[Span]:
    """Yield a span for each phase, node by node; a phase that is a whole task is named like it."""
    graph, schedule = timeline.graph, timeline.graph.schedule
    starts, ends = whole_ns(timeline.start_s).tolist(), whole_ns(timeline.end_s).tolist()
    op_rows, task = graph.op_of_node.tolist(), graph.task.tolist()
    for node, (rank, row) in enumerate(zip(graph.rank.tolist(), graph.phase.tolist(), strict=True)):
        phase = graph.phases[row]
        what = schedule.task(task[node]) if phase.is_whole else schedule.op(op_rows[node])
        name = str(what) if phase.is_whole else f"{phase.name} {Kind(phase.kind)}"
        yield Span(rank, str(phase.lane), starts[node], ends[node], name, str(what), what.ops, phase.layer)


def transfers(timeline: Timeline) -> list[tuple[Span, Span]]:
    """Return what each transfer shows as on its sender's ``send`` and its receiver's ``recv`` lane.

    Those that are under way at the same time are on different rows of their lane.
    """
    graph, schedule = timeline.graph, timeline.graph.schedule
    first = graph.first_transfer
    starts, ends = (whole_ns(moments[first:]).tolist() for moments in (timeline.start_s, timeline.end_s))
    sides = []
    for lane, rows, label in (
        ("send", graph.transfers.producer, graph.send_label),
        ("recv", graph.transfers.consumer, graph.receive_label),
    ):
        ranks = schedule.rank[rows].tolist()
        on_row = _rows_without_overlap(ranks, starts, ends)
        sides.append(
            [
                Span(ranks[i], lane, starts[i], ends[i], label(i), label(i), (schedule.op(row),), row=on_row[i])
                for i, row in enumerate(rows.tolist())
            ]
        )
    return list(zip(*sides, strict=True))


def _rows_without_overlap(ranks: list[int], starts: list[int], ends: list[int]) -> list[int]:
    """Deal spans out to as few rows of each rank as hold them without overlap, first come first.

    In the order of their starts, each span takes the lowest row that is free again, or a new one. Three spans of rank
    0, of which the third begins when the first ends:

    >>> _rows_without_overlap([0, 0, 0], starts=[0, 1, 2], ends=[2, 3, 4])
    [0, 1, 0]
    """
    rows = [0] * len(ranks)
    busy: dict[int, list[tuple[int, int]]] = {}  # rank → (busy until, row)
    free: dict[int, list[int]] = {}  # rank → rows that are free again; both are heaps
    for i in sorted(range(len(ranks)), key=lambda i: (starts[i], ends[i])):
        running, idle = busy.setdefault(ranks[i], []), free.setdefault(ranks[i], [])
        while running and running[0][0] <= starts[i]:
            heappush(idle, heappop(running)[1])
        rows[i] = heappop(idle) if idle else len(running)  # where none is free, all rows that there are run something
        heappush(running, (ends[i], rows[i]))
    return rows
