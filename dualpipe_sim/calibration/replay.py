"""A recorded step beside the program that it ran: who waited for whom, and what is left once that is known.

The recorded order says which schedule ran, and the runtime what its program was. That program is played with every op
as it was recorded: each starts when it did and lasts as long as it did. What comes out is when each message was on its
rank's communication stream, and what each op waited for. A gap that nothing explains then belongs to the op before it,
as a loss or a copy does; waiting for the other side of a message is neither an op's time nor a transfer's.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dualpipe_sim.analysis.gaps import unissued_s
from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.calibration.recording import Ran, Recording, Step
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine import longest_path
from dualpipe_sim.engine.load import there_s
from dualpipe_sim.errors import ScheduleError, UserError
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.task_graph import Issue, TaskGraph
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.order.text import parse_order
from dualpipe_sim.runtimes.registry import RuntimeInUse
from dualpipe_sim.schedules.registry import build, spec

_CLOCKS_APART_S = 0.4e-3
"""How far ranks' clocks may disagree, where each counts from its own start."""

_LAUNCH_S = 20e-6
"""A gap before an op that is longer than this is a wait."""


@dataclass(frozen=True, eq=False)
class Replay:
    """A recorded step and its replay, by task.

    Attributes:
        ran: what ran of each task.
        timeline: the step as it was recorded, on one clock, with messages as the program has them.
        gap_s: what stands between each task and the next one of its rank that neither waiting nor the host explains.

    """

    ran: tuple[Ran, ...]
    timeline: Timeline
    gap_s: FloatArray


def replays(recording: Recording, steps: Sequence[Step], runtime: RuntimeInUse, pipes: int) -> Iterator[Replay]:
    """Replay some steps of a recording.

    Args:
        recording: what ran.
        steps: the steps.
        runtime: what issued them.
        pipes: how many equally long pipes the stages make up.

    Raises:
        UserError: a step of which ops are missing, or that the runtime would run otherwise.

    """
    by_step: defaultdict[Step, list[Ran]] = defaultdict(list)
    for ran in recording.ops:
        by_step[ran.step].append(ran)
    schedule = _schedule(recording, by_step[steps[0]], runtime, pipes)
    graph = lower(schedule, UniformCosts(1.0, 1.0, 1.0), runtime=runtime)
    tasks = [str(task) for row in schedule.order for task in row]
    for step in steps:
        by_text = {one.action.text: one for one in by_step[step]}
        missing = next((task for task in tasks if task not in by_text), None)
        if missing is not None:
            raise UserError(f"{_source(recording)}: step {_named(step)} has no {missing}, which other steps have")
        yield _replay(graph, tuple(_without_holes([by_text[task] for task in tasks])), recording.moved_s)


def _replay(graph: TaskGraph, ran: tuple[Ran, ...], moved_s: Sequence[float]) -> Replay:
    """Play a step as it was recorded; ``moved_s`` is how long messages took, where the record says so."""
    offset_s, transfer_s = _clocks(graph, ran)
    transfer_s = float(np.median(moved_s)) if moved_s else transfer_s
    timeline = _pinned(graph, ran, offset_s, transfer_s)
    # What each op waited for beside the recorded start that it is pinned to, and beside its host.
    late_s = unissued_s(timeline)[: len(ran)]
    gap_s = np.append(np.clip(np.minimum(late_s, _since_entered_s(ran)), 0.0, None)[1:], 0.0)
    gap_s[graph.schedule.first_task_of_rank[1:] - 1] = 0.0
    return Replay(ran, timeline, gap_s)


def _without_holes(ran: Sequence[Ran]) -> Iterator[Ran]:
    """Yield what ran, with what launched no work where the op before it on its rank ended, or else the next began."""
    last: dict[int, float] = {}
    for place, one in enumerate(ran):
        moment_s = one.end_s
        if math.isnan(moment_s):
            later = (other.start_s for other in ran[place:] if other.rank == one.rank and not math.isnan(other.start_s))
            moment_s = last[one.rank] if one.rank in last else next(later, 0.0)
            yield one._replace(start_s=moment_s, end_s=moment_s)
        else:
            yield one
        last[one.rank] = moment_s


