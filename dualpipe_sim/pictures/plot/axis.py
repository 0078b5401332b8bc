"""Axes of a chart: a time axis in a fitting unit, a row a rank, and how large the whole is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dualpipe_sim.base.units import fitting_unit
from dualpipe_sim.pictures.palette import Theme
from dualpipe_sim.pictures.plot.artists import BandLocator, RowLocator
from dualpipe_sim.pictures.plot.cells import Band
from dualpipe_sim.pictures.plot.cut import Cut, cut_axis
from dualpipe_sim.pictures.plot.paper import ANY_PAPER, Paper

_CELL_IN = 0.2  # as wide should a narrow cell be: two digits of the largest size
_LABELS_IN = 1.0
_NARROWEST_IN, _WIDEST_IN = 9.0, 24.0
_MOST_ROWS_IN = 12.0
_ROWS_ASPECT = 0.25  # height of all rows in units of the width, where a row's limits allow
_TITLE_IN, _AXIS_AND_LEGEND_IN = 0.4, 0.9
_WIDTH_OF_PLAIN_TEXT_IN = 14.0
_LARGEST_TEXT_SCALE = 1.5
_PLAIN_FONT_PT = 9.0
_MOST_ROWS_ALONE = 24  # more are in groups
_GROUP = 8  # rows
_LOW_ROWS_IN = 7.0  # height of all rows, at most, where a width is given


def _height_in(rows: int, charts: int, row_in: tuple[float, float], paper: Paper) -> float:
    """Return the height of a figure of a width that is given: rows as low as they may be, and what is beside them."""
    text = (paper.font_pt or _PLAIN_FONT_PT) / _PLAIN_FONT_PT
    row = min(row_in[0], _LOW_ROWS_IN / rows)
    return rows * row + (_TITLE_IN * charts + _AXIS_AND_LEGEND_IN) * text


class FigureSize(NamedTuple):
    """Size of a figure in inches, and a factor on its text: what is wide is looked at from further away.

    Attributes:
        width_in: width of the figure.
        height_in: its height.
        text_scale: factor on the size of text.
        chart_in: width of the time axis, which stands between the ranks' labels and what is beside charts.
        beside_in: room beside charts.

    """

    width_in: float
    height_in: float
    text_scale: float
    chart_in: float
    beside_in: float


def time_axis(
    ax: Axes, begin_s: float, end_s: float, theme: Theme, *, cut: Cut | None = None, unitless: bool = False
) -> None:
    """Lay time along an Axes, with ticks in a fitting unit; the data stays in seconds."""
    unit = fitting_unit(end_s, unitless=unitless)
    ax.set_xlim(begin_s, end_s if end_s > begin_s else begin_s + 1.0)
    ax.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10]))
    if cut is not None:
        cut_axis(ax, cut)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds / unit.seconds:.10g}"))
    ax.set_xlabel(f"time ({unit.name or 'units'})", color=theme.ink)
    ax.tick_params(axis="x", colors=theme.ink)


def row_axis(ax: Axes, labels: Sequence[str], theme: Theme) -> None:
    """Lay a row for each label down an Axes, the first on top; many are in groups, with lines between them."""
    rows = len(labels)
    ax.set_facecolor(theme.ground)
    ax.set_ylim(rows - 0.5, -0.5)
    ax.yaxis.set_major_locator(RowLocator(rows))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda row, _: labels[round(row)]))
    ax.tick_params(axis="y", length=0, colors=theme.ink)
    grouped = rows >= _MOST_ROWS_ALONE
    look: Any = (
        {"colors": theme.ground, "linewidths": 1.2, "zorder": 3}
        if grouped
        else {"colors": theme.row_line, "linewidths": 0.5, "zorder": 0.7}
    )
    between = np.arange(_GROUP if grouped else 1, rows, _GROUP if grouped else 1) - 0.5
    ax.hlines(between, 0, 1, transform=ax.get_yaxis_transform(), **look)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(theme.faint_ink)


def band_axis(ax: Axes, rows: int, bands: Mapping[str, Band], theme: Theme) -> None:
    """Say on the right of every row what its bands are, where they are high enough for that."""
    ax.yaxis.set_minor_locator(BandLocator(rows, list(bands.values())))
    ax.yaxis.remove_overlapping_locs = False  # the middle band lies where the row's own label does
    name_at = {round(band.middle, 3): name for name, band in bands.items()}
    ax.yaxis.set_minor_formatter(FuncFormatter(lambda place, _: name_at.get(round(place - round(place), 3), "")))
    ax.tick_params(axis="y", which="minor", length=0, labelleft=False, labelright=True, labelcolor=theme.faint_ink)


def figure_size(
    length_s: float,
    rows: int,
    charts: int,
    row_in: tuple[float, float],
    narrow_s: float,
    paper: Paper = ANY_PAPER,
    beside_in: float = 0.0,
) -> FigureSize:
    """Return a size at which cells are wide enough for numbers, within what a page or a slide holds.

    Args:
        length_s: length of the time axis.
        rows: rows of all charts, one below the other.
        charts: how many charts there are.
        row_in: the least and the most height of a row in inches.
        narrow_s: how long a narrow cell lasts.
        paper: what it is for; a size that it has is taken.
        beside_in: room for what stands right of the charts, at plain text.

    """
    if paper.width_in is not None:
        height = paper.height_in or _height_in(rows, charts, row_in, paper)
        return FigureSize(paper.width_in, height, 1.0, paper.width_in - _LABELS_IN - beside_in, beside_in)
    width = float(np.clip(_LABELS_IN + length_s / narrow_s * _CELL_IN, _NARROWEST_IN, _WIDEST_IN))
    row = float(np.clip(_ROWS_ASPECT * width / rows, *row_in))
    scale = float(np.clip(width / _WIDTH_OF_PLAIN_TEXT_IN, 1.0, _LARGEST_TEXT_SCALE))
    beside_rows = (_TITLE_IN * charts + _AXIS_AND_LEGEND_IN) * scale
    height = min(row * rows, _MOST_ROWS_IN) + beside_rows
    return FigureSize(width + beside_in * scale, height, scale, width - _LABELS_IN * scale, beside_in * scale)
