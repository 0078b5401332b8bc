"""A schedule as ``torch.distributed.pipelining`` runs it: its ``compute_comms`` CSV, written and read.

Beside the tasks a row holds ``0SEND_F3`` and ``1RECV_F3`` for each tensor that crosses from one rank to another
(``_B`` for gradients), and ``0REDUCE_GRAD`` after the last B or W of a stage. Torch lowers compute-only orders by
itself, but knows one chain of stages only; :func:`dualpipe_sim.order.messages.program_of` also takes pipes in opposite
directions.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TypeAlias

from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.check import Checked, read_order
from dualpipe_sim.order.messages import Receive, Send, Tensor, program_of, tensors_between_ranks
from dualpipe_sim.order.placement import Placement, PlacementName
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.order.text import parse_order, rows_of

_MESSAGE_CELL = re.compile(r"(\d+)(SEND|RECV)_([FB])(\d+)", re.ASCII)
_OTHER_CELL = re.compile(r"\d+(REDUCE_GRAD|UNSHARD|RESHARD)", re.ASCII)


def format_program(schedule: Schedule) -> str:
    """Return the schedule with its communication, one line a rank, as torch's ``compute_comms`` CSV.

    >>> from dualpipe_sim import build
    >>> print(format_program(build("1f1b", ranks=2, micro_batches=1)), end="")
    0F0,0SEND_F0,0RECV_B0,0B0,0REDUCE_GRAD
    1RECV_F0,1F0,1B0,1SEND_B0,1REDUCE_GRAD

    Raises:
        ScheduleError: an order that cannot run; the message says why.

    """
    return "".join(",".join(map(str, row)) + "\n" for row in program_of(schedule))


def has_messages(text: str) -> bool:
    """Return whether a text holds communication (``compute_comms``) and not only tasks (``compute_only``)."""
    return any(_is_no_task(cell) for row in rows_of(text) for cell in row.split(","))


def without_messages(text: str) -> str:
    """Return the tasks of a ``compute_comms`` text: the compute-only text of the same order."""
    if not has_messages(text):
        return text
    rows = ([cell for cell in row.split(",") if not _is_no_task(cell)] for row in rows_of(text))
    return "".join(",".join(row) + "\n" for row in rows)


def parse_program(text: str, placement: Placement | PlacementName = "explicit", name: str = "file") -> Schedule:
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
    schedule = parse_order(without_messages(text), placement, name)
    _check_messages(text, schedule)
    return schedule


def parse_either(text: str, placement: Placement | PlacementName = "explicit", name: str = "file") -> Schedule:
    """Read a schedule from either of torch's forms, with its communication or without.

    Raises:
        ScheduleError: as :func:`parse_program` or :func:`~dualpipe_sim.order.text.parse_order`.

    """
    return (parse_program if has_messages(text) else parse_order)(text, placement, name)


def read_either(
    text: str, placement: PlacementName = "explicit", micro_batches: int | None = None, name: str = "file"
) -> Checked:
    """Read a schedule from either of torch's forms, with its communication or without, and say all that is wrong.

    Args:
        text: one line a rank, cells separated by commas.
        placement: where the stages are and how they chain.
        micro_batches: micro-batches of the step, all pipes together; by default as many as the order has.
        name: what to call the schedule.

    Raises:
        ScheduleError: an order with which nothing is wrong, but communication that does not fit it.

    """
    checked = read_order(without_messages(text), placement, micro_batches, name)
    if checked.schedule is not None and has_messages(text):
        _check_messages(text, checked.schedule)
    return checked


def _check_messages(text: str, schedule: Schedule) -> None:
    """Refuse communication that does not fit the order it stands in."""
    rows = [[cell.strip() for cell in row.split(",")] for row in rows_of(text)]
    where = _places(rows)
    tensors = tensors_between_ranks(schedule)
    for tensor, (source, target) in tensors.items():
        _check_tensor(tensor, source, target, where)
    known = {str(side(tensor)) for tensor in tensors for side in (Send, Receive)}
    for cell, (rank, position) in where.items():
        if _MESSAGE_CELL.fullmatch(cell) and cell not in known:
            raise ScheduleError(f"row {rank}, cell {position}: {cell} is for no tensor that passes between ranks")
    _check_order_of_tensors(tensors, where)


def _is_no_task(cell: str) -> bool:
    text = cell.strip()
    return bool(_MESSAGE_CELL.fullmatch(text) or _OTHER_CELL.fullmatch(text))


_Places: TypeAlias = dict[str, tuple[int, int]]
"""Row and cell of every op, send and receive, by its text; those of a pair share a cell."""


def _places(rows: list[list[str]]) -> _Places:
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


def _check_tensor(tensor: Tensor, source: int, target: int, where: _Places) -> None:
    """Refuse a tensor that is not sent by its producer's rank after it and received by its consumer's before it."""
    send, receive = str(Send(tensor)), str(Receive(tensor))
    for cell, rank in ((send, source), (receive, target)):
        if cell not in where:
            raise ScheduleError(f"row {rank}: {cell} is missing; what passes between ranks is sent and received once")
        if where[cell][0] != rank:
            raise ScheduleError(f"row {where[cell][0]}: {cell} is on the wrong rank; it belongs into row {rank}")
    producer, consumer = (_op_of(tensor, stage, where) for stage in (tensor.made_by, tensor.stage))
    if where[send] < where[producer]:
        raise ScheduleError(f"row {source}, cell {where[send][1]}: {send} comes before {producer}")
    if where[receive] > where[consumer]:
        raise ScheduleError(f"row {target}, cell {where[receive][1]}: {receive} comes after {consumer}")


def _op_of(tensor: Tensor, stage: int, where: _Places) -> str:
    """Return the forward or backward of a stage that makes or needs a tensor."""
    kinds = "F" if tensor.direction == "F" else "BI"
    return next(op for op in (f"{stage}{kind}{tensor.micro_batch}" for kind in kinds) if op in where)


def _check_order_of_tensors(tensors: dict[Tensor, tuple[int, int]], where: _Places) -> None:
    between: defaultdict[tuple[int, int], list[Tensor]] = defaultdict(list)
    for tensor, ranks in tensors.items():
        between[ranks].append(tensor)
    for (source, target), group in between.items():
        sent = sorted(group, key=lambda tensor: where[str(Send(tensor))])
        received = sorted(group, key=lambda tensor: where[str(Receive(tensor))])
        for one, other in zip(sent, received, strict=True):
            if one != other:
                raise ScheduleError(
                    f"row {target}, cell {where[str(Receive(other))][1]}: {Receive(other)} stands where {Receive(one)} "
                    f"should: rank {source} sends {Send(one)} first, and receives are matched by order alone"
                )
