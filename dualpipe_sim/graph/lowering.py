"""Lowering: order, costs and topology meet here, and only here, and become a task graph.

Everything is an array operation over all tasks at once. The costs are asked once for each *shape* of task (kind and
stage, or the two of a pair) for its phases, a *template*; tasks of a shape have the same phases, so a node of the graph
is a task and a row in the templates. Four arrays carry that through this file:

- ``task[node]``: the task that a phase is part of, ascending.
- ``phase[node]``: its row in the templates, which stand shape after shape.
- ``begin[task]``: the task's first node; ``begin[task] + i`` is its phase i, which is how templates name each other.
- ``first[task]``, ``last[task]``: its first or last node on one lane, or ``NO_NODE`` where it has none there.

Two tasks of two phases each, of one shape: ``task = [0, 0, 1, 1]``, ``phase = [0, 1, 0, 1]``, ``begin = [0, 2]``.
An edge is a pair (waits for, node); what a lane's order says already is no edge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import permutations
from typing import TypeAlias, cast

import numpy as np

from dualpipe_sim.base.arrays import FloatArray, IntArray, distinct
from dualpipe_sim.base.lanes import PHASE_LANES, Lane
from dualpipe_sim.costs.asked import phases_of, stage_costs
from dualpipe_sim.costs.phases import Costs, Phase, StageCosts
from dualpipe_sim.costs.transfers import by_boundary, hop_s
from dualpipe_sim.errors import DeadlockError, ScheduleError, UserError
from dualpipe_sim.graph.host import issue_of
from dualpipe_sim.graph.micro_batch_weights import weight_of_op, weight_of_phase
from dualpipe_sim.graph.rendezvous import Issued, Waits, issued, issued_by
from dualpipe_sim.graph.task_graph import NO_NODE, TaskGraph, Transfers
from dualpipe_sim.hardware.cluster import Topology
from dualpipe_sim.order.check import check_lines
from dualpipe_sim.order.dependencies import dependencies
from dualpipe_sim.order.messages import wrong_messages
from dualpipe_sim.order.ops import R
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.runtimes.registry import RuntimeInUse
from dualpipe_sim.runtimes.torch import program_of

Edges: TypeAlias = tuple[IntArray, IntArray]
"""(waits for, node) of some edges, side by side."""


def lower(
    schedule: Schedule,
    costs: Costs,
    topology: Topology | None = None,
    *,
    contention: bool = False,
    rendezvous: bool = False,
    runtime: RuntimeInUse | None = None,
) -> TaskGraph:
    """Lay a schedule's tasks out as phases and transfers.

    Args:
        schedule: the order.
        costs: durations of phases, and the time or the bytes of transfers.
        topology: routes of transfers that are given as bytes, and the links of all-to-alls.
        contention: flows that overlap share the topology's links.
        rendezvous: sends and receives are issued in order, and each waits for the other side.
        runtime: whose program issues them; None for torch's order of them, all of a rank's on one line.

    Raises:
        ScheduleError: an op that is missing, doubled, or never gets what it needs.
        UserError: phases that no engine can play.

    """
    if contention and topology is None:
        raise ScheduleError("contention needs a cluster: flows share its links")
    of_stages = _of_order(stage_costs(costs, schedule.placement), schedule)
    phases, sizes, first_phase = _templates(schedule, of_stages)
    task = np.repeat(np.arange(len(sizes)), sizes)
    begin = np.cumsum(sizes) - sizes
    phase = first_phase[task] + np.arange(len(task)) - begin[task]
    lane = np.array([one.lane for one in phases])[phase]

    producer, consumer = dependencies(schedule)
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
        in_turn = issued(schedule, program_of(schedule), receives)
    if in_turn is not None:
        sends, receives = sends[in_turn.order], receives[in_turn.order]
    transfers = _transfers(schedule, sends, receives, of_stages, topology)
    transfer = len(task) + np.arange(len(transfers))
    first_on = {here: _first_of_task(task, np.flatnonzero(lane == here), len(sizes)) for here in _in_use(phases)}
    output = _output(schedule, phases, phase, begin, sizes, transfers.producer)
    edges = [
        _edges_inside(phases, phase, begin, task),
        *_edges_between_tasks(first_on, lane, task, schedule),
        (output, transfer),
        *_inputs(first_on, schedule.task_of_op[transfers.consumer], transfer),
        # What a rank hands itself needs no edge where its order already has it; where not, it is a deadlock.
        *_backward_in_order(schedule, begin, producer[~crosses], consumer[~crosses]),
    ]
    sides = None
    if in_turn is not None:
        last_on = [_last_of_task(task, np.flatnonzero(lane == here), len(sizes)) for here in first_on]
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
    return TaskGraph(
        schedule=schedule,
        costs=of_stages,
        phases=phases,
        task=task,
        phase=phase,
        duration_s=_durations_s(schedule, of_stages, phases, (task, phase), transfers, topology),
        transfers=transfers,
        edges=_sorted_by_target(edges),
        shared=topology if contention else None,
        sides=sides,
        issue=issue_of(schedule, of_stages, task, len(transfers), in_turn),
        load=getattr(of_stages, "load", None),
    )


def durations_s(graph: TaskGraph, costs: Costs, topology: Topology | None = None) -> FloatArray:
    """Return the seconds of each node of a graph under other costs, shape ``(nodes,)``.

    Raises:
        UserError: costs that cut a task into other phases than the graph's, which takes another graph, or a graph
            whose links or SMs are shared, so that no node's time is its own.

    """
    if not graph.fixed_durations:
        raise UserError(
            "where links or SMs are shared, durations come from playing; lower the schedule with these costs"
        )
    schedule = graph.schedule
    of_stages = _of_order(stage_costs(costs, schedule.placement), schedule)
    phases, _, _ = _templates(schedule, of_stages)
    old, new = ([phase._replace(duration_s=0.0, flows=()) for phase in both] for both in (graph.phases, phases))
    if old != new:
        raise UserError("these costs cut tasks into other phases than the graph's; lower the schedule with them")
    transfers = _transfers(schedule, graph.transfers.producer, graph.transfers.consumer, of_stages, topology)
    return _durations_s(schedule, of_stages, phases, (graph.task, graph.phase), transfers, topology)


def _of_order(costs: StageCosts, schedule: Schedule) -> StageCosts:
    """Return the costs of stages for an order; where it runs forwards again, backwards do not."""
    apart = getattr(costs, "with_forwards_again", None)
    return cast("StageCosts", apart()) if apart is not None and schedule.of_kinds(R).any() else costs


def _templates(schedule: Schedule, costs: StageCosts) -> tuple[tuple[Phase, ...], IntArray, IntArray]:
    """Ask the costs once for each shape of task; return all phases, and each task's number and first of them."""
    shapes, shape_of_task = schedule.task_shapes
    phases: list[Phase] = []
    sizes, starts = [], []
    for template in phases_of(costs, shapes):
        starts.append(len(phases))
        sizes.append(len(template))
        phases.extend(template)
    return tuple(phases), np.array(sizes)[shape_of_task], np.array(starts)[shape_of_task]


