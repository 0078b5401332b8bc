"""The task graph: who waits for what, as flat arrays.

Nodes are the phases of every task, rank after rank in the order they run, and after them the transfers. A phase
also waits for the phase before it on its lane; that is not an edge but the lane's order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dualpipe_sim.base.arrays import BoolArray, FloatArray, IntArray
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.base.show import brief, line
from dualpipe_sim.costs.load import Load
from dualpipe_sim.costs.phases import Phase, StageCosts
from dualpipe_sim.graph.wiring import NO_NODE, Wiring
from dualpipe_sim.order.ops import F, Kind
from dualpipe_sim.order.schedule import Schedule

if TYPE_CHECKING:
    import networkx as nx

    from dualpipe_sim.hardware.cluster import Topology


@dataclass(frozen=True, eq=False)
class Transfers:
    """Stage boundaries' tensors that cross from one rank to another, one row each.

    Attributes:
        producer: row of the op whose output it is.
        consumer: row of the op that needs it.
        size_bytes: bytes it carries, 0 where its time was given.
        latency_s: its time without the bytes.

    """

    producer: IntArray
    consumer: IntArray
    size_bytes: FloatArray
    latency_s: FloatArray

    __repr__ = brief

    def __len__(self) -> int:
        return len(self.producer)


class Issue(NamedTuple):
    """When the host issues each node: it starts no sooner than it is begun to be issued, and ends no sooner than it is.

    Attributes:
        begin_s: from when each node may start, shape ``(nodes,)``.
        end_s: from when it may have ended, same shape.

    """

    begin_s: FloatArray
    end_s: FloatArray

    def __repr__(self) -> str:
        return brief(self)


class Lanes(NamedTuple):
    """Which lane of which rank things run on; only here are the two one number.

    Attributes:
        rank: rank of each thing, shape ``(things,)``.
        lane: its lane, as the number of a ``Lane``, same shape.

    """

    rank: IntArray
    lane: IntArray

    def __repr__(self) -> str:
        return brief(self)

    def and_on(self, lane: Lane, rank: IntArray) -> Lanes:
        """Return these and, behind them, what runs on one lane of some ranks."""
        return Lanes(np.append(self.rank, rank), np.append(self.lane, np.full(len(rank), lane)))

    def in_order(self) -> tuple[IntArray, BoolArray]:
        """Return all things lane by lane, in the order given on each, and which of them begin a lane.

        Things 0, 1 and 2 on compute of rank 1, rank 0 and rank 1: ``[1, 0, 2]`` and ``[True, True, False]``.
        """
        number = self.rank * len(Lane) + self.lane
        by_lane = np.argsort(number, kind="stable")
        return by_lane, np.diff(number[by_lane], prepend=-1) != 0


@dataclass(frozen=True, eq=False)
class TaskGraph:
    """Phases and transfers with their durations and predecessors, shape ``(nodes,)`` where nothing else is said.

    Attributes:
        schedule: the order that was lowered.
        costs: the costs that it was lowered with, laid on its stages.
        phases: phases of one task of each shape, shape after shape; every other task of a shape has the same.
        wiring: who waits for whom.
        duration_s: seconds of each node; of a transfer that of one alone on its route.
        transfers: the transfers, the last rows of the nodes.
        shared: the topology whose links flows share, or None where none do.
        issue: when the host issues each node, where that takes time, else None.
        load: what makes phases on compute lanes longer than ``duration_s``, or None.

    """

    schedule: Schedule
    costs: StageCosts
    phases: tuple[Phase, ...]
    wiring: Wiring
    duration_s: FloatArray
    transfers: Transfers
    shared: Topology | None = None
    issue: Issue | None = None
    load: Load | None = None

    def __repr__(self) -> str:
        size = self.schedule.size
        nodes = f"{self.first_transfer:,} phases", f"{len(self.transfers):,} transfers"
        return line(self, self.schedule.name, size, *nodes, f"{self.edges.shape[1]:,} edges")

    @property
    def task(self) -> IntArray:
        """Task of each phase, shape ``(phases,)``, ascending."""
        return self.wiring.task

    @property
    def phase(self) -> IntArray:
        """Row in ``phases`` of each phase, shape ``(phases,)``."""
        return self.wiring.phase

    @property
    def edges(self) -> IntArray:
        """(waits for, node) of every edge, shape ``(2, edges)``, sorted by node."""
        return self.wiring.edges

    @property
    def sides(self) -> tuple[IntArray, IntArray] | None:
        """(waits for, transfer) of what each transfer waits for on both of its sides; None without rendezvous."""
        return self.wiring.sides

    @cached_property
    def barriers(self) -> tuple[IntArray, IntArray]:
        """(waits for, phase) of what phases of other ranks wait for with no tensor between, shape ``(waits,)`` each."""
        source, target = self.edges
        if self.schedule.vocabulary is None:
            return source[:0], target[:0]
        inside = np.flatnonzero((source < self.first_transfer) & (target < self.first_transfer))
        source, target = source[inside], target[inside]
        apart = self.rank[source] != self.rank[target]
        return source[apart], target[apart]

    @property
    def nodes(self) -> int:
        """Number of phases and transfers."""
        return len(self.duration_s)

    @property
    def first_transfer(self) -> int:
        """Node of the first transfer; phases stand before it."""
        return len(self.task)

    @property
    def rendezvous(self) -> bool:
        """Whether transfers wait for both of their sides, and for each other."""
        return self.sides is not None

    @property
    def shares_links(self) -> bool:
        """Whether something under way can slow down something else."""
        has_flows = bool(self.transfers.size_bytes.any()) or any(phase.flows for phase in self.phases)
        return self.shared is not None and has_flows

    @property
    def shares_sms(self) -> bool:
        """Whether a compute phase can be faster where no all-to-all runs beside it."""
        return any(phase.alone_s is not None for phase in self.phases)

    @property
    def fixed_durations(self) -> bool:
        """Whether every node lasts its ``duration_s``, whatever runs beside it."""
        return not (self.shares_links or self.shares_sms)

    @cached_property
    def rank(self) -> IntArray:
        """Rank of each phase, shape ``(phases,)``, ascending."""
        return self.schedule.rank_of_task[self.task]

    @cached_property
    def lane(self) -> IntArray:
        """Lane of each phase, as the number of a ``Lane``, shape ``(phases,)``."""
        return np.array([phase.lane for phase in self.phases])[self.phase]

    def on(self, lane: Lane, rank: int | None = None) -> BoolArray:
        """Return which phases run on a lane, of all ranks or of one, shape ``(phases,)``."""
        on_lane: BoolArray = self.lane == lane
        return on_lane if rank is None else on_lane & (self.rank == rank)

    @property
    def lanes(self) -> Lanes:
        """Which lane of which rank each phase runs on."""
        return Lanes(self.rank, self.lane)

    @property
    def first_phase_of_task(self) -> IntArray:
        """First node of each task, shape ``(tasks,)``."""
        return self.wiring.first_phase_of_task

    @property
    def issue_of_task(self) -> Issue | None:
        """When the host begins to issue each task and when it has, shape ``(tasks,)`` each."""
        first = self.first_phase_of_task
        last = np.append(first[1:], self.first_transfer) - 1
        return None if self.issue is None else Issue(self.issue.begin_s[first], self.issue.end_s[last])

    @property
    def predecessor_start(self) -> IntArray:
        """Where each node's predecessors begin in ``edges[0]``, shape ``(nodes + 1,)``."""
        return self.wiring.predecessor_start

    @cached_property
    def in_degree(self) -> IntArray:
        """Number of edges into each node."""
        return np.diff(self.predecessor_start)

    @property
    def sender(self) -> IntArray:
        """The phase whose output each transfer carries, the first that it waits for, shape ``(transfers,)``."""
        return self.wiring.sender

    @cached_property
    def previous_on_lane(self) -> IntArray:
        """The phase before each node on its lane, or NO_NODE (transfers have none)."""
        by_lane, begins = self.lanes.in_order()
        previous = np.full(self.nodes, NO_NODE)
        previous[by_lane[~begins]] = by_lane[np.flatnonzero(~begins) - 1]
        return previous

    @cached_property
    def op_of_node(self) -> IntArray:
        """Row of the op that each phase is part of, or that each transfer carries the output of."""
        half = np.array([phase.half for phase in self.phases])[self.phase]
        return np.concatenate([self.schedule.first_op[self.task] + half, self.transfers.producer])

    def label(self, node: int) -> str:
        """Return what a node is, in the text form's words: ``0F7``, ``0F7 attn layer 3``, ``0SEND_F7``."""
        if node >= self.first_transfer:
            return self.send_label(node - self.first_transfer)
        phase = self.phases[self.phase[node]]
        if phase.is_whole:
            return str(self.schedule.task(int(self.task[node])))
        op = self.schedule.op(int(self.op_of_node[node]))
        return f"{op} {phase.name} {Kind(phase.kind)}" + (f" layer {phase.layer}" if phase.layer >= 0 else "")

    def send_label(self, transfer: int) -> str:
        """Return torch's name of a transfer on its sender: ``0SEND_F7``."""
        return _message(self.schedule, int(self.transfers.producer[transfer]), "SEND")

    def receive_label(self, transfer: int) -> str:
        """Return torch's name of a transfer on its receiver: ``1RECV_F7``."""
        return _message(self.schedule, int(self.transfers.consumer[transfer]), "RECV")

    def lane_name(self, node: int) -> str:
        """Return the name of the lane that a node runs on; a transfer shows on its sender's ``send``."""
        return str(Lane(self.lane[node]) if node < self.first_transfer else Lane.SEND)

    def to_networkx(self) -> nx.DiGraph[int]:
        """Return the graph with ``label`` and ``duration_s`` on nodes; the order of lanes is edges too."""
        import networkx as nx

        graph: nx.DiGraph[int] = nx.DiGraph()
        for node, seconds in enumerate(self.duration_s.tolist()):
            graph.add_node(node, label=self.label(node), duration_s=seconds)
        graph.add_edges_from(self.edges.T.tolist())
        behind = np.flatnonzero(self.previous_on_lane >= 0)
        graph.add_edges_from(zip(self.previous_on_lane[behind].tolist(), behind.tolist(), strict=True))
        return graph


def _message(schedule: Schedule, row: int, direction: str) -> str:
    op = schedule.op(row)
    return f"{op.stage}{direction}_{'F' if op.kind == F else 'B'}{schedule.number_of(int(schedule.unit[row]))}"
