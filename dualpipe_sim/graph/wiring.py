"""Who waits for whom: all of a task graph that does not depend on how long anything takes.

Everything is an array operation over all tasks at once. Four arrays carry that through this file:

- ``task[node]``: the task that a phase is part of, ascending.
- ``phase[node]``: its row in the templates, which stand shape after shape.
- ``begin[task]``: the task's first node; ``begin[task] + i`` is its phase i, which is how templates name each other.
- ``first[task]``, ``last[task]``: its first or last node on one lane, or ``NO_NODE`` where it has none there.

Two tasks of two phases each, of one shape: ``task = [0, 0, 1, 1]``, ``phase = [0, 1, 0, 1]``, ``begin = [0, 2]``.
An edge is a pair (waits for, node); what a lane's order says already is no edge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import TypeAlias

import numpy as np

from dualpipe_sim.base.arrays import IntArray
from dualpipe_sim.base.kept import Kept
from dualpipe_sim.base.lanes import PHASE_LANES, Lane
from dualpipe_sim.base.show import brief
from dualpipe_sim.costs.phases import Phase
from dualpipe_sim.errors import DeadlockError, ScheduleError
from dualpipe_sim.graph.rendezvous import Issued, Waits, issued, issued_by
from dualpipe_sim.order.barriers import barriers, meetings
from dualpipe_sim.order.check import check_lines
from dualpipe_sim.order.dependencies import dependencies
from dualpipe_sim.order.messages import wrong_messages
from dualpipe_sim.order.ops import BESIDE, COPIES, UNSHARD, F, L, O
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.runtimes.registry import RuntimeInUse
from dualpipe_sim.runtimes.torch import program_of

NO_NODE = -1

Edges: TypeAlias = tuple[IntArray, IntArray]
"""(waits for, node) of some edges, side by side."""


@dataclass(frozen=True, eq=False)
class Wiring:
    """Phases and transfers, and what each waits for.

    Attributes:
        task: task of each phase, shape ``(phases,)``, ascending.
        phase: row in the templates of each phase, shape ``(phases,)``.
        producer: row of the op whose output each transfer carries, shape ``(transfers,)``.
        consumer: row of the op that needs it, shape ``(transfers,)``.
        edges: (waits for, node) of every edge, shape ``(2, edges)``, sorted by node.
        sides: (waits for, transfer) of what each transfer waits for on its sender and on its receiver, which it then
            holds up until both are there, in the order of their rows; None where each waits only for the op that made
            it.
        in_turn: the order in which transfers are issued, or None where each leaves as it is made.

    """

    task: IntArray
    phase: IntArray
    producer: IntArray
    consumer: IntArray
    edges: IntArray
    sides: tuple[IntArray, IntArray] | None
    in_turn: Issued | None

    __repr__ = brief

    @cached_property
    def predecessor_start(self) -> IntArray:
        """Where each node's predecessors begin in ``edges[0]``, shape ``(nodes + 1,)``."""
        return np.searchsorted(self.edges[1], np.arange(len(self.task) + len(self.producer) + 1))

    @cached_property
    def sender(self) -> IntArray:
        """The phase whose output each transfer carries, the first that it waits for, shape ``(transfers,)``."""
        sender: IntArray = self.edges[0][self.predecessor_start[len(self.task) : -1]]
        return sender

    @cached_property
    def first_phase_of_task(self) -> IntArray:
        """First node of each task, shape ``(tasks,)``; a task is one phase at least."""
        return np.flatnonzero(np.diff(self.task, prepend=-1))


@dataclass(frozen=True)
class Templates:
    """The phases of one task of each shape, shape after shape.

    Attributes:
        phases: all of them.
        size: number of phases of each task, shape ``(tasks,)``.
        first: row of each task's first phase, shape ``(tasks,)``.

    """

    phases: tuple[Phase, ...]
    size: IntArray
    first: IntArray

    __repr__ = brief


