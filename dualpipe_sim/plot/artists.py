"""Artists that look at the size they are drawn at: borders thin out and numbers vanish where cells are crowded.

They measure when they draw, so zooming, resizing and saving at another resolution need no redrawing of the chart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist, allow_rasterization
from matplotlib.axis import Axis
from matplotlib.backend_bases import RendererBase
from matplotlib.collections import PolyCollection
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.ticker import Locator

from dualpipe_sim.graph import FloatArray
from dualpipe_sim.placement import IntArray
from dualpipe_sim.plot.cells import BoolArray, Boxes
from dualpipe_sim.plot.style import LARGEST_NUMBER_PT, SMALLEST_NUMBER_PT, Colour

_POINTS_PER_INCH = 72.0
_CROWDED_PT = 1.5  # cells narrower than this are drawn as strips of their mean colour
_BORDER_SHARE = 0.07  # of a cell's width is the most that its border takes
_THINNEST_BORDER_PT = 0.25  # a border that would be thinner is left out
_NUMBER_SHARE = 0.88  # of a cell's width is the most that its number takes
_NUMBER_HEIGHT_SHARE = 0.72  # of a cell's height is the most that its number's size takes
_LABEL_EM = 1.2  # height of a row's label in units of its font's size


class PointsPerUnit(NamedTuple):
    """Printer's points that one second and one row of a chart take where it is drawn."""

    second: float
    row: float


def drawn_size(ax: Any) -> PointsPerUnit:  # noqa: ANN401 - artists know their Axes by a private type
    """Measure an Axes as it is laid out and zoomed now."""
    left, right = ax.get_xlim()
    bottom, top = ax.get_ylim()
    points_per_pixel = _POINTS_PER_INCH / ax.figure.dpi
    return PointsPerUnit(
        ax.bbox.width * points_per_pixel / abs(right - left), ax.bbox.height * points_per_pixel / abs(top - bottom)
    )


def is_crowded(ax: Any, narrow_s: float) -> bool:  # noqa: ANN401
    """Say whether cells that last so long are too narrow to draw one by one."""
    return narrow_s * drawn_size(ax).second < _CROWDED_PT


class CellPolygons(PolyCollection):
    """Boxes of one look, with a border that thins out with their drawn width and vanishes where they are crowded."""

    def __init__(self, boxes: Boxes, height: float, narrow_s: float) -> None:
        """Take boxes, their height on rows of height 1, and how long a narrow cell of the whole chart lasts."""
        corners: Any = _corners(boxes, height)
        super().__init__(corners)
        self.boxes = boxes
        self._border_pt = 0.0
        self._narrow_s = narrow_s
        self.set_in_layout(False)

    def set_border(self, colour: Colour, width_pt: float) -> None:
        """Set the border that boxes have where they are wide enough."""
        self._border_pt = width_pt
        self.set_edgecolor(colour)
        self.set_linewidth(width_pt)

    @allow_rasterization  # type: ignore[untyped-decorator, unused-ignore]
    def draw(self, renderer: RendererBase) -> None:
        """Draw the boxes with the border that their size allows, or not at all where the chart is crowded."""
        if is_crowded(self.axes, self._narrow_s):
            return
        border_pt = self._drawn_border_pt()
        if border_pt != float(np.ravel(self.get_linewidth())[0]):
            self.set_linewidth(border_pt)
            self.set_antialiased(border_pt > 0)  # else white shines through where two cells meet inside a pixel
        super().draw(renderer)

    def _drawn_border_pt(self) -> float:
        width_pt = float(np.median(self.boxes.width_s())) * drawn_size(self.axes).second
        border_pt = min(self._border_pt, _BORDER_SHARE * width_pt)
        return border_pt if border_pt >= _THINNEST_BORDER_PT else 0.0


