"""What a Gantt chart shows, as columns: a cell for each op, a box around each overlapped pair. No drawing here.

A *box* is a rectangle: a row and a span of time. A *cell* is a box with what decides its look. Rows are those of the
window, so a rank that is not shown has row -1, and what has no row, or lies outside the time shown, is left out here
and never drawn.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dualpipe_sim.analysis.idle import idle_spans
from dualpipe_sim.base.arrays import BoolArray, FloatArray, IntArray
from dualpipe_sim.errors import UserError
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import BESIDE
from dualpipe_sim.pictures.op_boxes import forward_of_pairs, op_boxes_s, shade_of_stage
from dualpipe_sim.pictures.plot.window import Window

_NARROW_PERCENTILE = 25


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
        """Return some of the boxes, by a mask or by their places."""
        return Boxes(self.row[chosen], self.begin_s[chosen], self.end_s[chosen])

    def seen_in(self, window: Window) -> tuple[Boxes, IntArray]:
        """Return the boxes that take time and that a window shows, and their places among all of them."""
        places = np.flatnonzero(window.sees(*self) & (self.end_s > self.begin_s))
        return Boxes(self.row[places], *window.trimmed(self.begin_s[places], self.end_s[places])), places

    def width_s(self) -> FloatArray:
        """Return how long each box lasts, shape ``(boxes,)``."""
        return self.end_s - self.begin_s

    def narrow_s(self) -> float:
        """Return how long a narrow box lasts: a quarter of them are narrower."""
        return float(np.percentile(self.width_s(), _NARROW_PERCENTILE)) if len(self.row) else 1.0

    def middle_s(self) -> FloatArray:
        """Return the middle of each box, shape ``(boxes,)``."""
        return (self.begin_s + self.end_s) / 2


class Band(NamedTuple):
    """The part of a row of height 1 that boxes fill.

    A row's middle is at its number, and the axis counts downward, as rank 0 is on top.

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
        unit: its micro-batch, counted in its pipe, or the slice of one.
        paired: whether the op is half of an overlapped pair, so that the border is the pair's.
        in_colour: whether its micro-batch keeps its colour.

    """

    boxes: Boxes
    kind: IntArray
    shade: IntArray
    pipe: IntArray
    unit: IntArray
    paired: BoolArray
    in_colour: BoolArray

    def where(self, chosen: BoolArray | IntArray) -> Cells:
        """Return some of the cells."""
        return Cells(
            self.boxes.where(chosen),
            self.kind[chosen],
            self.shade[chosen],
            self.pipe[chosen],
            self.unit[chosen],
            self.paired[chosen],
            self.in_colour[chosen],
        )


def op_cells(timeline: Timeline, window: Window) -> Cells:
    """Return a cell for each op that a window shows, on the row of its rank, in the schedule's order.

    What takes no time has no place on a chart.
    """
    schedule = timeline.graph.schedule
    begin_s, end_s = op_boxes_s(timeline)
    boxes, shown = Boxes(window.row_of_rank[schedule.rank], begin_s, end_s).seen_in(window)
    return _cells(timeline, window, boxes, shown, schedule.kind[shown])


def phase_cells(timeline: Timeline, window: Window, node: IntArray) -> tuple[Cells, IntArray]:
    """Return cells of those nodes, all phases, that a window shows, and which these are; none has a pair's border."""
    graph = timeline.graph
    row = window.row_of_rank[timeline.rank[graph.task[node]]]
    boxes, shown = Boxes(row, timeline.start_s[node], timeline.end_s[node]).seen_in(window)
    node = node[shown]
    kind = np.array([phase.kind for phase in graph.phases])[graph.phase[node]]
    cells = _cells(timeline, window, boxes, graph.op_of_node[node], kind)
    return cells._replace(paired=np.zeros(len(node), dtype=bool)), node


def copy_cells(timeline: Timeline, window: Window) -> Cells:
    """Return a cell for each op beside compute that a window shows: copies to the host and back, gathered weights."""
    schedule = timeline.graph.schedule
    task = schedule.task_of_op
    row = window.row_of_rank[schedule.rank]
    boxes, shown = Boxes(row, timeline.first_phase_start_s[task], timeline.last_phase_end_s[task]).seen_in(window)
    beside = schedule.of_kinds(*BESIDE)[shown]
    return _cells(timeline, window, boxes.where(beside), shown[beside], schedule.kind[shown[beside]])


def pair_boxes(timeline: Timeline, window: Window) -> Boxes:
    """Return a box for each overlapped pair of which a window shows a half in colour, on the row of its rank."""
    schedule = timeline.graph.schedule
    forward = forward_of_pairs(schedule)
    task, row = schedule.task_of_op[forward], window.row_of_rank[schedule.rank[forward]]
    boxes, shown = Boxes(row, timeline.task_start_s[task], timeline.task_end_s[task]).seen_in(window)
    asked = window.in_colour[schedule.micro_batch[forward]] | window.in_colour[schedule.micro_batch[forward + 1]]
    return boxes.where(asked[shown])


def idle_boxes(timeline: Timeline, window: Window) -> dict[str, Boxes]:
    """Return the idle time that a window shows, as boxes by cause; causes that there are none of are left out."""
    spans = idle_spans(timeline)
    boxes, shown = Boxes(window.row_of_rank[spans.rank], spans.begin_s, spans.end_s).seen_in(window)
    by_cause = {cause: boxes.where(spans.cause[shown] == place) for place, cause in enumerate(spans.causes)}
    return {cause: found for cause, found in by_cause.items() if len(found.row)}


def host_boxes(timeline: Timeline, window: Window) -> Boxes:
    """Return a box for each task that a window shows, from when its rank's host begins to issue it until it has.

    Raises:
        UserError: costs that do not know how long the host takes.

    """
    issue = timeline.graph.issue_of_task
    if issue is None:
        raise UserError("these costs do not know how long the host takes to issue an op, so there is no host to show")
    boxes, _ = Boxes(window.row_of_rank[timeline.rank], *issue).seen_in(window)
    return boxes


def _cells(timeline: Timeline, window: Window, boxes: Boxes, op: IntArray, kind: IntArray) -> Cells:
    """Return cells for boxes, each of which is the op in a row of the schedule, or a part of it."""
    schedule = timeline.graph.schedule
    placement, stage = schedule.placement, schedule.stage[op]
    return Cells(
        boxes,
        kind,
        shade_of_stage(placement)[stage],
        placement.pipe_of_stage[stage],
        schedule.unit[op],
        schedule.partner[op] >= 0,
        window.in_colour[schedule.micro_batch[op]],
    )
