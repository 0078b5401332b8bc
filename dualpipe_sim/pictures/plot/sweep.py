"""Bubbles over a sweep: a heat map of two axes, or a curve for each choice of all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from dualpipe_sim.base.units import label_of, number_of
from dualpipe_sim.errors import UserError, did_you_mean
from dualpipe_sim.pictures.palette import Theme, ThemeName, ink_on
from dualpipe_sim.pictures.plot.files import new_axes
from dualpipe_sim.pictures.plot.series import Spot, finish, marker
from dualpipe_sim.pictures.plot.style import style_around, theme_named

Row: TypeAlias = Mapping[str, object]

_RUN_AXES = {"pipeline.ranks": "ranks", "pipeline.micro_batches": "micro_batches"}
"""Axes of a sweep that a key of every run says too."""
_WORDS = {"ranks": "pipeline ranks", "micro_batches": "micro-batches of a step", "schedule": "schedule"}
_DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)))
_COLOUR_MAP = "cividis_r"  # pale to dark, the same order for all eyes
_CURVES_SIZE_IN = (8.5, 4.5)
_MOST_LABELLED = 24  # columns of a heat map whose numbers can still be read


def bubble_heatmap(
    rows: Sequence[Row],
    ax: Axes | None = None,
    *,
    x: str = "micro_batches",
    y: str = "ranks",
    theme: ThemeName = "light",
) -> Axes:
    """Draw the bubble ratio of a sweep's points as a grid of cells; a point that failed is crossed out.

    >>> from dualpipe_sim import sweep
    >>> axes = bubble_heatmap(sweep("figure5", {"ranks": [4, 8], "micro_batches": [16, 32, 64]}))
    >>> axes.get_xlabel(), axes.get_ylabel()
    ('micro-batches of a step', 'pipeline ranks')

    Args:
        rows: rows of a sweep, one for each cell.
        ax: where to draw; a new figure if there is none.
        x: the key whose values are columns; ``schedule`` counts with its options.
        y: the key whose values are lines.
        theme: light or dark.

    Raises:
        UserError: no rows, no such key, or several rows for one cell.

    """
    colours = theme_named(theme)
    columns, lines = _values(rows, x), _values(rows, y)
    percent = np.full((len(lines), len(columns)), np.nan)
    first: dict[tuple[int, int], Row] = {}
    for row in rows:
        cell = lines.index(_value(row, y)), columns.index(_value(row, x))
        if cell in first:
            raise UserError(_twice(first[cell], row, x, y))
        first[cell] = row
        percent[cell] = _percent(row)
    with style_around(ax, colours):
        axes = ax or new_axes((min(3.0 + 0.6 * len(columns), 14.0), min(1.2 + 0.35 * len(lines), 9.0)))
        axes.set_facecolor(colours.ground)
        _draw_cells(axes, percent, colours)
        _cross_out(axes, [cell for cell in first if np.isnan(percent[cell])], colours)
        axes.set_xticks(range(len(columns)), [str(value) for value in columns])
        axes.set_yticks(range(len(lines)), [str(value) for value in lines])
        axes.set(xlabel=_words(x), ylabel=_words(y))
        if not _are_numbers(lines):
            axes.invert_yaxis()  # words read from the top
        axes.tick_params(length=0, colors=colours.ink)
    return axes


def bubble_curves(
    rows: Sequence[Row], ax: Axes | None = None, *, x: str = "micro_batches", theme: ThemeName = "light"
) -> Axes:
    """Draw the bubble ratio of a sweep's points against one axis, a curve for each choice of all others that vary.

    Points that failed are left out.

    >>> from dualpipe_sim import sweep
    >>> axes = bubble_curves(sweep("figure5", {"schedules": ["1f1b", "dualpipe"], "micro_batches": [16, 32]}))
    >>> axes.get_legend_handles_labels()[1]
    ['1f1b', 'dualpipe']

    Args:
        rows: rows of a sweep.
        ax: where to draw; a new figure if there is none.
        x: the key to draw against; numbers to scale, anything else side by side.
        theme: light or dark.

    Raises:
        UserError: no rows, no such key, or no point that did not fail.

    """
    colours = theme_named(theme)
    places = _values(rows, x)
    to_scale = _are_numbers(places)
    others = [key for key in _axes_of(rows) if key != _RUN_AXES.get(x, x)] or ["schedule"]
    curves: dict[tuple[str, str], list[Spot]] = {}
    for row in rows:
        if row["bubble_ratio"] is not None:
            place: Any = _value(row, x) if to_scale else places.index(_value(row, x))
            curves.setdefault((_label(row, others[:1]), _label(row, others[1:])), []).append((place, _percent(row)))
    if not curves:
        raise UserError("every point of the sweep failed, so there is no bubble to draw")
    with style_around(ax, colours):
        axes = ax or new_axes(_CURVES_SIZE_IN)
        axes.set_facecolor(colours.ground)
        hues, dashes = (list(dict.fromkeys(labels)) for labels in zip(*curves, strict=True))
        for (hue, dash), points in curves.items():
            look = _line(hues.index(hue), dashes.index(dash), colours)
            axes.plot(*zip(*sorted(points), strict=True), label=", ".join(filter(None, (hue, dash))), **look)
        if not to_scale:
            axes.set_xticks(range(len(places)), [str(place) for place in places])
        axes.set(xlabel=_words(x), ylabel="bubble (%)")
        axes.set_ylim(bottom=0)
        finish(axes, colours)
    return axes


def _values(rows: Sequence[Row], key: str) -> list[object]:
    """Return the values of a key: numbers in ascending order, anything else as it comes."""
    if not rows:
        raise UserError("there is no row to draw; give at least one")
    if key not in rows[0]:
        raise UserError(f"the rows have no {key}{did_you_mean(key, rows[0])}")
    values: list[Any] = []
    for row in rows:
        if _value(row, key) not in values:
            values.append(_value(row, key))
    return sorted(values) if _are_numbers(values) else values


def _are_numbers(values: Sequence[object]) -> bool:
    return all(isinstance(value, (int, float)) for value in values)


def _words(key: str) -> str:
    return _WORDS.get(_RUN_AXES.get(key, key), key)


def _value(row: Row, key: str) -> object:
    """Return what a row has for a key: of a schedule its options too, of a run that could not be its point's size."""
    if row[key] is None:
        return next((row[axis] for axis, same in _RUN_AXES.items() if same == key and axis in row), None)
    options = row.get("options") if key == "schedule" else None
    return label_of(str(row[key]), options) if isinstance(options, Mapping) else row[key]


