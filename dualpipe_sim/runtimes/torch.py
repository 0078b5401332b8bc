"""A schedule with its communication, as ``torch.distributed.pipelining`` runs it: its ``compute_comms`` CSV.

Beside the tasks a row holds ``0SEND_F3`` and ``1RECV_F3`` for each tensor that crosses from one rank to another
(``_B`` for gradients), and ``0REDUCE_GRAD`` after the last B or W of a stage. Sends and receives carry no tag: what a
rank receives from another is matched by order alone, so both must agree on it. Torch lowers compute-only orders by
itself, but knows one chain of stages only; this lowering also takes pipes in opposite directions.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from typing import NamedTuple

from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.check import check_schedule
from dualpipe_sim.order.ops import B, F, Op, Task, W
from dualpipe_sim.order.placement import Placement, PlacementName
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.order.text import parse_order, rows_of

_COMMS_CELL = re.compile(r"(\d+)(SEND|RECV)_([FB])(\d+)", re.ASCII)
_OTHER_CELL = re.compile(r"\d+(REDUCE_GRAD|UNSHARD|RESHARD)", re.ASCII)


class _Tensor(NamedTuple):
    """An activation (``F``) or gradient (``B``), named by the stage and micro-batch that need it."""

    direction: str
    stage: int
    micro_batch: int

    @property
    def made_by(self) -> int:
        """The stage that it comes from."""
        return self.stage - 1 if self.direction == "F" else self.stage + 1

    @property
    def send(self) -> str:
        """What its sender calls sending it."""
        return f"{self.made_by}SEND_{self.direction}{self.micro_batch}"

    @property
    def receive(self) -> str:
        """What its receiver calls receiving it."""
        return f"{self.stage}RECV_{self.direction}{self.micro_batch}"


class Message(NamedTuple):
    """A tensor that passes between two ranks, and how many of each one's tasks are issued before it."""

    direction: str
    stage: int
    micro_batch: int
    source: int
    target: int
    tasks_before_send: int
    tasks_before_receive: int


def format_comms(schedule: Schedule) -> str:
    """Return the schedule with its communication, one line a rank, as torch's ``compute_comms`` CSV.

    Ranks take turns, a task each, as in torch's own lowering: a task whose inputs are there is written down, what it
    sends is written down after it, and the receive at the end of the receiver's row so far. So two ranks agree on
    the order of all that passes between them, both ways, and nobody waits for ever.

    >>> from dualpipe_sim import build
    >>> print(format_comms(build("1f1b", ranks=2, micro_batches=1)), end="")
    0F0,0SEND_F0,0RECV_B0,0B0,0REDUCE_GRAD
    1RECV_F0,1F0,1B0,1SEND_B0,1REDUCE_GRAD

    Raises:
        ScheduleError: an order that cannot run; the message says why.

    """
    return "".join(",".join(row) + "\n" for row in _Lowering(schedule).rows())


def messages_in_order(schedule: Schedule) -> list[Message]:
    """Return all that passes between ranks, in the one order that the rows of :func:`format_comms` agree on.

    Raises:
        ScheduleError: an order that cannot run; the message says why.

    """
    lowering = _Lowering(schedule)
    lowering.rows()
    return lowering.messages


def has_comms(text: str) -> bool:
    """Return whether a text holds communication (``compute_comms``) and not only tasks (``compute_only``)."""
    return any(_is_comms(cell) for row in rows_of(text) for cell in row.split(","))


def strip_comms(text: str) -> str:
    """Return the tasks of a ``compute_comms`` text: the compute-only text of the same order."""
    if not has_comms(text):
        return text
    rows = ([cell for cell in row.split(",") if not _is_comms(cell)] for row in rows_of(text))
    return "".join(",".join(row) + "\n" for row in rows)


