"""What holds in any order of the same tasks: how long each takes, and what it waits for beside its turn.

Searches change an order in small steps, thousands of times. What a lowered graph says of times is the same in all of
them, so it is read off one graph once, and an *order* is then no more than an array: the tasks of the graph's
schedule, by their numbers, rank after rank as they run. ``[0, 1, …]`` is the graph's own. :mod:`many_orders` plays many
such arrays side by side, :mod:`after_move` one after a small change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.base.show import line
from dualpipe_sim.base.units import number_of
from dualpipe_sim.errors import UserError
from dualpipe_sim.order.dependencies import dependencies
from dualpipe_sim.order.ops import B, F, I

if TYPE_CHECKING:
    from dualpipe_sim.graph.task_graph import TaskGraph
    from dualpipe_sim.order.schedule import Schedule


@dataclass(frozen=True, eq=False)
class AnyOrder:
    """Tasks that may stand in any order on their ranks.

    Besides its turn a task waits for as many others as it has slots; one that needs fewer waits for the start of time,
    number ``tasks``. A full backward or I waits for its own stage's F too, but that the gradient it waits for says
    already, except on a pipe's last stage: so of plain pipelines one slot is enough.

    >>> from dualpipe_sim import build
    >>> from dualpipe_sim.costs.uniform import UniformCosts
    >>> from dualpipe_sim.graph.lowering import lower
    >>> graph = lower(build("gpipe", ranks=2, micro_batches=1), UniformCosts(1.0, 1.0, 1.0, transfer_s=0.5))
    >>> tasks = AnyOrder.of(graph)  # 0F0, 0B0, 1F0, 1B0
    >>> tasks.before.tolist(), tasks.hop_s.tolist()
    ([[4, 3, 0, 2]], [[0.0, 0.5, 0.5, 0.0]])

    Attributes:
        schedule: whose tasks they are, in one of their orders.
        duration_s: seconds of each task, shape ``(tasks,)``.
        before: tasks that each waits for, shape ``(slots, tasks)``.
        hop_s: seconds that what it waits for is under way to it, same shape.

    """

    schedule: Schedule
    duration_s: FloatArray
    before: IntArray
    hop_s: FloatArray

    @classmethod
    def of(cls, graph: TaskGraph) -> AnyOrder:
        """Read off a graph what does not depend on its order.

        Raises:
            UserError: a graph whose times do depend on its order, or whose tasks are of several phases.
            ScheduleError: an op that is missing, or doubled.

        """
        schedule = graph.schedule
        tasks = len(schedule.first_op)
        if len(graph.task) != tasks or not graph.on(Lane.COMPUTE).all():
            raise UserError("orders side by side: every task must be one phase of compute, as with costs of whole ops")
        if schedule.vocabulary is not None:
            raise UserError("orders side by side: S and T wait at barriers of all ranks, which are not known here")
        if not graph.fixed_durations or graph.rendezvous or graph.issue is not None or graph.load is not None:
            raise UserError(
                "orders side by side: times must not depend on the order, as they do with shared links or SMs, "
                "rendezvous, a runtime, a host that issues, or load"
            )
        producer, consumer = dependencies(schedule)
        hop_s = np.zeros(len(producer))
        hop_s[schedule.rank[producer] != schedule.rank[consumer]] = graph.duration_s[graph.first_transfer :]
        needed = _needed(schedule, producer, consumer)
        waiting = schedule.task_of_op[consumer[needed]]
        by_waiting = np.argsort(waiting, kind="stable")
        waiting = waiting[by_waiting]
        slot = np.arange(len(waiting)) - np.searchsorted(waiting, waiting)
        shape = (1 + int(slot.max(initial=0)), tasks)
        before, by_slot_s = np.full(shape, tasks), np.zeros(shape)
        before[slot, waiting] = schedule.task_of_op[producer[needed]][by_waiting]
        by_slot_s[slot, waiting] = hop_s[needed][by_waiting]
        return cls(schedule, graph.duration_s[:tasks], before, by_slot_s)

    def __repr__(self) -> str:
        tasks, slots = number_of(self.tasks, "task"), number_of(len(self.before), "slot")
        return line(self, self.schedule.name, self.schedule.size, tasks, slots)

    @property
    def tasks(self) -> int:
        """Number of tasks."""
        return len(self.duration_s)

    def check(self, orders: IntArray, number: int = 0) -> None:
        """Refuse what is no order of these tasks.

        Args:
            orders: shape ``(orders, tasks)``.
            number: of the first of them, for the error.

        Raises:
            UserError: another shape, a task that is missing, or one that stands on another rank than its own.

        """
        if orders.ndim != 2 or orders.shape[1] != self.tasks or orders.dtype.kind not in "iu":
            raise UserError(
                f"orders must be integers of shape (orders, {self.tasks}), got {orders.dtype} {orders.shape}"
            )
        short = orders.astype(np.int32)  # numpy sorts 32 bits several times as fast as 64
        right = (np.sort(short, axis=1) == np.arange(self.tasks, dtype=np.int32)) & (short == orders)
        if right.all():
            rank = self.schedule.rank_of_task
            right = rank.take(orders) == rank
        if not right.all():
            first = number + int((~right.all(axis=1)).argmax())
            raise UserError(f"order {first} must hold each of the {self.tasks} tasks once, on the task's own rank")

    def ordered(self, order: IntArray) -> Schedule:
        """Return an order, shape ``(tasks,)``, as a schedule.

        Raises:
            UserError: no order of these tasks.

        """
        self.check(order[None])
        schedule = self.schedule
        first = schedule.first_op[order]
        ops = 1 + (schedule.partner[first] >= 0)
        second = np.arange(ops.sum()) - np.repeat(np.cumsum(ops) - ops, ops)  # 1 in the second row of a pair, else 0
        row = np.repeat(first, ops) + second
        other = np.arange(len(row)) + np.where(second, -1, 1)
        return replace(
            schedule,
            kind=schedule.kind[row],
            stage=schedule.stage[row],
            micro_batch=schedule.micro_batch[row],
            partner=np.where(schedule.partner[row] < 0, -1, other),
            slice=None if schedule.slice is None else schedule.slice[row],
            program=None,
        )


def _needed(schedule: Schedule, producer: IntArray, consumer: IntArray) -> IntArray:
    """Return which dependencies say more than the others do.

    The gradient that a B or I waits for comes by way of its own stage's F, and so does what an R or a later slice
    makes. So that F counts only where nothing else is waited for.
    """
    own_forward = (schedule.kind[producer] == F) & schedule.of_kinds(B, I)[consumer]
    others = np.bincount(consumer[~own_forward], minlength=len(schedule.rank))
    return np.flatnonzero(~own_forward | (others[consumer] == 0))
