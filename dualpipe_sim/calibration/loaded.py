"""From replays of a recorded run to costs: what ops take on idle GPUs, what load adds, and what the host takes.

A recorded length is ``cold × (1 + beta·u) × (1 + gamma·q)`` (:mod:`dualpipe_sim.costs.load`); the replay says ``u`` and
``q`` of each op, so that the cold length of a stage and kind is the mean of what is left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.calibration.fit import Calibration, PairOfStages, Sample, Timed, choose
from dualpipe_sim.calibration.memory_csv import stage_memory
from dualpipe_sim.calibration.recording import Ran, Recording
from dualpipe_sim.calibration.replay import Replay, replays
from dualpipe_sim.costs.load import SPLIT, USUAL, Load
from dualpipe_sim.engine.load import beside_messages, busy_before
from dualpipe_sim.engine.play import play
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.order.ops import B, F, I, Kind, TaskShape, W
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.runtimes.registry import RuntimeInUse

_HELD_UP = 1.05, 2.0
"""A step was held up by something else if it takes more than this over the one in the middle, and is this many times as
far from it as the shortest: where hosts are the limit, steps differ by far more than where GPUs are."""


class Measured(NamedTuple):
    """What was measured of one op of one micro-batch, in the mean over steps.

    Attributes:
        length_s: from its start to its end, with the gap behind it.
        busy: how busy its GPU was before (``u``).
        beside: the share of it that a message stood beside (``q``).
        bound: whether its GPU may have waited for launches inside it: it began before its host had issued all of it.
        far: whether its host was far ahead of it, and still was at the next.
        host_s: how long the host took to issue it; NaN where that is not known.
        host_after_s: how long the host then took until the next op; NaN likewise.

    """

    length_s: float
    busy: float
    beside: float
    bound: bool
    far: bool
    host_s: float
    host_after_s: float


def fit_replayed(
    recording: Recording,
    runtime: RuntimeInUse,
    *,
    warm_up: int = 1,
    pipes: int | None = None,
    step_time_s: float | None = None,
) -> Calibration:
    """Return the costs that a recording holds once its program is replayed.

    Args:
        recording: what ran, at least one op.
        runtime: what issued it.
        warm_up: how many first steps to leave out, where there are more.
        pipes: how many equally long pipes the stages make up; None to find out.
        step_time_s: what a step takes that nothing records: what the host takes longer in the recording is taken out.

    Raises:
        UserError: a step that is not whole, or that the runtime would run otherwise.

    """
    run, steps, first, left_out = choose(recording, warm_up=warm_up, pipes=pipes)
    played = list(replays(run.recording, steps, runtime, run.pipes))
    load = Load() if recording.on_cpu else load_of(played)
    ops, pairs = timed_under_load(played, load)
    if recording.kernels_s:
        transfer, rule = run.transfer()
    elif recording.moved_s:
        transfer, rule = Sample.of(recording.moved_s), "as recorded"
    else:
        transfer, rule = _transfer(played)
    memory = stage_memory(recording.memory, run.stages // run.pipes)
    found = Calibration(
        ops,
        pairs,
        run.pipes,
        transfer,
        rule,
        len(steps),
        first,
        left_out,
        tuple(recording.sources),
        load,
        memory,
        SPLIT,
    )
    if step_time_s is None:
        return found
    return _without_profiler(found, played[0].timeline.graph.schedule, runtime, step_time_s)


def _without_profiler(found: Calibration, schedule: Schedule, runtime: RuntimeInUse, step_time_s: float) -> Calibration:
    """Return the costs with as fast a host as makes a step of the recorded schedule as long as it really is."""

    def makespan_s(share: float) -> float:
        return play(lower(schedule, found.with_host(share).costs, runtime=runtime)).makespan_s

    slow, fast = 1.0, 0.0
    if makespan_s(slow) <= step_time_s:
        return found.with_host(1.0)
    for _ in range(_HALVINGS):
        share = (slow + fast) / 2
        slow, fast = (share, fast) if makespan_s(share) > step_time_s else (slow, share)
    return found.with_host(fast)


_HALVINGS = 12


def _transfer(played: Sequence[Replay]) -> tuple[Sample | None, str]:
    graph = played[0].timeline.graph
    if not len(graph.transfers):
        return None, "no tensor crosses between ranks, so a transfer takes no time"
    taken_s = [float(one.timeline.graph.duration_s[-1]) for one in played]
    return Sample.of(taken_s), "from the sender to an op that waited for nothing else, half of there and back"


class _Slope(NamedTuple):
    """What is known of one of the two slopes before a record is read.

    Attributes:
        usual: what it is elsewhere.
        width: how much it differs elsewhere, a standard deviation.
        scatter: how much runs of one model on one machine differ in what their records say.
        dilution: what it is over the slope within a record. ``u`` stands for the GPU's temperature, power and clock,
            and says too little within a record: what it does not know makes the slope flatter.

    """

    usual: float
    width: float
    scatter: float
    dilution: float = 1.0


_SLOPES = _Slope(USUAL.beta, 0.1, 0.06, dilution=1.5), _Slope(USUAL.gamma, 0.06, 0.035)
_SHORTEST_S = 0.2e-3
"""Shorter ops say nothing about load."""


def load_of(replays: Sequence[Replay]) -> Load:
    """Return how much longer ops are on busy GPUs and beside messages, as far as a record says so.

    Where ``u`` and ``q`` hardly vary, or hardly explain a thing, what is usual counts more than the record.
    """
    tau_s = USUAL.tau_s
    tables = [
        np.array([(np.log(one.length_s), one.busy, one.beside) for one in of_shape])
        for of_shape in _by_shape(_usual(replays), tau_s)
    ]
    if not tables:
        return USUAL
    sizes = [len(table) for table in tables]
    slope, error, left = _slopes(np.concatenate(tables), np.repeat(np.arange(len(sizes)), sizes))
    rough = min(1.0, left / _LEAST_LEFT)
    found = []
    for known, here, wrong_by in zip(_SLOPES, slope.tolist(), error.tolist(), strict=True):
        dilution = 1 + (known.dilution - 1) * rough
        variance = (dilution * wrong_by) ** 2 + (known.scatter * rough) ** 2
        trust = known.width**2 / (known.width**2 + variance)
        found.append(max(0.0, known.usual + trust * (dilution * here - known.usual)))
    beta, gamma = found
    return Load(beta, tau_s, gamma)


def _by_shape(replays: Sequence[Replay], tau_s: float) -> Iterator[list[Measured]]:
    """Yield, shape by shape, what was measured in each step of ops that did not wait for launches."""
    found: defaultdict[TaskShape, list[Measured]] = defaultdict(list)
    for replay in replays:
        for shape, measured in _measured([replay], tau_s):
            if not measured.bound and measured.length_s > _SHORTEST_S:
                found[shape].append(measured)
    yield from found.values()


def _slopes(table: FloatArray, shape: IntArray) -> tuple[FloatArray, FloatArray, float]:
    """Fit ``log length = mean of its shape + log(1 + a·u) + log(1 + b·q)`` by Gauss and Newton; outliers do not count.

    Args:
        table: log length, u and q of each op, shape ``(ops, 3)``.
        shape: the number of each op's shape, from 0.

    Returns:
        a and b, their errors (endless where u or q does not vary), and what is left on average.

    """
    length, load = table[:, 0], table[:, 1:]
    slope, squares, left = np.zeros(2), np.eye(2), np.zeros(len(length))
    counts = np.ones(len(length), dtype=bool)
    for _ in range(_ROUNDS):
        by_slope = _less_mean(load / (1 + slope * load), shape)
        rest = _less_mean(length - np.log1p(slope * load).sum(axis=1), shape)
        squares = by_slope[counts].T @ by_slope[counts] + _TINY * np.eye(2)
        change = np.linalg.solve(squares, by_slope[counts].T @ rest[counts])
        slope = np.maximum(slope + change, _LEAST_SLOPE)
        left = np.abs(rest - by_slope @ change)
        counts = left <= _OUTLIER * max(float(np.median(left[counts])), _TINY)
    variance = float((left[counts] ** 2).mean())
    return slope, np.sqrt(np.diag(np.linalg.inv(squares)) * variance) * _DEPENDENT, variance**0.5


def _less_mean(values: FloatArray, shape: IntArray) -> FloatArray:
    """Return values, a row an op, less the mean of their shape's."""
    count = np.bincount(shape)
    columns = values if values.ndim > 1 else values[:, None]
    means = np.stack([np.bincount(shape, weights=column) / count for column in columns.T], axis=1)
    return np.asarray((columns - means[shape]).reshape(values.shape))