def parse_comms(text: str, placement: Placement | PlacementName = "explicit", name: str = "file") -> Schedule:
    """Read a schedule from its ``compute_comms`` text (ours, or one that torch dumped), and check who sends what.

    Args:
        text: one line a rank, cells separated by commas.
        placement: where the stages are and how they chain.
        name: what to call the schedule.

    Raises:
        ScheduleError: a cell that is no task and no communication, or communication that does not fit the order: a
            tensor that is not sent or received, or not when its op needs it, or two ranks that do not agree on the
            order of what passes between them.

    """
    schedule = parse_order(strip_comms(text), placement, name)
    rows = [[cell.strip() for cell in row.split(",")] for row in rows_of(text)]
    where = _places(rows)
    tensors = _tensors(schedule)
    for tensor, (source, target) in tensors.items():
        _check_tensor(tensor, source, target, where)
    known = {cell for tensor in tensors for cell in (tensor.send, tensor.receive)}
    for cell, (rank, position) in where.items():
        if _COMMS_CELL.fullmatch(cell) and cell not in known:
            raise ScheduleError(f"row {rank}, cell {position}: {cell} is for no tensor that passes between ranks")
    _check_order_of_tensors(tensors, where)
    return schedule


def parse_either(text: str, placement: Placement | PlacementName = "explicit", name: str = "file") -> Schedule:
    """Read a schedule from either of torch's forms, with its communication or without.

    Raises:
        ScheduleError: as :func:`parse_comms` or :func:`~dualpipe_sim.order.text.parse_order`.

    """
    return (parse_comms if has_comms(text) else parse_order)(text, placement, name)


def _is_comms(cell: str) -> bool:
    text = cell.strip()
    return bool(_COMMS_CELL.fullmatch(text) or _OTHER_CELL.fullmatch(text))


class _Lowering:
    """The rows while they are written down."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        placement = schedule.placement
        self.rank_of_stage: list[int] = placement.rank_of_stage.tolist()
        self.is_first: list[bool] = placement.is_first.tolist()
        self.is_last: list[bool] = placement.is_last.tolist()
        self.written: list[list[str]] = [[] for _ in range(schedule.ranks)]
        self.there: set[_Tensor] = set()
        self.tasks_written = [0] * schedule.ranks
        self.messages: list[Message] = []

    def rows(self) -> list[list[str]]:
        waiting = [deque(_with_reductions(self.schedule, rank)) for rank in range(self.schedule.ranks)]
        while any(waiting):
            progress = False
            for rank, (row, written) in enumerate(zip(waiting, self.written, strict=True)):
                if row and self._is_ready(row[0]):
                    action = row.popleft()
                    written.append(str(action))
                    self.tasks_written[rank] += not isinstance(action, str)
                    self._hand_over(action)
                    progress = True
            if not progress:
                raise ScheduleError(f"{self.schedule.name}: {check_schedule(self.schedule)[0]}")
        return self.written

    def _is_ready(self, action: Task | str) -> bool:
        needs = (_need(op, self.is_first, self.is_last) for op in _ops(action))
        return all(need is None or need in self.there for need in needs)

    def _hand_over(self, action: Task | str) -> None:
        """Give an op's output to the stage that needs it, on another rank by a send and a receive."""
        for op in _ops(action):
            tensor = _output(op, self.is_first, self.is_last)
            if tensor is None:
                continue
            self.there.add(tensor)
            source, target = self.rank_of_stage[op.stage], self.rank_of_stage[tensor.stage]
            if source != target:
                self.written[source].append(tensor.send)
                self.written[target].append(tensor.receive)
                issued = self.tasks_written
                self.messages.append(Message(*tensor, source, target, issued[source], issued[target]))


def _ops(action: Task | str) -> tuple[Op, ...]:
    if isinstance(action, str):
        return ()
    return action.ops


def _need(op: Op, is_first: list[bool], is_last: list[bool]) -> _Tensor | None:
    if op.kind == F:
        return None if is_first[op.stage] else _Tensor("F", op.stage, op.micro_batch)
    return None if op.kind == W or is_last[op.stage] else _Tensor("B", op.stage, op.micro_batch)


def _output(op: Op, is_first: list[bool], is_last: list[bool]) -> _Tensor | None:
    if op.kind == F:
        return None if is_last[op.stage] else _Tensor("F", op.stage + 1, op.micro_batch)
    return None if op.kind == W or is_first[op.stage] else _Tensor("B", op.stage - 1, op.micro_batch)


