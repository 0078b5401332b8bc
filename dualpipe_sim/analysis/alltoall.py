"""Which of a timeline's all-to-all is hidden behind compute of its own rank, and which is exposed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dualpipe_sim.arrays import BoolArray, FloatArray, IntArray
from dualpipe_sim.costs.phases import ALLTOALL, COMPUTE, RUNNING_LANES
from dualpipe_sim.graph.timeline import Timeline


class AllToAllPieces(NamedTuple):
    """All-to-all phases, cut where compute beside them starts or ends; shape ``(pieces,)`` each.

    Attributes:
        node: the phase that a piece is of.
        begin_s: where it begins.
        end_s: where it ends.
        exposed: whether the rank's compute lane is empty meanwhile.

    """

    node: IntArray
    begin_s: FloatArray
    end_s: FloatArray
    exposed: BoolArray


def has_alltoall(timeline: Timeline) -> bool:
    """Say whether any phase of a timeline runs on an all-to-all lane."""
    return any(phase.lane == ALLTOALL for phase in timeline.graph.phases)


def alltoall_pieces(timeline: Timeline) -> AllToAllPieces:
    """Return every all-to-all as pieces that are hidden or exposed, rank by rank in the order they run."""
    lane = timeline.graph.lane
    pieces = [
        _pieces_of_rank(
            timeline,
            np.flatnonzero(lane == rank * RUNNING_LANES + ALLTOALL),
            np.flatnonzero(lane == rank * RUNNING_LANES + COMPUTE),
        )
        for rank in range(timeline.ranks)
    ]
    return AllToAllPieces(*(np.concatenate(column) for column in zip(*pieces, strict=True)))


def _pieces_of_rank(timeline: Timeline, alltoall: IntArray, compute: IntArray) -> AllToAllPieces:
    begin_s, end_s = timeline.start_s[alltoall], timeline.end_s[alltoall]
    busy_from_s, busy_to_s = _joined(timeline.start_s[compute], timeline.end_s[compute])
    edges_s = np.unique(np.concatenate([begin_s, end_s, busy_from_s, busy_to_s]))
    middle_s = (edges_s[:-1] + edges_s[1:]) / 2
    phase = np.searchsorted(begin_s, middle_s, side="right") - 1
    inside = np.flatnonzero((phase >= 0) & (middle_s < end_s[np.maximum(phase, 0)])) if len(begin_s) else phase[:0]
    block = np.searchsorted(busy_from_s, middle_s[inside], side="right") - 1
    hidden = (block >= 0) & (middle_s[inside] < busy_to_s[np.maximum(block, 0)])
    return AllToAllPieces(alltoall[phase[inside]], edges_s[inside], edges_s[inside + 1], ~hidden)


def _joined(begin_s: FloatArray, end_s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Join intervals, given in order, that touch."""
    apart = begin_s[1:] > end_s[:-1]
    return begin_s[np.append(True, apart)], end_s[np.append(apart, True)]
