"""What a plan found: step time against memory, and which of them no other beats in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from matplotlib.axes import Axes

from dualpipe_sim.base.units import GB, number_of
from dualpipe_sim.errors import UserError
from dualpipe_sim.pictures.palette import ThemeName
from dualpipe_sim.pictures.plot.files import new_axes
from dualpipe_sim.pictures.plot.series import Spot, draw_front, finish, marker
from dualpipe_sim.pictures.plot.style import style_around, theme_named

_SIZE_IN = (8.5, 4.8)


class Planned(Protocol):
    """What the chart needs to know of a plan."""

    @property
    def fitting(self) -> Sequence[Mapping[str, object]]:
        """Rows of all candidates that were run and fit."""
        ...

    @property
    def ranked(self) -> Sequence[Mapping[str, object]]:
        """The rows of the ranking, the best first."""
        ...

    @property
    def reasons(self) -> Mapping[str, int]:
        """How many candidates are ruled out, by reason."""
        ...

    @property
    def gpu_bytes(self) -> int:
        """Memory of a GPU."""
        ...


def plan_chart(plan: Planned, ax: Axes | None = None, *, theme: ThemeName = "light") -> Axes:
    """Draw every candidate that was run and fits: its step time against its fullest rank's peak memory, by schedule.

    A line joins those that no other beats in both, and a ring marks the first of the ranking. Candidates that are not
    run since they are surely slower are not there; their number is.

    >>> from dualpipe_sim.plan import plan
    >>> found = plan("plan_deepseek_v2_lite", settings=["plan={schedules: [1f1b, zb-h1]}"], confirm=0)
    >>> plan_chart(found).get_xlabel()
    'peak memory of the fullest rank (GB)'

    Raises:
        UserError: nothing fits.

    """
    rows = plan.fitting
    if not rows:
        raise UserError("there is nothing to draw: no candidate fits")
    colours = theme_named(theme)
    with style_around(ax, colours):
        axes = ax or new_axes(_SIZE_IN)
        axes.set_facecolor(colours.ground)
        by_schedule: dict[str, list[Spot]] = {}
        for row in rows:
            by_schedule.setdefault(str(row["schedule"]), []).append(_spot(row))
        draw_front(axes, [_spot(row) for row in rows], colours)
        for place, (schedule, of_it) in enumerate(sorted(by_schedule.items())):
            look = marker(place, colours) | {"markersize": 6, "markeredgewidth": 0.5}
            axes.plot(*zip(*of_it, strict=True), linestyle="none", label=schedule, **look)
        chosen = _spot(plan.ranked[0])
        axes.plot(
            *([value] for value in chosen),
            linestyle="none",
            marker="o",
            markersize=15,
            markerfacecolor="none",
            markeredgecolor=colours.ink,
            markeredgewidth=1.5,
            label="chosen",
            zorder=4,
        )
        axes.axvline(plan.gpu_bytes / GB, color=colours.ink, linewidth=1, linestyle="--", zorder=2)
        axes.annotate(
            "a GPU's memory", (plan.gpu_bytes / GB, 1), (-4, -4), ("data", "axes fraction"), "offset points",
            ha="right", va="top", rotation=90, color=colours.ink, fontsize="small",
        )  # fmt: skip
        axes.set(xlabel="peak memory of the fullest rank (GB)", ylabel="step time (s)")
        unseen = sum(plan.reasons.get(reason, 0) for reason in ("work", "bound"))
        axes.set_title(
            f"{number_of(len(rows), 'candidate')} that fit" + (f"; {unseen} more surely slower" if unseen else ""),
            loc="left", fontsize="medium", color=colours.ink,
        )  # fmt: skip
        finish(axes, colours)
    return axes


def _spot(row: Mapping[str, object]) -> Spot:
    return cast("float", row["peak_memory_bytes"]) / GB, cast("float", row["step_time_s"])