class CellNumbers(Artist):
    """Numbers in the middle of their cells, each drawn only where the longest of them would fit.

    All are of one size: the largest that fits nearly every cell, or the smallest one can read, and then those cells
    that are too narrow for it stay without.
    """

    def __init__(self, boxes: Boxes, height: float, numbers: IntArray, inks: Sequence[Colour]) -> None:
        """Take a number and an ink for each box."""
        super().__init__()
        self.boxes = boxes
        self.labels = [str(number) for number in numbers.tolist()]
        self._digits = np.array([len(label) for label in self.labels])
        self._inks = inks
        self._height = height
        self.set_zorder(4)
        self.set_in_layout(False)

    def shown(self, renderer: RendererBase) -> tuple[IntArray, float]:
        """Return which boxes have their number drawn at the size they are drawn now, and its size in points."""
        nothing = np.empty(0, dtype=np.int64), SMALLEST_NUMBER_PT
        points, seen = drawn_size(self.axes), self._in_view()
        tallest_pt = min(LARGEST_NUMBER_PT, points.row * self._height * _NUMBER_HEIGHT_SHARE)
        if tallest_pt < SMALLEST_NUMBER_PT or not seen.any():
            return nothing
        longest = float(self._digits[seen].max())
        filling_pt = self.boxes.width_s() * points.second * _NUMBER_SHARE / (longest * _digit_em(renderer))
        size_pt = float(np.clip(np.percentile(filling_pt[seen], 5), SMALLEST_NUMBER_PT, tallest_pt))
        return np.flatnonzero(seen & (filling_pt >= size_pt)), size_pt

    def draw(self, renderer: RendererBase) -> None:
        """Draw the numbers that fit."""
        if not self.get_visible() or self.axes is None or self.figure is None:
            return
        cells, size_pt = self.shown(renderer)
        places = self.axes.transData.transform(np.stack([self.boxes.middle_s(), self.boxes.row], axis=1)[cells])
        text = Text(size=size_pt, ha="center", va="center_baseline")
        text.set_figure(self.figure)
        for cell, place in zip(cells.tolist(), places.tolist(), strict=True):
            text.set_text(self.labels[cell])
            text.set_color(self._inks[cell])
            text.set_position(place)
            text.draw(renderer)
        self.stale = False

    def _in_view(self) -> BoolArray:
        left, right = sorted(self.axes.get_xlim()) if self.axes else (0.0, 0.0)
        top, bottom = sorted(self.axes.get_ylim()) if self.axes else (0.0, 0.0)
        middle_s, row = self.boxes.middle_s(), self.boxes.row
        seen: BoolArray = (left <= middle_s) & (middle_s <= right) & (top <= row) & (row <= bottom)
        return seen


class RowLocator(Locator):
    """Ticks for rows 0, 1, 2, …, or for every second, fourth, … of them where labels would touch."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __call__(self) -> list[int]:
        """Return the rows to label at the drawn size."""
        return self.tick_values(0, self.rows - 1)

    def tick_values(self, vmin: float, vmax: float) -> list[int]:
        """Return the rows to label between two."""
        low, high = sorted((vmin, vmax))
        return [row for row in range(0, self.rows, self._step()) if low <= row <= high]

    def _step(self) -> int:
        if not isinstance(self.axis, Axis):
            return 1
        label_pt = _LABEL_EM * float(self.axis.get_major_ticks(1)[0].label1.get_fontsize())
        row_pt = drawn_size(self.axis.axes).row
        step = 1
        while step < self.rows and step * row_pt < label_pt:
            step *= 2
        return step


def _corners(boxes: Boxes, height: float) -> FloatArray:
    """Corners of boxes around their rows, shape ``(boxes, 4, 2)``."""
    upper, lower = boxes.row - height / 2, boxes.row + height / 2
    x = np.stack([boxes.begin_s, boxes.end_s, boxes.end_s, boxes.begin_s], axis=1)
    y = np.stack([upper, upper, lower, lower], axis=1)
    return np.stack([x, y], axis=2)


def _digit_em(renderer: RendererBase) -> float:
    """Width of a digit in units of the font's size."""
    digits, size_pt = "0" * 10, 10.0
    width, _, _ = renderer.get_text_width_height_descent(digits, FontProperties(size=size_pt), ismath=False)
    em: Any = renderer.points_to_pixels(size_pt)
    return width / len(digits) / float(em)
