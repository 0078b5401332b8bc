"""The pictures of a film: the whole chart, drawn once, and over it what changes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from dualpipe_sim.analysis.idle import IdleSpans, idle_spans
from dualpipe_sim.analysis.occupancy import activations_over_time
from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.base.units import fitting_unit, format_amount, format_time
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.pictures.palette import CAUSE_STYLES, Theme, tint
from dualpipe_sim.pictures.plot.axis import row_axis
from dualpipe_sim.pictures.plot.chart import draw_chart, legend_handles
from dualpipe_sim.pictures.plot.content import Look, content_of
from dualpipe_sim.pictures.plot.files import Chart
from dualpipe_sim.pictures.plot.legend import add_legend
from dualpipe_sim.pictures.plot.style import style
from dualpipe_sim.pictures.plot.window import Zoom, window_on

DOTS_PER_INCH = 100

_WIDTH_IN, _LEGEND_IN = 12.8, 8.0
_ROW_IN, _ROWS_IN, _BESIDE_ROWS_IN = 0.42, (1.6, 6.4), 1.7
_WIDTHS = (7.0, 1.2, 1.2)  # of the chart, idle time and activations
_BAR = 0.7
_CURTAIN = 1.01  # of a run's length: over the border of its last ops, too
_LARGEST = 1.1  # what an axis reaches to, in units of what is largest on it


class _Bars(NamedTuple):
    """A bar for each rank, whose parts grow from picture to picture.

    Attributes:
        ax: where they lie.
        parts: a collection of rectangles for each part, the first at the left.

    """

    ax: Axes
    parts: tuple[PolyCollection, ...]

    def show(self, amounts: FloatArray) -> None:
        """Draw bars of amounts, shape ``(parts, ranks)``."""
        right = np.cumsum(amounts, axis=0)
        for part, begin, end in zip(self.parts, right - amounts, right, strict=True):
            part.set_verts(_rectangles(begin, end))
            self.ax.draw_artist(part)


class Film:
    """The whole chart, drawn once; a curtain is drawn over what is not yet, and bars for what is by now."""

    def __init__(self, timeline: Timeline, look: Look, title: str) -> None:
        self._timeline = timeline
        self._spans = idle_spans(timeline)
        self._held = activations_over_time(timeline)
        theme, ranks = look.theme, timeline.ranks
        height_in = float(np.clip(_ROW_IN * ranks, *_ROWS_IN)) + _BESIDE_ROWS_IN
        height_in = 2 * round(height_in * DOTS_PER_INCH / 2) / DOTS_PER_INCH  # (films have even numbers of lines)
        with style(theme):
            self.figure = Chart(figsize=(_WIDTH_IN, height_in), dpi=DOTS_PER_INCH, layout="constrained")
            self.canvas: Any = FigureCanvasAgg(self.figure)
            axes: Any = self.figure.subplots(1, 3, width_ratios=_WIDTHS)
            self._chart, idle, held = axes
            content = content_of(timeline, title, window_on(timeline, Zoom()), look)
            draw_chart(self._chart, content, look)
            handles = list(legend_handles([content], look, sums=False))
            add_legend(self._chart, handles, _LEGEND_IN, theme)
            idle_s = _idle_by(self._spans, timeline.makespan_s, ranks)
            tints = [tint(CAUSE_STYLES[cause].fill, theme) for cause in self._spans.causes]
            self._idle = _bars(idle, "idle so far", tints, ranks, theme)
            _amounts_axis(idle, float(idle_s.sum(axis=0).max()), theme, unitless=timeline.unitless)
            self._activations = _bars(held, "activations held", [theme.memory], ranks, theme)
            peaks = [float(one.total.max(initial=0.0)) for one in self._held]
            _peaks_axis(held, peaks, theme)
            self._draw_once(theme)

    def _draw_once(self, theme: Theme) -> None:
        self.canvas.draw()
        self.figure.set_layout_engine("none")
        self._curtain = Rectangle((0, -0.5), 1, self._timeline.ranks, facecolor=theme.ground, zorder=10)
        self._now = self._chart.axvline(0, color=theme.exposed, linewidth=1.6, zorder=11)
        self._said = Text(1, 1.01, "", color=theme.exposed, ha="right", va="bottom", transform=self._chart.transAxes)
        for artist in (self._curtain, self._said):
            self._chart.add_artist(artist)
            artist.set_clip_on(False)
            artist.set_animated(True)
        self._now.set_animated(True)
        self.canvas.draw()
        self._ground = self.canvas.copy_from_bbox(self.figure.bbox)

    def picture(self, now_s: float) -> Any:  # noqa: ANN401 - pixels, (lines, columns, 4)
        """Return what can be seen at a time."""
        timeline = self._timeline
        self.canvas.restore_region(self._ground)
        self._curtain.set_x(now_s)
        self._curtain.set_width(_CURTAIN * timeline.makespan_s - now_s)
        self._now.set_xdata([now_s, now_s])
        self._said.set_text(format_time(now_s, unitless=timeline.unitless))
        for artist in (self._curtain, self._now, self._said):
            self._chart.draw_artist(artist)
        self._idle.show(_idle_by(self._spans, now_s, timeline.ranks))
        self._activations.show(np.array([[_held_at(one.at_s, one.total, now_s) for one in self._held]]))
        return np.asarray(self.canvas.buffer_rgba()).copy()


def _idle_by(spans: IdleSpans, now_s: float, ranks: int) -> FloatArray:
    """Return the seconds of each cause that each rank has idled by now, shape ``(causes, ranks)``."""
    seconds = np.clip(now_s, spans.begin_s, spans.end_s) - spans.begin_s
    of_both = np.bincount(spans.cause * ranks + spans.rank, weights=seconds, minlength=len(spans.causes) * ranks)
    return of_both.reshape(len(spans.causes), ranks).astype(np.float64)


def _held_at(at_s: FloatArray, held: FloatArray, now_s: float) -> float:
    place = int(np.searchsorted(at_s, now_s, side="right"))
    return float(held[place - 1]) if place else 0.0


def _bars(ax: Axes, title: str, colours: list[str], ranks: int, theme: Theme) -> _Bars:
    """Lay rows beside those of the chart, with nothing on them yet."""
    row_axis(ax, [""] * ranks, theme)
    ax.set_title(title, loc="left", color=theme.ink, size="medium")
    ax.tick_params(axis="x", colors=theme.ink)
    nothing = np.zeros(ranks)
    look: Any = {"linewidth": 0, "animated": True}
    parts = [PolyCollection(_rectangles(nothing, nothing), facecolor=one, **look) for one in colours]
    for part in parts:
        ax.add_collection(part, autolim=False)
    return _Bars(ax, tuple(parts))


def _amounts_axis(ax: Axes, largest_s: float, theme: Theme, *, unitless: bool) -> None:
    unit = fitting_unit(largest_s, unitless=unitless)
    ax.set_xlim(0, _LARGEST * largest_s or 1.0)
    ax.set_xticks([0, largest_s], ["0", f"{largest_s / unit.seconds:.3g} {unit.name}".rstrip()])
    ax.set_xlabel("by cause", color=theme.ink)


def _peaks_axis(ax: Axes, peaks: list[float], theme: Theme) -> None:
    """Mark each rank's peak on its row."""
    ax.set_xlim(0, _LARGEST * max(peaks) or 1.0)
    ax.set_xticks([0, max(peaks)], ["0", format_amount(max(peaks))])
    ax.set_xlabel("and peak", color=theme.ink)
    rows = np.arange(len(peaks))
    ax.vlines(peaks, rows - _BAR / 2, rows + _BAR / 2, colors=theme.ink, linewidths=1.2)


def _rectangles(begin: FloatArray, end: FloatArray) -> Any:  # noqa: ANN401 - corners, (ranks, 4, 2)
    rows = np.arange(len(begin))
    x = np.stack([begin, end, end, begin], axis=1)
    y = np.stack([rows - _BAR / 2, rows - _BAR / 2, rows + _BAR / 2, rows + _BAR / 2], axis=1)
    return np.stack([x, y], axis=2)
