"""Lowering: order, costs and topology meet here, and only here, and become a task graph.

The costs are asked once for each *shape* of task (kind and stage, or the two of a pair) for its phases, a *template*;
tasks of a shape have the same phases, so a node of the graph is a task and a row in the templates. Who waits for whom
follows from the order and the templates (``wiring``), how long things take from costs and topology.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from dualpipe_sim.base.arrays import FloatArray, IntArray, distinct
from dualpipe_sim.costs.asked import costs_of_kinds, phases_of, stage_costs
from dualpipe_sim.costs.phases import Costs, Phase, StageCosts
from dualpipe_sim.costs.transfers import by_boundary, hop_s
from dualpipe_sim.errors import ScheduleError, UserError
from dualpipe_sim.graph.host import issue_of
from dualpipe_sim.graph.micro_batch_weights import size_of_op, weight_of_op, weight_of_phase
from dualpipe_sim.graph.task_graph import TaskGraph, Transfers
from dualpipe_sim.graph.wiring import Templates, Wiring, wiring_of
from dualpipe_sim.hardware.cluster import Topology
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.runtimes.registry import RuntimeInUse


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
    of_stages = costs_of_kinds(stage_costs(costs, schedule.placement), schedule.kind, schedule.vocabulary)
    templates = _templates(schedule, of_stages)
    wiring = wiring_of(schedule, templates, runtime, rendezvous=rendezvous)
    transfers = _transfers(schedule, wiring.producer, wiring.consumer, of_stages, topology)
    return TaskGraph(
        schedule=schedule,
        costs=of_stages,
        phases=templates.phases,
        wiring=wiring,
        duration_s=_durations_s(schedule, of_stages, templates.phases, wiring, transfers, topology),
        transfers=transfers,
        shared=topology if contention else None,
        issue=issue_of(schedule, of_stages, wiring),
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
    of_stages = costs_of_kinds(stage_costs(costs, schedule.placement), schedule.kind, schedule.vocabulary)
    phases = _templates(schedule, of_stages).phases
    old, new = ([phase._replace(duration_s=0.0, flows=()) for phase in both] for both in (graph.phases, phases))
    if old != new:
        raise UserError("these costs cut tasks into other phases than the graph's; lower the schedule with them")
    transfers = _transfers(schedule, graph.transfers.producer, graph.transfers.consumer, of_stages, topology)
    return _durations_s(schedule, of_stages, phases, graph.wiring, transfers, topology)


def _templates(schedule: Schedule, costs: StageCosts) -> Templates:
    """Ask the costs once for each shape of task."""
    shapes, shape_of_task = schedule.task_shapes
    phases: list[Phase] = []
    sizes, starts = [], []
    for template in phases_of(costs, shapes):
        starts.append(len(phases))
        sizes.append(len(template))
        phases.extend(template)
    return Templates(tuple(phases), np.array(sizes)[shape_of_task], np.array(starts)[shape_of_task])


def _transfers(
    schedule: Schedule, producer: IntArray, consumer: IntArray, costs: StageCosts, topology: Topology | None
) -> Transfers:
    """Return the transfers; one whose time is given carries no bytes, and that time is its latency."""
    given, boundary, weight = costs.transfer_s, _boundary(schedule, producer, consumer), size_of_op(schedule, costs)
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
    wiring: Wiring,
    transfers: Transfers,
    topology: Topology | None,
) -> FloatArray:
    """Seconds of each node where nothing is shared: phases and transfers.

    Raises:
        UserError: times that are too long to be added up, as whatever plays the graph does.

    """
    phase_s: FloatArray = np.array([one.duration_s for one in phases])[wiring.phase]
    weight = weight_of_op(schedule, costs)
    if weight is not None:
        half, lane = np.array([(one.half, one.lane) for one in phases]).T[:, wiring.phase]
        phase_s = phase_s * weight_of_phase(schedule, costs, weight, wiring.task, half, lane)
    duration_s = np.append(phase_s, _alone_s(schedule, transfers, costs, topology))
    with np.errstate(over="ignore", invalid="ignore"):  # said below
        total_s = duration_s.sum()
    if not total_s < _MOST_S:
        raise UserError(_too_long(schedule, duration_s, wiring))
    return duration_s


_MOST_S = 1e150
"""Of all nodes together; what is computed of times is at most a product of two."""


def _too_long(schedule: Schedule, duration_s: FloatArray, wiring: Wiring) -> str:
    """Say which of some times is the longest, where they are too long together."""
    node = int(duration_s.argmax())  # or the first that is no number
    what = str(schedule.task(int(wiring.task[node]))) if node < len(wiring.task) else "a transfer"
    return f"costs: {what} takes {duration_s[node]:g} s; all times together must be less than {_MOST_S:g} s"


def _alone_s(schedule: Schedule, transfers: Transfers, costs: StageCosts, topology: Topology | None) -> FloatArray:
    """Seconds of each transfer where no other shares its links, shape ``(transfers,)``."""
    if costs.transfer_s is not None:
        return transfers.latency_s
    alone_s = _by_hop(schedule, transfers.producer, transfers.consumer, partial(hop_s, costs, topology))
    weight = size_of_op(schedule, costs)
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
