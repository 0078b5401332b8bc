"""Lowering: order, costs and topology meet here, and only here, and become a task graph."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from dualpipe_sim.arrays import FloatArray, IntArray
from dualpipe_sim.costs.phases import ALLTOALL, COMPUTE, RUNNING_LANES, Costs, Phase, StageCosts, TaskShape
from dualpipe_sim.errors import ScheduleError, UserError
from dualpipe_sim.graph.rendezvous import in_order, messages_before, tasks_before
from dualpipe_sim.graph.task_graph import NO_NODE, TaskGraph, Transfers
from dualpipe_sim.order.dependencies import needs
from dualpipe_sim.order.ops import B, Kind
from dualpipe_sim.order.schedule import Schedule

if TYPE_CHECKING:
    from dualpipe_sim.hardware.cluster import Topology
    from dualpipe_sim.runtimes.torch import Message


def lower(
    schedule: Schedule,
    costs: Costs,
    topology: Topology | None = None,
    *,
    contention: bool = False,
    rendezvous: bool = False,
) -> TaskGraph:
    """Lay a schedule's tasks out as phases and transfers.

    Args:
        schedule: the order.
        costs: durations of phases, and the time or the bytes of transfers.
        topology: routes of transfers that are given as bytes, and the links of all-to-alls.
        contention: flows that overlap share the topology's links.
        rendezvous: sends and receives are issued in order, and each waits for the other side.

    Raises:
        ScheduleError: an op that is missing, doubled, or never gets what it needs.

    """
    if contention and topology is None:
        raise ScheduleError("contention needs a cluster: flows share its links")
    stage_costs = costs.on(schedule.placement)
    phases, sizes, first_phase = _templates(schedule, stage_costs)
    task = np.repeat(np.arange(len(sizes)), sizes)
    begin = np.cumsum(sizes) - sizes
    phase = first_phase[task] + np.arange(len(task)) - begin[task]
    rank = schedule.rank_of_task[task]
    lane = rank * RUNNING_LANES + np.array([one.lane for one in phases])[phase]

    producer, consumer = needs(schedule)
    crosses = schedule.rank[producer] != schedule.rank[consumer]
    sends, receives = producer[crosses], consumer[crosses]
    order, messages = in_order(schedule, receives) if rendezvous else (np.arange(len(sends)), [])
    transfers = _transfers(schedule, sends[order], receives[order], stage_costs, topology)
    transfer = len(task) + np.arange(len(transfers))
    first_of_task = _first_of_task(lane, task, len(sizes))
    edges = [
        _edges_inside(phases, phase, begin, task),
        *_edges_between_tasks(first_of_task, lane, task, rank),
        (_output(schedule, phases, phase, begin, sizes, transfers.producer), transfer),
        *_inputs(first_of_task, schedule.task_of_op[transfers.consumer], transfer),
        # What a rank hands itself needs no edge where its order already has it; where not, it is a deadlock.
        *_backward_in_order(schedule, begin, producer[~crosses], consumer[~crosses]),
        *_edges_of_messages(schedule, messages, lane, task, len(sizes)),
    ]
    return TaskGraph(
        schedule=schedule,
        phases=phases,
        task=task,
        phase=phase,
        lane=lane,
        duration_s=np.append(_phase_s(phases, phase), _alone_s(schedule, transfers, topology)),
        transfers=transfers,
        edges=_sorted_by_target(edges),
        shared=topology if contention else None,
        rendezvous=rendezvous,
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
    stage_costs = costs.on(schedule.placement)
    phases, _, _ = _templates(schedule, stage_costs)
    old, new = ([phase._replace(duration_s=0.0, flows=()) for phase in both] for both in (graph.phases, phases))
    if old != new:
        raise UserError("these costs cut tasks into other phases than the graph's; lower the schedule with them")
    transfers = _transfers(schedule, graph.transfers.producer, graph.transfers.consumer, stage_costs, topology)
    return np.append(_phase_s(phases, graph.phase), _alone_s(schedule, transfers, topology))


def task_shapes(schedule: Schedule) -> tuple[list[TaskShape], IntArray]:
    """Return the distinct shapes of a schedule's tasks, and which of them each task has, shape ``(tasks,)``."""
    stages = schedule.placement.stages
    row = schedule.first_op
    second = np.where(schedule.partner[row] < 0, stages, schedule.stage[np.minimum(row + 1, len(schedule.rank) - 1)])
    codes, shape_of_task = _distinct((schedule.kind[row] * stages + schedule.stage[row]) * (stages + 1) + second)
    shapes: list[TaskShape] = []
    for code in codes.tolist():
        first, backward = divmod(code, stages + 1)
        alone = divmod(first, stages)
        shapes.append((alone,) if backward == stages else (alone, (B, backward)))
    return shapes, shape_of_task


