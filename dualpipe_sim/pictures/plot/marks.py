"""Marks on a chart that say how long something is: dimension lines above it, and where the fastest run ends."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from dualpipe_sim.base.units import format_seconds
from dualpipe_sim.pictures.palette import Colour, Theme
from dualpipe_sim.pictures.plot.content import Content

_POINTS_PER_INCH = 72.0
_LINE_PT = 0.9
_SAME = 1e-9  # share of a makespan that is no difference
DIMENSION_PT = 6.0
"""How far above the rows a dimension line lies."""


def dimension(ax: Axes, begin_s: float, end_s: float, text: str, colour: Colour) -> None:
    """Draw a dimension line just above an Axes' rows, from one time to another, with its text in the middle."""
    above = ScaledTranslation(0, DIMENSION_PT / _POINTS_PER_INCH, ax.figure.dpi_scale_trans)
    line = Line2D([begin_s, end_s], [1, 1], color=colour, linewidth=_LINE_PT, marker="|", markersize=7, clip_on=False)
    line.set_transform(ax.get_xaxis_transform() + above)
    line.set_label("dimension")
    ax.add_artist(line)
    ax.annotate(
        text,
        ((begin_s + end_s) / 2, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, DIMENSION_PT + 3),
        textcoords="offset points",
        ha="center",
        va="bottom",
        color=colour,
        annotation_clip=False,
    )


def mark_fastest(axes: Sequence[Axes], contents: Sequence[Content], fastest: Content, theme: Theme) -> None:
    """Draw the fastest run's end through all charts, and how much longer than that each other run takes."""
    first_s = fastest.timeline.makespan_s
    if not fastest.window.begin_s < first_s <= fastest.window.end_s:
        return
    for ax, content in zip(axes, contents, strict=True):
        ax.axvline(first_s, color=theme.exposed, linewidth=1.6, linestyle=(0, (4, 2)), zorder=5, label="fastest")
        longer_s = content.timeline.makespan_s - first_s
        if abs(longer_s) < _SAME * first_s:
            continue
        sign = "+" if longer_s > 0 else "\N{MINUS SIGN}"
        apart = format_seconds(abs(longer_s), 3, unitless=content.timeline.unitless)
        text = f"{sign}{apart} ({sign}{abs(longer_s) / first_s:.1%})".replace("%", " %") + _more(content, fastest)
        begin_s, end_s = sorted((first_s, content.timeline.makespan_s))
        dimension(ax, begin_s, min(end_s, content.window.end_s), text, theme.exposed)


def _more(content: Content, fastest: Content) -> str:
    """Say how many micro-batches more a run has than the fastest, or nothing."""
    more = content.timeline.graph.schedule.micro_batches - fastest.timeline.graph.schedule.micro_batches
    return f", {abs(more)} micro-batches {'more' if more > 0 else 'less'}" if more else ""
