"""Axes of a chart: a time axis in a fitting unit, a row a rank, and how large the whole is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dualpipe_sim.plot.artists import RowLocator
from dualpipe_sim.plot.style import FAINT_INK, IDLE, ROW_LINE

_CELL_IN = 0.2  # as wide should a narrow cell be: two digits of the largest size
_LABELS_IN = 1.0
_NARROWEST_IN, _WIDEST_IN = 9.0, 24.0
_LOWEST_CELL_IN, _HIGHEST_ROW_IN = 0.32, 0.5
_MOST_ROWS_IN = 12.0
_ROWS_ASPECT = 0.25  # height of all rows in units of the width, where a row's limits allow
_TITLE_IN, _AXIS_AND_LEGEND_IN = 0.4, 0.9
_WIDTH_OF_PLAIN_TEXT_IN = 14.0
_LARGEST_TEXT_SCALE = 1.5


class TimeUnit(NamedTuple):
    """A unit of time and how many seconds it has."""

    name: str
    seconds: float


TIME_UNITS = (TimeUnit("s", 1.0), TimeUnit("ms", 1e-3), TimeUnit("µs", 1e-6), TimeUnit("ns", 1e-9))


class FigureSize(NamedTuple):
    """Size of a figure in inches, and a factor on its text: what is wide is looked at from further away."""

    width_in: float
    height_in: float
    text_scale: float


def fitting_unit(seconds: float) -> TimeUnit:
    """Return the largest unit in which a time is at least 1 (the second for no time at all)."""
    fitting = (unit for unit in TIME_UNITS if seconds >= unit.seconds)
    return next(fitting, TIME_UNITS[-1]) if seconds else TIME_UNITS[0]


def format_time(seconds: float) -> str:
    """Return a time in its fitting unit with four digits: ``66 s``, ``18.32 ms``."""
    unit = fitting_unit(seconds)
    amount = seconds / unit.seconds
    return f"{amount:,.0f} {unit.name}" if amount >= 1000 else f"{amount:.4g} {unit.name}"


def time_axis(ax: Axes, until_s: float) -> None:
    """Lay time from 0 to ``until_s`` along an Axes, with ticks in a fitting unit; the data stays in seconds."""
    unit = fitting_unit(until_s)
    ax.set_xlim(0, until_s or 1.0)
    ax.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds / unit.seconds:.10g}"))
    ax.set_xlabel(f"time ({unit.name})")


def row_axis(ax: Axes, labels: Sequence[str]) -> None:
    """Lay a row for each label down an Axes, the first on top."""
    rows = len(labels)
    ax.set_facecolor(IDLE)
    ax.set_ylim(rows - 0.5, -0.5)
    ax.yaxis.set_major_locator(RowLocator(rows))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda row, _: labels[round(row)]))
    ax.tick_params(axis="y", length=0)
    between = np.arange(1, rows) - 0.5
    ax.hlines(between, 0, 1, transform=ax.get_yaxis_transform(), colors=ROW_LINE, linewidths=0.5, zorder=0.7)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color(FAINT_INK)


def figure_size(until_s: float, rows: int, charts: int, cell_height: float, narrow_s: float) -> FigureSize:
    """Return a size at which cells are wide enough for numbers, within what a page or a slide holds.

    Args:
        until_s: length of the time axis.
        rows: rows of all charts, one below the other.
        charts: how many charts there are.
        cell_height: height of a cell on a row of height 1.
        narrow_s: how long a narrow cell lasts.

    """
    width = float(np.clip(_LABELS_IN + until_s / narrow_s * _CELL_IN, _NARROWEST_IN, _WIDEST_IN))
    row = float(np.clip(_ROWS_ASPECT * width / rows, _LOWEST_CELL_IN / cell_height, _HIGHEST_ROW_IN))
    scale = float(np.clip(width / _WIDTH_OF_PLAIN_TEXT_IN, 1.0, _LARGEST_TEXT_SCALE))
    beside_rows = (_TITLE_IN * charts + _AXIS_AND_LEGEND_IN) * scale
    return FigureSize(width, min(row * rows, _MOST_ROWS_IN) + beside_rows, scale)