def _pinned(graph: TaskGraph, ran: Sequence[Ran], offset_s: FloatArray, transfer_s: float) -> Timeline:
    """Play a program with each op as it was recorded; it may start later where its tensors come later."""
    start_s = np.array([one.start_s for one in ran]) - offset_s[graph.schedule.rank_of_task]
    begin_s = np.zeros(graph.nodes)
    begin_s[: len(ran)] = start_s - start_s.min()
    duration_s = np.full(graph.nodes, transfer_s)
    duration_s[: len(ran)] = [one.end_s - one.start_s for one in ran]
    return longest_path.play(replace(graph, duration_s=duration_s, issue=Issue(begin_s, np.zeros(graph.nodes))))


def _since_entered_s(ran: Sequence[Ran]) -> FloatArray:
    """Return how long before each op's start its host came to it, infinite where nobody says so."""
    start_s = np.array([one.start_s for one in ran])
    entered_s = np.array([np.nan if one.host_s is None else one.host_s[0] for one in ran])
    return np.where(np.isnan(entered_s), np.inf, start_s - entered_s)


def _schedule(recording: Recording, step: Sequence[Ran], runtime: RuntimeInUse, pipes: int) -> Schedule:
    """Return the schedule that was recorded, by its name in the runtime where it has one."""
    rows: defaultdict[int, list[Ran]] = defaultdict(list)
    for ran in sorted(step, key=_issued):
        rows[ran.rank].append(ran)
    ranks = max(rows) + 1
    home = {stage: ran.rank for ran in step for _, stage, *_ in ran.action.cell}
    absent = next((rank for rank in range(ranks) if rank not in rows), None)
    gap = next((stage for stage in range(max(home) + 1) if stage not in home), None)
    if absent is not None or gap is not None:
        what = f"rank {absent}" if absent is not None else f"stage {gap}"
        raise UserError(f"{_source(recording)}: nothing of {what} was recorded; to replay a run, give all of its ranks")
    of_rank = [home[stage] for stage in range(len(home))]
    depth = len(home) // pipes
    placement = Placement(ranks, tuple(tuple(of_rank[pipe * depth : (pipe + 1) * depth]) for pipe in range(pipes)))
    text = "".join(",".join(ran.action.text for ran in rows[rank]) + "\n" for rank in range(ranks))
    try:
        recorded = parse_order(text, placement, "the recorded order")
    except ScheduleError as error:
        raise UserError(f"{_source(recording)}: {error}") from error
    return next((known for known in _known(recorded, runtime) if known.order == recorded.order), recorded)


def _issued(ran: Ran) -> tuple[int, float]:
    """Return an op's rank and when it was issued, or else when it began."""
    return ran.rank, ran.start_s if ran.host_s is None else ran.host_s[0]


def _known(recorded: Schedule, runtime: RuntimeInUse) -> Iterator[Schedule]:
    """Yield the runtime's schedules of the recorded one's sizes and placement."""
    placement = recorded.placement
    per_rank = placement.stages // placement.ranks
    sizes = range(1, recorded.micro_batches + 1)
    groups: list[dict[str, object]] = [{}]
    groups += [{"group": size} for size in sizes]
    for name in runtime.spec.schedules:
        known = spec(name).options
        for group in groups if "group" in known else groups[:1]:
            options = runtime.usual(name, recorded.ranks) | group
            if "stages_per_rank" in known:
                options["stages_per_rank"] = per_rank
            try:
                schedule = build(name, recorded.ranks, recorded.micro_batches, **options)
            except ScheduleError:
                continue  # not of these sizes
            if schedule.placement == placement:
                yield schedule


