"""Artists that look at the size they are drawn at: borders thin out and labels vanish where cells are crowded.

They measure when they draw, so zooming, resizing and saving at another resolution need no redrawing of the chart. The
measure is how many printer's points a second and a row take (:func:`drawn_size`); a cell's width in points is then its
seconds times the first, so that all cells are judged by one array operation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist, allow_rasterization
from matplotlib.axis import Axis
from matplotlib.backend_bases import RendererBase
from matplotlib.collections import PathCollection
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.ticker import Locator

from dualpipe_sim.base.arrays import BoolArray, FloatArray, IntArray
from dualpipe_sim.pictures.palette import Colour
from dualpipe_sim.pictures.plot.cells import Band, Boxes
from dualpipe_sim.pictures.plot.style import LARGEST_NUMBER_PT, SMALLEST_NUMBER_PT

_POINTS_PER_INCH = 72.0
_CROWDED_PT = 1.5  # cells narrower than this are drawn as strips of their mean colour
_BORDER_SHARE = 0.07  # of a cell's width is the most that its border takes
_THINNEST_BORDER_PT = 0.35  # a border that would be thinner is left out
_BOXES_OF_A_PATH = 200  # a path of few corners, all at right angles, is drawn on whole pixels
_NUMBER_SHARE = 0.88  # of a cell's width is the most that its number takes
_NUMBER_HEIGHT_SHARE = 0.72  # of a cell's height is the most that its number's size takes
_DIGIT = re.compile(r"\d")
_LABEL_EM = 1.4  # height of a row's label in units of its font's size


class PointsPerUnit(NamedTuple):
    """Printer's points that one second and one row of a chart take where it is drawn."""

    second: float
    row: float


def drawn_size(ax: Any) -> PointsPerUnit:  # noqa: ANN401 - artists know their Axes by a private type
    """Measure an Axes as it is laid out and zoomed now."""
    left, right = ax.xaxis.get_transform().transform(ax.get_xlim())  # (an axis that is cut is shorter than its time)
    bottom, top = ax.get_ylim()
    points_per_pixel = _POINTS_PER_INCH / ax.figure.dpi
    return PointsPerUnit(
        ax.bbox.width * points_per_pixel / abs(right - left), ax.bbox.height * points_per_pixel / abs(top - bottom)
    )


def is_crowded(ax: Any, narrow_s: float) -> bool:  # noqa: ANN401
    """Say whether cells that last so long are too narrow to draw one by one."""
    return narrow_s * drawn_size(ax).second < _CROWDED_PT


class CellPolygons(PathCollection):
    """Boxes of one look, with a border that thins out with their drawn width and vanishes where they are crowded."""

    def __init__(self, boxes: Boxes, band: Band, narrow_s: float) -> None:
        """Take boxes, the band of their rows, and how long a narrow cell of the whole chart lasts."""
        super().__init__(outlines(boxes, band))
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


class Labels(NamedTuple):
    """What boxes are called, as tables and, for each box, its place in them.

    Attributes:
        texts: every text there is.
        text: that of each box, shape ``(boxes,)``.
        inks: every colour of text.
        ink: that of each box, shape ``(boxes,)``.

    """

    texts: Sequence[str]
    text: IntArray
    inks: Sequence[Colour]
    ink: IntArray


