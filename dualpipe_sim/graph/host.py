"""When each rank's host issues its ops and messages: one after the other, each taking its time.

The host runs ahead of its GPU, so this shows only where ops are short: an op then starts when the host gets to it and
ends no sooner than the host has issued all of it. Messages are issued once the op before them is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.costs.phases import StageCosts
from dualpipe_sim.graph.task_graph import Issue
from dualpipe_sim.graph.wiring import Wiring
from dualpipe_sim.order.ops import TaskShape
from dualpipe_sim.order.schedule import Schedule

HostSeconds: TypeAlias = Callable[[TaskShape], tuple[float, float]]
"""What costs may say, as ``host_s``: how long the host takes to issue a task, and from then until the next one."""


def issue_of(schedule: Schedule, costs: StageCosts, wiring: Wiring) -> Issue | None:
    """Return when the host issues each phase and transfer; None where that takes no time.

    Args:
        schedule: the order.
        costs: what may know the host's seconds.
        wiring: phases and transfers; without an order of these, each leaves once the op that makes it is done and
            issued.

    """
    host_s: HostSeconds | None = getattr(costs, "host_s", None)
    if host_s is None:
        return None
    shapes, shape_of_task = schedule.task_shapes
    own_s, after_s = np.array([host_s(shape) for shape in shapes], dtype=float).T[:, shape_of_task]
    if not (own_s.any() or after_s.any()):
        return None
    end_s = _running_sum(own_s + after_s, schedule.first_task_of_rank) - after_s
    task, in_turn = wiring.task, wiring.in_turn
    phases = len(task)
    begins_s, ends_s = np.zeros((2, phases + len(wiring.producer)))
    begins_s[:phases] = (end_s - own_s)[task]
    last = np.flatnonzero(np.diff(task, append=-1))
    ends_s[last] = end_s[task[last]]
    for side in () if in_turn is None else (in_turn.sender, in_turn.receiver):
        before, message = side.after_task
        np.maximum.at(begins_s, phases + message, end_s[before])
    return Issue(begins_s, ends_s)


def _running_sum(seconds: FloatArray, first_of_rank: IntArray) -> FloatArray:
    """Sum up what tasks take, of each rank from its first task on, shape ``(tasks,)``."""
    sums_s = np.cumsum(seconds)
    before_s = np.append(0.0, sums_s)[first_of_rank[:-1]]
    return np.asarray(sums_s - np.repeat(before_s, np.diff(first_of_rank)))