def wiring_of(schedule: Schedule, templates: Templates, runtime: RuntimeInUse | None, *, rendezvous: bool) -> Wiring:
    """Return who waits for whom.

    The last few are kept: most runs of one order differ in how long things take.

    Args:
        schedule: the order.
        templates: the phases of its tasks.
        runtime: whose program issues sends and receives; None for torch's order of them, all of a rank's on one line.
        rendezvous: without a runtime, whether sends and receives are issued in order, and wait for each other.

    Raises:
        ScheduleError: an op that is missing, doubled, or never gets what it needs.
        DeadlockError: sends and receives that wait for each other.

    """
    if templates.size.sum() > _MOST:  # (the question alone would take long)
        return _wire(schedule, templates, runtime, rendezvous=rendezvous)
    waits = tuple((one.lane, one.half, one.after, one.late) for one in templates.phases)
    question = schedule.key, waits, templates.size.tobytes(), runtime or rendezvous
    return _KEPT.of(question, lambda: _wire(schedule, templates, runtime, rendezvous=rendezvous))


_MOST = 400_000
"""Phases; for each, all that hangs on a wiring takes 200 to 400 bytes."""

_KEPT: Kept[Wiring] = Kept(most=_MOST, size=lambda wiring: len(wiring.task))


def _wire(schedule: Schedule, templates: Templates, runtime: RuntimeInUse | None, *, rendezvous: bool) -> Wiring:
    phases, sizes = templates.phases, templates.size
    task = np.repeat(np.arange(len(sizes)), sizes)
    begin = np.cumsum(sizes) - sizes
    phase = templates.first[task] + np.arange(len(task)) - begin[task]
    lane = np.array([one.lane for one in phases])[phase]

    producer, consumer = dependencies(schedule)
    passed, waiting = barriers(schedule)
    afar = schedule.rank[passed] != schedule.rank[waiting]
    met, meeting = meetings(schedule)
    elsewhere = schedule.rank_of_task[met] != schedule.rank_of_task[meeting]
    if schedule.program is not None and (wrong := next(wrong_messages(schedule.program, schedule), None)):
        raise ScheduleError(f"{schedule.name}: {wrong}")
    crosses = schedule.rank[producer] != schedule.rank[consumer]
    sends, receives = producer[crosses], consumer[crosses]
    in_turn = None
    if runtime is not None:
        in_turn = issued_by(runtime, schedule, receives)
    elif rendezvous:
        if stopped := check_lines(schedule):
            raise DeadlockError(f"{schedule.name}: {stopped[0]}")
        in_turn = issued(schedule, program_of(schedule.bare), receives)
    if in_turn is not None:
        sends, receives = sends[in_turn.order], receives[in_turn.order]
    transfer = len(task) + np.arange(len(sends))
    nodes_on = {here: np.flatnonzero(lane == here) for here in _in_use(phases)}
    first_on = {here: _first_of_task(task, nodes, len(sizes)) for here, nodes in nodes_on.items()}
    last_on = [_last_of_task(task, nodes, len(sizes)) for nodes in nodes_on.values()]
    output = _output(schedule, phases, phase, begin, sizes, sends)
    edges = [
        _edges_inside(phases, phase, begin, task),
        *_edges_between_tasks(first_on, lane, task, schedule),
        *_brought(schedule, first_on, begin + sizes - 1, producer, consumer),
        (output, transfer),
        *_inputs(first_on, schedule.task_of_op[receives], transfer),
        *_inputs(
            first_on, schedule.task_of_op[waiting[afar]], _output(schedule, phases, phase, begin, sizes, passed[afar])
        ),
        *_whole(met[elsewhere], meeting[elsewhere], first_on, last_on),
        # What a rank hands itself needs no edge where its order already has it.
        *_whole(*_against_order(schedule, producer[~crosses], consumer[~crosses]), first_on, last_on),
        *_whole(*_against_order(schedule, passed[~afar], waiting[~afar]), first_on, last_on),
    ]
    sides = None
    if in_turn is not None:
        sender, receiver = (
            _behind_tasks(one.after_task, last_on, len(task)) for one in (in_turn.sender, in_turn.receiver)
        )
        behind_another = sender[0] != output[sender[1] - len(task)]
        edges += [
            (sender[0][behind_another], sender[1][behind_another]),
            receiver,
            _of_nodes(in_turn.after_message, len(task)),
            *_waited_for(in_turn, first_on, len(task)),
        ]
        sides = (
            np.hstack([_of_nodes(in_turn.sender.after_message, len(task)), sender]),
            np.hstack([_of_nodes(in_turn.receiver.after_message, len(task)), receiver]),
        )
    return Wiring(task, phase, sends, receives, _sorted_by_target(edges), sides, in_turn)


