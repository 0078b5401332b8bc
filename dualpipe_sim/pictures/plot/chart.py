"""One chart: cells on rows, pairs in their borders, labels, transfers and the legend they ask for.

A chart may have tens of thousands of cells, too many for an artist each. Cells of one look (kind, shade, in a pair or
not) are a :class:`Group` and one collection of polygons. The same cells are there once more as strips of mean colour;
polygons draw themselves where cells are wide enough, strips where they are not, and which it is they find out when they
are drawn, at any zoom.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.font_manager import FontProperties

from dualpipe_sim.analysis.alltoall import collectives_word
from dualpipe_sim.base.arrays import BoolArray, IntArray
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import B, F, Kind
from dualpipe_sim.pictures.op_boxes import shade_of_stage
from dualpipe_sim.pictures.palette import PAIR_BORDER, Colour, Theme, fill, ink_on, style_of
from dualpipe_sim.pictures.plot import legend
from dualpipe_sim.pictures.plot.artists import CellLabels, CellPolygons, Labels
from dualpipe_sim.pictures.plot.axis import band_axis, row_axis, time_axis
from dualpipe_sim.pictures.plot.cells import Band, Boxes, Cells, copy_cells, host_boxes, op_cells, pair_boxes
from dualpipe_sim.pictures.plot.lanes import LaneCells, lane_cells
from dualpipe_sim.pictures.plot.strips import CellStrips
from dualpipe_sim.pictures.plot.style import BORDER_PT, PAIR_BORDER_PT, TRANSFER_PT, TRANSFER_STYLES, line_of_kind
from dualpipe_sim.pictures.plot.window import Window

Numbers = Literal["auto", "all", "none"]
"""Which micro-batches are numbered where that fits: those of the first pipe, all, or none."""

_POINTS_PER_INCH = 72.0
_TITLE_SHARE = 1.1  # of an Axes' first width, before it is laid out, that it has for its title
_CHARACTER_EM = 0.55  # mean width of a character
_APART = 0.62  # share of a row that cells take where transfers show between rows
_NARROW_PERCENTILE = 25
_MOST_VECTOR_CELLS = 20_000  # with more, SVG and PDF hold cells as an image: quicker to make and to open
_OPS_ALONE = {"ops": Band(0.0, 1.0)}
_OPS_AND_LANES = {"ops": Band(-0.33, 0.26), "compute": Band(0.0, 0.36), "all-to-all": Band(0.33, 0.26)}
_HOST = 0.14  # share of a row that its host takes
_COPIES = 0.28  # share of the ops' band that copies to the host take
_OPS_ROW_IN, _LANES_ROW_IN = (0.32, 0.5), (0.62, 1.3)  # least and most height of a row


class Look(NamedTuple):
    """What callers choose about a chart.

    Attributes:
        theme: its colours.
        transfers: whether transfers show between rows.
        numbers: which micro-batches are numbered.
        lanes: whether rows show lanes below the ops.
        host: whether rows show when their host issues what.

    """

    theme: Theme
    transfers: bool
    numbers: Numbers
    lanes: bool
    host: bool = False

    @property
    def bands(self) -> dict[str, Band]:
        """The parts of a row."""
        share = _APART if self.transfers else 1.0
        bands = _OPS_AND_LANES if self.lanes else _OPS_ALONE
        if self.host:
            rest = 1 - _HOST
            bands = {name: Band(rest * band.middle - _HOST / 2, rest * band.height) for name, band in bands.items()} | {
                "host": Band(rest / 2, 0.6 * _HOST)
            }
        return {name: Band(share * band.middle, share * band.height) for name, band in bands.items()}

    @property
    def reach(self) -> float:
        """How far cells reach from the middle of a row."""
        return max(abs(band.middle) + band.height / 2 for band in self.bands.values())

    @property
    def row_in(self) -> tuple[float, float]:
        """The least and the most height of a row, in inches."""
        lowest, highest = _LANES_ROW_IN if self.lanes else _OPS_ROW_IN
        return min(lowest / (2 * self.reach), highest), highest


class Content(NamedTuple):
    """What a chart shows of a timeline; what takes no time has no place on it.

    Attributes:
        timeline: what it shows.
        title: what stands above it.
        window: what of the timeline.
        cells: its ops.
        copies: its copies to the host and back, below the ops that they run beside.
        pairs: its overlapped pairs.
        shades: shades of each kind.
        lanes: its phases, where rows show lanes.
        host: when hosts issue ops, where rows show that.

    """

    timeline: Timeline
    title: str
    window: Window
    cells: Cells
    copies: Cells
    pairs: Boxes
    shades: int
    lanes: LaneCells | None
    host: Boxes | None = None

    def bands(self, look: Look) -> dict[str, Band]:
        """Return the parts of a row: copies, where there are any, take the lower end of that of the ops."""
        middle, height = look.bands["ops"]
        if not len(self.copies.kind):
            return look.bands
        ops = Band(middle - _COPIES * height / 2, (1 - _COPIES) * height)
        copies = Band(middle + (1 - _COPIES) * height / 2, 0.8 * _COPIES * height)
        return look.bands | {"ops": ops, "copies": copies}

    @property
    def narrow_s(self) -> float:
        """How long a cell lasts that is narrower than most."""
        return _narrow_s([self.cells.boxes])


class Group(NamedTuple):
    """Boxes of one look.

    Attributes:
        label: what they are, for who looks into a chart.
        boxes: where they lie.
        face: their fill.
        border: their border.
        border_pt: its width where boxes are wide enough.

    """

    label: str
    boxes: Boxes
    face: Colour
    border: Colour
    border_pt: float = BORDER_PT


def content_of(timeline: Timeline, title: str, window: Window, look: Look) -> Content:
    """Return what a chart with a row a rank shows."""
    return Content(
        timeline,
        title,
        window,
        op_cells(timeline, window),
        copy_cells(timeline, window),
        pair_boxes(timeline, window),
        int(shade_of_stage(timeline.graph.schedule.placement).max()) + 1,
        lane_cells(timeline, window) if look.lanes else None,
        host_boxes(timeline, window) if look.host else None,
    )


def draw_chart(ax: Axes, content: Content, look: Look) -> None:
    """Draw one chart."""
    theme, window, bands = look.theme, content.window, content.bands(look)
    time_axis(ax, window.begin_s, window.end_s, theme, unitless=content.timeline.unitless)
    row_axis(ax, [f"rank {rank}" for rank in window.ranks.tolist()], theme)
    ax.set_title(_in_lines(content.title, ax), loc="left", color=theme.ink)
    if look.transfers:
        for lines in _transfer_lines(content, look):
            ax.add_collection(lines, autolim=False)
    _draw_groups(ax, list(_groups(content.cells, content.shades, theme)), bands["ops"], content.narrow_s)
    if "copies" in bands:
        copies = list(_groups(content.copies, content.shades, theme))
        _draw_groups(ax, copies, bands["copies"], _narrow_s([content.copies.boxes]))
    if len(content.pairs.row):
        frames = CellPolygons(content.pairs, bands["ops"], content.narrow_s)
        frames.set_facecolor("none")
        frames.set_border(PAIR_BORDER, PAIR_BORDER_PT)
        frames.set_label("pairs")
        frames.set_rasterized(len(content.cells.kind) > _MOST_VECTOR_CELLS)
        ax.add_collection(frames, autolim=False)
    ax.add_artist(_numbers(content, look))
    if content.lanes is not None:
        _draw_lanes(ax, content.lanes, content.shades, look)
        word = collectives_word([content.timeline])
        band_axis(ax, len(window.ranks), {word if name == "all-to-all" else name: bands[name] for name in bands}, theme)
    if content.host is not None:
        _draw_groups(ax, [Group("host", content.host, theme.faint_ink, theme.ground)], bands["host"], content.narrow_s)
    _shade_after_end(ax, content.timeline.makespan_s, window.end_s, theme)


def _in_lines(title: str, ax: Axes) -> str:
    """Return a title in as many lines as its Axes' width asks for."""
    points = FontProperties(size=mpl.rcParams["axes.titlesize"]).get_size_in_points()
    width_pt = ax.bbox.width / ax.figure.dpi * _POINTS_PER_INCH * _TITLE_SHARE
    return "\n".join(textwrap.wrap(title, max(20, int(width_pt / (_CHARACTER_EM * points))))) if title else title


