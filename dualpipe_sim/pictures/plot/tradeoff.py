"""What a smaller bubble costs in memory: one point a schedule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from matplotlib.axes import Axes

from dualpipe_sim.errors import UserError
from dualpipe_sim.pictures.palette import SERIES, Theme, ThemeName
from dualpipe_sim.pictures.plot.files import Chart, ChartAxes
from dualpipe_sim.pictures.plot.style import style_around, theme_named

_MARKERS = "osD^vP*X<>hp"
_SIZE_IN = (8.5, 4.5)
_NOTHING = "there is no run to draw; give at least one that was not refused"


class Compared(Protocol):
    """What the charts need to know of a run."""

    @property
    def label(self) -> str:
        """The schedule, with its options."""
        ...

    @property
    def bubble_ratio(self) -> float | None:
        """Mean share of the makespan that a rank is idle; None where refused."""
        ...

    @property
    def peak_activations_by_rank(self) -> list[float] | None:
        """Most activations that each rank holds; None where refused."""
        ...


def bubble_against_activations(runs: Sequence[Compared], ax: Axes | None = None, *, theme: ThemeName = "light") -> Axes:
    """Draw each run's bubble ratio against the most activations that a rank holds.

    Refused runs are left out. A line joins the runs that no other beats in both.

    Raises:
        UserError: no run was done.

    """
    colours = theme_named(theme)
    done = [
        (max(run.peak_activations_by_rank), 100 * run.bubble_ratio, run.label)
        for run in runs
        if run.bubble_ratio is not None and run.peak_activations_by_rank
    ]
    if not done:
        raise UserError(_NOTHING)
    with style_around(ax, colours):
        axes = _axes(ax, colours)
        front = _front([(peak, bubble) for peak, bubble, _ in done])
        axes.step(*zip(*front, strict=True), where="post", color=colours.faint_ink, linewidth=1, zorder=1)
        for place, (peak, bubble, label) in enumerate(done):
            axes.plot(peak, bubble, linestyle="none", label=label, **_marker(place, colours))
        axes.set(xlabel="peak activations (of a rank's share of the model, one micro-batch)", ylabel="bubble (%)")
        axes.set_xlim(0, 1.05 * max(peak for peak, _, _ in done))
        _finish(axes, colours)
    return axes


def _axes(ax: Axes | None, theme: Theme) -> Axes:
    if ax is None:
        ax = Chart(figsize=_SIZE_IN, layout="constrained").add_subplot(axes_class=ChartAxes)
    ax.set_facecolor(theme.ground)
    return ax


def _marker(place: int, theme: Theme) -> dict[str, Any]:
    """Return the look of a run or schedule: a colour and a marker of its own."""
    return {
        "marker": _MARKERS[place % len(_MARKERS)],
        "color": SERIES[place % len(SERIES)],
        "markeredgecolor": theme.ink,
        "markeredgewidth": 0.8,
        "markersize": 8,
        "clip_on": False,
        "zorder": 3,
    }


def _finish(ax: Axes, theme: Theme) -> None:
    ax.set_ylim(bottom=0)
    ax.grid(color=theme.row_line)
    ax.set_axisbelow(True)
    ax.tick_params(colors=theme.ink)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, labelcolor=theme.ink)


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other beats in both, from the least memory on."""
    front: list[tuple[float, float]] = []
    for peak, bubble in sorted(points):
        if not front or bubble < front[-1][1]:
            front.append((peak, bubble))
    return front
