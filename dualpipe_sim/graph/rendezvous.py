"""How a real runtime moves data: sends and receives in order, each waiting for the other side.

Torch's pipeline runtime issues a rank's program (its ``compute_comms`` row) from left to right. Ops go to the compute
stream, sends and receives to one communication stream (NCCL's), which runs them one after another. A send or receive
waits for all compute that was issued before it: NCCL's stream waits for the stream that it is called from
(https://docs.pytorch.org/docs/stable/distributed.html). It moves data once its peer is there as well, and holds both
sides' streams until then. An op waits for the tensors it receives, so also for all that was issued before them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from dualpipe_sim.arrays import IntArray
from dualpipe_sim.order.ops import F
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.runtimes.torch import Message, messages_in_order

Waits = tuple[IntArray, IntArray]
"""(waits for, what waits), side by side."""


def in_order(schedule: Schedule, consumer: IntArray) -> tuple[IntArray, list[Message]]:
    """Return the order in which transfers are issued, as places in ``consumer``, and what each one is.

    Args:
        schedule: the order of ops.
        consumer: row of the op that needs each transfer, shape ``(transfers,)``.

    Raises:
        ScheduleError: an order that cannot run.

    """
    kind, stage, micro_batch = (
        column[consumer].tolist() for column in (schedule.kind, schedule.stage, schedule.micro_batch)
    )
    directions = ("F" if one == F else "B" for one in kind)
    place = {key: row for row, key in enumerate(zip(directions, stage, micro_batch, strict=True))}
    messages = messages_in_order(schedule)
    return np.array([place[one.direction, one.stage, one.micro_batch] for one in messages], dtype=np.int64), messages


def tasks_before(schedule: Schedule, messages: list[Message]) -> Iterator[Waits]:
    """Yield (task, message): each message waits for the last task issued before its send, and before its receive."""
    first = np.searchsorted(schedule.rank_of_task, np.arange(schedule.ranks))
    number = np.arange(len(messages))
    for rank, issued in (
        ([one.source for one in messages], [one.tasks_before_send for one in messages]),
        ([one.target for one in messages], [one.tasks_before_receive for one in messages]),
    ):
        behind = np.array(issued, dtype=np.int64)
        task = first[np.array(rank, dtype=np.int64)] + behind - 1
        yield task[behind > 0], number[behind > 0]


def messages_before(messages: list[Message], ranks: int) -> Waits:
    """Return (message, message): each waits for the one before it on its sender's stream and on its receiver's."""
    of_rank: list[list[int]] = [[] for _ in range(ranks)]
    for number, message in enumerate(messages):
        of_rank[message.source].append(number)
        of_rank[message.target].append(number)
    waits = sorted({pair for numbers in of_rank for pair in pairwise(numbers)})
    before, after = np.array(waits, dtype=np.int64).reshape(-1, 2).T
    return before, after
