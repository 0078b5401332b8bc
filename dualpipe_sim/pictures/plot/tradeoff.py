"""What a smaller bubble costs in memory: one point a schedule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from matplotlib.axes import Axes

from dualpipe_sim.errors import UserError
from dualpipe_sim.pictures.palette import ThemeName
from dualpipe_sim.pictures.plot.files import new_axes
from dualpipe_sim.pictures.plot.series import draw_front, finish, marker
from dualpipe_sim.pictures.plot.style import style_around, theme_named

_SIZE_IN = (8.5, 4.5)
_NOTHING = "there is no run to draw; give at least one that was not refused"


class Compared(Protocol):
    """What the charts need to know of a run."""

    @property
    def caption(self) -> str:
        """The schedule, with its options, and whether it does not fit."""
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

    >>> from dualpipe_sim import compare
    >>> axes = bubble_against_activations(compare("figure5", compare=["1f1b", "dualpipe"]))
    >>> axes.get_xlabel()
    "peak activations (of a rank's share of the model, one micro-batch)"

    Raises:
        UserError: no run was done.

    """
    colours = theme_named(theme)
    done = [
        (max(run.peak_activations_by_rank), 100 * run.bubble_ratio, run.caption)
        for run in runs
        if run.bubble_ratio is not None and run.peak_activations_by_rank
    ]
    if not done:
        raise UserError(_NOTHING)
    with style_around(ax, colours):
        axes = ax or new_axes(_SIZE_IN)
        axes.set_facecolor(colours.ground)
        draw_front(axes, [(peak, bubble) for peak, bubble, _ in done], colours)
        for place, (peak, bubble, label) in enumerate(done):
            look = marker(place, colours) | {"markersize": 8, "markeredgewidth": 0.8, "clip_on": False}
            axes.plot(peak, bubble, linestyle="none", label=label, **look)
        axes.set(xlabel="peak activations (of a rank's share of the model, one micro-batch)", ylabel="bubble (%)")
        axes.set_xlim(0, 1.05 * max(peak for peak, _, _ in done))
        axes.set_ylim(bottom=0)
        finish(axes, colours)
    return axes