_OVER_FORWARD: dict[int, float] = {F: 1.0, I: 1.0, W: 1.0, B: 2.0}
"""FLOPs of an op of matrix products over those of its forward: what it takes where its GPU always waited for launches,
so that its length says nothing of its work."""

_ROUNDS, _OUTLIER, _TINY, _LEAST_SLOPE = 12, 5.0, 1e-9, -0.5
_LEAST_LEFT = 0.002
"""Lengths on a GPU vary by this share at least; where less is left, as in a simulated run, the record is exact."""
_DEPENDENT = 2.0
"""Lengths of neighbouring ops are alike, so that errors are larger than those of independent ones."""


def timed_under_load(
    replays: Sequence[Replay], load: Load
) -> tuple[dict[int, dict[str, Timed]], dict[PairOfStages, Timed]]:
    """Return what ops take, by stage and kind, and what pairs take that were not timed half by half."""
    found: defaultdict[TaskShape, list[Measured]] = defaultdict(list)
    for shape, measured in _measured(_usual(replays), load.tau_s):
        found[shape].append(measured)
    ops: dict[int, dict[str, Timed]] = {}
    pairs: dict[PairOfStages, Timed] = {}
    for shape in sorted(found):
        timed = _timed(found[shape], load)
        if len(shape) == 1:
            ((kind, stage),) = shape
            of_stage = ops.setdefault(stage, {})
            if all(one.bound for one in found[shape]) and (forward := of_stage.get("F")) is not None:
                most_s = _OVER_FORWARD[kind] * (forward.cold_s or 0.0)
                timed = timed._replace(cold_s=min(timed.cold_s or 0.0, most_s))
            of_stage[str(Kind(kind))] = timed
        else:
            pairs[shape[0][1], shape[1][1]] = timed
    return ops, pairs


