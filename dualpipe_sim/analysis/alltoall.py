"""Which of a timeline's all-to-alls, and other collectives, is hidden behind compute of its own rank; what pairs take.

A collective is hidden while its rank computes and exposed while it does not. One phase may be both in turn, so phases
are cut into *pieces* that are wholly one or the other; sums and pictures are made of pieces.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from dualpipe_sim.base.arrays import BoolArray, FloatArray, IntArray
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import Kind


class AllToAllPieces(NamedTuple):
    """Phases of the all-to-all lanes, cut where compute beside them starts or ends; shape ``(pieces,)`` each.

    Attributes:
        node: the phase that a piece is of; one that is cut has several rows.
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
    return any(phase.lane == Lane.ALLTOALL for phase in timeline.graph.phases)


def collectives_word(timelines: Iterable[Timeline]) -> str:
    """Return what to call the phases of these lanes: ``all-to-all``, or ``collectives`` where there are others too."""
    phases = (phase for timeline in timelines for phase in timeline.graph.phases if phase.lane == Lane.ALLTOALL)
    return "all-to-all" if all(phase.is_alltoall for phase in phases) else "collectives"


_PIECES: WeakKeyDictionary[Timeline, AllToAllPieces] = WeakKeyDictionary()
"""Those of runs that there still are, whose numbers and pictures both ask for them."""


def alltoall_pieces(timeline: Timeline) -> AllToAllPieces:
    """Return every phase of these lanes as pieces that are hidden or exposed, rank by rank in the order they run."""
    known = _PIECES.get(timeline)
    if known is None:
        _PIECES[timeline] = known = _pieces(timeline)
    return known


def _pieces(timeline: Timeline) -> AllToAllPieces:
    graph = timeline.graph
    pieces = [
        _pieces_of_rank(
            timeline,
            np.flatnonzero(graph.on(Lane.ALLTOALL, rank)),
            np.flatnonzero(graph.on(Lane.COMPUTE, rank)),
        )
        for rank in range(timeline.ranks)
    ]
    return AllToAllPieces(*(np.concatenate(column) for column in zip(*pieces, strict=True)))


class CollectiveTime(NamedTuple):
    """Seconds of some collectives on each rank, shape ``(ranks,)`` each.

    Attributes:
        total_s: all of it.
        exposed_s: that in which the rank's compute lane is empty.

    """

    total_s: FloatArray
    exposed_s: FloatArray

    @property
    def hidden_ratio(self) -> float | None:
        """Share of the time beside which compute runs, over all ranks; None where there are none."""
        total_s = float(self.total_s.sum())
        return 1 - float(self.exposed_s.sum()) / total_s if total_s else None


class CollectiveTimes(NamedTuple):
    """Seconds of a timeline's collectives, by what they are.

    Attributes:
        alltoall: all-to-alls.
        in_pairs: those of them in overlapped pairs.
        other: collectives of groups: tensor and context parallelism, shared weights.

    """

    alltoall: CollectiveTime
    in_pairs: CollectiveTime
    other: CollectiveTime


def collective_times(timeline: Timeline) -> CollectiveTimes:
    """Return the seconds of collectives on each rank, and of those that are exposed."""
    if not has_alltoall(timeline):
        nothing = CollectiveTime(np.zeros(timeline.ranks), np.zeros(timeline.ranks))
        return CollectiveTimes(nothing, nothing, nothing)
    graph, schedule, pieces = timeline.graph, timeline.graph.schedule, alltoall_pieces(timeline)
    alltoall = np.array([phase.is_alltoall for phase in graph.phases], dtype=bool)[graph.phase[pieces.node]]
    paired = schedule.partner[schedule.first_op[graph.task[pieces.node]]] >= 0

    def taken(counted: BoolArray) -> CollectiveTime:
        seconds, rank = (pieces.end_s - pieces.begin_s) * counted, graph.rank[pieces.node]
        total_s, exposed_s = (
            np.bincount(rank, weights=seconds * shown, minlength=timeline.ranks).astype(np.float64)
            for shown in (np.ones(len(rank)), pieces.exposed)
        )
        return CollectiveTime(total_s, exposed_s)

    return CollectiveTimes(taken(alltoall), taken(alltoall & paired), taken(~alltoall))