Edges = tuple[IntArray, IntArray]


def _templates(schedule: Schedule, costs: StageCosts) -> tuple[tuple[Phase, ...], IntArray, IntArray]:
    """Ask the costs once for each shape of task; return all phases, and each task's number and first of them."""
    shapes, shape_of_task = task_shapes(schedule)
    phases: list[Phase] = []
    sizes, starts = [], []
    for task in shapes:
        template = costs.phases(task)
        for one in template:
            _check_seconds(f"{Kind(one.kind)} of stage {task[one.half][1]}", one.duration_s)
        starts.append(len(phases))
        sizes.append(len(template))
        phases.extend(template)
    return tuple(phases), np.array(sizes)[shape_of_task], np.array(starts)[shape_of_task]


def _distinct(values: IntArray) -> tuple[IntArray, IntArray]:
    """Return the few values that there are, ascending, and which of them each one is."""
    distinct = np.unique(values)
    return distinct, np.searchsorted(distinct, values)


def _check_seconds(what: str, seconds: float) -> None:
    if not 0 <= seconds < float("inf"):
        raise UserError(f"{what} takes {seconds} s; times must be finite and 0 or more")


def _transfers(
    schedule: Schedule, producer: IntArray, consumer: IntArray, costs: StageCosts, topology: Topology | None
) -> Transfers:
    given = costs.transfer_s
    _check_seconds("a transfer", given or 0.0)
    return Transfers(
        producer=producer,
        consumer=consumer,
        size_bytes=np.broadcast_to(costs.transfer_bytes if given is None else 0.0, len(producer)),
        latency_s=(
            _by_route(schedule, producer, consumer, topology, 0.0)
            if given is None
            else np.broadcast_to(given, len(producer))
        ),
    )


def _phase_s(phases: tuple[Phase, ...], phase: IntArray) -> FloatArray:
    seconds: FloatArray = np.array([one.duration_s for one in phases])[phase]
    return seconds


def _alone_s(schedule: Schedule, transfers: Transfers, topology: Topology | None) -> FloatArray:
    """Seconds of each transfer where no other shares its links, shape ``(transfers,)``."""
    if not transfers.size_bytes.any():
        return transfers.latency_s
    size = float(transfers.size_bytes[0])
    return _by_route(schedule, transfers.producer, transfers.consumer, topology, size)


def _by_route(
    schedule: Schedule, producer: IntArray, consumer: IntArray, topology: Topology | None, size_bytes: float
) -> FloatArray:
    if topology is None:
        raise ScheduleError("transfers are given as bytes, so a cluster is needed: its links say how long they take")
    ranks = schedule.ranks
    hop = schedule.rank[producer] * ranks + schedule.rank[consumer]
    hops, hop_of_transfer = _distinct(hop)
    seconds = [topology.route(*divmod(code, ranks)).seconds(size_bytes) for code in hops.tolist()]
    return np.array(seconds)[hop_of_transfer]


def _edges_inside(phases: tuple[Phase, ...], phase: IntArray, begin: IntArray, task: IntArray) -> Edges:
    """Edges between the phases of one task, beside the order of their lanes."""
    waits = [(row, local) for row, one in enumerate(phases) for local in one.after]
    if not waits:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    nodes_of = _rows_by_value(phase, len(phases))
    targets = [nodes_of[row] for row, _ in waits]
    sources = [begin[task[nodes]] + local for nodes, (_, local) in zip(targets, waits, strict=True)]
    return np.concatenate(sources), np.concatenate(targets)


