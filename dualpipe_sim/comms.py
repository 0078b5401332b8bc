"""The order of sends and receives with which a step is fastest, for a runtime that issues a program as it is written.

Where all of a rank's messages go one after another, a receive that is issued too early holds up sends that are ready,
and a send that nobody waits for yet holds up a receive. What may be chosen is one order of all messages: two ranks that
keep to it agree on everything that passes between them, and nobody waits for ever. A rank's row then follows: a send
stands behind the op that makes it, a receive as early as the order lets it.

Good orders are those in which tensors are made. When that is depends on the order, so it is asked again of what comes
out, a few times; then messages on the critical path that were held up change places with what held them up, as long as
a step gets shorter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import numpy as np

from dualpipe_sim.analysis.critical_path import critical_path
from dualpipe_sim.costs.phases import Costs
from dualpipe_sim.engine.play import play
from dualpipe_sim.errors import DeadlockError, ScheduleError
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.hardware.cluster import Topology
from dualpipe_sim.order.messages import Pipes
from dualpipe_sim.order.ops import Action, Program, Receive, Send, Tensor, ops_of
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.runtimes.registry import RuntimeInUse
from dualpipe_sim.runtimes.torch import program_of

Order: TypeAlias = tuple[Tensor, ...]
"""All that passes between ranks, in one order."""

_ROUNDS, _TRIES = 6, 120
_ROUNDING = 1e-9


class Ordered(NamedTuple):
    """A schedule with its best order of sends and receives.

    Attributes:
        schedule: the schedule, with its program; without one where nothing is faster than what the runtime issues.
        makespan_s: how long a step takes with it.
        usual_s: how long one takes as the runtime itself orders them, or the plain lowering where it cannot.

    """

    schedule: Schedule
    makespan_s: float
    usual_s: float


def order_comms(
    schedule: Schedule, costs: Costs, runtime: RuntimeInUse, topology: Topology | None = None, *, tries: int = _TRIES
) -> Ordered:
    """Search for the order of sends and receives with which a schedule is fastest.

    >>> from dualpipe_sim import build
    >>> from dualpipe_sim.costs.uniform import UniformCosts
    >>> from dualpipe_sim.runtimes.registry import RUNTIMES
    >>> torch = RUNTIMES.get("torch").with_options({"version": "2.11"})
    >>> schedule = build("interleaved-1f1b", 4, 8, stages_per_rank=2)
    >>> found = order_comms(schedule, UniformCosts(1.0, 1.0, 1.0, transfer_s=0.1), torch)
    >>> found.makespan_s < 0.8 * found.usual_s
    True

    Args:
        schedule: the order of ops; a program of its own does not count.
        costs: what ops and transfers take.
        runtime: what issues the program; one that runs programs as they are written.
        topology: routes of transfers that are given as bytes.
        tries: how many changes of places are tried at most.

    Raises:
        ScheduleError: a runtime that runs no program but its own.

    """
    if not runtime.spec.chains:
        raise ScheduleError(f"runtime {runtime.name} runs no program but its own, so its messages have its own order")
    bare = replace(schedule, program=None)
    search = _Search(bare, costs, runtime, topology)
    usual_s = search.usual_s()
    search.settle()
    search.exchange(tries)
    best, program = search.best
    if best.makespan_s > usual_s * (1 + _ROUNDING):
        return Ordered(bare, usual_s, usual_s)
    return Ordered(replace(bare, program=program), best.makespan_s, usual_s)


class _Search:
    """The best program so far, and what it was found from."""

    def __init__(self, schedule: Schedule, costs: Costs, runtime: RuntimeInUse, topology: Topology | None) -> None:
        self._schedule, self._costs, self._runtime, self._topology = schedule, costs, runtime, topology
        lowered = program_of(schedule)
        self._bare = [[cell for cell in row if not isinstance(cell, (Send, Receive))] for row in lowered]
        self._pipes = Pipes(schedule.placement)
        self.best: tuple[Timeline, Program] = self._played(lowered), lowered

    def usual_s(self) -> float:
        """Return the makespan of the runtime's own program."""
        try:
            own = lower(self._schedule, self._costs, self._topology, runtime=self._runtime)
        except ScheduleError:
            return self.best[0].makespan_s
        return play(own).makespan_s

    def settle(self) -> None:
        """Order messages as their tensors are made, with what that makes of the times, until nothing gets better."""
        ideal = play(lower(self._schedule, self._costs, self._topology))
        for timeline in (ideal, self.best[0]):
            for _ in range(_ROUNDS):
                tried = [self._try(order) for order in _orders(timeline)]
                faster = min(filter(None, tried), key=lambda one: one.makespan_s, default=None)
                if faster is None:
                    break
                timeline = faster  # noqa: PLW2901 - the next round begins with what this one found

    def exchange(self, tries: int) -> None:
        """Let messages that were held up on the critical path pass what held them up."""
        tried: set[Order] = set()
        while tries:
            timeline = self.best[0]
            orders = [order for order in _exchanged(timeline) if order not in tried]
            if not orders:
                return
            for order in orders[:tries]:
                tries -= 1
                tried.add(order)
                if self._try(order) is not None:
                    break

    def _try(self, order: Order) -> Timeline | None:
        """Play an order of messages; return its timeline where it is the best so far."""
        program = self._program(order)
        if program is None:
            return None
        try:
            timeline = self._played(program)
        except DeadlockError:
            return None
        if timeline.makespan_s >= self.best[0].makespan_s * (1 - _ROUNDING):
            return None
        self.best = timeline, program
        return timeline

    def _played(self, program: Program) -> Timeline:
        schedule = replace(self._schedule, program=program)
        return play(lower(schedule, self._costs, self._topology, runtime=self._runtime))

    def _program(self, order: Order) -> Program | None:
        """Return the rows of an order of messages; None where an op would run before what it receives."""
        rows = [_Writer(row, self._pipes) for row in self._bare]
        for tensor in order:
            source, target = self._pipes.ranks_of(tensor)
            rows[source].send(tensor)
            rows[target].receive(tensor)
        finished = [row.finish() for row in rows]
        return None if None in finished else tuple(row for row in finished if row is not None)


