"""One chart: cells on rows, pairs in their borders, numbers, transfers and the legend they ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from dualpipe_sim.ops import KINDS, B, F
from dualpipe_sim.plot import legend
from dualpipe_sim.plot.artists import CellNumbers, CellPolygons
from dualpipe_sim.plot.axis import row_axis, time_axis
from dualpipe_sim.plot.cells import BoolArray, Boxes, Cells, cells_by_rank, pairs_by_rank, shade_of_stage
from dualpipe_sim.plot.strips import CellStrips
from dualpipe_sim.plot.style import (
    BORDER_PT,
    FAINT_INK,
    KIND_STYLES,
    OVER,
    PAIR_BORDER,
    PAIR_BORDER_PT,
    TRANSFER_PT,
    TRANSFER_STYLES,
    Colour,
    fill,
    ink_on,
)
from dualpipe_sim.timeline import Timeline

Numbers = Literal["auto", "all", "none"]
"""Which micro-batches are numbered where that fits: those of the first pipe, all, or none."""

_TOUCHING, _APART = 1.0, 0.62  # height of cells on rows of height 1; transfers show between rows that are apart
_NARROW_PERCENTILE = 25
_MOST_VECTOR_CELLS = 20_000  # with more, SVG and PDF hold cells as an image: quicker to make and to open


class Look(NamedTuple):
    """What callers choose about a chart."""

    transfers: bool
    numbers: Numbers

    @property
    def cell_height(self) -> float:
        """Height of a cell on a row of height 1."""
        return _APART if self.transfers else _TOUCHING


class Content(NamedTuple):
    """What a chart shows of a timeline; what takes no time has no place on it.

    Attributes:
        timeline: what it shows.
        title: what stands above it.
        cells: its ops.
        pairs: its overlapped pairs.
        shades: shades of each kind.

    """

    timeline: Timeline
    title: str
    cells: Cells
    pairs: Boxes
    shades: int

    @property
    def narrow_s(self) -> float:
        """How long a cell lasts that is narrower than most."""
        widths_s = self.cells.boxes.width_s()
        return float(np.percentile(widths_s, _NARROW_PERCENTILE)) if len(widths_s) else 1.0

    def fills(self, cells: Cells) -> list[Colour]:
        """Return the fill of some of its cells."""
        table = [fill(kind, shade, self.shades) for kind in range(len(KINDS)) for shade in range(self.shades)]
        return [table[code] for code in (cells.kind * self.shades + cells.shade).tolist()]


def content_of(timeline: Timeline, title: str) -> Content:
    """Return what a chart with a row a rank shows."""
    cells, pairs = cells_by_rank(timeline), pairs_by_rank(timeline)
    return Content(
        timeline,
        title,
        cells.where(cells.boxes.width_s() > 0),
        pairs.where(pairs.width_s() > 0),
        shades=int(shade_of_stage(timeline.graph.schedule.placement).max()) + 1,
    )


def draw_chart(ax: Axes, content: Content, until_s: float, look: Look) -> None:
    """Draw one chart on a time axis that may go on after its end."""
    timeline = content.timeline
    time_axis(ax, until_s)
    row_axis(ax, [f"rank {rank}" for rank in range(timeline.ranks)])
    ax.set_title(content.title, loc="left")
    lines = _transfer_lines(timeline, look.cell_height) if look.transfers else ()
    for collection in (*lines, *_polygons(content, look.cell_height)):
        collection.set_rasterized(len(content.cells.kind) > _MOST_VECTOR_CELLS)
        ax.add_collection(collection, autolim=False)
    ax.add_artist(_strips(content, look))
    ax.add_artist(_numbers(content, look))
    if timeline.makespan_s < until_s:
        ax.axvspan(timeline.makespan_s, until_s, color=OVER, linewidth=0, zorder=0.8)
        ax.axvline(timeline.makespan_s, color=FAINT_INK, linewidth=0.8, zorder=0.8)


def legend_handles(contents: Sequence[Content], look: Look) -> Iterator[Artist]:
    """Yield a sample of everything that charts show."""
    most_shades = max(contents, key=lambda content: content.shades)
    kinds = np.concatenate([content.cells.kind for content in contents])
    yield from legend.kind_swatches(set(kinds.tolist()), most_shades.shades)
    if any(len(content.pairs.row) for content in contents):
        yield legend.pair_swatch(most_shades.shades)
    yield legend.idle_swatch()
    if most_shades.shades > 1:
        placement = most_shades.timeline.graph.schedule.placement
        yield legend.shade_swatch(placement, most_shades.shades, numbered=look.numbers == "auto")
    if look.transfers:
        yield from legend.transfer_lines()


def _polygons(content: Content, height: float) -> Iterator[CellPolygons]:
    """Yield the cells of each look: by kind and shade, with a border of their own or within that of a pair."""
    cells, shades, narrow_s = content.cells, content.shades, content.narrow_s
    look = (cells.kind * shades + cells.shade) * 2 + cells.paired
    for code in np.unique(look).tolist():
        of_kind, paired = divmod(code, 2)
        kind, shade = divmod(of_kind, shades)
        polygons = CellPolygons(cells.boxes.where(look == code), height, narrow_s)
        polygons.set_facecolor(fill(kind, shade, shades))
        polygons.set_border(KIND_STYLES[kind].border, 0.0 if paired else BORDER_PT)
        polygons.set_label(f"{KINDS[kind]} {'in pairs, ' if paired else ''}shade {shade}")
        yield polygons
    if len(content.pairs.row):
        frames = CellPolygons(content.pairs, height, narrow_s)
        frames.set_facecolor("none")
        frames.set_border(PAIR_BORDER, PAIR_BORDER_PT)
        frames.set_label("pairs")
        yield frames


def _strips(content: Content, look: Look) -> CellStrips:
    return CellStrips(content.cells.boxes, look.cell_height, content.fills(content.cells), content.narrow_s)


def _numbers(content: Content, look: Look) -> CellNumbers:
    cells = content.cells.where(_numbered(content.cells, look.numbers))
    fills = content.fills(cells)
    inks = {face: ink_on(face) for face in set(fills)}
    return CellNumbers(cells.boxes, look.cell_height, cells.microbatch, [inks[face] for face in fills])


def _numbered(cells: Cells, numbers: Numbers) -> BoolArray:
    by_choice: dict[Numbers, BoolArray] = {"auto": cells.pipe == 0, "all": cells.pipe >= 0, "none": cells.pipe < 0}
    return by_choice[numbers]


def _transfer_lines(timeline: Timeline, height: float) -> Iterator[LineCollection]:
    """Yield the activations' lines, then the gradients': from the edge of the sender's cell to the receiver's."""
    graph = timeline.graph
    schedule, transfers = graph.schedule, graph.transfers
    sender, receiver = schedule.rank[transfers.producer], schedule.rank[transfers.consumer]
    reach = np.sign(receiver - sender) * height / 2
    x = np.stack([timeline.start_s[graph.first_transfer :], timeline.end_s[graph.first_transfer :]], axis=1)
    lines = np.stack([x, np.stack([sender + reach, receiver - reach], axis=1)], axis=2)
    forward = schedule.kind[transfers.producer] == F
    for kind, chosen in ((F, forward), (B, ~forward)):
        yield LineCollection(
            list(lines[chosen]),
            colors=KIND_STYLES[kind].border,
            linestyles=TRANSFER_STYLES[kind],
            linewidths=TRANSFER_PT,
            zorder=0.9,
            label=f"transfers after {KINDS[kind]}",
        )
