"""What a Gantt chart shows, as columns: a cell for each op, a box around each overlapped pair. No drawing here."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dualpipe_sim.graph import FloatArray
from dualpipe_sim.ops import KINDS, B, F, I, W
from dualpipe_sim.placement import IntArray, Placement
from dualpipe_sim.schedule import Schedule
from dualpipe_sim.timeline import Timeline

BoolArray = NDArray[np.bool_]


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


class Cells(NamedTuple):
    """Ops as cells, shape ``(cells,)`` each.

    Attributes:
        boxes: where they lie.
        kind: kind code.
        shade: place of the op's stage among the stages of its rank, from 0.
        pipe: pipe of the op's stage.
        microbatch: its micro-batch, counted in its pipe.
        paired: whether it is half of an overlapped pair.

    """

    boxes: Boxes
    kind: IntArray
    shade: IntArray
    pipe: IntArray
    microbatch: IntArray
    paired: BoolArray

    def where(self, chosen: BoolArray | IntArray) -> Cells:
        """Return some of the cells."""
        return Cells(
            self.boxes.where(chosen),
            self.kind[chosen],
            self.shade[chosen],
            self.pipe[chosen],
            self.microbatch[chosen],
            self.paired[chosen],
        )


def cells_by_rank(timeline: Timeline) -> Cells:
    """Return a cell for each op of a timeline, on the row of its rank, in the schedule's order."""
    schedule = timeline.graph.schedule
    placement, task = schedule.placement, schedule.task_of_op
    begin_s, end_s = timeline.task_start_s[task], timeline.task_end_s[task]
    forward = _forward_of_pairs(schedule)
    split_s = begin_s[forward] + _forward_share(timeline) * (end_s - begin_s)[forward]
    end_s[forward] = begin_s[forward + 1] = split_s
    return Cells(
        Boxes(schedule.rank, begin_s, end_s),
        schedule.kind,
        shade_of_stage(placement)[schedule.stage],
        placement.pipe_of_stage[schedule.stage],
        schedule.microbatch,
        schedule.partner >= 0,
    )


def pairs_by_rank(timeline: Timeline) -> Boxes:
    """Return a box for each overlapped pair of a timeline, on the row of its rank."""
    schedule = timeline.graph.schedule
    task = schedule.task_of_op[_forward_of_pairs(schedule)]
    return Boxes(timeline.rank[task], timeline.task_start_s[task], timeline.task_end_s[task])


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