def _in_use(phases: tuple[Phase, ...]) -> list[Lane]:
    used = {one.lane for one in phases}
    return [lane for lane in PHASE_LANES if lane in used]


def _transfers(
    schedule: Schedule, producer: IntArray, consumer: IntArray, costs: StageCosts, topology: Topology | None
) -> Transfers:
    """Return the transfers; one whose time is given carries no bytes, and that time is its latency."""
    given, boundary, weight = costs.transfer_s, _boundary(schedule, producer, consumer), weight_of_op(schedule, costs)
    if given is not None or topology is None:
        latency_s = by_boundary(0.0 if given is None else given, schedule.placement)[boundary]
    else:
        latency_s = _by_hop(
            schedule, producer, consumer, lambda source, target, _: topology.route(source, target).latency_s
        )
    size_bytes = by_boundary(costs.transfer_bytes if given is None else 0.0, schedule.placement)[boundary]
    if weight is not None:
        size_bytes = size_bytes * weight[producer]
        latency_s = latency_s if given is None else latency_s * weight[producer]
    return Transfers(producer, consumer, size_bytes, latency_s)


def _boundary(schedule: Schedule, producer: IntArray, consumer: IntArray) -> IntArray:
    """Return which boundary of its pipe each transfer crosses, from 0, shape ``(transfers,)``."""
    depth = schedule.placement.depth_of_stage[schedule.stage]
    return np.minimum(depth[producer], depth[consumer])