def _timed(measured: Sequence[Measured], load: Load) -> Timed:
    """Sum up one op's measurements. Where all of them are bound by their launches, the shortest says most."""
    free = [one for one in measured if not one.bound]
    cold_s = [one.length_s / ((1 + load.beta * one.busy) * (1 + load.gamma * one.beside)) for one in free or measured]
    return Timed(
        Sample.of([one.length_s for one in measured]),
        0.0,
        cold_s=float(np.mean(cold_s)) if free else min(cold_s),
        host_s=_unhindered([(one.host_s, one.far) for one in measured]),
        host_after_s=_unhindered([(one.host_after_s, one.far) for one in measured]),
    )


def _unhindered(seconds: Sequence[tuple[float, bool]]) -> float:
    """Return how long the host takes where it does not have to wait, given whether it was far ahead of its GPU.

    A host that is far ahead may wait inside its calls until the GPU's queue has room, and then takes far longer.
    """
    known = [(one, far) for one, far in seconds if not np.isnan(one)]
    near = [one for one, far in known if not far]
    if not known:
        return 0.0
    usual = float(np.mean(near)) if near else float(np.quantile([one for one, _ in known], 1 / 4))
    return float(np.mean([one for one, far in known if not far or one <= _WAITED * usual]))


_WAITED = 1.5
"""A call of a host that is far ahead, and that takes more than this over what it usually takes, waited."""


