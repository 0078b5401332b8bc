"""A time axis with its middle cut out: what repeats is shown once, between a readable beginning and a readable end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Polygon
from matplotlib.ticker import Locator, MaxNLocator

from dualpipe_sim.analysis.repeating import Repeating, repeating
from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.base.units import format_time
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.pictures.palette import Theme

_BREAK_SHARE = 0.035  # of the time shown is as wide as the mark of a cut
_LEAST_PERIODS = 2.0  # left out, or nothing is
_TEETH_A_ROW, _TEETH = 2, (8, 48)
_TOOTH = 0.2  # of a mark's width, by which its edges are jagged


class Cut(NamedTuple):
    """A stretch of time that a chart leaves out; it is shown as wide as ``shown_s`` outside of it.

    >>> cut = Cut(10.0, 90.0, 2.0)
    >>> cut.places(np.array([5.0, 10.0, 90.0, 100.0])), cut.times(np.array([5.0, 10.0, 12.0, 22.0]))
    (array([ 5., 10., 12., 22.]), array([  5.,  10.,  90., 100.]))

    Attributes:
        begin_s: where it begins.
        end_s: where it ends.
        shown_s: width of its mark on the time axis.

    """

    begin_s: float
    end_s: float
    shown_s: float

    @property
    def saved_s(self) -> float:
        """How much shorter the time axis is for it."""
        return self.end_s - self.begin_s - self.shown_s

    def places(self, time_s: FloatArray) -> FloatArray:
        """Return where on a shorter axis times lie; a later one always lies further right."""
        inside_s = np.clip(np.asarray(time_s, dtype=np.float64) - self.begin_s, 0.0, self.end_s - self.begin_s)
        places: FloatArray = time_s - inside_s * (self.saved_s / (self.end_s - self.begin_s))
        return places

    def times(self, place_s: FloatArray) -> FloatArray:
        """Return the times at places on the shorter axis: :meth:`places` the other way round."""
        inside_s = np.clip(np.asarray(place_s, dtype=np.float64) - self.begin_s, 0.0, self.shown_s)
        times: FloatArray = place_s + inside_s * (self.saved_s / self.shown_s)
        return times


class Once(NamedTuple):
    """A period that stands for all.

    Attributes:
        begin_s: where it begins.
        end_s: where it ends, and the cut begins.
        repeats: how many periods it stands for, itself among them; whole where a timeline is cut to fit.

    """

    begin_s: float
    end_s: float
    repeats: float


class Ends(NamedTuple):
    """What is left of timelines whose middles repeat and are cut out.

    Attributes:
        cut: what is left out of all of them.
        middles: what repeats in each.

    """

    cut: Cut
    middles: tuple[Repeating, ...]

    def once(self) -> tuple[Once, ...]:
        """Return what is shown once of each timeline, right before the cut."""
        begin_s, end_s, _ = self.cut
        return tuple(
            Once(begin_s - one.period_s, begin_s, 1 + (end_s - begin_s) / one.period_s) for one in self.middles
        )


def ends_of(timelines: Sequence[Timeline], length_s: float) -> Ends | None:
    """Return what to cut out of timelines on one time axis of a length, or None where their middles do not repeat.

    All repeat where they are cut, and have shown a period by then.
    """
    middles = [repeating(timeline) for timeline in timelines]
    there = [one for one in middles if one is not None]
    if len(there) < len(middles):
        return None
    longest_s = max(one.period_s for one in there)
    begin_s = max(one.begin_s + (longest_s if len(there) > 1 else one.period_s) for one in there)
    end_s = min(one.end_s for one in there)
    if end_s - begin_s < _LEAST_PERIODS * longest_s * (1 - 1e-9):
        return None
    shown_s = _BREAK_SHARE * (length_s - (end_s - begin_s))
    return Ends(Cut(begin_s, end_s, shown_s), tuple(there)) if shown_s < end_s - begin_s else None


class CutLocator(Locator):
    """Ticks on both sides of a cut, as far apart as on an axis of the length that is left."""

    def __init__(self, cut: Cut) -> None:
        self._cut = cut
        self._steps = MaxNLocator("auto", steps=[1, 2, 5, 10])

    def set_axis(self, axis: Any) -> None:  # noqa: ANN401 - matplotlib's
        """Belong to an axis, whose labels' size says how many ticks there may be."""
        super().set_axis(axis)
        self._steps.set_axis(axis)

    def __call__(self) -> list[float]:
        """Return the times to label."""
        left, right = self.axis.get_view_interval() if self.axis is not None else (0.0, 1.0)
        return self.tick_values(left, right)

    def tick_values(self, vmin: float, vmax: float) -> list[float]:
        """Return the times to label between two, none of them where the axis is cut."""
        low, high = sorted((vmin, vmax))
        ticks = self._steps.tick_values(low, high - self._cut.saved_s)
        step = float(ticks[1] - ticks[0])
        every = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
        away_s = self._cut.shown_s / 4
        there: list[float] = every[(every <= self._cut.begin_s - away_s) | (every >= self._cut.end_s + away_s)].tolist()
        return there


def cut_axis(ax: Axes, cut: Cut) -> None:
    """Leave a stretch out of an Axes' time axis; its data stays in seconds, and ticks say the true time."""
    ax.set_xscale("function", functions=(cut.places, cut.times))
    ax.xaxis.set_major_locator(CutLocator(cut))


def draw_break(ax: Axes, cut: Cut, theme: Theme, *, unitless: bool) -> None:
    """Tear a chart apart where its time axis is cut, and say how much is left out."""
    rows = abs(float(np.subtract(*ax.get_ylim())))
    teeth = int(np.clip(_TEETH_A_ROW * rows, *_TEETH))
    y = np.linspace(0, 1, teeth + 1)
    tooth_s = np.where(np.arange(teeth + 1) % 2, _TOOTH * cut.shown_s, 0.0)
    left, right = cut.begin_s - tooth_s, cut.end_s + tooth_s
    across = ax.get_xaxis_transform()
    outline = np.concatenate([np.stack([left, y], axis=1), np.stack([right, y], axis=1)[::-1]])
    torn = Polygon(outline, transform=across, facecolor=theme.ground, edgecolor="none", zorder=6, label="break")
    ax.add_patch(torn)
    for x in (left, right):
        ax.plot(x, y, transform=across, color=theme.faint_ink, linewidth=0.8, zorder=6.1, clip_on=False)
    middle_s = float(cut.times(cut.places(np.array([cut.begin_s])) + cut.shown_s / 2)[0])
    said = format_time(cut.end_s - cut.begin_s, unitless=unitless)
    ax.annotate(
        f"{said} more of the same",
        (middle_s, 0.5),
        xycoords=across,
        rotation=90,
        ha="center",
        va="center",
        color=theme.ink,
        size="small",
        zorder=6.2,
    )