def overlapped_pair_s(timeline: Timeline) -> dict[str, float]:
    """Return the seconds of each distinct overlapped pair, by its stages and kinds: ``0F;7B``.

    Where links are shared, pairs of the same stages need not all take as long; then it is their median.
    """
    schedule = timeline.graph.schedule
    first = schedule.first_op
    pairs = np.flatnonzero(schedule.partner[first] >= 0)
    forward, beside = first[pairs], first[pairs] + 1
    shapes = np.stack([schedule.stage[forward], schedule.kind[beside], schedule.stage[beside]], axis=1)
    seconds = (timeline.task_end_s - timeline.task_start_s)[pairs]
    found, which = np.unique(shapes, axis=0, return_inverse=True)
    return {
        # (raveled, since numpy 2.0 gives ``which`` a second axis)
        f"{stage}F;{other}{Kind(kind)}": float(np.median(seconds[which.ravel() == number]))
        for number, (stage, kind, other) in enumerate(found.tolist())
    }


def _pieces_of_rank(timeline: Timeline, alltoall: IntArray, compute: IntArray) -> AllToAllPieces:
    """Cut the time of one rank at every start and end of a phase, and keep the pieces in which an all-to-all runs.

    Between two such edges nothing starts or ends, so what runs at the middle of a piece runs in all of it. The phases
    of a lane neither overlap nor change their order, so only one can run at a moment: the last that began before it,
    if it has not ended. All-to-all from 0 to 4 and compute from 1 to 3 have the edges 0, 1, 3, 4 and the middles 0.5,
    2, 3.5: three pieces of the all-to-all, of which the second is hidden.

    Args:
        timeline: what ran.
        alltoall: all-to-all phases of the rank, ascending, so in the order they run.
        compute: its compute phases, likewise.

    """
    begin_s, end_s = timeline.start_s[alltoall], timeline.end_s[alltoall]
    busy_from_s, busy_to_s = _joined(timeline.start_s[compute], timeline.end_s[compute])
    edges_s = np.unique(np.concatenate([begin_s, end_s, busy_from_s, busy_to_s]))  # sorted
    middle_s = (edges_s[:-1] + edges_s[1:]) / 2
    phase = _running(begin_s, end_s, middle_s)
    inside = np.flatnonzero(phase >= 0)
    exposed = _running(busy_from_s, busy_to_s, middle_s[inside]) < 0
    return AllToAllPieces(alltoall[phase[inside]], edges_s[inside], edges_s[inside + 1], exposed)


def _running(begin_s: FloatArray, end_s: FloatArray, at_s: FloatArray) -> IntArray:
    """Return which of a lane's intervals, given in order, runs at each moment, or -1.

    >>> _running(np.array([0.0, 3.0]), np.array([2.0, 4.0]), np.array([-0.5, 1.5, 2.5, 3.5]))
    array([-1,  0, -1,  1])
    """
    number = np.searchsorted(begin_s, at_s, side="right") - 1
    begun = np.flatnonzero(number >= 0)
    over = begun[end_s[number[begun]] <= at_s[begun]]
    number[over] = -1
    return number


def _joined(begin_s: FloatArray, end_s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Join intervals, given in order, that touch.

    >>> _joined(np.array([0.0, 1.0, 5.0]), np.array([1.0, 3.0, 6.0]))
    (array([0., 5.]), array([3., 6.]))
    """
    first = np.ones(len(begin_s), dtype=bool)
    first[1:] = begin_s[1:] > end_s[:-1]
    return begin_s[first], end_s[np.roll(first, -1)]  # what ends before a first one is a last one
