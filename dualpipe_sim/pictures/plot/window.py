"""What part of a timeline a chart shows: some ranks, a span of time, some micro-batches.

A :class:`Zoom` is what a caller asks for. A :class:`Window` is what that means for one timeline, as tables to look up:
the row of a rank, and whether a micro-batch keeps its colour. Other micro-batches are drawn faded, not left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from dualpipe_sim.base.arrays import BoolArray, FloatArray, IntArray
from dualpipe_sim.base.units import format_time
from dualpipe_sim.errors import UserError, quoted
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.pictures.plot.cut import Cut


class Zoom(NamedTuple):
    """What a caller asks to see; None for all of it.

    Attributes:
        ranks: ranks to show.
        from_s: where the time axis begins.
        to_s: where it ends.
        micro_batches: micro-batches, counted in their pipe, whose ops keep their colour.
        ends: whether what repeats in the middle is to be shown once only.

    """

    ranks: tuple[int, ...] | None = None
    from_s: float | None = None
    to_s: float | None = None
    micro_batches: tuple[int, ...] | None = None
    ends: bool = False


class Window(NamedTuple):
    """What a chart shows of one timeline.

    Attributes:
        ranks: ranks shown, from the top, shape ``(rows,)``.
        row_of_rank: row of each rank, or -1 where it is not shown, shape ``(ranks,)``.
        begin_s: where the time axis begins.
        end_s: where it ends.
        in_colour: which micro-batches keep their colour, shape ``(most micro-batches of a pipe,)``.
        cut: what the time axis leaves out, if anything.

    """

    ranks: IntArray
    row_of_rank: IntArray
    begin_s: float
    end_s: float
    in_colour: BoolArray
    cut: Cut | None = None

    @property
    def length_s(self) -> float:
        """How long the time axis is."""
        return self.end_s - self.begin_s - (0.0 if self.cut is None else self.cut.saved_s)

    def sees(self, row: IntArray, begin_s: FloatArray, end_s: FloatArray) -> BoolArray:
        """Return which of some boxes have a row and reach into the time shown."""
        seen: BoolArray = (row >= 0) & (end_s > self.begin_s) & (begin_s < self.end_s)
        if self.cut is not None:
            seen &= (begin_s < self.cut.begin_s) | (end_s > self.cut.end_s)
        return seen

    def trimmed(self, begin_s: FloatArray, end_s: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the ends of boxes that are seen, without what reaches into the cut from either side."""
        if self.cut is None:
            return begin_s, end_s
        over = (begin_s < self.cut.begin_s) & (end_s > self.cut.end_s)
        return (
            np.where(over | (begin_s < self.cut.begin_s), begin_s, np.maximum(begin_s, self.cut.end_s)),
            np.where(over | (end_s > self.cut.end_s), end_s, np.minimum(end_s, self.cut.begin_s)),
        )


def zoom_to(
    ranks: Iterable[int] | None,
    from_s: float | None,
    to_s: float | None,
    micro_batches: Iterable[int] | None,
    zoom: str | None = None,
) -> Zoom:
    """Return a zoom from what callers give.

    Raises:
        UserError: another word for ``zoom`` than "ends", or a part of the time beside it.

    """
    if zoom not in (None, "ends"):
        raise UserError(f"zoom: must be ends, got {quoted(zoom)}")
    parts = {"from": from_s, "to": to_s, "micro-batches": micro_batches}
    if zoom and (given := [name for name, value in parts.items() if value is not None]):
        raise UserError(f"zoom: ends shows where a whole run begins and ends; leave {' and '.join(given)} out")
    return Zoom(
        None if ranks is None else tuple(ranks),
        from_s,
        to_s,
        None if micro_batches is None else tuple(micro_batches),
        zoom is not None,
    )


def window_on(timeline: Timeline, zoom: Zoom, until_s: float | None = None) -> Window:
    """Return what a chart shows of a timeline.

    Without a span of time, that is the whole run, or the time in which the chosen micro-batches are on the chosen
    ranks.

    Args:
        timeline: what is drawn.
        zoom: what of it.
        until_s: end of the time axis where the zoom names none; None for the last op's.

    Raises:
        UserError: ranks or micro-batches that there are not, or a span that is empty or outside the run.

    """
    schedule = timeline.graph.schedule
    ranks = _chosen(zoom.ranks, timeline.ranks, "ranks", "the pipeline")
    micro_batches = _chosen(zoom.micro_batches, max(schedule.micro_batches_of_pipe), "micro-batches", "a pipe")
    row_of_rank = np.full(timeline.ranks, -1)
    row_of_rank[ranks] = np.arange(len(ranks))
    in_colour = np.zeros(max(schedule.micro_batches_of_pipe), dtype=bool)
    in_colour[micro_batches] = True
    begin_s, end_s = 0.0, timeline.makespan_s if until_s is None else until_s
    if zoom.micro_batches is not None:
        # From the first start to the last end of the chosen micro-batches' ops on the ranks shown.
        task = schedule.task_of_op[in_colour[schedule.micro_batch] & (row_of_rank[schedule.rank] >= 0)]
        begin_s, end_s = float(timeline.task_start_s[task].min()), float(timeline.task_end_s[task].max())
    begin_s, end_s = _span(zoom, begin_s, end_s, timeline.makespan_s if until_s is None else until_s)
    return Window(ranks, row_of_rank, begin_s, end_s, in_colour)


def _chosen(chosen: tuple[int, ...] | None, count: int, what: str, where: str) -> IntArray:
    """Return what was chosen of the numbers below ``count``, each once and ascending, or all of them for None."""
    if chosen is None:
        return np.arange(count)
    numbers = sorted(set(chosen))
    if not numbers:
        raise UserError(f"{what}: none are chosen; give at least one of 0 to {count - 1}")
    for number in numbers:
        if not 0 <= number < count:
            raise UserError(f"{what}: there is no {number}; {where} has 0 to {count - 1}")
    return np.array(numbers, dtype=np.int64)


def _span(zoom: Zoom, begin_s: float, end_s: float, until_s: float) -> tuple[float, float]:
    """Return where the time axis begins and ends: what the zoom names, else what is given."""
    begin_s = begin_s if zoom.from_s is None else zoom.from_s
    end_s = end_s if zoom.to_s is None else zoom.to_s
    if begin_s < 0:
        raise UserError(f"from: time begins at 0, not at {begin_s:g} s")
    if until_s and begin_s >= until_s:
        raise UserError(f"from: {format_time(begin_s)} is not before the end of the run at {format_time(until_s)}")
    if until_s and begin_s >= end_s:
        raise UserError(f"to: {format_time(end_s)} is not after {format_time(begin_s)}, where the chart begins")
    return begin_s, end_s
