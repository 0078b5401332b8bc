"""Memory of one rank over time, stacked by what it is used for, below the line of what its GPU has."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from dualpipe_sim.analysis.memory import COMPONENTS, Memory
from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.base.units import GB, format_time, in_gb
from dualpipe_sim.pictures.palette import MEMORY_FILLS, Theme, ThemeName
from dualpipe_sim.pictures.plot.axis import time_axis
from dualpipe_sim.pictures.plot.files import new_axes
from dualpipe_sim.pictures.plot.legend import add_legend
from dualpipe_sim.pictures.plot.style import style_around, theme_named

_ROOM_ABOVE = 1.12
_SIZE_IN = (10.0, 5.0)


def memory_stack(
    memory: Memory, rank: int | None = None, ax: Axes | None = None, *, title: str = "", theme: ThemeName = "light"
) -> Axes:
    """Draw what a rank's memory is used for over time, stacked, its peak marked.

    >>> from dualpipe_sim import simulate
    >>> axes = memory_stack(simulate("deepseek_v3_pair").memory, rank=0, title="DualPipe")
    >>> axes.get_title(loc="left").partition(",")[0]
    'DualPipe: rank 0'

    Args:
        memory: the memory of every rank.
        rank: the rank to draw; None for the fullest.
        ax: where to draw it; a new figure if there is none.
        title: what to say before the rank and its peak, such as the schedule.
        theme: "light" or "dark".

    Raises:
        UserError: there is no such rank, or another word for ``theme``.

    """
    colours = theme_named(theme)
    rank = memory.fullest_rank if rank is None else rank
    time_s, size_bytes = memory.over_time(rank)
    time_s, size_bytes = np.append(time_s, memory.makespan_s), np.append(size_bytes, size_bytes[-1:], axis=0)
    with style_around(ax, colours):
        ax = ax or new_axes(_SIZE_IN)
        levels = np.cumsum(size_bytes / GB, axis=1)
        below = np.zeros(len(levels))
        for name, level in zip(COMPONENTS, levels.T, strict=True):
            ax.fill_between(time_s, below, level, step="post", facecolor=MEMORY_FILLS[name], linewidth=0, label=name)
            below = level
        _limit(ax, memory, time_s, below, colours)
        _peak(ax, memory, rank, colours)
        time_axis(ax, 0.0, memory.makespan_s, colours)
        ax.set_ylabel("memory (GB)")
        ax.set_ylim(0, _ROOM_ABOVE * max(float(below.max()), memory.gpu_bytes / GB))
        ax.set_title(f"{title}{': ' if title else ''}rank {rank}, {_left(memory, rank)}", loc="left")
        ax.spines[["top", "right"]].set_visible(False)
        samples = [Patch(facecolor=MEMORY_FILLS[name], label=name) for name in COMPONENTS]
        limit = Line2D([], [], color=colours.limit, linestyle="--", label=f"GPU, {in_gb(memory.gpu_bytes)} GB")
        add_legend(ax, [*samples[::-1], limit], _SIZE_IN[0] - 1, colours)
    return ax


def _limit(ax: Axes, memory: Memory, time_s: FloatArray, total_gb: FloatArray, colours: Theme) -> None:
    """Draw what the GPU has, and hatch what is beyond it."""
    limit_gb = memory.gpu_bytes / GB
    beyond = np.maximum(total_gb, limit_gb)
    if beyond.max() > limit_gb:
        area = ax.fill_between(time_s, limit_gb, beyond, step="post", facecolor="none", edgecolor=colours.limit)
        area.set(hatch="////", linewidth=0)
    ax.axhline(limit_gb, color=colours.limit, linestyle="--", linewidth=1.2)


def _peak(ax: Axes, memory: Memory, rank: int, colours: Theme) -> None:
    moment = int(memory.peak_by_rank[rank])
    at_s, peak_gb = float(memory.time_s[moment]), float(memory.peak_bytes_by_rank[rank]) / GB
    ax.plot([at_s], [peak_gb], marker="v", color=colours.ink, markersize=5, linestyle="none")
    late = at_s > memory.makespan_s / 2
    ax.annotate(
        f"peak {peak_gb:,.1f} GB at {format_time(at_s)}",
        (at_s, peak_gb),
        xytext=(-7 if late else 7, 4),
        textcoords="offset points",
        ha="right" if late else "left",
        color=colours.ink,
    )


def _left(memory: Memory, rank: int) -> str:
    left_bytes = memory.gpu_bytes - int(memory.peak_bytes_by_rank[rank])
    if left_bytes < 0:
        return f"{in_gb(-left_bytes)} GB more than its GPU has"
    return f"{in_gb(left_bytes)} GB left at the peak"
