"""One chart: cells on rows, pairs in their borders, labels, transfers and the legend they ask for."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties

from dualpipe_sim.analysis.alltoall import collectives_word
from dualpipe_sim.base.arrays import BoolArray
from dualpipe_sim.pictures.palette import PAIR_BORDER, Theme
from dualpipe_sim.pictures.plot import legend
from dualpipe_sim.pictures.plot.artists import CellLabels, CellPolygons, Labels
from dualpipe_sim.pictures.plot.axis import band_axis, row_axis, time_axis
from dualpipe_sim.pictures.plot.cells import Cells
from dualpipe_sim.pictures.plot.content import Content, Look, Numbers
from dualpipe_sim.pictures.plot.cut import draw_break
from dualpipe_sim.pictures.plot.groups import MOST_VECTOR_CELLS, Group, InkTable, draw_groups, groups_of, idle_groups
from dualpipe_sim.pictures.plot.lane_artists import draw_lanes
from dualpipe_sim.pictures.plot.marks import above_pt, dimension, mark_terms
from dualpipe_sim.pictures.plot.path import draw_path, path_samples
from dualpipe_sim.pictures.plot.style import PAIR_BORDER_PT
from dualpipe_sim.pictures.plot.transfers import transfer_lines

_POINTS_PER_INCH = 72.0
_TITLE_SHARE = 1.1  # of an Axes' first width, before it is laid out, that it has for its title
_CHARACTER_EM = 0.55  # mean width of a character


def draw_chart(ax: Axes, content: Content, look: Look) -> None:
    """Draw one chart."""
    theme, window, bands = look.theme, content.window, content.bands(look)
    time_axis(ax, window.begin_s, window.end_s, theme, cut=window.cut, unitless=content.timeline.unitless)
    row_axis(ax, [f"rank {rank}" for rank in window.ranks.tolist()], theme)
    if look.transfers:
        for lines in transfer_lines(content, look):
            ax.add_collection(lines, autolim=False)
    ops = [*idle_groups(content.idle, theme), *groups_of(content.cells, content.shades, theme)]
    draw_groups(ax, ops, bands["ops"], content.narrow_s)
    if "copies" in bands:
        copies = list(groups_of(content.copies, content.shades, theme))
        draw_groups(ax, copies, bands["copies"], content.copies.boxes.narrow_s())
    if len(content.pairs.row):
        frames = CellPolygons(content.pairs, bands["ops"], content.narrow_s)
        frames.set_facecolor("none")
        frames.set_border(PAIR_BORDER, PAIR_BORDER_PT)
        frames.set_label("pairs")
        frames.set_rasterized(len(content.cells.kind) > MOST_VECTOR_CELLS)
        ax.add_collection(frames, autolim=False)
    ax.add_artist(_numbers(content, look))
    if content.lanes is not None:
        draw_lanes(ax, content.lanes, content.shades, look)
        word = collectives_word([content.timeline])
        band_axis(ax, len(window.ranks), {word if name == "all-to-all" else name: bands[name] for name in bands}, theme)
    if content.host is not None:
        draw_groups(ax, [Group("host", content.host, theme.faint_ink, theme.ground)], bands["host"], content.narrow_s)
    if content.path is not None:
        draw_path(ax, content.path, content, look)
    if content.once is not None and window.cut is not None:
        draw_break(ax, window.cut, theme, unitless=content.timeline.unitless)
        begin_s, end_s, repeats = content.once
        dimension(ax, begin_s, end_s, f"× {repeats:.1f}".removesuffix(".0"), theme.exposed)
    levels = mark_terms(ax, content, look, int(content.once is not None))
    ax.set_title(
        _in_lines(content.title, ax), loc="left", color=theme.ink, pad=above_pt(levels) + 2 if levels else None
    )
    _shade_after_end(ax, content.timeline.makespan_s, window.end_s, theme)


def _in_lines(title: str, ax: Axes) -> str:
    """Return a title in as many lines as its Axes' width asks for."""
    points = FontProperties(size=mpl.rcParams["axes.titlesize"]).get_size_in_points()
    width_pt = ax.bbox.width / ax.figure.dpi * _POINTS_PER_INCH * _TITLE_SHARE
    return "\n".join(textwrap.wrap(title, max(20, int(width_pt / (_CHARACTER_EM * points))))) if title else title


def legend_handles(contents: Sequence[Content], look: Look, *, sums: bool) -> Iterator[Artist]:
    """Yield a sample of everything that charts show, and of nothing else, nor of what sums beside them show."""
    theme, most = look.theme, max(content.shades for content in contents)
    cut = [content.timeline.graph.schedule.vocabulary for content in contents]
    yield from legend.kind_swatches(_kinds_in_colour(contents), most, theme, [way for way in cut if way] or [None])
    if any(len(content.pairs.row) for content in contents):
        yield legend.pair_swatch(most, theme)
    if look.lanes:
        word = collectives_word(content.timeline for content in contents)
        yield from legend.alltoall_swatches(word, theme, _alltoalls(contents))
    if not all(content.cells.in_colour.all() for content in contents):
        yield legend.faded_swatch(theme)
    if not (sums and look.causes):
        causes = list(dict.fromkeys(cause for content in contents for cause in content.idle))
        yield from legend.idle_swatches(causes, theme)
    if any(content.host is not None for content in contents):
        yield legend.host_swatch(theme)
    placements = [content.timeline.graph.schedule.placement for content in contents if content.shades > 1]
    yield from legend.shade_swatches(placements, most, theme, numbered=look.numbers == "auto")
    if look.transfers:
        yield from legend.transfer_lines(theme)
    if not sums:
        samples = {str(one.get_label()): one for content in contents for one in path_samples(content, theme)}
        yield from samples.values()


def _alltoalls(contents: Sequence[Content]) -> tuple[bool, bool]:
    """Return whether any all-to-all is hidden, and whether any is exposed."""
    lanes = [content.lanes for content in contents if content.lanes is not None]
    hidden = any(bool((one.in_colour & ~one.exposed).any()) for one in lanes)
    return hidden, any(bool((one.in_colour & one.exposed).any()) for one in lanes)


def _kinds_in_colour(contents: Sequence[Content]) -> set[int]:
    shown = [cells for content in contents for cells in (content.cells, content.copies)]
    shown += [content.lanes.compute for content in contents if content.lanes is not None]
    return {kind for cells in shown for kind in np.unique(cells.kind[cells.in_colour]).tolist()}


def _numbers(content: Content, look: Look) -> CellLabels:
    """Return the micro-batches' numbers on their cells."""
    cells = content.cells.where(_numbered(content.cells, look.numbers) & content.cells.in_colour)
    inks = InkTable(content.shades, look.theme)
    schedule = content.timeline.graph.schedule
    texts = [schedule.number_of(unit) for unit in range(int(cells.unit.max(initial=-1)) + 1)]
    labels = Labels(texts, cells.unit, inks.inks, inks.of(cells))
    return CellLabels(cells.boxes, content.bands(look)["ops"], labels, alike=True)


def _numbered(cells: Cells, numbers: Numbers) -> BoolArray:
    by_choice: dict[Numbers, BoolArray] = {"auto": cells.pipe == 0, "all": cells.pipe >= 0, "none": cells.pipe < 0}
    return by_choice[numbers]


def _shade_after_end(ax: Axes, makespan_s: float, until_s: float, theme: Theme) -> None:
    if makespan_s < until_s:
        ax.axvspan(makespan_s, until_s, color=theme.over, linewidth=0, zorder=0.8)
        ax.axvline(makespan_s, color=theme.faint_ink, linewidth=0.8, zorder=0.8)
