"""A map of regimes: which schedule is best where, and by how much."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import NDArray

from dualpipe_sim.base.arrays import BoolArray, FloatArray, IntArray
from dualpipe_sim.base.units import UNITS
from dualpipe_sim.pictures.palette import SERIES, Theme, ThemeName, ink_on
from dualpipe_sim.pictures.plot.files import new_axes
from dualpipe_sim.pictures.plot.paper import Paper, Size, paper_of
from dualpipe_sim.pictures.plot.style import style_around, theme_named

_SIZE_IN = (7.6, 5.4)
_ASPECT = 0.75  # of a figure whose width alone is given
_FINE = 480  # dots along an axis whose values lie close enough to draw between them
_STRONG = 0.25  # a lead from which colours are as strong as they get
_PALEST = 0.3
_LINES = (0.02, 0.05, 0.1, 0.2, 0.5)
_JUMP = 0.01  # between two dots
_LINE_PT, _BORDER_PT = 0.5, 1.1
_COLUMN_IN = 2.6  # width of a legend's column
_CLOSE_HATCH, _NOBODY_HATCH = "////", "xx"
_MOST_LABELS = 9
_ROOM = (4.0, 2.5, 1.6, 1.15)  # how much larger than its label the place of one is, the largest that there is
_WORDS = {
    "pipeline.ranks": "pipeline ranks",
    "pipeline.micro_batches": "micro-batches of a step",
    "activations": "activations that a rank may hold",
}


class MapAxis(Protocol):
    """What the chart needs to know of an axis."""

    @property
    def key(self) -> str:
        """The dotted key."""
        ...

    @property
    def values(self) -> Sequence[object]:
        """The values as a configuration takes them."""
        ...

    @property
    def numbers(self) -> FloatArray:
        """The same as numbers in base units."""
        ...

    @property
    def unit(self) -> str:
        """The unit of the values as they are written, empty for none."""
        ...

    @property
    def log(self) -> bool:
        """Whether equal factors are equally far apart."""
        ...

    @property
    def whole(self) -> bool:
        """Whether there is nothing between two values."""
        ...


class Map(Protocol):
    """What the chart needs to know of a map."""

    @property
    def x(self) -> MapAxis:
        """The axis from left to right."""
        ...

    @property
    def y(self) -> MapAxis:
        """The axis from below to above."""
        ...

    @property
    def schedules(self) -> Sequence[str]:
        """Names of the compared schedules."""
        ...

    @property
    def close(self) -> float:
        """Below which lead it is too close to call."""
        ...

    @property
    def seconds(self) -> FloatArray:
        """What each schedule takes at each point, not a number where it cannot be, shape ``(y, x, schedules)``."""
        ...

    @property
    def fits(self) -> BoolArray:
        """Whether each schedule fits at each point, same shape."""
        ...


def regime_chart(  # noqa: PLR0913 - each says how it looks
    found: Map,
    ax: Axes | None = None,
    *,
    size: Size | None = None,
    font_size: float | None = None,
    font: str | None = None,
    legend: bool = True,
    title: str | None = None,
    theme: ThemeName = "light",
) -> Axes:
    """Draw a region for each schedule where it is the best, the stronger the further it is ahead of the second.

    Lines join points of equal lead. Hatched is where it is too close to call, or nothing fits. Between two points of
    the map times are taken to be on straight lines, as for its crossings; whole numbers and words have nothing between.

    >>> from dualpipe_sim import regimes
    >>> found = regimes("figure5", "costs.transfer=0..2:5", "micro_batches=16,32", compare=["1f1b", "zb-h1"])
    >>> regime_chart(found).get_xlabel()
    'transfer'

    Args:
        found: the map.
        ax: where to draw; a new figure if there is none.
        size: of the figure: ``single-column``, ``double-column``, ``6x4`` (inches), ``16x9cm``.
        font_size: of text, in points.
        font: family of the font.
        legend: whether what has no place for a label is named beside, and what hatches mean below.
        title: what stands above; None for what the chart is.
        theme: light or dark.

    Raises:
        UserError: a size or font that cannot be.

    """
    paper, colours = paper_of(size, font_size, font, legend=legend), theme_named(theme)
    with style_around(ax, colours, paper=paper):
        axes = ax or new_axes(_size_in(paper), exact=paper.width_in is not None)
        times_s = _dots(found)
        best = np.where(np.isfinite(times_s).any(axis=2), times_s.argmin(axis=2), -1)
        lead = _lead(times_s)
        shown = [which for which in _by_area(best) if which >= 0]
        fills = {which: SERIES[place % len(SERIES)] for place, which in enumerate(shown)}
        extent = (-0.5, len(found.x.values) - 0.5, -0.5, len(found.y.values) - 0.5)
        axes.imshow(
            _coloured(best, lead, fills, colours), origin="lower", extent=extent, aspect="auto", interpolation="nearest"
        )
        _hatch(axes, (best >= 0) & (lead < found.close), _CLOSE_HATCH, colours, extent)
        _hatch(axes, best < 0, _NOBODY_HATCH, colours, extent)
        _draw_borders(axes, best, colours, extent)
        if found.x.whole or found.y.whole:  # of whose steps lines of equal lead would be a staircase
            drawn = _draw_lines(axes, _lead(np.where(found.fits, found.seconds, np.inf)), theme=colours)
        else:
            drawn = _draw_lines(axes, _smooth(lead), *_middles(best.shape, extent), theme=colours)
        for values, axis, along in ((found.x, axes.xaxis, "x"), (found.y, axes.yaxis, "y")):
            axis.set_ticks(*_ticks(values))
            getattr(axes, f"set_{along}label")(_label(values))
        axes.tick_params(length=3, color=colours.faint_ink, labelcolor=colours.ink)
        axes.set_title("the fastest schedule" if title is None else title, loc="left", color=colours.ink)
        named = _name_regions(axes, found, best, lead, fills, colours)
        if legend:
            unnamed = {found.schedules[which]: fills[which] for which in shown if which not in named}
            _explain(axes, list(_entries(unnamed, best, lead, found.close, colours, lines=drawn)), colours)
    return axes


def _size_in(paper: Paper) -> tuple[float, float]:
    if paper.width_in is None:
        return _SIZE_IN
    return paper.width_in, paper.height_in or _ASPECT * paper.width_in


def _dots(found: Map) -> FloatArray:
    """Return the times at dots between a map's points, infinite around points where a schedule does not fit."""
    times_s, fits = found.seconds, found.fits
    for along, axis in enumerate((found.y, found.x)):
        places, nearest = _between(len(axis.values))
        times_s, fits = _finely(times_s, axis, along, places, nearest), np.take(fits, nearest, axis=along)
    return np.where(fits & np.isfinite(times_s), times_s, np.inf)


