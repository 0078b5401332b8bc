"""Proved lower bounds: no simulated makespan is shorter.

Tasks of a rank run one after the other, so a rank is busy for the sum of its tasks at least. Nothing can start before
the first micro-batch has come down to the rank (the *head*), and when the rank is done with its last backward, the
gradient still has to go up to the pipe's first stage (the *tail*). Head, work and tail of any rank are a bound. A task
counts with its least time, all inputs there; where links or SMs are shared, tasks only last longer.

:func:`order_bound_s` knows the order and takes its very tasks. :func:`placement_bound_s` knows only where the stages
are; it takes the least work over all orders, and a memory limit, if there is one, gives more
(:mod:`dualpipe_sim.bounds.limited`). Times of stages are arrays of shape ``(stages,)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import inf

import numpy as np

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.bounds.limited import Limited, MemoryLimit
from dualpipe_sim.bounds.reach import Least, Reach, reach
from dualpipe_sim.bounds.tasks import Known, TaskTime, tasks_of, warm_times
from dualpipe_sim.bounds.work import Work
from dualpipe_sim.costs.asked import costs_of_kinds
from dualpipe_sim.costs.phases import StageCosts
from dualpipe_sim.costs.transfers import hop_s
from dualpipe_sim.hardware.cluster import Topology
from dualpipe_sim.order.ops import BESIDE, B, F, I, R, S, T, TaskShape, Vocabulary, W
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.order.schedule import Schedule

_BACKWARD = (B, I)


def hops_s(placement: Placement, costs: StageCosts, topology: Topology | None) -> FloatArray:
    """Return the seconds of each stage's transfer to the next stage of its pipe, shape ``(stages,)``; 0 on one rank."""
    seconds = np.zeros(placement.stages)
    if costs.transfer_s is None and topology is None:
        return seconds  # of bytes over unknown links nothing is sure
    rank = placement.rank_of_stage.tolist()
    for stage in np.flatnonzero(~placement.is_last).tolist():
        seconds[stage] = hop_s(costs, topology, rank[stage], rank[stage + 1], int(placement.depth_of_stage[stage]))
    return seconds


def order_bound_s(
    schedule: Schedule, costs: StageCosts, topology: Topology | None = None, *, known: Known | None = None
) -> float:
    """Return seconds that the makespan of this very order is never below, whatever shares links."""
    shapes, shape_of_task = schedule.task_shapes
    costs, known = _of_order(schedule, costs, known)
    tasks = tasks_of(shapes, costs, known)
    times = {shape: task.time for shape, task in tasks.items()}
    placement = schedule.placement
    turn_s = _turn_s(times, schedule.vocabulary)
    reached = reach(placement, _least(placement, times), hops_s(placement, costs, topology), turn_s)
    arrives_s = np.array([_arrives_s(shape, reached) for shape in shapes])[shape_of_task]
    leaves_s = np.array([_leaves_s(shape, times[shape], reached) for shape in shapes])[shape_of_task]

    def bound_s(times: Mapping[TaskShape, TaskTime]) -> float:
        whole_s = _on_compute_s(times, shapes)[shape_of_task]
        most_s = max(_rank_bound_s(whole_s[own], arrives_s[own], leaves_s[own]) for own in _tasks_by_rank(schedule))
        return most_s / schedule.slices

    warm = warm_times(tasks, costs)
    return bound_s(times) if warm is None else max(bound_s(times), bound_s(warm.times) - warm.once_s)


def busiest_rank_s(schedule: Schedule, costs: StageCosts, *, known: Known | None = None) -> float:
    """Return the seconds that the rank with the most work takes for it at least."""
    shapes, shape_of_task = schedule.task_shapes
    costs, known = _of_order(schedule, costs, known)
    tasks = tasks_of(shapes, costs, known)
    times = {shape: task.time for shape, task in tasks.items()}

    def work_s(times: Mapping[TaskShape, TaskTime]) -> float:
        whole_s = _on_compute_s(times, shapes)[shape_of_task]
        return float(np.bincount(schedule.rank_of_task, weights=whole_s).max()) / schedule.slices

    warm = warm_times(tasks, costs)
    return work_s(times) if warm is None else max(work_s(times), work_s(warm.times) - warm.once_s)