def _with_reductions(schedule: Schedule, rank: int) -> list[Task | str]:
    """Return a rank's tasks with the reduction of a stage's gradients after its last B or W."""
    left = {
        stage: schedule.micro_batches_of_pipe[schedule.placement.pipe_of_stage[stage]]
        for stage in schedule.placement.stages_of_rank(rank)
    }
    row: list[Task | str] = []
    for task in schedule.order[rank]:
        row.append(task)
        for op in _ops(task):
            if op.kind in (B, W) and op.stage in left:
                left[op.stage] -= 1
                if left[op.stage] == 0:
                    row.append(f"{op.stage}REDUCE_GRAD")
    return row


def _tensors(schedule: Schedule) -> dict[_Tensor, tuple[int, int]]:
    """Return all that must pass between ranks, with its sender and its receiver."""
    placement = schedule.placement
    is_first, is_last = placement.is_first.tolist(), placement.is_last.tolist()
    rank_of_stage = placement.rank_of_stage.tolist()
    tensors = {}
    for row in schedule.order:
        for op in (op for task in row for op in _ops(task)):
            tensor = _output(op, is_first, is_last)
            if tensor and rank_of_stage[op.stage] != rank_of_stage[tensor.stage]:
                tensors[tensor] = rank_of_stage[op.stage], rank_of_stage[tensor.stage]
    return tensors


_Places = dict[str, tuple[int, int]]


def _places(rows: list[list[str]]) -> _Places:
    """Return row and cell of every op, send and receive; those of a pair share a cell."""
    where: _Places = {}
    for rank, row in enumerate(rows):
        for position, cell in enumerate(row):
            if _OTHER_CELL.fullmatch(cell):
                continue
            for part in cell.removesuffix("OVERLAP_F_B").strip("()").split(";"):
                if part in where:
                    raise ScheduleError(f"row {rank}, cell {position}: {part} is there already (row {where[part][0]})")
                where[part] = rank, position
    return where


def _check_tensor(tensor: _Tensor, source: int, target: int, where: _Places) -> None:
    """Refuse a tensor that is not sent by its producer's rank after it and received by its consumer's before it."""
    for cell, rank in ((tensor.send, source), (tensor.receive, target)):
        if cell not in where:
            raise ScheduleError(f"row {rank}: {cell} is missing; what passes between ranks is sent and received once")
        if where[cell][0] != rank:
            raise ScheduleError(f"row {where[cell][0]}: {cell} is on the wrong rank; it belongs into row {rank}")
    producer, consumer = (_op_of(tensor, stage, where) for stage in (tensor.made_by, tensor.stage))
    if where[tensor.send] < where[producer]:
        raise ScheduleError(f"row {source}, cell {where[tensor.send][1]}: {tensor.send} comes before {producer}")
    if where[tensor.receive] > where[consumer]:
        raise ScheduleError(f"row {target}, cell {where[tensor.receive][1]}: {tensor.receive} comes after {consumer}")


def _op_of(tensor: _Tensor, stage: int, where: _Places) -> str:
    """Return the forward or backward of a stage that makes or needs a tensor."""
    kinds = "F" if tensor.direction == "F" else "BI"
    return next(op for op in (f"{stage}{kind}{tensor.micro_batch}" for kind in kinds) if op in where)


def _check_order_of_tensors(tensors: dict[_Tensor, tuple[int, int]], where: _Places) -> None:
    between: defaultdict[tuple[int, int], list[_Tensor]] = defaultdict(list)
    for tensor, pair in tensors.items():
        between[pair].append(tensor)
    for (source, target), group in between.items():
        sent = sorted(group, key=lambda tensor: where[tensor.send])
        received = sorted(group, key=lambda tensor: where[tensor.receive])
        for one, other in zip(sent, received, strict=True):
            if one != other:
                raise ScheduleError(
                    f"row {target}, cell {where[other.receive][1]}: {other.receive} stands where {one.receive} should: "
                    f"rank {source} sends {one.send} first, and receives are matched by order alone"
                )