def legend_handles(contents: Sequence[Content], look: Look) -> Iterator[Artist]:
    """Yield a sample of everything that charts show, and of nothing else."""
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
    yield legend.idle_swatch(theme)
    if any(content.host is not None for content in contents):
        yield legend.host_swatch(theme)
    placements = [content.timeline.graph.schedule.placement for content in contents if content.shades > 1]
    yield from legend.shade_swatches(placements, most, theme, numbered=look.numbers == "auto")
    if look.transfers:
        yield from legend.transfer_lines(theme)


def _alltoalls(contents: Sequence[Content]) -> tuple[bool, bool]:
    """Return whether any all-to-all is hidden, and whether any is exposed."""
    lanes = [content.lanes for content in contents if content.lanes is not None]
    hidden = any(bool((one.in_colour & ~one.exposed).any()) for one in lanes)
    return hidden, any(bool((one.in_colour & one.exposed).any()) for one in lanes)


def _kinds_in_colour(contents: Sequence[Content]) -> set[int]:
    shown = [cells for content in contents for cells in (content.cells, content.copies)]
    shown += [content.lanes.compute for content in contents if content.lanes is not None]
    return {kind for cells in shown for kind in np.unique(cells.kind[cells.in_colour]).tolist()}


def _groups(cells: Cells, shades: int, theme: Theme) -> Iterator[Group]:
    """Yield the cells of each look: by kind and shade, with a border of their own or within that of a pair.

    A look is one number, (kind x shades + shade) x 2 + paired, so that one ``unique`` finds those that there are; they
    are taken apart again by ``divmod``. Cells of micro-batches that do not keep their colour are one group more.
    """
    look = (cells.kind * shades + cells.shade) * 2 + cells.paired
    for code in np.unique(look[cells.in_colour]).tolist():
        of_kind, paired = divmod(code, 2)
        kind, shade = divmod(of_kind, shades)
        yield Group(
            f"{Kind(kind)} {'in pairs, ' if paired else ''}shade {shade}",
            cells.boxes.where(cells.in_colour & (look == code)),
            fill(kind, shade, shades, theme.kinds),
            style_of(kind, theme.kinds).border,
            0.0 if paired else BORDER_PT,
        )
    if not cells.in_colour.all():
        yield Group("other micro-batches", cells.boxes.where(~cells.in_colour), theme.faded, theme.ground)