def _durations_s(
    schedule: Schedule,
    costs: StageCosts,
    phases: Sequence[Phase],
    nodes: tuple[IntArray, IntArray],
    transfers: Transfers,
    topology: Topology | None,
) -> FloatArray:
    """Seconds of each node where nothing is shared: phases, given as (task, row of its phase), and transfers."""
    task, phase = nodes
    phase_s: FloatArray = np.array([one.duration_s for one in phases])[phase]
    weight = weight_of_op(schedule, costs)
    if weight is not None:
        half = np.array([one.half for one in phases])[phase]
        phase_s = phase_s * weight_of_phase(schedule, costs, weight, task, half)
    return np.append(phase_s, _alone_s(schedule, transfers, costs, topology))


def _alone_s(schedule: Schedule, transfers: Transfers, costs: StageCosts, topology: Topology | None) -> FloatArray:
    """Seconds of each transfer where no other shares its links, shape ``(transfers,)``."""
    if costs.transfer_s is not None:
        return transfers.latency_s
    alone_s = _by_hop(schedule, transfers.producer, transfers.consumer, partial(hop_s, costs, topology))
    weight = weight_of_op(schedule, costs)
    if weight is None:
        return alone_s
    # what is not latency goes with the bytes
    return transfers.latency_s + (alone_s - transfers.latency_s) * weight[transfers.producer]


def _by_hop(
    schedule: Schedule, producer: IntArray, consumer: IntArray, seconds: Callable[[int, int, int], float]
) -> FloatArray:
    """Ask for the seconds from a rank to another over a boundary once for each of these, shape ``(transfers,)``."""
    ranks, boundaries = schedule.ranks, max(1, len(schedule.placement.pipes[0]))
    hop = schedule.rank[producer] * ranks + schedule.rank[consumer]
    hops, which = distinct(hop * boundaries + _boundary(schedule, producer, consumer))
    found = []
    for code in hops.tolist():
        source, target = divmod(code // boundaries, ranks)
        found.append(seconds(source, target, code % boundaries))
    return np.array(found, dtype=np.float64)[which]


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
    for here, other in permutations(first_on, 2):
        over_there = np.flatnonzero(lane == other)
        first = first_on[here][first_on[here] >= 0]
        before = np.searchsorted(task[over_there], task[first]) - 1
        earlier = over_there[np.maximum(before, 0)]
        waits = (before >= 0) & (rank[task[earlier]] == rank[task[first]])
        yield earlier[waits], first[waits]


def _output(
    schedule: Schedule,
    phases: tuple[Phase, ...],
    phase: IntArray,
    begin: IntArray,
    sizes: IntArray,
    op: IntArray,
) -> IntArray:
    """Return the last phase of each op's own half of its task, shape as ``op``: its output is ready then."""
    task = schedule.task_of_op[op]
    if len(phase) == len(begin):
        return begin[task]
    half = np.array([one.half for one in phases])[phase]
    wanted = (op != schedule.first_op[task]).astype(np.int64)
    # Phases of a half stand in the order they depend on each other, so the last one listed ends it.
    last = np.full((len(begin), 2), NO_NODE)
    last[np.repeat(np.arange(len(begin)), sizes), half] = np.arange(len(phase))
    found = last[task, wanted]
    return np.asarray(np.where(found >= 0, found, last[task].max(axis=1)))


def _inputs(first_on: Mapping[Lane, IntArray], consumer: IntArray, transfer: IntArray) -> Iterable[Edges]:
    """A task starts when all its inputs are there: on every lane, its first phase waits for each."""
    for first in first_on.values():
        there = first[consumer] >= 0
        yield transfer[there], first[consumer[there]]


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


def _backward_in_order(schedule: Schedule, begin: IntArray, producer: IntArray, consumer: IntArray) -> Iterable[Edges]:
    """What a rank hands itself against its own order: an edge backward, so that the engine finds the circle."""
    before, after = schedule.task_of_op[producer], schedule.task_of_op[consumer]
    broken = before >= after
    yield begin[before[broken]], begin[after[broken]]


def _sorted_by_target(edges: list[Edges]) -> IntArray:
    """Join edges, sorted by the node that waits, shape ``(2, edges)``; the first of a node's edges stays its first."""
    source = np.concatenate([one for one, _ in edges])
    target = np.concatenate([one for _, one in edges])
    by_target = np.argsort(target, kind="stable")
    return np.stack([source[by_target], target[by_target]])