def _in_use(phases: tuple[Phase, ...]) -> list[Lane]:
    used = {one.lane for one in phases}
    return [lane for lane in PHASE_LANES if lane in used]


def _edges_inside(phases: tuple[Phase, ...], phase: IntArray, begin: IntArray, task: IntArray) -> Edges:
    """Edges between the phases of one task, beside the order of their lanes.

    A template says "row 5 waits for the task's phase 2"; every node of row 5 then waits for its own task's node 2.
    """
    waits = [(row, local) for row, one in enumerate(phases) for local in one.after]
    if not waits:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    nodes_of = _rows_by_value(phase, len(phases))
    targets = [nodes_of[row] for row, _ in waits]
    sources = [begin[task[nodes]] + local for nodes, (_, local) in zip(targets, waits, strict=True)]
    return np.concatenate(sources), np.concatenate(targets)


def _rows_by_value(values: IntArray, count: int) -> list[IntArray]:
    """Return where each value from 0 to ``count`` - 1 stands, ascending: ``[1, 0, 1]`` gives ``[[1], [0, 2]]``."""
    by_value = np.argsort(values, kind="stable")
    return np.split(by_value, np.searchsorted(values[by_value], np.arange(1, count)))


def _first_of_task(task: IntArray, nodes: IntArray, tasks: int) -> IntArray:
    """First of some nodes, given in order, of each task, NO_NODE where it has none of them, shape ``(tasks,)``."""
    first = np.full(tasks, NO_NODE)
    first[task[nodes[::-1]]] = nodes[::-1]  # of several writes to one place the last one stays
    return first


def _last_of_task(task: IntArray, nodes: IntArray, tasks: int) -> IntArray:
    """Last of some nodes, given in order, of each task, NO_NODE where it has none of them, shape ``(tasks,)``."""
    last = np.full(tasks, NO_NODE)
    last[task[nodes]] = nodes
    return last


def _edges_between_tasks(
    first_on: Mapping[Lane, IntArray], lane: IntArray, task: IntArray, schedule: Schedule
) -> Iterable[Edges]:
    """A task starts when the one before it on its rank is done, on every lane.

    That the phases of one lane run in turn is the lane's order. Across lanes an edge says it: a task's first phase
    here waits for the last phase over there of an earlier task of its rank, which is the one before the first node
    over there that is not earlier.
    """
    rank = schedule.rank_of_task
    beside = schedule.of_kinds(*COPIES).any()  # such copies are ops of their own, and hold up nothing but by name
    for here, other in permutations(first_on, 2):
        if other == Lane.DATA or (other == Lane.COPY and beside):
            continue
        over_there = np.flatnonzero(lane == other)
        first = first_on[here][first_on[here] >= 0]
        before = np.searchsorted(task[over_there], task[first]) - 1
        earlier = over_there[np.maximum(before, 0)]
        waits = (before >= 0) & (rank[task[earlier]] == rank[task[first]])
        yield earlier[waits], first[waits]


