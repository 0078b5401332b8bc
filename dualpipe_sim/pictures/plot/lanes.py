"""Ops at layer level: a rank's row holds its ops, and below them the compute lane and the all-to-all lane."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dualpipe_sim.analysis.alltoall import alltoall_pieces
from dualpipe_sim.base.arrays import BoolArray, IntArray
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.pictures.plot.cells import Boxes, Cells, phase_cells
from dualpipe_sim.pictures.plot.window import Window


class LaneCells(NamedTuple):
    """What a rank's two lanes show.

    Attributes:
        names: every name of a phase.
        compute: compute phases.
        compute_name: place of each one's name among the names, shape ``(compute phases,)``.
        alltoall: all-to-alls, cut where they change between hidden and exposed.
        alltoall_name: place of each piece's name among the names, or -1 where a longer piece of its phase has it.
        exposed: which pieces no compute runs beside.
        in_colour: which pieces are of micro-batches that keep their colour.

    """

    names: tuple[str, ...]
    compute: Cells
    compute_name: IntArray
    alltoall: Boxes
    alltoall_name: IntArray
    exposed: BoolArray
    in_colour: BoolArray


def lane_cells(timeline: Timeline, window: Window) -> LaneCells:
    """Return what the lanes of the ranks in a window show."""
    graph = timeline.graph
    names = tuple(dict.fromkeys(phase.name for phase in graph.phases))
    name_of_phase = np.array([names.index(phase.name) for phase in graph.phases])
    cells, compute = phase_cells(timeline, window, np.flatnonzero(graph.on(Lane.COMPUTE)))
    pieces = alltoall_pieces(timeline)
    row = window.row_of_rank[timeline.rank[graph.task[pieces.node]]]
    boxes, seen = Boxes(row, pieces.begin_s, pieces.end_s).seen_in(window)
    node = pieces.node[seen]
    return LaneCells(
        names,
        cells,
        name_of_phase[graph.phase[compute]],
        boxes,
        np.where(_longest_of_each(node, boxes), name_of_phase[graph.phase[node]], -1),
        pieces.exposed[seen],
        window.in_colour[graph.schedule.micro_batch[graph.op_of_node[node]]],
    )


def _longest_of_each(node: IntArray, boxes: Boxes) -> BoolArray:
    """Say of each piece whether it is the longest of its phase."""
    by_width = np.lexsort((boxes.width_s(), node))
    longest = np.zeros(len(node), dtype=bool)
    longest[by_width[np.diff(node[by_width], append=-1) != 0]] = True
    return longest
