"""Where the seconds of a layer go: a bar for each kind of work, stacked by part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dualpipe_sim.base.units import fitting_unit, format_seconds
from dualpipe_sim.costs.breakdown import PARTS, Breakdown, LayerBreakdown
from dualpipe_sim.pictures.palette import Colour, Theme, ThemeName, ink_on
from dualpipe_sim.pictures.plot.files import new_axes
from dualpipe_sim.pictures.plot.legend import Swatch, add_legend
from dualpipe_sim.pictures.plot.style import style_around, theme_named

FILLS: dict[str, Colour] = {
    "embedding": "#b08d57",
    "attention": "#e69f00",
    "mlp": "#0072b2",
    "router": "#5c4d00",
    "experts": "#56b4e9",
    "shared": "#00b383",
    "norms": "#c3c9cf",
    "head": "#17375e",
    "loss": "#2f8f83",
    "dispatch": "#55308f",
    "combine": "#d98cc0",
    "tensor_parallel": "#d62f5f",
    "context_parallel": "#d55e00",
    "gaps": "#ecebe4",
    "host": "#2b2f33",
}
"""Parts by name, apart for all eyes; what waits is in greys."""

_DOES = {
    "forward_s": "forward",
    "recompute_s": "forward again",
    "input_gradient_s": "backward for input",
    "weight_gradient_s": "backward for weights",
}
"""Bars of a layer, in the order in which an op runs them."""

_BAR, _HEADING, _BETWEEN = 0.8, 0.9, 0.35  # heights in rows: of a bar, of a layer's name, below a layer
_ROW_IN, _WIDTH_IN, _BESIDE_IN, _LABELS_IN = 0.3, 10.0, 1.5, 2.0
_ROOM = 1.14  # of the longest bar: what is written behind it
_LEAST_WRITTEN = 0.06  # of the axis: bits of bars that a share is written in


class _Row(NamedTuple):
    """A bar.

    Attributes:
        layer: whose it is.
        field: what of it.
        place: its middle, in rows from the top.

    """

    layer: LayerBreakdown
    field: str
    place: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return float(getattr(self.layer, self.field))


def layer_bars(found: Breakdown, ax: Axes | None = None, *, title: str = "", theme: ThemeName = "light") -> Axes:
    """Draw the seconds that one layer of each kind, the embedding and the head take, stacked by part.

    >>> from dualpipe_sim.config import load_experiment
    >>> from dualpipe_sim.costs.breakdown import breakdown
    >>> axes = layer_bars(breakdown(load_experiment("deepseek_v3").costs))
    >>> [text.get_text() for text in axes.get_legend().get_texts()][:3]
    ['embedding', 'attention', 'mlp']

    Args:
        found: the layers.
        ax: where to draw them; a new figure of a fitting size if there is none.
        title: what stands above; the software, the GPU and the tokens if empty.
        theme: "light" or "dark".

    Raises:
        UserError: another word for ``theme``.

    """
    colours = theme_named(theme)
    rows, headings, height = _laid_out(found)
    with style_around(ax, colours):
        ax = ax or new_axes((_WIDTH_IN, height * _ROW_IN + _BESIDE_IN))
        ax.set_facecolor(colours.ground)
        longest_s = max(row.seconds for row in rows)
        _axes(ax, rows, height, longest_s, colours)
        for heading, place in headings:
            ax.annotate(
                heading, (0, place), (4, 0), textcoords="offset points", va="center", color=colours.ink, weight="bold"
            )
        for row in rows:
            _draw(ax, row, longest_s, colours)
        there = {part.name for layer in found.all_of_it for part in layer.parts if part.seconds_by_source}
        swatches = [Swatch(name.replace("_", " "), [FILLS[name]], FILLS[name]) for name in PARTS if name in there]
        add_legend(ax, swatches, _WIDTH_IN - _LABELS_IN, colours)
        ax.set_title(title or found.caption, loc="left", color=colours.ink)
    return ax


def _laid_out(found: Breakdown) -> tuple[list[_Row], list[tuple[str, float]], float]:
    """Return the bars, the layers' names with their places, and the rows that all of it takes."""
    rows, headings, top = list[_Row](), list[tuple[str, float]](), 0.0
    for layer in found.all_of_it:
        headings.append((layer.label, top + _HEADING / 2))
        top += _HEADING
        for field in _DOES:
            if getattr(layer, field):
                rows.append(_Row(layer, field, top + 0.5))
                top += 1
        top += _BETWEEN
    return rows, headings, top


def _axes(ax: Axes, rows: list[_Row], height: float, longest_s: float, theme: Theme) -> None:
    unit = fitting_unit(longest_s)
    ax.set_xlim(0, _ROOM * longest_s)
    ax.set_ylim(height, 0)
    ax.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds / unit.seconds:.10g}"))
    ax.set_xlabel(f"time of one layer and micro-batch on a GPU ({unit.name})", color=theme.ink)
    ax.set_yticks([row.place for row in rows], [_DOES[row.field] for row in rows])
    ax.tick_params(axis="x", colors=theme.ink)
    ax.tick_params(axis="y", length=0, colors=theme.ink)
    ax.grid(axis="x", color=theme.row_line, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _draw(ax: Axes, row: _Row, longest_s: float, theme: Theme) -> None:
    """Draw a bar: its parts, the share of each that has room for it, and its length behind it."""
    for name, begin_s, seconds in _stacked(row):
        (bar,) = ax.barh(
            row.place, seconds, _BAR, left=begin_s, color=FILLS[name], edgecolor=theme.ground, linewidth=0.4, label=name
        )
        if seconds >= _LEAST_WRITTEN * _ROOM * longest_s:
            share = f"{100 * seconds / row.seconds:.0f} %"
            ax.annotate(
                share, (begin_s + seconds / 2, row.place), ha="center", va="center", size="small",
                color=ink_on(FILLS[name]),
            )  # fmt: skip
        bar.set_gid(f"{row.layer.kind} {row.field} {name}")
    ax.annotate(
        format_seconds(row.seconds, 3), (row.seconds, row.place), (4, 0), textcoords="offset points", va="center",
        color=theme.ink, size="small",
    )  # fmt: skip


def _stacked(row: _Row) -> Iterator[tuple[str, float, float]]:
    """Yield the parts of a bar: name, where it begins, how long it is."""
    begin_s = 0.0
    for part in row.layer.parts:
        seconds = getattr(part, row.field)
        if seconds:
            yield part.name, begin_s, seconds
            begin_s += seconds
