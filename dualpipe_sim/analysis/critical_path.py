"""The critical path: the chain of waits that a run is as long as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.base.show import brief
from dualpipe_sim.costs.phases import Phase
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.graph.wiring import NO_NODE

PARTS: Mapping[str, str] = {
    "compute": "compute",
    "alltoall": "all-to-all",
    "collective": "other collectives",  # inside an op: tensor or context parallel
    "transfer": "transfers",
    "blocked": "transfers of others before",  # a tensor that only stands in the way of another one
    "contention": "shared links or SMs",  # what a node takes longer because others use them
    "copy": "copies to the host and back",
    "weights": "weights gathered, gradients reduced",
    "host": "host",  # which has not issued an op yet
    "waiting": "waiting for SMs",
}
"""What a stretch of a critical path may be spent on: its key, and the words for it."""

_COMPUTE, _ALLTOALL, _COLLECTIVE, _TRANSFER, _BLOCKED, _CONTENTION, _COPY, _WEIGHTS, _HOST, _WAITING = range(len(PARTS))
_PART_OF_LANE = {Lane.COMPUTE: _COMPUTE, Lane.COPY: _COPY, Lane.DATA: _WEIGHTS}
_ROUNDING = 1e-12
"""Share of the makespan below which times are the same."""


class CriticalPath(NamedTuple):
    """A longest chain of waits, from time 0 to the makespan, in stretches of shape ``(stretches,)``.

    Each stretch begins where the one before ends, the first at 0, and the last ends at the makespan.

    >>> from dualpipe_sim import simulate
    >>> path = critical_path(simulate("figure5").played)
    >>> path.seconds_by_part()
    {'compute': 66.0}

    Attributes:
        node: the phase or transfer, or -1 where the host is at work.
        begin_s: where it begins.
        end_s: where it ends.
        rank: where it is; of a transfer the sender.
        to_rank: where the tensor goes; ``rank`` for all but transfers.
        part: place in :data:`PARTS`, from 0.

    """

    node: IntArray
    begin_s: FloatArray
    end_s: FloatArray
    rank: IntArray
    to_rank: IntArray
    part: IntArray

    def __repr__(self) -> str:
        return brief(self)

    @property
    def nodes(self) -> IntArray:
        """The phases and transfers passed, each once, in order."""
        there = self.node[self.node >= 0]
        passed: IntArray = there[np.diff(there, prepend=NO_NODE) != 0]
        return passed

    def seconds_by_part(self) -> dict[str, float]:
        """Return the seconds spent on each part of :data:`PARTS` that takes any; they sum to the makespan."""
        seconds = np.bincount(self.part, weights=self.end_s - self.begin_s, minlength=len(PARTS))
        return {name: one for name, one in zip(PARTS, seconds.tolist(), strict=True) if one > 0}


def critical_path(timeline: Timeline) -> CriticalPath:
    """Return the critical path of a timeline.

    From the phase that ends last it goes back, each time to what was there last of all that the node waited for: its
    edges and the phase before it on its lane; of several, to the one on its own rank. It ends where the host is what a
    node waits for, which works from the start on and waits for nothing.
    """
    nodes = _chain(timeline)
    graph, until_s = timeline.graph, timeline.end_s[nodes]
    until_s[-1:] = timeline.makespan_s
    start_s = timeline.start_s[nodes]
    own_s = start_s + graph.duration_s[nodes]
    ready_s = np.append(0.0, until_s[:-1])[: len(nodes)]
    same_s = _ROUNDING * timeline.makespan_s
    longer, late = until_s > own_s + same_s, start_s > ready_s + same_s

    # Of each node: what is before it, it itself, and what it takes longer; of the first and last where there is any.
    begin_s = np.stack([ready_s, start_s, own_s])
    end_s = np.stack([start_s, np.where(longer, own_s, until_s), until_s])
    part = np.stack([np.full(len(nodes), _WAITING), _parts(graph, nodes), np.full(len(nodes), _CONTENTION)])
    there = np.stack([late, np.full(len(nodes), True), longer])
    if graph.issue is not None:
        ended = longer & (graph.issue.end_s[nodes] >= until_s - same_s)
        begun = graph.issue.begin_s[nodes] > ready_s + same_s
        for cut in np.flatnonzero(ended | begun)[-1:]:  # the host is what holds up the last such node
            begin_s[0, cut], part[0, cut] = 0.0, _HOST
            there[0, cut], there[:, :cut] = True, False
            if ended[cut]:
                end_s[0, cut], there[1:, cut] = until_s[cut], False
    return _path(graph, *(column.T[there.T] for column in (np.stack([nodes] * 3), begin_s, end_s, part)))


def _chain(timeline: Timeline) -> IntArray:
    """Return the nodes that waited for each other, the phase that ends last at the end."""
    waited_for, end_s = _waited_for(timeline), timeline.end_s
    node, nodes = int(end_s[: timeline.graph.first_transfer].argmax()), []
    while node >= 0 and end_s[node] > 0:
        nodes.append(node)
        node = int(waited_for[node])
    return np.array(nodes[::-1], dtype=np.int64)


def _waited_for(timeline: Timeline) -> IntArray:
    """Return what was there last of all that each node waited for, or NO_NODE where it waited for nothing."""
    graph = timeline.graph
    on_lane, edges = graph.previous_on_lane, graph.edges[0]
    end_s = np.append(timeline.end_s, -np.inf)  # of NO_NODE, the last one
    edges_of = np.diff(graph.predecessor_start)
    to = np.repeat(np.arange(len(edges_of)), edges_of)
    latest_s = np.full(len(edges_of), -np.inf)
    np.maximum.at(latest_s, to, end_s[edges])
    last = np.flatnonzero(end_s[edges] == latest_s[to])[::-1]  # backwards, so that of several the first one stays
    of_edges = np.full(len(edges_of), NO_NODE)
    of_edges[to[last]] = edges[last]
    return np.where(end_s[on_lane] >= latest_s, on_lane, of_edges)


def _part_of(phase: Phase) -> int:
    """Return what the time of a phase is spent on."""
    if phase.lane == Lane.ALLTOALL:
        return _ALLTOALL if phase.is_alltoall else _COLLECTIVE
    return _PART_OF_LANE[phase.lane]


def _parts(graph: TaskGraph, nodes: IntArray) -> IntArray:
    """Return what the time of each node of a path is spent on."""
    phase = nodes < graph.first_transfer
    part: IntArray = np.array([_part_of(one) for one in graph.phases])[graph.phase[np.where(phase, nodes, 0)]]
    if phase.all():
        return part
    behind = np.append(nodes[1:], nodes[-1])
    transfer = np.flatnonzero(~phase)
    needed_by = graph.schedule.task_of_op[graph.transfers.consumer[nodes[transfer] - graph.first_transfer]]
    is_phase = phase[np.minimum(transfer + 1, len(nodes) - 1)]
    received = is_phase & (graph.task[np.where(is_phase, behind[transfer], 0)] == needed_by)
    part[transfer] = np.where(received, _TRANSFER, _BLOCKED)
    return part


def _path(graph: TaskGraph, node: IntArray, begin_s: FloatArray, end_s: FloatArray, part: IntArray) -> CriticalPath:
    """Return stretches with the ranks that they are on."""
    rank_of_op = graph.schedule.rank
    rank, to_rank = (
        np.append(graph.rank, rank_of_op[side])[node] for side in (graph.transfers.producer, graph.transfers.consumer)
    )
    return CriticalPath(np.where(part == _HOST, NO_NODE, node), begin_s, end_s, rank, to_rank, part)
