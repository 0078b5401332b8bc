"""Inside an overlapped pair: what its two lanes do, and where one waits for the other.

Drawn as figure 4 of the DeepSeek-V3 report (https://arxiv.org/abs/2412.19437): a row for computation and one for
communication, forward orange, backward for the input green, backward for the weights blue, pipeline communication
purple, barriers red.

Everything is in times of the task, from its start on, and phases are numbered inside the task, as the costs' templates
number them: ``local`` is a phase's place in the task.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from dualpipe_sim.analysis.alltoall import alltoall_pieces, collectives_word
from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.base.units import format_time
from dualpipe_sim.errors import UserError
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import Kind, Op, Pair
from dualpipe_sim.pictures.palette import Colour, Theme, ThemeName, between, ink_on, style_of
from dualpipe_sim.pictures.plot import legend
from dualpipe_sim.pictures.plot.artists import CellLabels, CellPolygons, Labels
from dualpipe_sim.pictures.plot.axis import row_axis, time_axis
from dualpipe_sim.pictures.plot.cells import Band, Boxes
from dualpipe_sim.pictures.plot.files import new_axes
from dualpipe_sim.pictures.plot.style import BORDER_PT, style_around, theme_named

_SIZE_IN = (14.0, 3.3)
_BAND = Band(0.0, 0.74)
_BARRIER_PT, _HOLDING_BARRIER_PT = 0.7, 2.0
_ROW_OF_LANE = {Lane.COMPUTE: 0, Lane.ALLTOALL: 1, Lane.COPY: 2}
_SAME_MOMENT = 1e-9  # of a task's length


class _Inside(NamedTuple):
    """What one task does, times counted from its start.

    Attributes:
        timeline: where the task is from.
        task: which one it is.
        node: its phases, shape ``(phases,)``.
        boxes: where they lie, a row a lane.
        transfers: its outputs under way, on a row of their own.
        exposed: when a collective runs and compute does not, shape ``(pieces, 2)``.

    """

    timeline: Timeline
    task: int
    node: IntArray
    boxes: Boxes
    transfers: Boxes
    exposed: FloatArray

    @property
    def length_s(self) -> float:
        """How long the task lasts."""
        return float(self.boxes.end_s.max())

    @property
    def copies(self) -> bool:
        """Whether something is copied to the host's memory or back."""
        return bool((self.boxes.row == _ROW_OF_LANE[Lane.COPY]).any())

    @property
    def word(self) -> str:
        """What to call its all-to-alls and other collectives."""
        return collectives_word([self.timeline])

    @property
    def kind(self) -> IntArray:
        """Kind code of each phase."""
        graph = self.timeline.graph
        return np.array([graph.phases[row].kind for row in graph.phase[self.node].tolist()])


def pair_figure(
    timeline: Timeline, task: Pair | Op | str | None = None, ax: Axes | None = None, *, theme: ThemeName = "light"
) -> Axes:
    """Draw the phases of an overlapped pair: the compute lane above the all-to-all lane, and what waits for what.

    A thick barrier is one where a lane stood still until the other was done; a thin one was passed without waiting.

    >>> from dualpipe_sim import simulate
    >>> axes = pair_figure(simulate("deepseek_v3_pair").played)
    >>> axes.get_title(loc="left").partition(":")[0]
    '(1F1;2B0)OVERLAP_F_B on rank 1'

    Args:
        timeline: a timeline at layer level.
        task: the pair, also as text (``(0F7;7B3)OVERLAP_F_B``), or an op that runs alone; None for the middle one of
            all pairs.
        ax: where to draw it; a new figure if there is none.
        theme: "light" or "dark".

    Raises:
        UserError: a task that the timeline does not have, one that is not cut into phases, or another word for
            ``theme``.

    """
    colours = theme_named(theme)
    inside = _inside(timeline, _find(timeline, task))
    rows = ["compute", inside.word, *["copies"] * inside.copies, *["transfers"] * bool(len(inside.transfers.row))]
    end_s = max(inside.length_s, float(inside.transfers.end_s.max(initial=0.0)))
    with style_around(ax, colours):
        ax = ax or new_axes(_SIZE_IN)
        time_axis(ax, 0.0, end_s, colours)
        ax.set_xlabel(ax.get_xlabel().replace("time", "time since the start of the task"), color=colours.ink)
        row_axis(ax, rows, colours)
        ax.set_title(_title(inside), loc="left", color=colours.ink)
        for begin_s, until_s in inside.exposed.tolist():
            ax.axvspan(begin_s, until_s, color=_exposed(colours), linewidth=0, zorder=0.8, label="exposed")
        for polygons in _polygons(inside, colours):
            ax.add_collection(polygons, autolim=False)
        ax.add_collection(_barriers(inside, colours), autolim=False)
        ax.add_artist(_names(inside))
        legend.add_legend(ax, list(_samples(inside, colours)), _SIZE_IN[0] - 1, colours)
    return ax