class _Writer:
    """A rank's row while messages are put between its ops."""

    def __init__(self, row: Sequence[Action], pipes: Pipes) -> None:
        self._row, self._pipes, self._next = row, pipes, 0
        self._written: list[Action] = []
        self._there: set[Tensor] = set()
        self._made_at = {tensor: place for place, cell in enumerate(row) for tensor in pipes.outputs_of(cell)}
        self._broken = False

    def send(self, tensor: Tensor) -> None:
        self._write_ops(self._made_at[tensor] + 1)
        self._written.append(Send(tensor))

    def receive(self, tensor: Tensor) -> None:
        self._there.add(tensor)
        self._written.append(Receive(tensor))

    def finish(self) -> tuple[Action, ...] | None:
        self._write_ops(len(self._row))
        return None if self._broken else tuple(self._written)

    def _write_ops(self, until: int) -> None:
        for cell in self._row[self._next : until]:
            if ops_of(cell) and not all(one.tensor in self._there for one in self._pipes.receives_of(cell)):
                self._broken = True
            self._written.append(cell)
        self._next = max(self._next, until)


def _orders(timeline: Timeline) -> Iterator[Order]:
    """Yield the transfers of a timeline in the order in which they were made, and in which they moved."""
    graph = timeline.graph
    tensors = _tensors(timeline)
    made_s, moved_s = timeline.end_s[graph.sender], timeline.start_s[graph.first_transfer :]
    needed_s = timeline.task_start_s[graph.schedule.task_of_op[graph.transfers.consumer]]
    for first, then in ((made_s, needed_s), (moved_s, needed_s), (np.maximum(made_s, moved_s), made_s)):
        yield tuple(tensors[place] for place in np.lexsort((then, first)).tolist())


def _exchanged(timeline: Timeline) -> Iterator[Order]:
    """Yield the order of a timeline's messages with one on its critical path before what held it up, last one first."""
    graph = timeline.graph
    tensors = _tensors(timeline)
    moved_s = timeline.start_s[graph.first_transfer :]
    order = np.lexsort((timeline.end_s[graph.sender], moved_s)).tolist()
    place_of = {transfer: place for place, transfer in enumerate(order)}
    path = critical_path(timeline).nodes.tolist()
    for before, node in zip(reversed(path[:-1]), reversed(path[1:]), strict=True):
        if before < graph.first_transfer or node < graph.first_transfer:
            continue
        blocker, held = before - graph.first_transfer, node - graph.first_transfer
        changed = [one for one in order if one != held]
        changed.insert(min(place_of[blocker], len(changed)), held)
        yield tuple(tensors[one] for one in changed)


def _tensors(timeline: Timeline) -> list[Tensor]:
    """Return what each transfer of a timeline carries."""
    schedule = timeline.graph.schedule
    pipes = Pipes(schedule.placement)
    return [pipes.inputs_of(schedule.op(row))[0] for row in timeline.graph.transfers.consumer.tolist()]
