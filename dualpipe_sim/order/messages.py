"""What passes between ranks: each tensor as a send and a receive, in an order that all ranks agree on.

Sends and receives carry no tag: what a rank receives from another is matched by order alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.ops import B, F, Op, Pair, Task, W
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.order.schedule import Schedule

Direction: TypeAlias = Literal["F", "B"]


class Tensor(NamedTuple):
    """An activation (``F``) or gradient (``B``), named by the stage and micro-batch that need it."""

    direction: Direction
    stage: int
    micro_batch: int

    @property
    def made_by(self) -> int:
        """The stage that it comes from."""
        return self.stage - 1 if self.direction == "F" else self.stage + 1


class Send(NamedTuple):
    """A tensor leaves for another rank, written ``0SEND_F3``: the stage that made it, direction, micro-batch."""

    tensor: Tensor

    def __str__(self) -> str:
        return f"{self.tensor.made_by}SEND_{self.tensor.direction}{self.tensor.micro_batch}"


class Receive(NamedTuple):
    """A tensor arrives from another rank, written ``1RECV_F3``: the stage that needs it, direction, micro-batch."""

    tensor: Tensor

    def __str__(self) -> str:
        return f"{self.tensor.stage}RECV_{self.tensor.direction}{self.tensor.micro_batch}"


class Reduce(NamedTuple):
    """A stage's gradients are reduced, written ``0REDUCE_GRAD``."""

    stage: int

    def __str__(self) -> str:
        return f"{self.stage}REDUCE_GRAD"


Action: TypeAlias = Task | Send | Receive | Reduce
"""What a rank's program is made of; ``str`` is torch's text of it."""


class Message(NamedTuple):
    """A tensor that passes between two ranks, and how many of each one's tasks are issued before it."""

    tensor: Tensor
    source: int
    target: int
    tasks_before_send: int
    tasks_before_receive: int


def input_of(op: Op) -> Tensor | None:
    """Return the tensor that an op needs from the stage before it in its direction; None for a W.

    The first stage of a pipe in that direction needs none: who knows the pipe leaves it out.
    """
    return None if op.kind == W else Tensor("F" if op.kind == F else "B", op.stage, op.micro_batch)


def output_of(op: Op) -> Tensor | None:
    """Return the tensor that an op makes for the stage after it in its direction; None for a W."""
    if op.kind == F:
        return Tensor("F", op.stage + 1, op.micro_batch)
    return None if op.kind == W else Tensor("B", op.stage - 1, op.micro_batch)


def tensors_between_ranks(schedule: Schedule) -> dict[Tensor, tuple[int, int]]:
    """Return all that must pass between ranks, with its sender and its receiver, in the order of the ops."""
    pipes = _Pipes(schedule.placement)
    made = (pipes.output_of(op) for row in schedule.order for task in row for op in task.ops)
    between = ((tensor, pipes.ranks_of(tensor)) for tensor in made if tensor is not None)
    return {tensor: ranks for tensor, ranks in between if ranks[0] != ranks[1]}


def program_of(schedule: Schedule) -> list[list[Action]]:
    """Return each rank's tasks with its sends, receives and reductions.

    Ranks take turns, a task each, as in torch's own lowering: a task whose inputs are there is written down, what it
    sends is written down after it, and the receive at the end of the receiver's row so far. So two ranks agree on
    the order of all that passes between them, both ways, and nobody waits for ever.

    Raises:
        ScheduleError: an order that cannot run; the message says why.

    """
    rows: list[list[Action]] = [[] for _ in range(schedule.ranks)]
    for turn in _Turns(schedule).take():
        if isinstance(turn, Message):
            rows[turn.source].append(Send(turn.tensor))
            rows[turn.target].append(Receive(turn.tensor))
        else:
            rank, action = turn
            rows[rank].append(action)
    return rows


def messages_in_order(schedule: Schedule) -> list[Message]:
    """Return all that passes between ranks, in the one order that the rows of :func:`program_of` agree on.

    Raises:
        ScheduleError: an order that cannot run; the message says why.

    """
    return [turn for turn in _Turns(schedule).take() if isinstance(turn, Message)]


class _Pipes:
    """Where tensors begin and end: a pipe's first stage receives no activation, its last one no gradient."""

    def __init__(self, placement: Placement) -> None:
        self._rank_of_stage: list[int] = placement.rank_of_stage.tolist()
        # A tensor past the last stage, or before the first (-1), is in no pipe.
        self._no_input = {"F": [*placement.is_first.tolist(), True], "B": [*placement.is_last.tolist(), True]}

    def input_of(self, op: Op) -> Tensor | None:
        return self._in_pipe(input_of(op))

    def output_of(self, op: Op) -> Tensor | None:
        return self._in_pipe(output_of(op))

    def ranks_of(self, tensor: Tensor) -> tuple[int, int]:
        """Return the rank that makes a tensor and the rank that needs it."""
        return self._rank_of_stage[tensor.made_by], self._rank_of_stage[tensor.stage]

    def _in_pipe(self, tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None or self._no_input[tensor.direction][tensor.stage] else tensor


class _Turns:
    """What ranks write down, turn by turn."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._pipes = _Pipes(schedule.placement)
        self._made: set[Tensor] = set()
        self._tasks_written = [0] * schedule.ranks

    def take(self) -> Iterator[tuple[int, Task | Reduce] | Message]:
        """Yield each action with its rank, and after it the messages that it makes."""
        waiting = [deque(_with_reductions(self._schedule, rank)) for rank in range(self._schedule.ranks)]
        inputs = [self._inputs(row[0]) if row else () for row in waiting]  # of each row's head
        while any(waiting):
            progress = False
            for rank, row in enumerate(waiting):
                if row and self._made.issuperset(inputs[rank]):
                    action = row.popleft()
                    yield rank, action
                    self._tasks_written[rank] += isinstance(action, (Op, Pair))
                    yield from self._messages(action)
                    inputs[rank] = self._inputs(row[0]) if row else ()
                    progress = True
            if not progress:
                from dualpipe_sim.order.check import check_schedule  # which nothing but a wrong order needs

                raise ScheduleError(f"{self._schedule.name}: {check_schedule(self._schedule)[0]}")

    def _inputs(self, action: Task | Reduce) -> tuple[Tensor, ...]:
        return tuple(tensor for op in _ops(action) if (tensor := self._pipes.input_of(op)) is not None)

    def _messages(self, action: Task | Reduce) -> Iterator[Message]:
        """Give an action's outputs to the stages that need them, those on other ranks by messages."""
        for op in _ops(action):
            tensor = self._pipes.output_of(op)
            if tensor is None:
                continue
            self._made.add(tensor)
            source, target = self._pipes.ranks_of(tensor)
            if source != target:
                issued = self._tasks_written
                yield Message(tensor, source, target, issued[source], issued[target])


def _ops(action: Task | Reduce) -> tuple[Op, ...]:
    return () if isinstance(action, Reduce) else action.ops


def _with_reductions(schedule: Schedule, rank: int) -> list[Task | Reduce]:
    """Return a rank's tasks with the reduction of a stage's gradients after its last B or W."""
    left = {
        stage: schedule.micro_batches_of_pipe[schedule.placement.pipe_of_stage[stage]]
        for stage in schedule.placement.stages_of_rank(rank)
    }
    row: list[Task | Reduce] = []
    for task in schedule.order[rank]:
        row.append(task)
        for op in task.ops:
            if op.kind in (B, W) and op.stage in left:
                left[op.stage] -= 1
                if left[op.stage] == 0:
                    row.append(Reduce(op.stage))
    return row