def _measured(replays: Sequence[Replay], tau_s: float) -> Iterator[tuple[TaskShape, Measured]]:
    """Yield what was measured of each op, with the gaps that usually stand behind ops of its shape."""
    schedule = replays[0].timeline.graph.schedule
    shapes, shape_of_task = schedule.task_shapes
    busy = _over_steps([busy_before(replay.timeline, tau_s) for replay in replays])
    beside = _over_steps([beside_messages(replay.timeline) for replay in replays])
    gap_s = _over_steps([replay.gap_s for replay in replays])
    usual_gap_s = [float(np.median(gap_s[shape_of_task == number])) for number in range(len(shapes))]
    host_s, host_after_s, far = (_over_steps(column) for column in zip(*map(_host_s, replays), strict=True))
    for task, number in enumerate(shape_of_task.tolist()):
        steps = [replay.ran[task] for replay in replays]
        # Between the kernels of an op that began before it was issued its GPU may have waited for launches.
        bound = np.mean([ran.host_s is not None and ran.start_s < ran.host_s[1] for ran in steps]) > 1 / 2
        seen = all(ran.compute_s < ran.end_s - ran.start_s for ran in steps)
        apart = all(ran.halves_s for ran in steps)
        lengths_s = np.mean([_lengths_s(ran, apart=apart, kernels=bool(bound and seen)) for ran in steps], axis=0)
        whole_s = float(lengths_s.sum()) or 1.0
        lengths_s[-1] += usual_gap_s[number]
        parts = [(op,) for op in shapes[number]] if apart else [shapes[number]]
        for place, (shape, length_s) in enumerate(zip(parts, lengths_s.tolist(), strict=True)):
            last = place == len(parts) - 1
            yield (
                shape,
                Measured(
                    length_s,
                    float(busy[task]),
                    float(beside[task]),
                    bool(bound and not seen),
                    bool(far[task] > 1 / 2),
                    float(host_s[task]) * (length_s / whole_s if len(parts) > 1 else 1.0),
                    float(host_after_s[task]) if last else 0.0,
                ),
            )


def _lengths_s(ran: Ran, *, apart: bool, kernels: bool) -> tuple[float, ...]:
    """Return how long an op took, or its kernels alone, or both halves of a pair.

    What stands between the halves, as a loss, is the forward's.
    """
    if not apart:
        return (ran.compute_s if kernels else ran.end_s - ran.start_s,)
    *_, backward_s = ran.halves_s
    return ran.end_s - ran.start_s - backward_s, backward_s


def _usual(replays: Sequence[Replay]) -> list[Replay]:
    """Return the steps that were not held up: all but those that took far longer than the one in the middle."""
    makespans_s = [replay.timeline.makespan_s for replay in replays]
    middle_s, (over, times) = float(np.median(makespans_s)), _HELD_UP
    longest_s = max(over * middle_s, middle_s + times * (middle_s - min(makespans_s)))
    return [replay for replay, makespan_s in zip(replays, makespans_s, strict=True) if makespan_s <= longest_s]


def _over_steps(by_step: Sequence[FloatArray]) -> FloatArray:
    """Return the mean of what was measured of each task in several steps, NaN left out, shape ``(tasks,)``."""
    table = np.array(by_step)
    known = ~np.isnan(table)
    sums = np.where(known, table, 0.0).sum(axis=0)
    mean: FloatArray = np.divide(sums, known.sum(axis=0), out=np.full(len(sums), np.nan), where=known.any(axis=0))
    return mean


def _host_s(replay: Replay) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return how long the host took to issue each task, from then to the next, and whether it was far ahead (1).

    It is far ahead if it enters and leaves over half as far as it ever is: a host that waits for room in its GPU's
    queue does not come nearer.
    """
    first = replay.timeline.first_task_of_rank
    entered_s, left_s = np.array([ran.host_s or (np.nan, np.nan) for ran in replay.ran]).T
    ahead_s = np.nan_to_num(np.array([ran.start_s for ran in replay.ran]) - entered_s)
    after_s = np.append(entered_s[1:] - left_s[:-1], np.nan)
    after_s[first[1:] - 1] = np.nan
    far = ahead_s > np.repeat(np.maximum.reduceat(ahead_s, first[:-1]), np.diff(first)) / 2
    still = np.append(far[1:], True)
    still[first[1:] - 1] = True
    return left_s - entered_s, np.maximum(after_s, 0.0), (far & still).astype(np.float64)