def _on_compute_s(times: Mapping[TaskShape, TaskTime], shapes: Sequence[TaskShape]) -> FloatArray:
    """Return how long tasks of each shape hold up their rank; what is beside compute holds up none."""
    return np.array([0.0 if shape[0][0] in BESIDE else times[shape].whole_s for shape in shapes])


def _of_order(schedule: Schedule, costs: StageCosts, known: Known | None) -> tuple[StageCosts, Known | None]:
    """Return the costs of an order, and what is known of their tasks."""
    own = costs_of_kinds(costs, schedule.kind, schedule.vocabulary)
    return own, known if own is costs else None


def _tasks_by_rank(schedule: Schedule) -> Iterable[slice]:
    """Return the rows of each rank's tasks; a rank without tasks is left out."""
    bounds = schedule.first_task_of_rank.tolist()
    return (slice(begin, end) for begin, end in pairwise(bounds) if begin < end)


def _rank_bound_s(whole_s: FloatArray, arrives_s: FloatArray, leaves_s: FloatArray) -> float:
    """Return the most that any first task's arrival, the work from it to a last task, and what follows sum to.

    For every two tasks i <= j of the rank, ``arrives_s[i]``, the work of i to j and ``leaves_s[j]`` are a bound. The
    work is a difference of running sums, ``done_s[j] - (done_s[i] - whole_s[i])``, so the best i for each j is a
    running maximum, and one pass over the tasks finds the best of all i and j. Below it is 10 + 3 + 4, from the second
    task to itself:

    >>> _rank_bound_s(np.array([2.0, 3.0]), np.array([1.0, 10.0]), np.array([0.0, 4.0]))
    17.0

    All are of the rank's tasks in their order, shape ``(tasks,)`` each.
    """
    done_s = np.cumsum(whole_s)
    latest_s = np.maximum.accumulate(arrives_s - (done_s - whole_s))  # of all that start up to here
    return float((latest_s + done_s + leaves_s).max())


def _arrives_s(shape: TaskShape, reached: Reach) -> float:
    """Return the earliest moment at which a task's inputs can be there."""
    from_s: dict[int, FloatArray] = {F: reached.forward_s, B: reached.backward_s, I: reached.backward_s}
    return max((float(from_s[kind][stage]) for kind, stage in shape if kind in from_s), default=0.0)


def _leaves_s(shape: TaskShape, time: TaskTime, reached: Reach) -> float:
    """Return the least seconds from a task's end to the step's; a pair may have its output ready before its end."""
    kind, stage = shape[-1]
    if kind not in _BACKWARD:
        return 0.0
    return max(0.0, time.backward_s - time.whole_s + float(reached.onward_s[stage]))


def _least(placement: Placement, times: Mapping[TaskShape, TaskTime]) -> Least:
    """Return the least seconds of each stage's ops among tasks of some shapes.

    Whether alone or in a pair, an op takes at least what it takes in the shape where it is fastest.
    """
    forward_s, backward_s, weight_s = (np.full(placement.stages, inf) for _ in range(3))
    whole_backward_s = np.full(placement.stages, inf)
    for shape, time in times.items():
        for half, (kind, stage) in enumerate(shape):
            output_s = time.backward_s if half else time.forward_s
            if kind == F:
                forward_s[stage] = min(forward_s[stage], output_s)
            elif kind in (R, S, T, *BESIDE):
                continue  # it delays no output that must come from elsewhere; of its rank's work it is a part
            elif kind == W:
                weight_s[stage] = min(weight_s[stage], time.whole_s)
            else:
                backward_s[stage] = min(backward_s[stage], output_s)
                if kind == B:
                    whole_backward_s[stage] = min(whole_backward_s[stage], output_s)
    # A whole backward has W behind it; where it could stand for I and W, only what it takes longer than I is left.
    weight_s = np.minimum(weight_s, np.maximum(0.0, whole_backward_s - backward_s))
    return Least(forward_s, backward_s, weight_s)