def _draw_groups(ax: Axes, groups: Sequence[Group], band: Band, narrow_s: float) -> None:
    """Draw boxes that do not overlap, one by one or, where they are crowded, as strips."""
    groups = [group for group in groups if len(group.boxes.row)]
    if not groups:
        return
    boxes = Boxes(*(np.concatenate(column) for column in zip(*(group.boxes for group in groups), strict=True)))
    for group in groups:
        polygons = CellPolygons(group.boxes, band, narrow_s)
        polygons.set_facecolor(group.face)
        polygons.set_border(group.border, group.border_pt)
        polygons.set_label(group.label)
        polygons.set_rasterized(len(boxes.row) > _MOST_VECTOR_CELLS)
        ax.add_collection(polygons, autolim=False)
    fills = [group.face for group in groups for _ in range(len(group.boxes.row))]
    ax.add_artist(CellStrips(boxes, band, fills, narrow_s))


def _draw_lanes(ax: Axes, lanes: LaneCells, shades: int, look: Look) -> None:
    """Draw the compute lane and the all-to-all lane of each rank, below its ops."""
    theme, bands = look.theme, look.bands
    narrow_s = _narrow_s([lanes.compute.boxes])
    phases = [group._replace(label=f"compute {group.label}") for group in _groups(lanes.compute, shades, theme)]
    _draw_groups(ax, phases, bands["compute"], narrow_s)
    hidden, exposed = lanes.in_colour & ~lanes.exposed, lanes.in_colour & lanes.exposed
    parts = [
        Group("hidden all-to-all", lanes.alltoall.where(hidden), theme.hidden, theme.ground),
        Group("exposed all-to-all", lanes.alltoall.where(exposed), theme.exposed, theme.exposed, 0.0),
        Group("other all-to-all", lanes.alltoall.where(~lanes.in_colour), theme.faded, theme.ground),
    ]
    _draw_groups(ax, parts, bands["all-to-all"], narrow_s)
    ax.add_artist(_phase_names(lanes, shades, bands["compute"], theme))
    ax.add_artist(_alltoall_names(lanes, bands["all-to-all"], theme))


def _phase_names(lanes: LaneCells, shades: int, band: Band, theme: Theme) -> CellLabels:
    """Return the names of compute phases that keep their colour."""
    shown, inks = lanes.compute.in_colour, _InkTable(shades, theme)
    cells = lanes.compute.where(shown)
    labels = Labels(lanes.names, lanes.compute_name[shown], inks.inks, inks.of(cells))
    return CellLabels(cells.boxes, band, labels, alike=False)


