"""How a real runtime moves data: sends and receives in order, each waiting for the other side.

Torch's pipeline runtime issues a rank's program (its ``compute_comms`` row) from left to right. Ops go to the compute
stream, sends and receives to one communication stream (NCCL's), which runs them one after another. A send or receive
waits for all compute that was issued before it: NCCL's stream waits for the stream that it is called from
(https://docs.pytorch.org/docs/stable/distributed.html). It moves data once its peer is there as well, and holds both
sides' streams until then. An op waits for the tensors it receives, so also for all that was issued before them.

Here each message, a send and its receive, is one transfer of the graph. What it waits for is two lists of edges: the
last task that either side issued before it, and the message before it on either side's stream. The order of messages
is that of the program: the one that the order came with, or else torch's lowering, on whose order all ranks agree.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np

from dualpipe_sim.base.arrays import IntArray
from dualpipe_sim.errors import DeadlockError
from dualpipe_sim.order.check import check_lines
from dualpipe_sim.order.messages import Message, Messages, in_line, messages_of
from dualpipe_sim.order.ops import F
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.runtimes.torch import program_of

Waits: TypeAlias = tuple[IntArray, IntArray]
"""(waits for, what waits), side by side."""


class Issued(NamedTuple):
    """Transfers as they are issued. A message is a transfer's number in this order.

    Attributes:
        order: the transfer that each message is, shape ``(transfers,)``.
        after_task: (task, message): a message waits for the last task issued before its send, and before its receive.
        after_message: (message, message): each waits for the one before it on its sender's stream and its receiver's.

    """

    order: IntArray
    after_task: Waits
    after_message: Waits


def issued(schedule: Schedule, consumer: IntArray) -> Issued:
    """Return the order in which transfers are issued, and what each one waits for beside the op that makes it.

    Args:
        schedule: the order of ops.
        consumer: row of the op that needs each transfer, shape ``(transfers,)``.

    Raises:
        ScheduleError: an order that cannot run.
        DeadlockError: ranks that wait for each other, by the order of what they send and receive.

    """
    if stopped := check_lines(schedule):
        raise DeadlockError(f"{schedule.name}: {stopped[0]}")
    messages = in_line(messages_of(program_of(schedule))).messages
    # The graph knows a transfer by the op that needs it, a message by its tensor: the same three numbers.
    columns = (column[consumer].tolist() for column in (schedule.kind, schedule.stage, schedule.micro_batch))
    transfer_of = {  # by what equals the tensor
        ("F" if kind == F else "B", stage, micro_batch): transfer
        for transfer, (kind, stage, micro_batch) in enumerate(zip(*columns, strict=True))
    }
    order = np.array([transfer_of[message.tensor] for message in messages.all], dtype=np.int64)
    return Issued(order, _after_task(schedule, messages.all), _after_message(messages))


def _after_task(schedule: Schedule, messages: list[Message]) -> Waits:
    """Return (task, message) for both sides of every message.

    A program says how many of its tasks a rank issues before a message; the last of these is the one to wait for. A
    rank's tasks have consecutive numbers, so that is its first task's number + the count - 1. Where the count is 0
    there is nothing to wait for.
    """
    sides = [(message.source, message.tasks_before_send) for message in messages]
    sides += [(message.target, message.tasks_before_receive) for message in messages]
    rank, before = np.array(sides, dtype=np.int64).reshape(-1, 2).T  # (reshaped for the case of no messages)
    task = schedule.first_task_of_rank[rank] + before - 1
    message = np.tile(np.arange(len(messages)), 2)
    return task[before > 0], message[before > 0]


def _after_message(messages: Messages) -> Waits:
    """Return (message, message): neighbours on a rank's stream, which holds what it sends and what it receives.

    Two messages between the same two ranks can be neighbours on both; that is one edge.
    """
    waits = sorted({pair for numbers in messages.of_rank for pair in pairwise(numbers)})
    before, after = np.array(waits, dtype=np.int64).reshape(-1, 2).T
    return before, after
