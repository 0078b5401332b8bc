"""What a Gantt chart shows, as columns: a cell for each op, a box around each overlapped pair. No drawing here."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dualpipe_sim.graph import FloatArray
from dualpipe_sim.ops import KINDS, B, F, I, W
from dualpipe_sim.placement import IntArray, Placement
from dualpipe_sim.plot.window import BoolArray, Window
from dualpipe_sim.schedule import Schedule
from dualpipe_sim.timeline import Timeline


class Boxes(NamedTuple):
    """Rectangles on rows of a chart, shape ``(boxes,)`` each.

    Attributes:
        row: row that a box lies on, 0 on top.
        begin_s: where it begins.
        end_s: where it ends.

    """

    row: IntArray
    begin_s: FloatArray
    end_s: FloatArray

    def where(self, chosen: BoolArray | IntArray) -> Boxes:
        """Return some of the boxes."""
        return Boxes(self.row[chosen], self.begin_s[chosen], self.end_s[chosen])

    def width_s(self) -> FloatArray:
        """Return how long each box lasts, shape ``(boxes,)``."""
        return self.end_s - self.begin_s

    def middle_s(self) -> FloatArray:
        """Return the middle of each box, shape ``(boxes,)``."""
        return (self.begin_s + self.end_s) / 2


class Band(NamedTuple):
    """The part of a row of height 1 that boxes fill.

    Attributes:
        middle: below the middle of the row by so much.
        height: how high it is.

    """

    middle: float
    height: float


class Cells(NamedTuple):
    """Ops, or phases of ops, as cells, shape ``(cells,)`` each.

    Attributes:
        boxes: where they lie.
        kind: kind code.
        shade: place of the op's stage among the stages of its rank, from 0.
        pipe: pipe of the op's stage.
        microbatch: its micro-batch, counted in its pipe.
        paired: whether the border is that of an overlapped pair around it.
        in_colour: whether its micro-batch keeps its colour.

    """

    boxes: Boxes
    kind: IntArray
    shade: IntArray
    pipe: IntArray
    microbatch: IntArray
    paired: BoolArray
    in_colour: BoolArray

    def where(self, chosen: BoolArray | IntArray) -> Cells:
        """Return some of the cells."""
        return Cells(
            self.boxes.where(chosen),
            self.kind[chosen],
            self.shade[chosen],
            self.pipe[chosen],
            self.microbatch[chosen],
            self.paired[chosen],
            self.in_colour[chosen],
        )


def op_cells(timeline: Timeline, window: Window) -> Cells:
    """Return a cell for each op that a window shows, on the row of its rank, in the schedule's order.

    What takes no time has no place on a chart.
    """
    schedule = timeline.graph.schedule
    task = schedule.task_of_op
    begin_s, end_s = timeline.task_start_s[task], timeline.task_end_s[task]
    forward = _forward_of_pairs(schedule)
    split_s = begin_s[forward] + _forward_share(timeline) * (end_s - begin_s)[forward]
    end_s[forward] = begin_s[forward + 1] = split_s
    boxes = Boxes(window.row_of_rank[schedule.rank], begin_s, end_s)
    shown = np.flatnonzero(window.sees(*boxes) & (end_s > begin_s))
    return _cells(timeline, window, boxes.where(shown), shown, schedule.kind[shown])


def phase_cells(timeline: Timeline, window: Window, node: IntArray) -> Cells:
    """Return a cell for each of some phases, on the row of its rank."""
    graph = timeline.graph
    kind = np.array([phase.kind for phase in graph.phases])[graph.phase[node]]
    boxes = Boxes(window.row_of_rank[timeline.rank[graph.task[node]]], timeline.start_s[node], timeline.end_s[node])
    cells = _cells(timeline, window, boxes, graph.op_of_node[node], kind)
    return cells._replace(paired=np.zeros(len(node), dtype=bool))


def pair_boxes(timeline: Timeline, window: Window) -> Boxes:
    """Return a box for each overlapped pair of which a window shows a half in colour, on the row of its rank."""
    schedule = timeline.graph.schedule
    forward = _forward_of_pairs(schedule)
    task = schedule.task_of_op[forward]
    row, begin_s, end_s = (
        window.row_of_rank[schedule.rank[forward]],
        timeline.task_start_s[task],
        timeline.task_end_s[task],
    )
    asked = window.in_colour[schedule.microbatch[forward]] | window.in_colour[schedule.microbatch[forward + 1]]
    shown = asked & window.sees(row, begin_s, end_s) & (end_s > begin_s)
    return Boxes(row, begin_s, end_s).where(shown)


def _cells(timeline: Timeline, window: Window, boxes: Boxes, op: IntArray, kind: IntArray) -> Cells:
    schedule = timeline.graph.schedule
    placement, stage, microbatch = schedule.placement, schedule.stage[op], schedule.microbatch[op]
    return Cells(
        boxes,
        kind,
        shade_of_stage(placement)[stage],
        placement.pipe_of_stage[stage],
        microbatch,
        schedule.partner[op] >= 0,
        window.in_colour[microbatch],
    )


def shade_of_stage(placement: Placement) -> IntArray:
    """Return the place of each stage among the stages of its rank, from 0, shape ``(stages,)``.

    It tells opposed pipes apart, and the turns of one pipe that passes over the ranks more than once.
    """
    by_rank = np.argsort(placement.rank_of_stage, kind="stable")
    rank = placement.rank_of_stage[by_rank]
    shade = np.empty_like(rank)
    shade[by_rank] = np.arange(len(rank)) - np.searchsorted(rank, rank)
    return shade


def _forward_of_pairs(schedule: Schedule) -> IntArray:
    """Return the rows of the forwards that are half of a pair; their backwards stand in the next rows."""
    return np.flatnonzero(schedule.partner > np.arange(len(schedule.partner)))


def _forward_share(timeline: Timeline) -> FloatArray:
    """Return the forward's share of each pair: as the two ops last on their own, or half where that is not known."""
    schedule = timeline.graph.schedule
    forward = _forward_of_pairs(schedule)
    alone_s = _alone_s(timeline)
    forward_s, backward_s = alone_s[F, schedule.stage[forward]], alone_s[B, schedule.stage[forward + 1]]
    both_s = forward_s + backward_s
    share = np.full(len(forward), 0.5)
    np.divide(forward_s, both_s, out=share, where=np.isfinite(both_s) & (both_s > 0))
    return share


def _alone_s(timeline: Timeline) -> FloatArray:
    """Mean seconds of each kind and stage outside pairs, NaN where none is, shape ``(kinds, stages)``.

    Where a stage runs no full backward outside pairs, it is I and W together.
    """
    schedule = timeline.graph.schedule
    alone = schedule.partner < 0
    task = schedule.task_of_op[alone]
    seconds = timeline.task_end_s[task] - timeline.task_start_s[task]
    shape = len(KINDS), schedule.placement.stages
    stream = schedule.kind[alone] * shape[1] + schedule.stage[alone]
    size = shape[0] * shape[1]
    count = np.bincount(stream, minlength=size)
    total_s = np.bincount(stream, weights=seconds, minlength=size)
    mean_s = np.full(shape, np.nan)
    np.divide(total_s.reshape(shape), count.reshape(shape), out=mean_s, where=count.reshape(shape) > 0)
    mean_s[B] = np.where(np.isnan(mean_s[B]), mean_s[I] + mean_s[W], mean_s[B])
    return mean_s
