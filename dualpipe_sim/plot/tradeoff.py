"""What a smaller bubble costs in memory: one point a schedule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from matplotlib.axes import Axes

from dualpipe_sim.plot.files import Chart, ChartAxes
from dualpipe_sim.plot.style import FAINT_INK, INK, ROW_LINE, light_style

# Okabe and Ito's colours for all eyes, https://jfly.uni-koeln.de/color/, each with a marker of its own.
_COLOURS = ("#e69f00", "#0072b2", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442", "#000000")
_MARKERS = "osD^vP*X<>hp"


class Compared(Protocol):
    """What the chart needs to know of a run."""

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


def bubble_against_activations(runs: Sequence[Compared], ax: Axes | None = None) -> Axes:
    """Draw each run's bubble ratio against the most activations that a rank holds.

    Refused runs are left out. A line joins the runs that no other beats in both.
    """
    done = [
        (max(run.peak_activations_by_rank), 100 * run.bubble_ratio, run.label)
        for run in runs
        if run.bubble_ratio is not None and run.peak_activations_by_rank
    ]
    with light_style():
        axes = (
            ax if ax is not None else Chart(figsize=(8.5, 4.5), layout="constrained").add_subplot(axes_class=ChartAxes)
        )
        front = _front([(peak, bubble) for peak, bubble, _ in done])
        axes.step(*zip(*front, strict=True), where="post", color=FAINT_INK, linewidth=1, zorder=1)
        for place, (peak, bubble, label) in enumerate(done):
            axes.plot(
                peak,
                bubble,
                linestyle="none",
                marker=_MARKERS[place % len(_MARKERS)],
                color=_COLOURS[place % len(_COLOURS)],
                markeredgecolor=INK,
                markersize=8,
                clip_on=False,
                zorder=3,
                label=label,
            )
        axes.set(xlabel="peak activations (of a rank's share of the model, one micro-batch)", ylabel="bubble (%)")
        axes.set_xlim(0, 1.05 * max((peak for peak, _, _ in done), default=1))
        axes.set_ylim(bottom=0)
        axes.grid(color=ROW_LINE)
        axes.set_axisbelow(True)
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    return axes


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other beats in both, from the least memory on."""
    front: list[tuple[float, float]] = []
    for peak, bubble in sorted(points):
        if not front or bubble < front[-1][1]:
            front.append((peak, bubble))
    return front
