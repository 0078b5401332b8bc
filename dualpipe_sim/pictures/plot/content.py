"""What a chart shows of a timeline and how, before anything is drawn: its look, its parts, the bands of its rows."""

from __future__ import annotations

from typing import Literal, NamedTuple

from dualpipe_sim.analysis.critical_path import CriticalPath, critical_path
from dualpipe_sim.base.show import brief
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.pictures.op_boxes import shade_of_stage
from dualpipe_sim.pictures.palette import Theme
from dualpipe_sim.pictures.plot.cells import (
    Band,
    Boxes,
    Cells,
    copy_cells,
    host_boxes,
    idle_boxes,
    op_cells,
    pair_boxes,
)
from dualpipe_sim.pictures.plot.cut import Once
from dualpipe_sim.pictures.plot.lanes import LaneCells, lane_cells
from dualpipe_sim.pictures.plot.window import Window

Numbers = Literal["auto", "all", "none"]
"""Which micro-batches are numbered where that fits: those of the first pipe, all, or none."""

_APART = 0.62  # share of a row that cells take where transfers show between rows
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
        causes: whether idle time is coloured by its cause.
        critical_path: whether the critical path is drawn.

    """

    theme: Theme
    transfers: bool
    numbers: Numbers
    lanes: bool
    host: bool = False
    causes: bool = True
    critical_path: bool = False

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
    def in_bands(self) -> bool:
        """Whether rows have several parts, which are named at the right of the chart."""
        return self.lanes

    @property
    def reach(self) -> float:
        """How far cells reach from the middle of a row."""
        return max(abs(band.middle) + band.height / 2 for band in self.bands.values())

    @property
    def row_in(self) -> tuple[float, float]:
        """The least and the most height of a row, in inches."""
        lowest, highest = _LANES_ROW_IN if self.lanes else _OPS_ROW_IN
        return min(lowest / (2 * self.reach), highest), highest


class Term(NamedTuple):
    """A term of a bubble: time that one rank waits in a part of its run.

    >>> from dualpipe_sim.why import why
    >>> [(term.words, term.rank, term.text) for term in why("figure5", schedule="zb-h1").terms()]
    [('warm-up', 0, '7 = 7 I')]

    Attributes:
        words: what part of the run it is.
        rank: the rank.
        waits_s: when each wait begins and ends, in order.
        text: how long they are together, in words.

    """

    words: str
    rank: int
    waits_s: tuple[tuple[float, float], ...]
    text: str

    def __repr__(self) -> str:
        return brief(self)


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
        idle: idle time by cause, where it is coloured; empty causes are left out.
        terms: of the bubble, which are marked.
        path: the critical path, where it is drawn.
        once: what is shown once of what repeats, where the rest is cut out.

    """

    timeline: Timeline
    title: str
    window: Window
    cells: Cells
    copies: Cells
    pairs: Boxes
    shades: int
    lanes: LaneCells | None
    host: Boxes | None
    idle: dict[str, Boxes]
    path: CriticalPath | None
    once: Once | None = None
    terms: tuple[Term, ...] = ()

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
        return self.cells.boxes.narrow_s()


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
        idle_boxes(timeline, window) if look.causes else {},
        critical_path(timeline) if look.critical_path else None,
    )