def _clocks(graph: TaskGraph, ran: Sequence[Ran]) -> tuple[FloatArray, float]:
    """Return how far each rank's clock is ahead, shape ``(ranks,)``, and how long a transfer takes.

    Where an op waited for a tensor, and neither for anything else, the time from the sender to the op is a transfer,
    and what the receiver's clock is ahead of the sender's. There and back the latter has the other sign. Where tensors
    are waited for in one direction only, clocks are taken to agree.

    Who waits for whom depends on what is asked for, so it is asked twice. The shortest ways tell enough to do so.
    """
    offset_s, transfer_s = np.zeros(graph.schedule.ranks), 0.0
    for typical in (np.min, np.median):
        way_s = {ranks: float(typical(found)) for ranks, found in _ways_s(graph, ran, offset_s, transfer_s).items()}
        both = {ranks: (one_s, way_s[ranks[::-1]]) for ranks, one_s in way_s.items() if ranks[::-1] in way_s}
        offset_s = offset_s + _ahead_s(graph.schedule.ranks, both)
        ways_s = [sum(there_and_back) / 2 for there_and_back in both.values()] or list(way_s.values())
        transfer_s = max(0.0, float(np.median(ways_s))) if ways_s else 0.0
    return offset_s, transfer_s


def _ahead_s(ranks: int, both: Mapping[tuple[int, int], tuple[float, float]]) -> FloatArray:
    """Return how far each clock is ahead of rank 0's, from the ways there and back between two."""
    ahead_s = np.zeros(ranks)
    known, todo = {0}, [0]
    while todo:
        one = todo.pop()
        for (source, target), (on_way_s, back_s) in both.items():
            if source == one and target not in known:
                ahead_s[target] = ahead_s[one] + (on_way_s - back_s) / 2
                known.add(target)
                todo.append(target)
    return ahead_s


def _ways_s(
    graph: TaskGraph, ran: Sequence[Ran], offset_s: FloatArray, transfer_s: float
) -> dict[tuple[int, int], list[float]]:
    """Return, by sender and receiver, how long tensors took to ops that waited for them, and neither for another."""
    schedule, phases = graph.schedule, graph.first_transfer
    timeline = _pinned(graph, ran, offset_s, transfer_s)
    sender_s, receiver_s = (there_s(timeline, side) for side in graph.sides or ())
    last_s = _last_s(graph, timeline)
    found: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
    start_s = np.array([one.start_s for one in ran]) - offset_s[schedule.rank_of_task]
    start_s -= start_s.min()
    first = set(schedule.first_task_of_rank.tolist())
    for transfer, row in enumerate(graph.transfers.consumer.tolist()):
        task = int(schedule.task_of_op[row])
        sent_s = timeline.start_s[phases + transfer]
        if sender_s[transfer] < receiver_s[transfer] + _CLOCKS_APART_S:
            continue
        free = task in first or (
            ran[task].start_s > ran[task - 1].end_s + _LAUNCH_S and sent_s > timeline.end_s[task - 1] - _CLOCKS_APART_S
        )
        way_s = float(start_s[task] - sent_s)
        if free and way_s <= sent_s - last_s[transfer]:
            found[int(schedule.rank[graph.transfers.producer[transfer]]), int(schedule.rank[row])].append(way_s)
    return found


def _last_s(graph: TaskGraph, timeline: Timeline) -> FloatArray:
    """Return when the last other message was sent that each one or its op waits for; shape ``(transfers,)``."""
    phases, sent_s = graph.first_transfer, timeline.start_s
    last_s = np.full(len(graph.transfers), -np.inf)
    for before, message in graph.sides or ():
        of_messages = before >= phases
        np.maximum.at(last_s, message[of_messages] - phases, sent_s[before[of_messages]])
    needed: defaultdict[int, list[int]] = defaultdict(list)
    source, target = graph.edges
    for message, task in graph.edges[:, (source >= phases) & (target < phases)].T.tolist():
        needed[task].append(message)
    for row, message in zip(graph.transfers.consumer.tolist(), range(phases, graph.nodes), strict=True):
        task = int(graph.schedule.task_of_op[row])
        others_s = [sent_s[other] for other in needed[task] if other != message]
        last_s[message - phases] = max(last_s[message - phases], *others_s, -np.inf)
    return last_s


def _source(recording: Recording) -> str:
    return ", ".join(recording.sources)


def _named(step: Step) -> str:
    return f"{step[0] or step[1]}"