def _between(count: int) -> tuple[FloatArray, IntArray]:
    """Return where dots are between so many points of an axis, and the point that is nearest to each."""
    each = max(1, -(-_FINE // count))
    places = (np.arange(count * each) + 0.5) / each - 0.5
    return places, np.clip(np.round(places), 0, count - 1).astype(int)


def _finely(times_s: FloatArray, axis: MapAxis, along: int, places: FloatArray, nearest: IntArray) -> FloatArray:
    """Return times along one dimension of a map at dots between its points, on straight lines where both are known."""
    count = times_s.shape[along]
    if axis.whole or count < 2:
        return np.asarray(np.take(times_s, nearest, axis=along))
    places = np.clip(places, 0, count - 1)
    before = np.minimum(places.astype(int), count - 2)
    shape = [1] * times_s.ndim
    shape[along] = len(places)
    way = (places - before).reshape(shape)
    with np.errstate(invalid="ignore"):
        between_s = (1 - way) * np.take(times_s, before, axis=along) + way * np.take(times_s, before + 1, axis=along)
    near_s = np.take(times_s, nearest, axis=along)
    both = np.isfinite(np.take(times_s, before, axis=along)) & np.isfinite(np.take(times_s, before + 1, axis=along))
    return np.asarray(np.where(both, between_s, near_s))


def _lead(times_s: FloatArray) -> FloatArray:
    """Return how much longer the second takes than the best, as a share; infinite where there is no second."""
    if times_s.shape[2] < 2:
        return np.full(times_s.shape[:2], np.inf)
    two_s = np.sort(times_s, axis=2)[:, :, :2]
    lead: FloatArray = np.full(times_s.shape[:2], np.inf)
    both = np.isfinite(two_s).all(axis=2) & (two_s[:, :, 0] > 0)
    lead[both] = two_s[both, 1] / two_s[both, 0] - 1
    return lead


def _by_area(best: IntArray) -> list[int]:
    which, dots = np.unique(best, return_counts=True)
    return [int(which[place]) for place in np.argsort(-dots, kind="stable")]


def _coloured(best: IntArray, lead: FloatArray, fills: dict[int, str], theme: Theme) -> FloatArray:
    """Return the colour of each dot, shape ``(lines, columns, 3)``."""
    ground = np.array(to_rgb(theme.ground))
    picture: FloatArray = np.tile(np.array(to_rgb(theme.over)), (*best.shape, 1))
    strength = _PALEST + (1 - _PALEST) * np.sqrt(np.minimum(lead, _STRONG) / _STRONG)
    for which, colour in fills.items():
        own, strong = best == which, strength[best == which][:, None]
        picture[own] = strong * np.array(to_rgb(colour)) + (1 - strong) * ground
    return picture


def _hatch(axes: Axes, where: BoolArray, hatch: str, theme: Theme, extent: Sequence[float]) -> None:
    if where.any():
        places = _middles(where.shape, extent)
        drawn = axes.contourf(*places, where.astype(float), levels=[0.5, 1.5], colors="none", hatches=[hatch])
        drawn.set_edgecolor(theme.faint_ink)
        drawn.set_linewidth(0.0)


def _smooth(lead: FloatArray) -> FloatArray:
    """Return leads without those next to a jump, which is no slope that lines of equal lead could run along."""
    smooth: FloatArray = lead.copy()
    for along in range(2):
        with np.errstate(invalid="ignore"):
            jumps = np.abs(np.diff(lead, axis=along)) > _JUMP
        before, behind = (slice(None, -1), slice(1, None)) if along == 0 else (np.s_[:, :-1], np.s_[:, 1:])
        smooth[before] = np.where(jumps, np.inf, smooth[before])
        smooth[behind] = np.where(jumps, np.inf, smooth[behind])
    return smooth


def _draw_borders(axes: Axes, best: IntArray, theme: Theme, extent: Sequence[float]) -> None:
    """Draw where another schedule takes over."""
    regions = np.unique(best).tolist()
    for which in regions if len(regions) > 1 else ():
        own = (best == which).astype(float)
        axes.contour(*_middles(best.shape, extent), own, levels=[0.5], colors=[theme.ink], linewidths=[_BORDER_PT])


def _draw_lines(axes: Axes, lead: FloatArray, *places: FloatArray, theme: Theme) -> bool:
    """Draw lines of equal lead, and return whether there are any; without places they are those of the map's points."""
    finite = np.ma.masked_invalid(lead)
    levels = [one for one in _LINES if finite.count() and finite.min() < one < finite.max()]
    if not levels or min(lead.shape) < 2:
        return False
    lines = axes.contour(*places, finite, levels=levels, colors=[theme.ink], linewidths=[_LINE_PT], alpha=0.55)
    axes.clabel(lines, fmt=lambda share: f"{share:.0%}", fontsize="x-small", inline_spacing=3)
    return True


def _middles(shape: tuple[int, ...], extent: Sequence[float]) -> tuple[FloatArray, FloatArray]:
    lines, columns = shape
    left, right, below, above = extent
    x = left + (np.arange(columns) + 0.5) * (right - left) / columns
    y = below + (np.arange(lines) + 0.5) * (above - below) / lines
    return x, y


def _ticks(axis: MapAxis) -> tuple[list[float], list[str]]:
    """Return where along an axis what is written, few enough to be read."""
    count = len(axis.values)
    if axis.whole:
        step = -(-count // _MOST_LABELS)
        return [float(place) for place in range(0, count, step)], [str(one) for one in axis.values[::step]]
    numbers = np.asarray(axis.numbers) / UNITS.get(axis.unit, 1.0)
    low, high = float(numbers[0]), float(numbers[-1])
    locator = LogLocator(subs=(1, 2, 5)) if axis.log else MaxNLocator(_MOST_LABELS - 2, steps=[1, 2, 2.5, 5, 10])
    round_ones = [one for one in locator.tick_values(low, high) if low - 1e-9 * high <= one <= high * (1 + 1e-9)]
    scale = np.log if axis.log else np.asarray
    places = np.interp(scale(round_ones), scale(numbers), np.arange(count))
    return places.tolist(), [f"{one:g}" for one in np.round(round_ones, 12)]


def _label(axis: MapAxis) -> str:
    """Return what a key is called along its axis, with the unit of its numbers."""
    words = _WORDS.get(axis.key) or axis.key.partition(".")[2].replace(".", " ").replace("_", " ") or axis.key
    return f"{words} ({axis.unit})" if axis.unit else str(words)


def _name_regions(
    axes: Axes, found: Map, best: IntArray, lead: FloatArray, fills: dict[int, str], theme: Theme
) -> set[int]:
    """Write each schedule's name into its region, where it has a place for that; return which have."""
    cast("Figure", axes.figure).draw_without_rendering()  # so that the size of the axes is known
    box = axes.get_window_extent()
    named = set()
    picture = _coloured(best, lead, fills, theme)
    for which in fills:
        text = found.schedules[which].replace(" (", "\n(")
        drawn = axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", size="large", zorder=6)
        own = drawn.get_window_extent()
        share = own.width / box.width, own.height / box.height
        clear = (best == which) & (lead >= found.close)
        place = _place(clear, *share) or _place(best == which, *share)
        if place is None:
            drawn.remove()
            continue
        line, column = place
        drawn.set_position(((column + 0.5) / best.shape[1], (line + 0.5) / best.shape[0]))
        red, green, blue = (round(255 * one) for one in picture[line, column])
        behind = f"#{red:02x}{green:02x}{blue:02x}"
        drawn.set(color=ink_on(behind), bbox={"facecolor": behind, "edgecolor": "none", "alpha": 0.85, "pad": 2})
        named.add(which)
    return named


def _place(region: BoolArray, width: float, height: float) -> tuple[int, int] | None:
    """Return the dot around which a region has place for a label of this size, the largest place that there is."""
    lines, columns = region.shape
    above: NDArray[np.int64] = np.zeros((lines + 1, columns + 1), dtype=np.int64)
    above[1:, 1:] = region.cumsum(axis=0).cumsum(axis=1)
    for room in _ROOM:
        wide, high = round(room * width * columns), round(room * height * lines)
        if not (0 < wide <= columns and 0 < high <= lines):
            continue
        inside = above[high:, wide:] - above[:-high, wide:] - above[high:, :-wide] + above[:-high, :-wide]
        fits = np.argwhere(inside == wide * high)
        if len(fits):
            line, column = fits[np.abs(fits - fits.mean(axis=0)).sum(axis=1).argmin()]
            return int(line) + high // 2, int(column) + wide // 2
    return None


def _entries(
    unnamed: Mapping[str, str], best: IntArray, lead: FloatArray, close: float, theme: Theme, *, lines: bool
) -> Iterator[Artist]:
    """Yield what has no label, and what hatches and lines mean."""
    for name, fill in unnamed.items():
        yield Patch(facecolor=fill, edgecolor=theme.ink, linewidth=_LINE_PT, label=name)
    look: Any = {"edgecolor": theme.faint_ink, "linewidth": _LINE_PT}
    if ((best >= 0) & (lead < close)).any():
        yield Patch(
            facecolor=theme.ground, hatch=_CLOSE_HATCH, label=f"too close to call (within {100 * close:.3g}%)", **look
        )
    if (best < 0).any():
        yield Patch(facecolor=theme.over, hatch=_NOBODY_HATCH, label="nothing fits", **look)
    if lines:
        yield Line2D([], [], color=theme.ink, linewidth=_LINE_PT, alpha=0.55, label="lead over the second")


def _explain(axes: Axes, entries: Sequence[Artist], theme: Theme) -> None:
    """Put a legend below the chart."""
    if entries:
        figure = cast("Figure", axes.figure)
        columns = max(1, min(len(entries), int(figure.get_figwidth() / _COLUMN_IN)))
        figure.legend(
            handles=entries, loc="outside lower center", ncols=columns, frameon=False, labelcolor=theme.ink,
            fontsize="small",
        )  # fmt: skip