def _percent(row: Row) -> float:
    ratio = row["bubble_ratio"]
    return 100 * ratio if isinstance(ratio, (int, float)) else np.nan


def _axes_of(rows: Sequence[Row]) -> list[str]:
    """Return the keys that tell a sweep's points apart: schedule and sizes, and what else varies."""
    dotted = [key for key in rows[0] if "." in key and key not in _RUN_AXES]
    return [key for key in ("schedule", "ranks", "micro_batches", *dotted) if len(_values(rows, key)) > 1]


def _label(row: Row, keys: Sequence[str]) -> str:
    return ", ".join(_said(key, _value(row, key)) for key in keys)


def _said(key: str, value: object) -> str:
    nouns = {"ranks": "rank", "micro_batches": "micro-batch"}
    if key in nouns and isinstance(value, int):
        return number_of(value, nouns[key])
    return f"{value}" if key == "schedule" else f"{key.rpartition('.')[2]} {value}"


def _twice(one: Row, other: Row, x: str, y: str) -> str:
    differ = [key for key in _axes_of([one, other]) if key not in (x, y)]
    where = f"{x} {_value(one, x)} and {y} {_value(one, y)}"
    way_out = (
        f"they differ in {', '.join(differ)}; pick one value, as by table.where(…)" if differ else "draw each once"
    )
    return f"several points have {where}: {way_out}"


def _draw_cells(ax: Axes, percent: np.ndarray[Any, np.dtype[np.float64]], theme: Theme) -> None:
    lines, columns = percent.shape
    mesh = ax.pcolormesh(
        np.arange(columns + 1) - 0.5,
        np.arange(lines + 1) - 0.5,
        np.ma.masked_invalid(percent),
        cmap=_COLOUR_MAP,
        vmin=0,
        edgecolors=theme.ground,
        linewidth=1,
    )
    bar = ax.figure.colorbar(mesh, ax=ax, label="bubble (%)")
    bar.outline.set_visible(False)
    ax.spines[:].set_visible(False)
    for line, column in np.argwhere(np.isfinite(percent)) if columns <= _MOST_LABELLED else ():
        value = float(percent[line, column])
        ink = ink_on(to_hex(tuple(mesh.to_rgba(np.array([value]))[0])))
        ax.text(column, line, f"{value:.1f}", ha="center", va="center", fontsize="small", color=ink)


def _cross_out(ax: Axes, cells: Sequence[tuple[int, int]], theme: Theme) -> None:
    if cells:
        lines, columns = zip(*cells, strict=True)
        ax.plot(columns, lines, linestyle="none", marker="x", color=theme.faint_ink, label="failed")


def _line(hue: int, dash: int, theme: Theme) -> dict[str, Any]:
    return marker(hue, theme) | {
        "linestyle": _DASHES[dash % len(_DASHES)],
        "linewidth": 1.5,
        "markersize": 6,
        "markeredgewidth": 0.6,
        "clip_on": False,
    }
