"""What ranks hold over time: a row a rank, as on a Gantt chart, filled as high as what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D

from dualpipe_sim.analysis import occupancy
from dualpipe_sim.analysis.occupancy import Occupancy
from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.base.units import format_amount, format_bytes
from dualpipe_sim.errors import UserError
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.pictures.palette import MEMORY_FILLS, SERIES, Colour, Theme, ThemeName
from dualpipe_sim.pictures.plot.axis import figure_size, row_axis, time_axis
from dualpipe_sim.pictures.plot.files import new_axes
from dualpipe_sim.pictures.plot.legend import Swatch, add_legend
from dualpipe_sim.pictures.plot.style import style_around, theme_named

_HIGHEST = 0.9  # share of a row's height that the most that any rank holds takes
_ROW_IN = (0.3, 1.0)
_WIDTH_IN = 12.0
_MOST_VECTOR_MOMENTS = 50_000  # with more, SVG and PDF hold areas as an image
_LIMIT_PT = 1.0
_LIMIT_STYLE = (0, (5, 2))


class _Scale(NamedTuple):
    """How much fills a row, and how amounts are written."""

    highest: float
    limit: float | None
    text: Callable[[float], str]

    def place(self, rank: int, amount: FloatArray | float) -> FloatArray:
        """Return where an amount is on a rank's row."""
        return np.asarray(rank + 0.5 - _HIGHEST * np.asarray(amount) / self.highest)


def activations_over_time(timeline: Timeline, ax: Axes | None = None, *, theme: ThemeName = "light") -> Axes:
    """Draw the activations that each rank holds over time, in those of a whole rank's share of the model.

    >>> from dualpipe_sim import simulate
    >>> axes = activations_over_time(simulate("figure5").played)
    >>> axes.get_title(loc="left")
    "dualpipe: activations of a rank's share of the model in flight"

    Raises:
        UserError: another word for ``theme``.

    """
    title = f"{timeline.graph.schedule.name or 'schedule'}: activations of a rank's share of the model in flight"
    occupancies = occupancy.activations_over_time(timeline)
    return memory_over_time(
        occupancies, timeline.makespan_s, ax, in_bytes=False, unitless=timeline.unitless, title=title, theme=theme
    )


def memory_over_time(  # noqa: PLR0913 - each says how it is drawn
    occupancies: Sequence[Occupancy],
    until_s: float,
    ax: Axes | None = None,
    *,
    limit: float | None = None,
    in_bytes: bool = True,
    unitless: bool = False,
    title: str = "",
    theme: ThemeName = "light",
) -> Axes:
    """Draw what each rank holds over time, stacked by kind, all rows to one scale, with each rank's peak.

    >>> from dualpipe_sim import simulate
    >>> from dualpipe_sim.analysis.occupancy import bytes_over_time
    >>> memory = simulate("deepseek_v3_pair").memory
    >>> axes = memory_over_time(bytes_over_time(memory), memory.makespan_s, limit=memory.gpu_bytes)
    >>> axes.get_xlabel()
    'time (s)'

    Args:
        occupancies: what each rank holds, rank 0 first, all of the same kinds.
        until_s: end of the time axis.
        ax: where to draw it; a new figure of a fitting size if there is none.
        limit: what there is for each rank: a line in every row.
        in_bytes: whether amounts are bytes, or activations.
        unitless: whether times are no seconds.
        title: the title.
        theme: "light" or "dark".

    Raises:
        UserError: no ranks, or another word for ``theme``.

    """
    if not occupancies:
        raise UserError("there is no rank whose memory to draw; give at least one")
    colours = theme_named(theme)
    peaks = [float(one.total.max(initial=0.0)) for one in occupancies]
    scale = _Scale(max(*peaks, limit or 0.0) or 1.0, limit, format_bytes if in_bytes else format_amount)
    size = figure_size(_WIDTH_IN, len(occupancies), 1, _ROW_IN, 0.2)
    with style_around(ax, colours):
        ax = ax or new_axes(size[:2])
        time_axis(ax, 0.0, until_s, colours, unitless=unitless)
        row_axis(ax, [f"rank {rank}" for rank in range(len(occupancies))], colours)
        ax.set_title(title, loc="left", color=colours.ink)
        _draw_areas(ax, occupancies, until_s, scale, colours)
        _write_peaks(ax, peaks, scale, colours)
        samples = list(_samples(list(occupancies[0].amounts), scale, colours))
        if len(samples) > 1:
            add_legend(ax, samples, _WIDTH_IN - 1, colours)
    return ax


