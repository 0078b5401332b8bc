"""Gantt charts of timelines: a row a rank, rank 0 on top, time to the right.

Drawn as figure 5 of the DeepSeek-V3 report (https://arxiv.org/abs/2412.19437): cells of a grid, coloured by kind,
an overlapped pair in a shared black border, the first pipe's micro-batches numbered, the others' left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, get_args

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dualpipe_sim.errors import UserError, did_you_mean
from dualpipe_sim.metrics import bubble_ratio
from dualpipe_sim.plot.axis import FigureSize, figure_size, format_time
from dualpipe_sim.plot.chart import Content, Look, Numbers, content_of, draw_chart, legend_handles
from dualpipe_sim.plot.files import Chart, ChartAxes
from dualpipe_sim.plot.legend import add_legend
from dualpipe_sim.plot.style import light_style
from dualpipe_sim.timeline import Timeline


def gantt(
    timeline: Timeline,
    ax: Axes | None = None,
    *,
    transfers: bool = False,
    numbers: Numbers = "auto",
    title: str | None = None,
) -> Axes:
    """Draw a timeline as a Gantt chart.

    Args:
        timeline: what to draw.
        ax: where to draw it; a new figure of a fitting size if there is none.
        transfers: whether to draw what ranks send each other as thin lines between their rows.
        numbers: whose micro-batch numbers show where they fit: the first pipe's ("auto"), "all", or "none".
        title: the title; None for the schedule, its sizes, its bubble ratio and makespan.

    Raises:
        UserError: another word for ``numbers``.

    """
    look = _look(transfers=transfers, numbers=numbers)
    content = content_of(timeline, _title(timeline.graph.schedule.name, timeline) if title is None else title)
    size = _size([content], look)
    room_in = _legend_in(size) if ax is None else ax.bbox.width / ax.figure.dpi
    with light_style(size.text_scale) if ax is None else nullcontext():
        if ax is None:
            ax = _figure(size).add_subplot(axes_class=ChartAxes)
        draw_chart(ax, content, timeline.makespan_s, look)
        add_legend(ax, list(legend_handles([content], look)), room_in)
    return ax


def compare_gantt(
    timelines: Mapping[str, Timeline],
    *,
    transfers: bool = False,
    numbers: Numbers = "auto",
    title: str | None = None,
) -> Figure:
    """Draw several timelines as Gantt charts below each other, on one time axis.

    Args:
        timelines: what to draw, by what each is called.
        transfers: as for :func:`gantt`.
        numbers: as for :func:`gantt`.
        title: a title above all charts.

    Raises:
        UserError: no timelines, or another word for ``numbers``.

    """
    look = _look(transfers=transfers, numbers=numbers)
    if not timelines:
        raise UserError("there is no timeline to compare; give at least one")
    contents = [content_of(timeline, _title(label, timeline)) for label, timeline in timelines.items()]
    size = _size(contents, look)
    with light_style(size.text_scale):
        figure = _figure(size)
        axes = _stacked(figure, [content.timeline.ranks for content in contents])
        for ax, content in zip(axes, contents, strict=True):
            draw_chart(ax, content, _end_s(contents), look)
            ax.label_outer()
        add_legend(axes[-1], list(legend_handles(contents, look)), _legend_in(size))
        if title is not None:
            figure.suptitle(title)
    return figure


def _look(*, transfers: bool, numbers: Numbers) -> Look:
    known = get_args(Numbers)
    if numbers not in known:
        raise UserError(f"numbers: {numbers!r} is not one of {', '.join(known)}{did_you_mean(str(numbers), known)}")
    return Look(transfers, numbers)


def _title(label: str, timeline: Timeline) -> str:
    schedule = timeline.graph.schedule
    sizes = f"{_count(schedule.ranks, 'rank', 's')} × {_count(schedule.micro_batches, 'micro-batch', 'es')}"
    bubble = f"bubble {100 * bubble_ratio(timeline):.1f} %"
    return f"{label or 'schedule'}: {sizes}, {bubble}, {format_time(timeline.makespan_s)}"


def _count(number: int, one: str, plural: str) -> str:
    return f"{number} {one if number == 1 else one + plural}"


def _end_s(contents: Sequence[Content]) -> float:
    return max(content.timeline.makespan_s for content in contents)


def _size(contents: Sequence[Content], look: Look) -> FigureSize:
    rows = sum(content.timeline.ranks for content in contents)
    narrow_s = min(content.narrow_s for content in contents)
    return figure_size(_end_s(contents), rows, len(contents), look.cell_height, narrow_s)


def _legend_in(size: FigureSize) -> float:
    """Width that the legend may take: that of the time axis, which stands right of the ranks' labels."""
    return size.width_in - size.text_scale


def _figure(size: FigureSize) -> Figure:
    return Chart(figsize=(size.width_in, size.height_in), layout="constrained")


def _stacked(figure: Figure, heights: Sequence[int]) -> list[Axes]:
    axes: Any = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
    return list(axes[:, 0])