def _turn_s(times: Mapping[TaskShape, TaskTime], how: Vocabulary | None) -> float:
    """Return the least seconds that the last stage's backward waits for all ranks' passes of the output layer."""
    passes = (S, T) if how == "two barriers" else (S,)
    return sum(
        max((time.whole_s for ((kind, _), *_), time in times.items() if kind == one), default=0.0) for one in passes
    )


def placement_bound_s(
    placement: Placement,
    micro_batches_of_pipe: Sequence[int],
    costs: StageCosts,
    topology: Topology | None = None,
    *,
    limit: MemoryLimit | None = None,
    how: Vocabulary | None = None,
    known: Known | None = None,
) -> float:
    """Return seconds that no order's makespan is below, whatever its kinds of ops and pairs; infinite where none fits.

    It is the largest of these: one micro-batch's way down a pipe and back; of any rank, head and all work; head, the
    work up to the last backward's output, and tail; and what a memory limit says.

    Args:
        placement: where the stages are.
        micro_batches_of_pipe: micro-batches that enter each pipe.
        costs: what ops take.
        topology: routes of transfers that are given as bytes.
        limit: most that ranks may hold: micro-batches beyond it wait until others are back
            (:mod:`dualpipe_sim.bounds.limited`).
        how: how ranks share the output layer out, in S and T, where they do.
        known: what is known already of the same costs, as for :func:`tasks_of`.

    """
    micro_batches = np.array(micro_batches_of_pipe)[placement.pipe_of_stage]
    tasks = tasks_of([*_shapes_on(placement), *_passes_on(placement, how)], costs, known)
    times = {shape: task.time for shape, task in tasks.items()}
    work, warm = Work(micro_batches, times), warm_times(tasks, costs)
    least = _least(placement, times)
    reached = reach(placement, least, hops_s(placement, costs, topology), _turn_s(times, how))
    # A pipe's first stage runs the last backward of a micro-batch; when that and its W are through, the way back ends.
    through_s = reached.backward_s + least.backward_s + least.weight_s
    bound_s = float(through_s[placement.is_first].max())
    limited = None if limit is None else Limited(limit, placement, work, reached, least)
    for rank in range(placement.ranks):
        stages = placement.stages_of_rank(rank)
        head_s, tail_s = (float(of_stage[stages].min()) for of_stage in (reached.forward_s, reached.onward_s))
        bound_s = max(bound_s, head_s + work.all_s(stages), head_s + work.until_last_backward_s(stages) + tail_s)
        if warm is not None:
            bound_s = max(bound_s, head_s + Work(micro_batches, warm.times).all_s(stages) - warm.once_s)
        if limited is not None:
            bound_s = max(bound_s, limited.bound_s(rank))
    return bound_s


def _passes_on(placement: Placement, how: Vocabulary | None) -> list[TaskShape]:
    """Return the passes of the output layer that ranks have where they share it out."""
    kinds = () if how is None else (S,) if how == "together" else (S, T)
    return [((kind, stage),) for kind in kinds for stage in placement.first_stage_of_rank.tolist()]


def _shapes_on(placement: Placement) -> list[TaskShape]:
    """Return all tasks that an order on a placement could be made of."""
    shapes: list[TaskShape] = []
    for rank in range(placement.ranks):
        stages = placement.stages_of_rank(rank)
        shapes += [((kind, stage),) for stage in stages for kind in (F, B, I, W)]
        shapes += [((F, a), (B, b)) for a in stages for b in stages]
    return shapes
