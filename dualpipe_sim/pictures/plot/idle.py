"""Why ranks are idle: a bar a rank, stacked by cause."""

from __future__ import annotations

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dualpipe_sim.analysis.metrics import idle_s, idle_s_by_cause
from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.base.units import TimeUnit, fitting_unit
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.pictures.palette import CAUSE_STYLES, SERIES, CauseStyle, Theme, ThemeName
from dualpipe_sim.pictures.plot.axis import figure_size, row_axis
from dualpipe_sim.pictures.plot.files import new_axes
from dualpipe_sim.pictures.plot.legend import Swatch, add_legend
from dualpipe_sim.pictures.plot.style import style_around, theme_named

_BAR = 0.72
_ROW_IN = (0.22, 0.42)
_WIDTH_IN = 9.0


def idle_by_cause(timeline: Timeline, ax: Axes | None = None, *, theme: ThemeName = "light") -> Axes:
    """Draw the idle seconds of each rank by cause, rank 0 on top, with their share of the makespan.

    >>> from dualpipe_sim import simulate
    >>> axes = idle_by_cause(simulate("figure5").played)
    >>> axes.get_legend_handles_labels()[1]
    ['warm_up', 'waiting']

    Args:
        timeline: whose idle time.
        ax: where to draw it; a new figure of a fitting size if there is none.
        theme: "light" or "dark".

    Raises:
        UserError: another word for ``theme``.

    """
    colours = theme_named(theme)
    causes = {cause: seconds for cause, seconds in idle_s_by_cause(timeline).items() if seconds.any()}
    total_s = idle_s(timeline)
    size = figure_size(1, timeline.ranks, 1, _ROW_IN, 1)
    with style_around(ax, colours):
        ax = ax or new_axes((_WIDTH_IN, size.height_in))
        _amount_axis(ax, float(total_s.max()), colours, unitless=timeline.unitless)
        row_axis(ax, [f"rank {rank}" for rank in range(timeline.ranks)], colours)
        ax.set_title(f"{timeline.graph.schedule.name or 'schedule'}: idle time by cause", loc="left", color=colours.ink)
        before_s = np.zeros(timeline.ranks)
        samples: list[Artist] = []
        for place, (cause, seconds) in enumerate(causes.items()):
            look = cause_style(cause, place)
            ax.barh(np.arange(timeline.ranks), seconds, _BAR, left=before_s, color=look.fill, linewidth=0, label=cause)
            before_s += seconds
            samples.append(Swatch(look.words, [look.fill], look.fill))
        _write_shares(ax, total_s, timeline.makespan_s, colours)
        if samples:
            add_legend(ax, samples, _WIDTH_IN - 1, colours)
    return ax


def cause_style(cause: str, place: int) -> CauseStyle:
    """Return how a cause is drawn; one that has no style of its own is called by its key."""
    return CAUSE_STYLES.get(cause, CauseStyle(cause.replace("_", " "), SERIES[place % len(SERIES)]))


def _amount_axis(ax: Axes, longest_s: float, theme: Theme, *, unitless: bool) -> None:
    unit: TimeUnit = fitting_unit(longest_s, unitless=unitless)
    ax.set_xlim(0, 1.02 * longest_s or 1.0)
    ax.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds / unit.seconds:.10g}"))
    ax.set_xlabel(f"idle time ({unit.name or 'units'}), and its share of the makespan", color=theme.ink)
    ax.tick_params(axis="x", colors=theme.ink)
    ax.grid(axis="x", color=theme.row_line, linewidth=0.8)
    ax.set_axisbelow(True)


def _write_shares(ax: Axes, idle: FloatArray, makespan_s: float, theme: Theme) -> None:
    """Write each rank's share of the makespan that it is idle at the right of its bar."""
    for rank, seconds in enumerate(idle.tolist()):
        share = f"{100 * seconds / makespan_s:.1f} %" if makespan_s else ""
        ax.annotate(
            share,
            (seconds, rank),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=theme.ink,
            size="small",
            annotation_clip=False,
        )
