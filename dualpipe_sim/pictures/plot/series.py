"""What charts of numbers share: a look for each series, the line of those that none beats, the frame and the legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from matplotlib.axes import Axes

from dualpipe_sim.pictures.palette import SERIES, Theme

Spot: TypeAlias = tuple[float, float]

_MARKERS = "osD^vP*X<>hp"


def marker(place: int, theme: Theme) -> dict[str, Any]:
    """Return what tells a series from the others: a marker and a colour of its own."""
    return {
        "marker": _MARKERS[place % len(_MARKERS)],
        "color": SERIES[place % len(SERIES)],
        "markeredgecolor": theme.ink,
        "zorder": 3,
    }


def draw_front(ax: Axes, spots: Sequence[Spot], theme: Theme) -> None:
    """Join the spots that no other beats in both, where less is better."""
    ax.step(*zip(*_front(spots), strict=True), where="post", color=theme.faint_ink, linewidth=1, zorder=1)


def finish(ax: Axes, theme: Theme) -> None:
    """Lay a grid below all series, open the frame at the top and the right, and put the legend beside it."""
    ax.grid(color=theme.row_line)
    ax.set_axisbelow(True)
    ax.tick_params(colors=theme.ink)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, labelcolor=theme.ink)


def _front(spots: Sequence[Spot]) -> list[Spot]:
    """Return the spots that no other beats in both (the Pareto front), in ascending order of the first number."""
    front: list[Spot] = []
    for x, y in sorted(spots):
        if not front or y < front[-1][1]:
            front.append((x, y))
    return front