def _find(timeline: Timeline, task: Pair | Op | str | None) -> int:
    """Return the number of the task that is meant."""
    schedule = timeline.graph.schedule
    if task is None:
        pairs = np.flatnonzero(schedule.partner[schedule.first_op] >= 0)
        if not len(pairs):
            raise UserError("pair: no forward and backward overlap in this timeline; name an op that runs alone")
        return int(pairs[len(pairs) // 2])
    wanted = str(task)
    for index in range(len(schedule.first_op)):
        if str(schedule.task(index)) == wanted:
            return index
    raise UserError(f"pair: {wanted} is no task of this timeline; its first on rank 0 is {schedule.task(0)}")


def _inside(timeline: Timeline, task: int) -> _Inside:
    """Return what one task does.

    Raises:
        UserError: a task of one phase, of which there is no inside to show.

    """
    graph = timeline.graph
    node = np.flatnonzero(graph.task == task)
    if len(node) == 1:
        raise UserError(
            f"pair: {graph.schedule.task(task)} is not cut into phases; costs of the kind layers cut ops into them"
        )
    begin_s = float(timeline.task_start_s[task])
    row = np.array([_ROW_OF_LANE[Lane(lane)] for lane in graph.lane[node].tolist()])
    boxes = Boxes(row, timeline.start_s[node] - begin_s, timeline.end_s[node] - begin_s)
    sent = graph.first_transfer + np.flatnonzero(graph.schedule.task_of_op[graph.transfers.producer] == task)
    sent = sent[timeline.end_s[sent] > timeline.start_s[sent]]
    under_way = Boxes(
        np.full(len(sent), max(2, int(row.max()) + 1)), timeline.start_s[sent] - begin_s, timeline.end_s[sent] - begin_s
    )
    pieces = alltoall_pieces(timeline)
    shown = pieces.exposed & (graph.task[pieces.node] == task)
    exposed = np.stack([pieces.begin_s[shown], pieces.end_s[shown]], axis=1) - begin_s
    return _Inside(timeline, task, node, boxes, under_way, exposed)


def _title(inside: _Inside) -> str:
    graph, boxes = inside.timeline.graph, inside.boxes
    compute_s, alltoall_s = (float(boxes.where(boxes.row == lane).width_s().sum()) for lane in (0, 1))
    exposed_s = float((inside.exposed[:, 1] - inside.exposed[:, 0]).sum())
    return (
        f"{graph.schedule.task(inside.task)} on rank {inside.timeline.rank[inside.task]}: "
        f"{format_time(inside.length_s)}, compute {format_time(compute_s)}, {inside.word} {format_time(alltoall_s)}, "
        f"{format_time(exposed_s)} of it exposed"
    )


def _polygons(inside: _Inside, theme: Theme) -> Iterator[CellPolygons]:
    kind, boxes = inside.kind, inside.boxes
    for code in np.unique(kind).tolist():
        polygons = CellPolygons(boxes.where(kind == code), _BAND, inside.length_s)
        polygons.set_facecolor(style_of(code, theme.kinds).light)
        polygons.set_border(style_of(code, theme.kinds).border, BORDER_PT)
        polygons.set_label(Kind(code))
        yield polygons
    if len(inside.transfers.row):
        polygons = CellPolygons(inside.transfers, _BAND, inside.length_s)
        polygons.set_facecolor(theme.transfer)
        polygons.set_border(theme.transfer, BORDER_PT)
        polygons.set_label("transfers")
        yield polygons


def _names(inside: _Inside) -> CellLabels:
    graph = inside.timeline.graph
    phases = [graph.phases[row] for row in graph.phase[inside.node].tolist()]
    texts = [f"{phase.name}\n{Kind(phase.kind)}" + (f" {phase.layer}" if phase.layer >= 0 else "") for phase in phases]
    inks = [ink_on(style_of(kind).light) for kind in Kind]
    return CellLabels(inside.boxes, _BAND, Labels(texts, np.arange(len(texts)), inks, inside.kind), alike=False)


def _barriers(inside: _Inside, theme: Theme) -> LineCollection:
    """Draw a line from each phase to the one of the other lane that waits for it."""
    boxes, waits = inside.boxes, _waits(inside)
    lines = [
        [
            (boxes.end_s[before], boxes.row[before] + _towards(boxes, before, local)),
            (boxes.begin_s[local], boxes.row[local] + _towards(boxes, local, before)),
        ]
        for before, local in waits
    ]
    holds = [_held_up(boxes, local) for _, local in waits]
    return LineCollection(
        lines,
        colors=theme.barrier,
        linewidths=[_HOLDING_BARRIER_PT if held else _BARRIER_PT for held in holds],
        zorder=3,
        label="barriers",
    )


def _waits(inside: _Inside) -> list[tuple[int, int]]:
    """Return which phase waits for which before it, by their places in the pair."""
    graph = inside.timeline.graph
    rows = graph.phase[inside.node].tolist()
    return [(before, local) for local, row in enumerate(rows) for before in graph.phases[row].after]


def _towards(boxes: Boxes, one: int, other: int) -> float:
    """Return where a box ends towards another one's row."""
    return float(np.sign(boxes.row[other] - boxes.row[one])) * _BAND.height / 2


def _held_up(boxes: Boxes, local: int) -> bool:
    """Say whether a phase's lane stood still before it.

    The phase before it on its lane is the last one with a lower number on the same row; a lane is free from 0 on.
    """
    before = np.flatnonzero(boxes.row[:local] == boxes.row[local])
    free_s = float(boxes.end_s[before[-1]]) if len(before) else 0.0
    return bool(boxes.begin_s[local] - free_s > _SAME_MOMENT * float(boxes.end_s.max()))


def _exposed(theme: Theme) -> Colour:
    """Return a wash of the colour of exposed all-to-all, behind the cells."""
    return between(theme.ground, theme.exposed, 1, 4)


def _samples(inside: _Inside, theme: Theme) -> Iterator[Artist]:
    yield from legend.kind_swatches(set(inside.kind.tolist()), 1, theme)
    if len(inside.exposed):
        yield legend.Swatch(f"exposed {inside.word}", [_exposed(theme)], _exposed(theme))
    if len(inside.transfers.row):
        yield legend.Swatch("sent to another rank", [theme.transfer], theme.transfer)
    held = [_held_up(inside.boxes, local) for _, local in _waits(inside)]
    if any(held):
        yield Line2D([], [], color=theme.barrier, linewidth=_HOLDING_BARRIER_PT, label="barrier: the lane waits")
    if not all(held):
        yield Line2D([], [], color=theme.barrier, linewidth=_BARRIER_PT, label="barrier: passed at once")