class CellLabels(Artist):
    """Labels in the middle of their cells, each drawn only where it fits.

    All are of one size: the largest that fits nearly every cell, or the smallest one can read, and then those cells
    that are too narrow for it stay without.
    """

    def __init__(self, boxes: Boxes, band: Band, labels: Labels, *, alike: bool) -> None:
        """Take boxes and what they are called, and whether each label needs the room of the longest, as numbers do."""
        super().__init__()
        self.boxes = boxes
        self.labels = labels
        self._family = mpl.rcParams["font.family"]  # (drawing knows no more of the style that this is made in)
        self._largest_pt = min(LARGEST_NUMBER_PT, float(mpl.rcParams["font.size"]))
        self._band = band
        self._alike = alike
        self.set_zorder(4)
        self.set_in_layout(False)

    def shown(self, renderer: RendererBase) -> tuple[IntArray, float]:
        """Return which boxes have their label drawn at the size they are drawn now, and its size in points.

        ``filling_pt`` is the size of text that would just fill each box: its width in points over the width of its
        label in ems. The size taken is the 5th percentile, so that it fits 95 % of the boxes in view, within what one
        can read and what a row's height allows.
        """
        nothing = np.empty(0, dtype=np.int64), SMALLEST_NUMBER_PT
        points, seen = drawn_size(self.axes), self._in_view()
        lines = max(text.count("\n") + 1 for text in self.labels.texts) if len(self.labels.texts) else 1
        tallest_pt = min(self._largest_pt, points.row * self._band.height * _NUMBER_HEIGHT_SHARE / lines)
        if tallest_pt < SMALLEST_NUMBER_PT or not seen.any():
            return nothing
        # Numbers are to look alike, so each has the room of the widest; else 9 would be shown where 10 is not.
        width_em = self._widths_em(renderer)
        needed_em = width_em[seen].max() if self._alike else width_em
        filling_pt = self._in_view_s().width_s() * points.second * _NUMBER_SHARE / needed_em
        size_pt = float(np.clip(np.percentile(filling_pt[seen], 5), SMALLEST_NUMBER_PT, tallest_pt))
        return np.flatnonzero(seen & (filling_pt >= size_pt)), size_pt

    def draw(self, renderer: RendererBase) -> None:
        """Draw the labels that fit."""
        if not self.get_visible() or self.axes is None or self.figure is None:
            return
        cells, size_pt = self.shown(renderer)
        middles = np.stack([self._in_view_s().middle_s(), self.boxes.row + self._band.middle], axis=1)[cells]
        text = Text(size=size_pt, family=self._family, ha="center", va="center_baseline", linespacing=1.1)
        text.set_figure(self.figure)
        for cell, place in zip(cells.tolist(), self.axes.transData.transform(middles).tolist(), strict=True):
            text.set_text(self.labels.texts[self.labels.text[cell]])
            text.set_color(self.labels.inks[self.labels.ink[cell]])
            text.set_position(place)
            text.draw(renderer)
        self.stale = False

    def _in_view_s(self) -> Boxes:
        """The boxes, cut at the ends of the time axis."""
        left, right = sorted(self.axes.get_xlim()) if self.axes else (0.0, 0.0)
        return Boxes(self.boxes.row, self.boxes.begin_s.clip(left, right), self.boxes.end_s.clip(left, right))

    def _in_view(self) -> BoolArray:
        """Which boxes can be seen now, shape ``(boxes,)``."""
        top, bottom = sorted(self.axes.get_ylim()) if self.axes else (0.0, 0.0)
        seen: BoolArray = (self._in_view_s().width_s() > 0) & (top <= self.boxes.row) & (self.boxes.row <= bottom)
        return seen

    def _widths_em(self, renderer: RendererBase) -> FloatArray:
        """Width of each box's label in units of the font's size (ems), shape ``(boxes,)``.

        Measuring is slow, and few texts differ in width: each is measured once, and numbers once for each length.
        """
        patterns = [_DIGIT.sub("0", text) for text in self.labels.texts]  # digits are equally wide
        width_em = {pattern: _width_em(pattern, self._family, renderer) for pattern in set(patterns)}
        widths: FloatArray = np.array([width_em[pattern] for pattern in patterns])[self.labels.text]
        return widths


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


class BandLocator(Locator):
    """Ticks for the bands of every row, where they are high enough for a label."""

    def __init__(self, rows: int, bands: Sequence[Band]) -> None:
        self._rows = rows
        self._bands = bands

    def __call__(self) -> list[float]:
        """Return the places to label at the drawn size."""
        return self.tick_values(0, self._rows - 1)

    def tick_values(self, vmin: float, vmax: float) -> list[float]:  # noqa: ARG002 - matplotlib's signature
        """Return the middle of every band, or nothing."""
        if not isinstance(self.axis, Axis):
            return []
        label_pt = float(self.axis.get_minor_ticks(1)[0].label2.get_fontsize())
        lowest_pt = min(band.height for band in self._bands) * drawn_size(self.axis.axes).row
        return [row + band.middle for row in range(self._rows) for band in self._bands] if lowest_pt >= label_pt else []


def outlines(boxes: Boxes, band: Band) -> list[Path]:
    """Outlines of boxes in a band of their rows, many of them in one path: files name what a path looks like once.

    ``corners`` is of shape ``(boxes, 5, 2)``: four corners, each (time, row), and the first again.
    """
    middle = boxes.row + band.middle
    upper, lower = middle - band.height / 2, middle + band.height / 2
    x = np.stack([boxes.begin_s, boxes.end_s, boxes.end_s, boxes.begin_s, boxes.begin_s], axis=1)
    y = np.stack([upper, upper, lower, lower, upper], axis=1)
    corners = np.stack([x, y], axis=2)
    outline = np.array([Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY])
    pieces = (corners[at : at + _BOXES_OF_A_PATH] for at in range(0, len(corners), _BOXES_OF_A_PATH))
    return [Path(piece.reshape(-1, 2), np.tile(outline, len(piece))) for piece in pieces]


def _width_em(text: str, family: Sequence[str], renderer: RendererBase) -> float:
    """Width of a text's longest line in units of its font's size."""
    size_pt = 10.0
    font = FontProperties(family=family, size=size_pt)
    em: Any = renderer.points_to_pixels(size_pt)
    lines = [renderer.get_text_width_height_descent(line, font, ismath=False)[0] for line in text.split("\n")]
    return max(lines) / float(em)