def _rows_by_value(values: IntArray, count: int) -> list[IntArray]:
    by_value = np.argsort(values, kind="stable")
    return np.split(by_value, np.searchsorted(values[by_value], np.arange(1, count)))


def _first_of_task(lane: IntArray, task: IntArray, tasks: int) -> dict[int, IntArray]:
    """First phase of each task on each lane in use, NO_NODE where it has none there, by lane, shape ``(tasks,)``."""
    first_of_task = {}
    for code in (COMPUTE, ALLTOALL):
        last_to_first = np.flatnonzero(lane % RUNNING_LANES == code)[::-1]
        if len(last_to_first):
            first_of_task[code] = first = np.full(tasks, NO_NODE)
            first[task[last_to_first]] = last_to_first
    return first_of_task


def _edges_between_tasks(
    first_of_task: dict[int, IntArray], lane: IntArray, task: IntArray, rank: IntArray
) -> Iterable[Edges]:
    """A task starts when the one before it on its rank is done, on every lane.

    Where a task's first phase on a lane follows a phase of the other lane, an edge says so; that the last phase on
    a lane comes after all before it there is the lane's order.
    """
    for here, other in permutations(first_of_task, 2):
        on_other = np.flatnonzero(lane % RUNNING_LANES == other)
        first = first_of_task[here][first_of_task[here] >= 0]
        # the last phase on the other lane of an earlier task of the same rank
        before = np.searchsorted(task[on_other], task[first]) - 1
        earlier = on_other[np.maximum(before, 0)]
        waits = (before >= 0) & (rank[earlier] == rank[first])
        yield earlier[waits], first[waits]


def _output(
    schedule: Schedule,
    phases: tuple[Phase, ...],
    phase: IntArray,
    begin: IntArray,
    sizes: IntArray,
    op: IntArray,
) -> IntArray:
    """Return the last phase of each op's own half of its task."""
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


def _inputs(first_of_task: dict[int, IntArray], consumer: IntArray, transfer: IntArray) -> Iterable[Edges]:
    """A task starts when all its inputs are there: on every lane, its first phase waits for each."""
    for first in first_of_task.values():
        there = first[consumer] >= 0
        yield transfer[there], first[consumer[there]]


def _edges_of_messages(
    schedule: Schedule, messages: list[Message], lane: IntArray, task: IntArray, tasks: int
) -> Iterable[Edges]:
    """A send or receive waits for the tasks and for the messages issued before it."""
    if not messages:
        return
    for last in _last_of_task(lane, task, tasks):
        for before, message in tasks_before(schedule, messages):
            there = last[before] >= 0
            yield last[before[there]], len(task) + message[there]
    earlier, later = messages_before(messages, schedule.ranks)
    yield len(task) + earlier, len(task) + later


def _last_of_task(lane: IntArray, task: IntArray, tasks: int) -> Iterable[IntArray]:
    """Last phase of each task on a lane, NO_NODE where it has none there, lane by lane, shape ``(tasks,)``."""
    for code in (COMPUTE, ALLTOALL):
        on_lane = np.flatnonzero(lane % RUNNING_LANES == code)
        last = np.full(tasks, NO_NODE)
        last[task[on_lane]] = on_lane
        yield last


def _backward_in_order(schedule: Schedule, begin: IntArray, producer: IntArray, consumer: IntArray) -> Iterable[Edges]:
    before, after = schedule.task_of_op[producer], schedule.task_of_op[consumer]
    broken = before >= after
    yield begin[before[broken]], begin[after[broken]]


def _sorted_by_target(edges: list[Edges]) -> IntArray:
    source = np.concatenate([one for one, _ in edges])
    target = np.concatenate([one for _, one in edges])
    by_target = np.argsort(target, kind="stable")
    return np.stack([source[by_target], target[by_target]])
