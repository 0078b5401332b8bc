"""The discrete-event engine, on SimPy: it plays any task graph.

A rank is a process for each of its lanes. A lane takes its phases in order: it sleeps until all that the phase
waits for is there, holds the lane for the phase's duration, and tells those who wait for it. A transfer leaves
when all that it waits for is done, and never blocks a lane.

Each node knows how many of its edges are still open (``_missing``, from the graph's in-degrees) and which nodes wait
for it (``_successors``). The order of a lane needs no edge, since its process takes one phase after the other. What
costs time is events, so there are as few as can be: about one for each phase and each transfer. A lane sleeps only if
something is missing, and a transfer that takes no time is left out of the play: what waits for it waits for its sender.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator
from typing import cast

import numpy as np
import simpy

from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.engine.deadlock import explain
from dualpipe_sim.engine.fair_share import FairShare
from dualpipe_sim.engine.flows import flows_of
from dualpipe_sim.engine.on_demand import OnDemandSms
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.graph.timeline import Timeline

NAME = "simpy"
_NEVER = float("nan")


def play(graph: TaskGraph) -> Timeline:
    """Play a graph event by event.

    Raises:
        DeadlockError: an order in which ranks wait for each other in a circle.

    """
    play = _Play(graph)
    play.env.run()
    start_s, end_s = np.array(play.start_s), np.array(play.end_s)
    if not graph.rendezvous:
        # Transfers that take no time were not played; they start and end when their sender ends.
        leaves_s = start_s[graph.first_transfer :] = end_s[graph.sender]
        sent_at_once = graph.duration_s[graph.first_transfer :] == 0
        end_s[graph.first_transfer :][sent_at_once] = leaves_s[sent_at_once]
    if np.isnan(end_s).any():
        raise explain(graph, done=~np.isnan(end_s))
    return Timeline(graph, start_s, end_s, NAME)


class _Play:
    """The state of one run: events touch one entry at a time, of arrays that are small enough to stay in cache."""

    def __init__(self, graph: TaskGraph) -> None:
        self.env = simpy.Environment()
        self.start_s = array("d", [_NEVER]) * graph.nodes
        self.end_s = array("d", [_NEVER]) * graph.nodes
        self._lasts = _lasting(self.env, graph)
        self._missing = _integers(graph.in_degree)
        self._first_transfer = graph.first_transfer
        starts, successors = _successors(graph)
        self._successor_start, self._successors = _integers(starts), _integers(successors)
        self._asleep: dict[int, simpy.Event] = {}
        self._begin_s = None if graph.issue is None else _floats(graph.issue.begin_s)
        self._issued_s = None if graph.issue is None else _floats(graph.issue.end_s)
        for phases in _phases_of_lanes(graph):
            self.env.process(self._lane(phases))

    def _lane(self, phases: array[int]) -> Generator[simpy.Event, object, None]:
        env, missing, lasts = self.env, self._missing, self._lasts
        for phase in phases:
            if missing[phase]:
                # Whoever brings the last missing input takes this event out of ``_asleep`` and fires it.
                self._asleep[phase] = event = simpy.Event(env)
                yield event
            if self._begin_s is not None and self._begin_s[phase] > env.now:
                yield simpy.Timeout(env, self._begin_s[phase] - env.now)
            self.start_s[phase] = env.now
            yield lasts(phase)
            if self._issued_s is not None and self._issued_s[phase] > env.now:
                yield simpy.Timeout(env, self._issued_s[phase] - env.now)
            self._finish(phase)

    def _finish(self, node: int) -> None:
        """Note the end of a node and tell all that wait for it: phases may start, transfers may leave."""
        self.end_s[node] = self.env.now
        for successor in self._successors[self._successor_start[node] : self._successor_start[node + 1]]:
            if successor < self._first_transfer:
                self._arrive(successor)
            else:
                self._send(successor)

    def _send(self, transfer: int) -> None:
        self._missing[transfer] -= 1
        if not self._missing[transfer]:
            begin_s = self.env.now if self._begin_s is None else self._begin_s[transfer]
            if begin_s > self.env.now:
                issued = simpy.Timeout(self.env, begin_s - self.env.now)
                issued.callbacks.append(lambda _: self._leave(transfer))
            else:
                self._leave(transfer)

    def _leave(self, transfer: int) -> None:
        self.start_s[transfer] = self.env.now
        under_way = self._lasts(transfer)
        under_way.callbacks.append(self._received)

    def _received(self, under_way: simpy.Event) -> None:
        self._finish(cast("int", under_way.value))

    def _arrive(self, phase: int) -> None:
        self._missing[phase] -= 1
        if not self._missing[phase] and phase in self._asleep:
            self._asleep.pop(phase).succeed()


def _lasting(env: simpy.Environment, graph: TaskGraph) -> Callable[[int], simpy.Event]:
    """Return what starts a node: it gives the event that fires, with the node as its value, when the node is done."""
    duration_s = array("d", graph.duration_s.tobytes())

    def lasts(node: int) -> simpy.Event:
        return simpy.Timeout(env, duration_s[node], node)

    if graph.shared is not None and graph.shares_links:
        lasts = FairShare(env, flows_of(graph, graph.shared), lasts).lasts
    if graph.shares_sms:
        lasts = OnDemandSms(env, graph, lasts).lasts
    return lasts


def _successors(graph: TaskGraph) -> tuple[IntArray, IntArray]:
    """Return what waits for each node: where it begins, shape ``(nodes + 1,)``, and the nodes.

    Node n's are ``nodes[begins[n] : begins[n + 1]]``. What waits for a transfer that takes no time waits for its sender
    instead, unless the transfer itself may wait (rendezvous). Edges 0 → 4 → 2 with such a transfer 4 become 0 → 2.
    """
    sender = np.arange(graph.nodes)
    at_once = graph.first_transfer + np.flatnonzero(graph.duration_s[graph.first_transfer :] == 0)
    at_once = at_once[:0] if graph.rendezvous else at_once
    sender[at_once] = graph.sender[at_once - graph.first_transfer]
    source, target = sender[graph.edges[0]], graph.edges[1]
    # The edge into a transfer that is left out goes too.
    takes_time = sender[target] == target
    source, target = source[takes_time], target[takes_time]
    # The graph has edges by the node that waits; here they go by the node that is waited for.
    by_source = np.argsort(source, kind="stable")
    return np.searchsorted(source[by_source], np.arange(graph.nodes + 1)), target[by_source]


def _floats(values: FloatArray) -> array[float]:
    return array("d", values.tobytes())


def _integers(values: IntArray) -> array[int]:
    """Return the values as a plain array: what is read one by one is read faster than from numpy's."""
    return array("q", values.tobytes())


def _phases_of_lanes(graph: TaskGraph) -> list[array[int]]:
    """Return the phases of each lane of each rank, in the order they run."""
    by_lane, begins = graph.lanes.in_order()
    return [_integers(phases) for phases in np.split(by_lane, np.flatnonzero(begins)[1:])]
