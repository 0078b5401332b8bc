"""Simulated against measured: makespan, each rank's busy and idle time, each kind of op, and the worst ops.

What launching an op takes counts as idle on both sides: in a measured run it is the gap before the op, and a simulated
op begins when its launch overhead is over (costs of kind ``measured`` have one).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.base.show import brief
from dualpipe_sim.calibration import Recording, read_recording
from dualpipe_sim.calibration.recording import Ran, Step
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.errors import UserError
from dualpipe_sim.experiment import Experiment
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.messages import input_of
from dualpipe_sim.order.ops import Kind, Op, Task
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.simulation import run

PAIR = "pair"
"""What overlapped pairs are called among the kinds."""


class Both(NamedTuple):
    """A number of a run, in seconds: as simulated and as measured."""

    simulated: float
    measured: float

    @property
    def difference(self) -> float:
        """Simulated less measured."""
        return self.simulated - self.measured

    @property
    def error(self) -> float | None:
        """The difference over what was measured; None where that is 0."""
        return self.difference / self.measured if self.measured else None

    def to_dict(self) -> dict[str, float | None]:
        """Return both with the error, ready for JSON."""
        return {"simulated": self.simulated, "measured": self.measured, "error": self.error}


class OfKind(NamedTuple):
    """Ops of one kind: how many, and their median."""

    ops: int
    median_s: Both


class OfTask(NamedTuple):
    """One op or pair: its rank, how long it took, and when it began."""

    task: Task
    rank: int
    length_s: Both
    start_s: Both

    @property
    def label(self) -> str:
        """The op, or both ops of a pair."""
        return ";".join(map(str, self.task.ops))


@dataclass(frozen=True, eq=False)
class RunComparison:
    """A simulated run beside a measured one.

    Attributes:
        simulated: the simulated timeline, ops beginning when their launch is over.
        measured: the measured one, of the step whose makespan is the median.
        steps_s: makespans of all whole steps that were measured, in the order they ran.

    """

    simulated: Timeline
    measured: Timeline
    steps_s: tuple[float, ...]

    __repr__ = brief

    @property
    def makespan_s(self) -> Both:
        """Seconds from the first op's start to the last one's end."""
        return Both(self.simulated.makespan_s, self.measured.makespan_s)

    @property
    def busy_s(self) -> list[Both]:
        """Seconds in which an op is in progress, by rank."""
        return [Both(*both) for both in zip(_busy_s(self.simulated), _busy_s(self.measured), strict=True)]

    @property
    def idle_s(self) -> list[Both]:
        """The rest of the makespan, by rank."""
        whole = self.makespan_s
        return [Both(whole.simulated - busy.simulated, whole.measured - busy.measured) for busy in self.busy_s]

    @property
    def kinds(self) -> dict[str, OfKind]:
        """Medians by kind: F, B, I, W and ``pair``, of those that there are."""
        schedule = self.measured.graph.schedule
        code = np.where(schedule.partner[schedule.first_op] >= 0, len(Kind), schedule.kind[schedule.first_op])
        names = (*map(str, Kind), PAIR)
        simulated_s, measured_s = _lengths_s(self.simulated), _lengths_s(self.measured)
        return {
            names[one]: OfKind(
                int((code == one).sum()),
                Both(float(np.median(simulated_s[code == one])), float(np.median(measured_s[code == one]))),
            )
            for one in np.unique(code).tolist()
        }

    def worst(self, count: int) -> list[OfTask]:
        """Return the ops and pairs whose simulated lengths are furthest from the measured ones, worst first."""
        simulated_s, measured_s = _lengths_s(self.simulated), _lengths_s(self.measured)
        order = np.argsort(-np.abs(simulated_s - measured_s), kind="stable")[:count]
        return [
            OfTask(
                self.measured.graph.schedule.task(task),
                int(self.measured.rank[task]),
                Both(float(simulated_s[task]), float(measured_s[task])),
                Both(float(self.simulated.task_start_s[task]), float(self.measured.task_start_s[task])),
            )
            for task in order.tolist()
        ]

    def to_dict(self, worst: int = 10) -> dict[str, object]:
        """Return everything, ready for JSON."""
        schedule = self.measured.graph.schedule
        return {
            "schedule": schedule.name,
            "ranks": schedule.ranks,
            "micro_batches": schedule.micro_batches,
            "makespan_s": self.makespan_s.to_dict(),
            "measured_steps_s": list(self.steps_s),
            "busy_s_by_rank": [both.to_dict() for both in self.busy_s],
            "idle_s_by_rank": [both.to_dict() for both in self.idle_s],
            "kinds": {kind: {"ops": one.ops, "median_s": one.median_s.to_dict()} for kind, one in self.kinds.items()},
            "worst_ops": [
                {
                    "task": str(one.task),
                    "rank": one.rank,
                    "length_s": one.length_s.to_dict(),
                    "start_s": one.start_s.to_dict(),
                }
                for one in self.worst(worst)
            ],
        }


def compare_run(experiment: Experiment, files: Sequence[str | Path], maps: Iterable[str] = ()) -> RunComparison:
    """Simulate an experiment's schedule and put it beside a measured run of it.

    Args:
        experiment: what is simulated.
        files: the measured run, a timeline as CSV or the traces of all ranks.
        maps: names of ranges, as for :func:`dualpipe_sim.calibration.calibrate`.

    Raises:
        UserError: the run is not one of this schedule: an op is missing, strange, or in another order.

    """
    simulated = run(experiment).played
    schedule = simulated.graph.schedule
    recording = read_recording(files, maps)
    measured = [_timeline(schedule, recording, step) for step in _whole_steps(schedule, recording)]
    by_length = sorted(measured, key=lambda timeline: timeline.makespan_s)
    return RunComparison(
        _after_launches(simulated),
        by_length[(len(by_length) - 1) // 2],
        tuple(timeline.makespan_s for timeline in measured),
    )


def _whole_steps(schedule: Schedule, recording: Recording) -> Iterator[dict[int, list[Ran]]]:
    """Yield what ran of each task, step by step, of steps in which every task ran."""
    where = ", ".join(recording.sources)
    task_of_op = {schedule.op(row): task for row, task in enumerate(schedule.task_of_op.tolist())}
    steps: defaultdict[Step, dict[int, list[Ran]]] = defaultdict(dict)
    for ran in recording.ops:
        task = _task_of(ran, schedule, task_of_op, where)
        steps[ran.step].setdefault(task, []).append(ran)
    tasks = len(schedule.first_op)
    whole = [steps[step] for step in sorted(steps) if len(steps[step]) == tasks]
    if not whole:
        fullest = max(steps.values(), key=len, default={})
        missing = next(task for task in range(tasks) if task not in fullest)
        rank = int(schedule.rank_of_task[missing])
        raise UserError(f"{where}: {schedule.task(missing)} of rank {rank} did not run; {_WAY_OUT}")
    yield from whole


_WAY_OUT = "give the configuration of the run, and all of its files"


def _task_of(ran: Ran, schedule: Schedule, task_of_op: dict[Op, int], where: str) -> int:
    """Return the task that something that ran is, or is half of."""
    tasks = {task_of_op.get(op, -1) for op in ran.action.cell}
    task = min(tasks)
    what = f"{where}: {ran.action.text} on rank {ran.rank}"
    if task < 0:
        raise UserError(f"{what} is no op of this {schedule.name or 'schedule'}; {_WAY_OUT}")
    if len(tasks) > 1:
        raise UserError(f"{what} ran as a pair, but the schedule has its ops apart; {_WAY_OUT}")
    if int(schedule.rank_of_task[task]) != ran.rank:
        raise UserError(f"{what} is on rank {schedule.rank_of_task[task]} in the schedule; {_WAY_OUT}")
    return task


def _timeline(schedule: Schedule, recording: Recording, step: dict[int, list[Ran]]) -> Timeline:
    """Return one measured step as a timeline that begins at 0."""
    tasks = len(schedule.first_op)
    start_s = np.array([min(ran.start_s for ran in step[task]) for task in range(tasks)])
    end_s = np.array([max(ran.end_s for ran in step[task]) for task in range(tasks)])
    _fill_unseen(start_s, end_s, schedule)
    _check_order(schedule, start_s, recording)
    graph = lower(schedule, UniformCosts(0.0, 0.0, 0.0))
    sent_s = end_s[schedule.task_of_op[graph.transfers.producer]]
    there_s = start_s[schedule.task_of_op[graph.transfers.consumer]]
    for transfer, row in enumerate(graph.transfers.consumer.tolist()):
        there_s[transfer] = _arrival_s(schedule, row, recording, step, float(there_s[transfer]))
    origin_s = start_s.min()
    return Timeline(
        graph,
        np.concatenate([start_s, sent_s]) - origin_s,
        np.concatenate([end_s, np.maximum(sent_s, there_s)]) - origin_s,
        "measured",
    )


def _arrival_s(
    schedule: Schedule, row: int, recording: Recording, step: dict[int, list[Ran]], otherwise_s: float
) -> float:
    """Return when an op's input arrived, where a receive says so."""
    tensor = input_of(schedule.op(row))
    if tensor is None:
        return otherwise_s
    keys = ((ran.rank, ran.step, tensor) for ran in step[int(schedule.task_of_op[row])])
    return max((recording.arrived_s[key] for key in keys if key in recording.arrived_s), default=otherwise_s)


