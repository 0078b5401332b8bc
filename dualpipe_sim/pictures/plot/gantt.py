"""Gantt charts of timelines: a row a rank, rank 0 on top, time to the right.

Drawn as figure 5 of the DeepSeek-V3 report (https://arxiv.org/abs/2412.19437): cells of a grid, coloured by kind,
an overlapped pair in a shared black border, the first pipe's micro-batches numbered, the others' left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dualpipe_sim.analysis.alltoall import has_alltoall
from dualpipe_sim.analysis.memory import DOES_NOT_FIT, Memory
from dualpipe_sim.analysis.metrics import bubble_ratio
from dualpipe_sim.analysis.repeating import repeating
from dualpipe_sim.base.units import format_time, in_gb
from dualpipe_sim.errors import UserError, did_you_mean
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.pictures.palette import PaletteName, Theme, ThemeName
from dualpipe_sim.pictures.plot.axis import FigureSize, figure_size
from dualpipe_sim.pictures.plot.beside import BANDS_IN, SUMS_IN, Sums, add_sums, leave_room, path_of, time_of
from dualpipe_sim.pictures.plot.chart import draw_chart, legend_handles
from dualpipe_sim.pictures.plot.content import Content, Look, Numbers, Term, content_of
from dualpipe_sim.pictures.plot.cut import ends_of
from dualpipe_sim.pictures.plot.files import Chart, new_axes
from dualpipe_sim.pictures.plot.legend import add_legend
from dualpipe_sim.pictures.plot.marks import mark_fastest
from dualpipe_sim.pictures.plot.paper import Paper, Size, paper_of
from dualpipe_sim.pictures.plot.style import style, style_around, theme_named
from dualpipe_sim.pictures.plot.window import Window, Zoom, window_on, zoom_to

_WIDE_IN = 9.0  # a figure of a given width has room for sums beside its charts


def gantt(  # noqa: PLR0913 - each is one choice about the chart
    timeline: Timeline,
    ax: Axes | None = None,
    *,
    ranks: Iterable[int] | None = None,
    from_s: float | None = None,
    to_s: float | None = None,
    zoom: Literal["ends"] | None = None,
    micro_batches: Iterable[int] | None = None,
    lanes: bool | None = None,
    host: bool = False,
    transfers: bool = False,
    numbers: Numbers = "auto",
    causes: bool | None = None,
    critical_path: bool = False,
    terms: Sequence[Term] = (),
    title: str | None = None,
    memory: Memory | None = None,
    size: Size | None = None,
    font_size: float | None = None,
    font: str | None = None,
    legend: bool = True,
    palette: PaletteName = "deepseek",
    theme: ThemeName = "light",
) -> Axes:
    """Draw a timeline as a Gantt chart.

    >>> from dualpipe_sim import simulate
    >>> axes = gantt(simulate("figure5").played, ranks=[0, 1], to_s=20)
    >>> [round(limit) for limit in axes.get_xlim()]
    [0, 20]

    Args:
        timeline: what to draw.
        ax: where to draw it; a new figure of a fitting size if there is none.
        ranks: ranks to show; None for all.
        from_s: where the time axis begins; None for the start, or for the first of the micro-batches asked for.
        to_s: where it ends; None for the end of the run, or of the micro-batches asked for.
        zoom: "ends" for warm-up and drain with what repeats between them shown once, the rest cut out of the time axis;
            where nothing does, a warning says so and all is drawn. None for no cut.
        micro_batches: micro-batches, counted in their pipe, to show in colour, others grey; None for all.
        lanes: whether a rank's row shows its compute and its all-to-all lane below its ops; None where there is
            all-to-all.
        host: whether a thin lane below says when the rank's host issued each op, where costs know that.
        transfers: whether to draw what ranks send each other as thin lines between their rows.
        numbers: whose micro-batch numbers show where they fit: the first pipe's ("auto"), "all", or "none".
        causes: whether idle time is coloured by its cause; None where it can be summed beside the chart, too: in a
            figure of its own that is wide enough, and in colour.
        critical_path: whether to draw the chain of waits that the run is as long as, in the colours of what its time is
            spent on, which is summed up beside the chart.
        terms: of the bubble, to be marked on the chart; :meth:`dualpipe_sim.why.Why.gantt` has them.
        title: the title; None for the schedule, its sizes, its bubble ratio and makespan, and its peak memory.
        memory: what the ranks hold, where it is known.
        size: of the figure: "single-column", "double-column", "6x4" (inches), "16x9cm" or (width, height) in inches;
            None for one that fits. It does not count where there is an ``ax``.
        font_size: of text, in points; None for one that goes with the size.
        font: family of the font.
        legend: whether to say what colours mean.
        palette: colours of kinds: "deepseek" as in its report's figures, "okabe-ito" or "grey".
        theme: "light" or "dark".

    Raises:
        UserError: another word for ``numbers``, ``palette`` or ``theme``, a size or a font that cannot be, ranks or
            micro-batches that there are not, or a span of time that is empty or outside the run.

    """
    shown = zoom_to(ranks, from_s, to_s, micro_batches, zoom)
    paper = paper_of(size, font_size, font, legend=legend)
    look = _look([timeline], theme=theme_named(theme, palette), transfers=transfers, numbers=numbers, lanes=lanes)
    roomy = ax is None and _roomy(paper)
    look = look._replace(host=host, causes=roomy and palette != "grey" if causes is None else causes)
    look = look._replace(critical_path=critical_path)
    label = _title(timeline.graph.schedule.name, timeline, memory) if title is None else title
    (content,) = _contents([(label, timeline)], [window_on(timeline, shown)], shown, look)
    content = content._replace(terms=tuple(terms))
    several = _sums(content, look) if roomy else []
    fitting = _size([content], look, paper, beside=bool(several))
    room_in = fitting.chart_in if ax is None else ax.bbox.width / ax.figure.dpi
    with style_around(ax, look.theme, fitting.text_scale, paper):
        ax = ax or new_axes((fitting.width_in, fitting.height_in), exact=paper.width_in is not None)
        draw_chart(ax, content, look)
        if paper.legend:
            add_legend(ax, list(legend_handles([content], look, sums=bool(several))), room_in, look.theme)
        if several:
            leave_room(ax.figure, fitting)
            add_sums(ax, several, look.theme, bands=look.in_bands)
    return ax


def compare_gantt(  # noqa: PLR0913 - each is one choice about the chart
    timelines: Mapping[str, Timeline],
    *,
    ranks: Iterable[int] | None = None,
    from_s: float | None = None,
    to_s: float | None = None,
    zoom: Literal["ends"] | None = None,
    micro_batches: Iterable[int] | None = None,
    lanes: bool | None = None,
    transfers: bool = False,
    numbers: Numbers = "auto",
    causes: bool | None = None,
    critical_path: bool = False,
    title: str | None = None,
    memories: Mapping[str, Memory | None] | None = None,
    size: Size | None = None,
    font_size: float | None = None,
    font: str | None = None,
    legend: bool = True,
    palette: PaletteName = "deepseek",
    theme: ThemeName = "light",
) -> Figure:
    """Draw several timelines as Gantt charts below each other, on one time axis.

    >>> from dualpipe_sim import simulate
    >>> timelines = {name: simulate("figure5", schedule=name).played for name in ("1f1b", "dualpipe")}
    >>> len(compare_gantt(timelines).axes)
    2

    Args:
        timelines: what to draw, by what each is called.
        ranks: as for :func:`gantt`, of every timeline.
        from_s: as for :func:`gantt`.
        to_s: as for :func:`gantt`; None for the end of the longest run.
        zoom: as for :func:`gantt`: the same stretch is cut out of all, where all repeat.
        micro_batches: as for :func:`gantt`.
        lanes: as for :func:`gantt`; None where any timeline has all-to-all.
        transfers: as for :func:`gantt`.
        numbers: as for :func:`gantt`.
        causes: as for :func:`gantt`.
        critical_path: as for :func:`gantt`, of every timeline.
        title: a title above all charts.
        memories: what the ranks hold, where it is known, by the timelines' names.
        size: as for :func:`gantt`.
        font_size: as for :func:`gantt`.
        font: as for :func:`gantt`.
        legend: as for :func:`gantt`.
        palette: as for :func:`gantt`.
        theme: as for :func:`gantt`.

    Raises:
        UserError: no timelines, or as for :func:`gantt`.

    """
    if not timelines:
        raise UserError("there is no timeline to compare; give at least one")
    shown = zoom_to(ranks, from_s, to_s, micro_batches, zoom)
    paper, colours = paper_of(size, font_size, font, legend=legend), theme_named(theme, palette)
    look = _look(timelines.values(), theme=colours, transfers=transfers, numbers=numbers, lanes=lanes)
    roomy = _roomy(paper)
    look = look._replace(causes=roomy and palette != "grey" if causes is None else causes)
    look = look._replace(critical_path=critical_path)
    contents = _on_one_axis(timelines, memories or {}, shown, look)
    several = [_sums(content, look) if roomy else [] for content in contents]
    fitting = _size(contents, look, paper, beside=any(several))
    with style(look.theme, fitting.text_scale, paper):
        figure = Chart(figsize=(fitting.width_in, fitting.height_in), layout="constrained")
        figure.exact = paper.width_in is not None
        axes = _stacked(figure, [len(content.window.ranks) for content in contents])
        leave_room(figure, fitting)
        for ax, content, sums in zip(axes, contents, several, strict=True):
            draw_chart(ax, content, look)
            ax.label_outer()
            if sums:
                add_sums(ax, sums, look.theme, bands=look.in_bands)
        if len(contents) > 1:
            mark_fastest(axes, contents, contents[_fastest(timelines, memories or {})], look.theme)
        if paper.legend:
            handles = list(legend_handles(contents, look, sums=any(several)))
            add_legend(axes[-1], handles, fitting.chart_in, look.theme)
        if title is not None:
            figure.suptitle(title)
    return figure


def _look(
    timelines: Iterable[Timeline], *, theme: Theme, transfers: bool, numbers: Numbers, lanes: bool | None
) -> Look:
    known = get_args(Numbers)
    if numbers not in known:
        raise UserError(f"numbers: {numbers!r} is not one of {', '.join(known)}{did_you_mean(str(numbers), known)}")
    shows_lanes = any(map(has_alltoall, timelines)) if lanes is None else lanes
    return Look(theme, transfers, numbers, shows_lanes)


def _title(label: str, timeline: Timeline, memory: Memory | None) -> str:
    schedule = timeline.graph.schedule
    size, bubble = schedule.size, f"bubble {100 * bubble_ratio(timeline):.1f} %"
    said = f"{label or 'schedule'}: {size}, {bubble}, {format_time(timeline.makespan_s, unitless=timeline.unitless)}"
    if memory is None:
        return said
    full = "" if memory.fits or DOES_NOT_FIT in label else f"{DOES_NOT_FIT}: "
    return f"{said}, {full}peak {in_gb(memory.peak_bytes_by_rank.max())} of {in_gb(memory.gpu_bytes)} GB"


def _on_one_axis(
    timelines: Mapping[str, Timeline], memories: Mapping[str, Memory | None], zoom: Zoom, look: Look
) -> list[Content]:
    """Return what charts of several timelines show, all over the same time."""
    until_s = max(timeline.makespan_s for timeline in timelines.values())
    windows = [window_on(timeline, zoom, until_s) for timeline in timelines.values()]
    begin_s, end_s = min(window.begin_s for window in windows), max(window.end_s for window in windows)
    titled = [(_title(label, timeline, memories.get(label)), timeline) for label, timeline in timelines.items()]
    return _contents(titled, [window._replace(begin_s=begin_s, end_s=end_s) for window in windows], zoom, look)


def _contents(
    titled: Sequence[tuple[str, Timeline]], windows: Sequence[Window], zoom: Zoom, look: Look
) -> list[Content]:
    """Return what charts show, with what repeats in all of them shown once where that is asked for."""
    ends = ends_of([timeline for _, timeline in titled], windows[0].length_s) if zoom.ends else None
    if zoom.ends and ends is None:
        warnings.warn(f"zoom: {_no_middle(titled)}, so the whole is drawn", stacklevel=4)
    if ends is not None:
        windows = [window._replace(cut=ends.cut) for window in windows]
    contents = [
        content_of(timeline, title, window, look) for (title, timeline), window in zip(titled, windows, strict=True)
    ]
    if ends is None:
        return contents
    return [content._replace(once=once) for content, once in zip(contents, ends.once(), strict=True)]


def _no_middle(titled: Sequence[tuple[str, Timeline]]) -> str:
    names = [timeline.graph.schedule.name for _, timeline in titled if repeating(timeline) is None]
    if names:
        return f"no middle of {' and '.join(names)} repeats on every rank"
    return "these runs have no middle in common that repeats"


def _fastest(timelines: Mapping[str, Timeline], memories: Mapping[str, Memory | None]) -> int:
    """Return the place of the shortest run among those that fit, or among all where none does."""
    fits = [one is None or one.fits for one in map(memories.get, timelines)]
    makespans_s = [timeline.makespan_s for timeline in timelines.values()]
    return min(range(len(fits)), key=lambda place: (not fits[place], makespans_s[place]))


def _roomy(paper: Paper) -> bool:
    """Return whether a page is wide enough for sums beside its charts, and says what colours mean."""
    return paper.legend and (paper.width_in is None or paper.width_in >= _WIDE_IN)


def _sums(content: Content, look: Look) -> list[Sums]:
    """Return what is to be summed beside a chart."""
    timeline, path = content.timeline, content.path
    if not timeline.makespan_s:
        return []
    time = [time_of(timeline, look.theme)] if look.causes else []
    return time if path is None else [*time, path_of(path, look.theme, unitless=timeline.unitless)]


def _size(contents: Sequence[Content], look: Look, paper: Paper, *, beside: bool) -> FigureSize:
    rows = sum(len(content.window.ranks) for content in contents)
    narrow_s = min(content.narrow_s for content in contents)
    beside_in = (SUMS_IN + BANDS_IN * look.in_bands) if beside else 0.0
    return figure_size(contents[0].window.length_s, rows, len(contents), look.row_in, narrow_s, paper, beside_in)


def _stacked(figure: Figure, heights: Sequence[int]) -> list[Axes]:
    axes: Any = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
    return list(axes[:, 0])
