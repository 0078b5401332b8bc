"""What a task takes at least, on an idle GPU and on one that its own work keeps busy.

On GPUs that clock down when they are busy (:mod:`dualpipe_sim.costs.load`) work takes longer than that. Let c be what
compute takes on an idle GPU, u how busy it was when a phase starts, v = 1 - u and I how long it idles between the first
phase and the last. While it computes v falls as -v / tau, so of a phase of d seconds, d v is at most exp(d / tau) times
the integral of v over it; and that integral is at most tau + I, since v rises only while the GPU idles. So with
``lag = exp(longest phase / tau)`` the sum of c (1 + beta u), and I, are at least::

    (1 + beta) c - beta lag tau + (1 - beta lag) I

and I is at least what compute waits inside each task, which is least where all compute is longest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import exp
from typing import NamedTuple, TypeAlias

from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.costs.asked import phases_of
from dualpipe_sim.costs.load import Load
from dualpipe_sim.costs.phases import Phase, StageCosts, ends_s
from dualpipe_sim.errors import UserError
from dualpipe_sim.order.ops import TaskShape


class TaskTime(NamedTuple):
    """Least seconds of a task from its start, all inputs there.

    Attributes:
        whole_s: until it ends.
        forward_s: until its first op's output is ready.
        backward_s: until the output of a pair's backward is ready; of a lone op the same as ``forward_s``.

    """

    whole_s: float
    forward_s: float
    backward_s: float


def task_time(phases: Sequence[Phase]) -> TaskTime:
    """Return the least seconds of a task of these phases.

    It plays the one task: each phase starts when its lane is free and what it waits for inside the task has ended. A
    pair of an F of 2 s and a B of 3 s on one lane:

    >>> from dualpipe_sim.order.ops import B, F
    >>> task_time([Phase(Lane.COMPUTE, 2.0, F), Phase(Lane.COMPUTE, 3.0, B, half=1)])
    TaskTime(whole_s=5.0, forward_s=2.0, backward_s=5.0)
    """
    ends = ends_s(phases, _least_s(phases))
    # The end of each half's last phase, since phases of a half stand in order.
    output_s = {phase.half: end_s for phase, end_s in zip(phases, ends, strict=True)}
    # A half without phases of its own is done when the other is, as lowering has it.
    forward_s, backward_s = (output_s.get(half, output_s.get(1 - half, 0.0)) for half in (0, 1))
    return TaskTime(max(ends), forward_s, backward_s)


class Task(NamedTuple):
    """What a task takes at least; all but ``time`` counts only where load makes compute longer.

    Attributes:
        time: on an idle GPU.
        busy_s: seconds that it computes on a GPU that is always busy.
        waits_s: seconds that compute then waits in it.
        longest_s: seconds of its longest phase of compute there.

    """

    time: TaskTime
    busy_s: float = 0.0
    waits_s: float = 0.0
    longest_s: float = 0.0


Known: TypeAlias = dict[object, Task]
"""Tasks by the kinds of their ops and what their stages hold."""


def tasks_of(shapes: Iterable[TaskShape], costs: StageCosts, known: Known | None = None) -> dict[TaskShape, Task]:
    """Return what tasks take by shape; stages that hold the same kinds of layers are asked for once.

    Args:
        shapes: the tasks.
        costs: what ops take.
        known: what is known already of the same costs, on whichever placement; it grows.

    Raises:
        UserError: costs that differ by micro-batch or slice.

    """
    if getattr(costs, "micro_batch_weights", None) is not None:
        raise UserError("bounds take micro-batches that are all alike; costs.micro_batch_weights are not")
    if getattr(costs, "slices", None) is not None:
        raise UserError("bounds take slices that are all alike; costs.slices are not")
    of_stage: list[object] | None = getattr(costs, "alike", None)
    load: Load | None = getattr(costs, "load", None)
    known = {} if known is None else known
    found = {}
    for shape in shapes:
        same = shape if of_stage is None else tuple((kind, of_stage[stage]) for kind, stage in shape)
        if same not in known:
            known[same] = _task(phases_of(costs, [shape])[0], load)
        found[shape] = known[same]
    return found


def _task(phases: Sequence[Phase], load: Load | None) -> Task:
    if load is None:
        return Task(task_time(phases))
    computes = [one.lane == Lane.COMPUTE for one in phases]
    busy_s = [
        length_s * (1 + load.beta if one else 1) for length_s, one in zip(_least_s(phases), computes, strict=True)
    ]
    compute_s = sum(length_s for length_s, one in zip(busy_s, computes, strict=True) if one)
    waits_s = max(0.0, max(ends_s(phases, busy_s)) - compute_s)
    longest_s = max((one.duration_s for one in phases if one.lane == Lane.COMPUTE), default=0.0) * load.longest
    return Task(task_time(phases), compute_s, waits_s, longest_s)


def _least_s(phases: Sequence[Phase]) -> list[float]:
    return [one.duration_s if one.alone_s is None else min(one.duration_s, one.alone_s) for one in phases]


class Warm(NamedTuple):
    """What tasks take on GPUs that their own work keeps busy.

    Attributes:
        times: of each shape, with ``whole_s`` so that sums of it, less ``once_s``, are never above what a rank takes.
        once_s: what the first phases on an idle GPU save, seconds.

    """

    times: dict[TaskShape, TaskTime]
    once_s: float


def warm_times(tasks: Mapping[TaskShape, Task], costs: StageCosts) -> Warm | None:
    """Return what tasks take under the load that costs have, or None where it changes nothing that is sure."""
    load: Load | None = getattr(costs, "load", None)
    if load is None:
        return None
    lag = exp(min(max((task.longest_s for task in tasks.values()), default=0.0) / load.tau_s, 50.0))
    if load.beta * lag > 1:
        return None
    idle = 1 - load.beta * lag
    times = {shape: task.time._replace(whole_s=task.busy_s + idle * task.waits_s) for shape, task in tasks.items()}
    return Warm(times, load.beta * lag * load.tau_s)