def _fill_unseen(start_s: FloatArray, end_s: FloatArray, schedule: Schedule) -> None:
    """Put what launched no work where the task before it ended."""
    for task in np.flatnonzero(np.isnan(start_s)).tolist():
        follows = task > 0 and schedule.rank_of_task[task - 1] == schedule.rank_of_task[task]
        start_s[task] = end_s[task] = end_s[task - 1] if follows else np.nanmin(start_s)


def _check_order(schedule: Schedule, start_s: FloatArray, recording: Recording) -> None:
    same_rank = np.diff(schedule.rank_of_task) == 0
    swapped = np.flatnonzero(same_rank & (np.diff(start_s) < 0))
    if len(swapped):
        task = int(swapped[0])
        before, after = schedule.task(task), schedule.task(task + 1)
        raise UserError(
            f"{', '.join(recording.sources)}: {after} began before {before} on rank {schedule.rank_of_task[task]}, "
            f"but the schedule has them the other way round; {_WAY_OUT}"
        )


def _after_launches(timeline: Timeline) -> Timeline:
    """Return a simulated timeline whose ops begin when their launch is over, where the costs know launches."""
    launch_of = getattr(timeline.graph.costs, "task_launch_s", None)
    if launch_of is None:
        return timeline
    shapes, shape_of_task = timeline.graph.schedule.task_shapes
    launch_s = np.array([launch_of(shape) for shape in shapes])[shape_of_task]
    start_s = timeline.start_s.copy()
    start_s[: len(launch_s)] += launch_s
    return replace(timeline, start_s=np.minimum(start_s, timeline.end_s))


def _lengths_s(timeline: Timeline) -> FloatArray:
    return timeline.task_end_s - timeline.task_start_s


def _busy_s(timeline: Timeline) -> list[float]:
    """Return the seconds in which a task is in progress, by rank; tasks that overlap count once."""
    first = timeline.first_task_of_rank
    busy = []
    for begin, end in zip(first[:-1].tolist(), first[1:].tolist(), strict=True):
        starts, ends = timeline.task_start_s[begin:end], timeline.task_end_s[begin:end]
        done = np.maximum.accumulate(np.append(starts[0], ends[:-1]))
        busy.append(float(np.maximum(0.0, ends - np.maximum(starts, done)).sum()))
    return busy