def _brought(
    schedule: Schedule, first_on: Mapping[Lane, IntArray], last: IntArray, producer: IntArray, consumer: IntArray
) -> Iterable[Edges]:
    """What waits for ops beside compute: for what they bring, activations or weights, and forwards for room.

    A forward waits for all copies to the host that stand before it on its rank but the last one, which may be under
    way while it runs.

    Args:
        schedule: the order.
        first_on: first node of each task on each lane.
        last: last node of each task.
        producer: row of the op that another one waits for.
        consumer: row of that.

    """
    if not schedule.of_kinds(*BESIDE).any():
        return
    brings = (schedule.kind[producer] == int(L)) | (schedule.kind[producer] == int(UNSHARD))
    before, behind = schedule.task_of_op[producer[brings]], schedule.task_of_op[consumer[brings]]
    out, forward = (schedule.task_of_op[schedule.of_kinds(kind)] for kind in (O, F))
    left = np.searchsorted(out, forward) - 2
    left, forward = left[left >= 0], forward[left >= 0]
    holds = schedule.rank_of_task[out[left]] == schedule.rank_of_task[forward]
    before, behind = np.append(before, out[left[holds]]), np.append(behind, forward[holds])
    for first in first_on.values():
        there = first[behind] >= 0
        yield last[before[there]], first[behind[there]]


def _output(
    schedule: Schedule,
    phases: tuple[Phase, ...],
    phase: IntArray,
    begin: IntArray,
    sizes: IntArray,
    op: IntArray,
) -> IntArray:
    """Return the last phase of each op's own half of its task, shape as ``op``: its output is ready then.

    What is late comes behind the output.
    """
    task = schedule.task_of_op[op]
    if len(phase) == len(begin):
        return begin[task]
    half = np.array([one.half for one in phases])[phase]
    node = np.flatnonzero(~np.array([one.late for one in phases])[phase])
    wanted = (op != schedule.first_op[task]).astype(np.int64)
    # Phases of a half stand in the order they depend on each other, so the last one listed ends it.
    last = np.full((len(begin), 2), NO_NODE)
    last[np.repeat(np.arange(len(begin)), sizes)[node], half[node]] = node
    found = last[task, wanted]
    return np.asarray(np.where(found >= 0, found, last[task].max(axis=1)))


def _inputs(first_on: Mapping[Lane, IntArray], consumer: IntArray, source: IntArray) -> Iterable[Edges]:
    """A task starts when all that it waits for is there: on every lane, its first phase waits for each."""
    for first in first_on.values():
        there = first[consumer] >= 0
        yield source[there], first[consumer[there]]


def _whole(
    before: IntArray, behind: IntArray, first_on: Mapping[Lane, IntArray], last_on: Sequence[IntArray]
) -> Iterable[Edges]:
    """Tasks that wait for all of others: on each lane their first phase waits for the last on each."""
    for last in last_on:
        there = last[before] >= 0
        yield from _inputs(first_on, behind[there], last[before[there]])


def _behind_tasks(after_task: Waits, last_on: Sequence[IntArray], phases: int) -> Edges:
    """What messages wait for of the last task issued before them: the last phase on every lane."""
    before, message = after_task
    edges = [(last[before], message) for last in last_on]
    source, target = np.concatenate([one for one, _ in edges]), np.concatenate([one for _, one in edges])
    there = source >= 0
    return source[there], phases + target[there]


def _of_nodes(messages: Waits, phases: int) -> Edges:
    return phases + messages[0], phases + messages[1]


def _waited_for(in_turn: Issued, first_on: Mapping[Lane, IntArray], phases: int) -> Iterable[Edges]:
    """A task waits for the messages that its rank waits for before it."""
    message, waiting = in_turn.before_task
    for first in first_on.values():
        there = first[waiting] >= 0
        yield phases + message[there], first[waiting[there]]


def _against_order(schedule: Schedule, producer: IntArray, consumer: IntArray) -> tuple[IntArray, IntArray]:
    """Return (task, task that waits for it) of what a rank hands itself against its own order.

    It is a circle, which the engine then finds, but of a copy to the host that stands before its forward.
    """
    before, after = schedule.task_of_op[producer], schedule.task_of_op[consumer]
    against = before >= after
    return before[against], after[against]


def _sorted_by_target(edges: list[Edges]) -> IntArray:
    """Join edges, sorted by the node that waits, shape ``(2, edges)``; the first of a node's edges stays its first."""
    source = np.concatenate([one for one, _ in edges])
    target = np.concatenate([one for _, one in edges])
    by_target = np.argsort(target, kind="stable")
    return np.stack([source[by_target], target[by_target]])