def _alltoall_names(lanes: LaneCells, band: Band, theme: Theme) -> CellLabels:
    """Return the names of all-to-alls, one for each phase, on its longest piece; inks are (hidden, exposed)."""
    named = lanes.in_colour & (lanes.alltoall_name >= 0)
    inks = ink_on(theme.hidden), ink_on(theme.exposed)
    labels = Labels(lanes.names, lanes.alltoall_name[named], inks, lanes.exposed[named].astype(np.int64))
    return CellLabels(lanes.alltoall.where(named), band, labels, alike=False)


def _numbers(content: Content, look: Look) -> CellLabels:
    """Return the micro-batches' numbers on their cells."""
    cells = content.cells.where(_numbered(content.cells, look.numbers) & content.cells.in_colour)
    inks = _InkTable(content.shades, look.theme)
    schedule = content.timeline.graph.schedule
    texts = [schedule.number_of(unit) for unit in range(int(cells.unit.max(initial=-1)) + 1)]
    labels = Labels(texts, cells.unit, inks.inks, inks.of(cells))
    return CellLabels(cells.boxes, content.bands(look)["ops"], labels, alike=True)


class _InkTable:
    """The ink that shows on each kind and shade, in a list by kind x shades + shade."""

    def __init__(self, shades: int, theme: Theme) -> None:
        self._shades = shades
        self.inks = [ink_on(fill(kind, shade, shades, theme.kinds)) for kind in Kind for shade in range(shades)]

    def of(self, cells: Cells) -> IntArray:
        return cells.kind * self._shades + cells.shade


def _numbered(cells: Cells, numbers: Numbers) -> BoolArray:
    by_choice: dict[Numbers, BoolArray] = {"auto": cells.pipe == 0, "all": cells.pipe >= 0, "none": cells.pipe < 0}
    return by_choice[numbers]


def _transfer_lines(content: Content, look: Look) -> Iterator[LineCollection]:
    """Yield the activations' lines, then the gradients': from the edge of the sender's cell to the receiver's.

    ``lines`` is of shape ``(transfers, 2, 2)``: two ends, each (time, row). A line begins and ends at the edge of the
    cells that faces the other rank, ``reach`` below the middle of a row (+) or above it (-).
    """
    graph, window = content.timeline.graph, content.window
    schedule, transfers = graph.schedule, graph.transfers
    sender = window.row_of_rank[schedule.rank[transfers.producer]]
    receiver = window.row_of_rank[schedule.rank[transfers.consumer]]
    begin_s, end_s = content.timeline.start_s[graph.first_transfer :], content.timeline.end_s[graph.first_transfer :]
    asked = window.in_colour[schedule.micro_batch[transfers.producer]]
    shown = (sender >= 0) & (receiver >= 0) & asked & (end_s >= window.begin_s) & (begin_s <= window.end_s)
    reach = np.sign(receiver - sender) * look.reach
    x = np.stack([begin_s, end_s], axis=1)
    lines = np.stack([x, np.stack([sender + reach, receiver - reach], axis=1)], axis=2)
    forward = schedule.kind[transfers.producer] == F
    for kind, chosen in ((F, forward & shown), (B, ~forward & shown)):
        yield LineCollection(
            list(lines[chosen]),
            colors=line_of_kind(kind, look.theme),
            linestyles=TRANSFER_STYLES[kind],
            linewidths=TRANSFER_PT,
            zorder=0.9,
            rasterized=len(content.cells.kind) > _MOST_VECTOR_CELLS,
            label=f"transfers after {Kind(kind)}",
        )


def _shade_after_end(ax: Axes, makespan_s: float, until_s: float, theme: Theme) -> None:
    if makespan_s < until_s:
        ax.axvspan(makespan_s, until_s, color=theme.over, linewidth=0, zorder=0.8)
        ax.axvline(makespan_s, color=theme.faint_ink, linewidth=0.8, zorder=0.8)


def _narrow_s(boxes: Sequence[Boxes]) -> float:
    """Return how long a narrow box lasts: a quarter of them are narrower."""
    widths_s = np.concatenate([one.width_s() for one in boxes])
    return float(np.percentile(widths_s, _NARROW_PERCENTILE)) if len(widths_s) else 1.0
