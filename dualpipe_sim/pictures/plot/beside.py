"""Sums beside a chart: how its time splits up, in seconds and as a share, with the colours that it is drawn in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.offsetbox import AnchoredOffsetbox, DrawingArea, VPacker
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import ScaledTranslation

from dualpipe_sim.analysis.critical_path import PARTS, CriticalPath
from dualpipe_sim.analysis.metrics import busy_s, idle_s_by_cause
from dualpipe_sim.base.units import fitting_unit, format_time
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.pictures.palette import CAUSE_STYLES, Colour, Theme, path_colour, tint
from dualpipe_sim.pictures.plot.axis import FigureSize
from dualpipe_sim.pictures.plot.legend import text_em

SUMS_IN, BANDS_IN = 3.3, 0.7
"""Room that sums, and names of bands beside them, take right of a chart whose text is of the plain size."""

_SMALLEST_SHARE = 5e-4  # what would be written as 0.0 %
_POINTS_PER_INCH = 72.0
_AWAY_EM, _BANDS_EM = 1.2, 6.5
_GAP_EM, _LINE_EM, _SAMPLE_EM = 0.7, 1.35, 0.9


class Part(NamedTuple):
    """A part of a whole: what it is, how long it takes, and the colour that it has on the chart."""

    words: str
    seconds: float
    colour: Colour


class Sums(NamedTuple):
    """A whole and its parts, which sum to it.

    Attributes:
        title: what is split up.
        parts: what it splits up into.
        unitless: whether times are units of no clock.

    """

    title: str
    parts: tuple[Part, ...]
    unitless: bool


def time_of(timeline: Timeline, theme: Theme) -> Sums:
    """Return how the makespan of a mean rank splits up into ops and idle time by cause."""
    idle = {cause: float(seconds.mean()) for cause, seconds in idle_s_by_cause(timeline).items()}
    ops = Part("ops", float(busy_s(timeline).mean()), theme.greys[1])
    parts = (Part(CAUSE_STYLES[cause].words, idle[cause], tint(CAUSE_STYLES[cause].fill, theme)) for cause in idle)
    whole = format_time(timeline.makespan_s, unitless=timeline.unitless)
    return Sums(f"a mean rank's {whole}{' units' if timeline.unitless else ''}", (ops, *parts), timeline.unitless)


def path_of(path: CriticalPath, theme: Theme, *, unitless: bool) -> Sums:
    """Return what the seconds of a critical path are spent on."""
    seconds = path.seconds_by_part()
    whole = format_time(sum(seconds.values()), unitless=unitless)
    parts = (Part(PARTS[name], one, path_colour(name, theme)) for name, one in seconds.items())
    return Sums(f"the critical path's {whole}{' units' if unitless else ''}", tuple(parts), unitless)


def add_sums(ax: Axes, several: Sequence[Sums], theme: Theme, *, bands: bool) -> None:
    """Write sums right of an Axes, one below the other, their top at that of the Axes; right of names of bands, too.

    They belong to the figure, whose layout leaves them room (:func:`leave_room`), so that no layout depends on them.
    """
    em = FontProperties(size=mpl.rcParams["legend.fontsize"]).get_size_in_points()
    away_em = _BANDS_EM if bands else _AWAY_EM
    box = AnchoredOffsetbox(
        "upper left",
        child=VPacker(children=[_block(one, em, theme) for one in several], pad=0, sep=em),
        pad=0,
        borderpad=0,
        frameon=False,
        bbox_to_anchor=(1, 1),
        bbox_transform=ax.transAxes + ScaledTranslation(away_em * em / _POINTS_PER_INCH, 0, ax.figure.dpi_scale_trans),
    )
    box.set_label(f"beside {ax.get_title(loc='left')}")
    ax.figure.add_artist(box)


def leave_room(figure: Figure | SubFigure, size: FigureSize) -> None:
    """Keep what a figure lays out clear of the room that its size has beside the charts."""
    figure.figure.set_layout_engine("constrained", rect=(0, 0, 1 - size.beside_in / size.width_in, 1))


def _block(sums: Sums, em: float, theme: Theme) -> DrawingArea:
    """Return a title and, below it, columns of colours, seconds, shares and words."""
    whole_s = sum(part.seconds for part in sums.parts)
    unit = fitting_unit(whole_s, unitless=sums.unitless)
    shown = [part for part in sums.parts if part.seconds > _SMALLEST_SHARE * whole_s]
    columns: tuple[tuple[list[str], Literal["left", "right"]], ...] = (
        (_amounts([part.seconds / unit.seconds for part in shown], unit.name), "right"),
        ([f"{part.seconds / whole_s:.1%}".replace("%", " %") for part in shown], "right"),
        ([part.words for part in shown], "left"),
    )
    line = _LINE_EM * em
    height = line * (len(shown) + 1)
    widths = [max((em * text_em(text) for text in texts), default=0.0) for texts, _ in columns]
    area = DrawingArea(max(1.1 * em * text_em(sums.title), sum(widths) + 3 * _GAP_EM * em + em), height)

    def write(text: str, x: float, row: int, **look: Any) -> None:  # noqa: ANN401 - matplotlib's
        area.add_artist(
            Text(x, height - (row + 0.5) * line, text, color=theme.ink, size=em, va="center_baseline", **look)
        )

    write(sums.title, 0, 0, weight="bold")
    for row, part in enumerate(shown):
        below = height - (row + 1.5) * line - _SAMPLE_EM * em / 2
        area.add_artist(
            Rectangle((0, below), _SAMPLE_EM * em, _SAMPLE_EM * em, fc=part.colour, ec=theme.faint_ink, linewidth=0.5)
        )
    left = em
    for (texts, side), width in zip(columns, widths, strict=True):
        left += _GAP_EM * em
        for row, text in enumerate(texts):
            write(text, left + width * (side == "right"), row + 1, ha=side)
        left += width
    return area


def _amounts(amounts: Sequence[float], unit: str) -> list[str]:
    """Return amounts with as many decimals each as tell four digits of the largest, or fewer where they are round.

    >>> _amounts([16.0123, 0.5], "s"), _amounts([60.0, 4.5], "")
    (['16.01 s', '0.50 s'], ['60.0', '4.5'])
    """
    most = max(0, 4 - len(f"{max(amounts, default=0.0):.0f}"))
    decimals = next((one for one in range(most) if np.allclose(np.round(amounts, one), amounts, rtol=1e-9)), most)
    return [f"{amount:,.{decimals}f} {unit}".rstrip() for amount in amounts]