def _draw_areas(ax: Axes, occupancies: Sequence[Occupancy], until_s: float, scale: _Scale, theme: Theme) -> None:
    kinds = list(occupancies[0].amounts)
    crowded = sum(len(one.at_s) * len(kinds) for one in occupancies) > _MOST_VECTOR_MOMENTS
    for place, kind in enumerate(kinds):
        areas: Any = [_area(one, kinds[: place + 1], until_s, rank, scale) for rank, one in enumerate(occupancies)]
        colour = _colour(place, kinds, theme)
        # Neighbours share an edge: drawn over each other from the highest down, nothing shines through between them.
        ax.add_collection(
            PolyCollection(
                areas, facecolor=colour, linewidth=0, zorder=1 - place / 100, label=kind, rasterized=crowded
            ),
            autolim=False,
        )
    if scale.limit is not None:
        levels = [float(scale.place(rank, scale.limit)) for rank in range(len(occupancies))]
        ax.hlines(levels, 0, until_s, colors=theme.limit, linewidths=_LIMIT_PT, linestyles=_LIMIT_STYLE, label="limit")


def _area(one: Occupancy, kinds: Sequence[str], until_s: float, rank: int, scale: _Scale) -> FloatArray:
    """Corners of the steps that some kinds together make on a rank's row, shape ``(corners, 2)``."""
    level = scale.place(rank, np.sum([one.amounts[kind] for kind in kinds], axis=0))
    ends_s = np.append(one.at_s[1:], until_s)
    x = np.stack([one.at_s, ends_s], axis=1).ravel()
    floor = float(scale.place(rank, 0.0))
    steps = np.stack([x, np.repeat(level, 2)], axis=1)
    return np.concatenate([[[one.at_s[0], floor]], steps, [[until_s, floor]]]) if len(x) else np.empty((0, 2))


def _write_peaks(ax: Axes, peaks: Sequence[float], scale: _Scale, theme: Theme) -> None:
    """Write the most that each rank holds at the right of its row, in the limit's colour where it is over it."""
    room = ax.get_yaxis_transform()
    for rank, peak in enumerate(peaks):
        over = scale.limit is not None and peak > scale.limit
        ax.text(
            1.008,
            rank,
            scale.text(peak),
            transform=room,
            va="center",
            color=theme.limit if over else theme.ink,
            weight="bold" if over else "normal",
            size="small",
        )
    ax.text(1.008, -0.6, "peak", transform=room, va="bottom", color=theme.faint_ink, size="small")


def _samples(kinds: Sequence[str], scale: _Scale, theme: Theme) -> Iterator[Artist]:
    for place, kind in enumerate(kinds):
        yield Swatch(kind, [_colour(place, kinds, theme)], theme.faint_ink)
    if scale.limit is not None:
        label = f"limit, {scale.text(scale.limit)}"
        yield Line2D([], [], color=theme.limit, linewidth=_LIMIT_PT, linestyle=_LIMIT_STYLE, label=label)


def _colour(place: int, kinds: Sequence[str], theme: Theme) -> Colour:
    if len(kinds) == 1:
        return theme.memory
    return MEMORY_FILLS.get(kinds[place], SERIES[place % len(SERIES)])
