"""Marks on a chart that say how long something is: dimension lines above it, and where the fastest run ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from dualpipe_sim.base.units import format_time
from dualpipe_sim.pictures.palette import Colour, Theme
from dualpipe_sim.pictures.plot.artists import outlines
from dualpipe_sim.pictures.plot.cells import Boxes
from dualpipe_sim.pictures.plot.content import Content, Look

_POINTS_PER_INCH = 72.0
_LINE_PT, _FRAME_PT = 0.9, 1.4
_CHARACTER_EM = 0.65  # width of a character, and room beside it
_SAME = 1e-9  # share of a makespan that is no difference
_FIRST_PT, _LEVEL_EM = 6.0, 1.8  # how far above the rows the first dimension line lies, and above it the next one


def above_pt(levels: int) -> float:
    """Return how far above the rows that many dimension lines reach, one above the other."""
    text_pt = FontProperties(size=mpl.rcParams["font.size"]).get_size_in_points()
    return _FIRST_PT + levels * _LEVEL_EM * text_pt


def dimension(ax: Axes, begin_s: float, end_s: float, text: str, colour: Colour, level: int = 0) -> None:
    """Draw a dimension line above an Axes' rows, from one time to another, with its text in the middle."""
    up_pt = above_pt(level)
    above = ScaledTranslation(0, up_pt / _POINTS_PER_INCH, ax.figure.dpi_scale_trans)
    line = Line2D([begin_s, end_s], [1, 1], color=colour, linewidth=_LINE_PT, marker="|", markersize=7, clip_on=False)
    line.set_transform(ax.get_xaxis_transform() + above)
    line.set_label("dimension")
    ax.add_artist(line)
    ax.annotate(
        text,
        ((begin_s + end_s) / 2, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, up_pt + 3),
        textcoords="offset points",
        ha="center",
        va="bottom",
        color=colour,
        annotation_clip=False,
    )


def mark_terms(ax: Axes, content: Content, look: Look, levels: int) -> int:
    """Mark the waits that a bubble is made of in their rank's row, and write how long those of each term are above.

    Dimension lines begin above so many levels that are taken; returned is how many are taken then.
    """
    theme, lowest, until_pt = look.theme, levels, -np.inf
    for term in content.terms:
        row = int(content.window.row_of_rank[term.rank])
        waits = np.array(term.waits_s)
        boxes, _ = Boxes(np.full(len(waits), row), waits[:, 0], waits[:, 1]).seen_in(content.window)
        if not len(boxes.row):
            continue
        paths = outlines(boxes, content.bands(look)["ops"])
        framed = PathCollection(paths, facecolors="none", edgecolors=theme.exposed, linewidths=_FRAME_PT, zorder=5)
        framed.set_label(f"term: {term.words}")
        ax.add_collection(framed, autolim=False)
        ends_s = float(boxes.begin_s[0]), float(boxes.end_s[-1])
        text = f"{term.words}: {term.text}"
        left_pt, right_pt = _reach_pt(ax, ends_s, text)
        level = lowest + (left_pt < until_pt)  # beside the one before, where that leaves it room
        until_pt = right_pt if level == lowest else until_pt
        levels = max(levels, level + 1)
        dimension(ax, *ends_s, text, theme.exposed, level)
        down: Any = {"color": theme.exposed, "linewidth": 0.6, "linestyle": (0, (1, 2)), "zorder": 5, "label": "leader"}
        for end_s in ends_s:
            ax.plot([end_s, end_s], [-0.5, row - 0.5], **down)
    return levels


def _reach_pt(ax: Axes, ends_s: tuple[float, float], text: str) -> tuple[float, float]:
    """Return from where to where a dimension line and its text reach, before the Axes is laid out."""
    pixels = ax.transData.transform([(end_s, 0) for end_s in ends_s])[:, 0]
    left_pt, right_pt = pixels * _POINTS_PER_INCH / ax.figure.dpi
    half_pt = _CHARACTER_EM * len(text) * FontProperties(size=mpl.rcParams["font.size"]).get_size_in_points() / 2
    middle_pt = (left_pt + right_pt) / 2
    return min(left_pt, middle_pt - half_pt), max(right_pt, middle_pt + half_pt)


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
        apart = format_time(abs(longer_s), unitless=content.timeline.unitless)
        text = f"{sign}{apart} ({sign}{abs(longer_s) / first_s:.1%})".replace("%", " %") + _more(content, fastest)
        begin_s, end_s = sorted((first_s, content.timeline.makespan_s))
        dimension(ax, begin_s, min(end_s, content.window.end_s), text, theme.exposed)


def _more(content: Content, fastest: Content) -> str:
    """Say how many whole micro-batches more a run has than the fastest, or nothing."""
    orders = [one.timeline.graph.schedule for one in (content, fastest)]
    here, there = (order.micro_batches * order.micro_batch_share for order in orders)
    return f", {abs(here - there):g} micro-batches {'more' if here > there else 'less'}" if here != there else ""
