"""A schedule as text: the CSV of ``torch.distributed.pipelining``, a row a rank, a cell an action.

A cell is ``5F3`` (stage, kind, micro-batch) or ``(0F7;7B3)OVERLAP_F_B``: torch's ``compute_only``, to which ``5F3.1``
adds a slice of a micro-batch, R, S and T what torch has no ops for, and ``(0F7;7W3)OVERLAP_F_W`` other pairs. How many
barriers S and T have stands in no cell: it is a field of the schedule. Torch's ``compute_comms`` holds sends
(``0SEND_F3``), receives (``1RECV_F3``) and what is done about parameters (``0UNSHARD``, ``0RESHARD``, ``0REDUCE_GRAD``)
as well. Torch's own reader stops at the first mismatch and ignores the rest of a cell; this one matches whole cells.

What torch itself wrote is read as it is. An empty cell is a slot in which a rank waits; since a rank takes its actions
in order, it says nothing. Torch up to 2.5 had other letters: ``B`` for what is ``I`` today, ``BW`` for what is ``B``.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias, cast

from dualpipe_sim.base.units import number_of, plural
from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.builder import MOST_MICRO_BATCHES, MOST_STAGES, OrderBuilder
from dualpipe_sim.order.ops import (
    PAIRED,
    Action,
    B,
    Collective,
    Direction,
    I,
    Kind,
    Op,
    Pair,
    Program,
    Receive,
    Send,
    Tensor,
    Verb,
    W,
    ops_of,
)
from dualpipe_sim.order.placement import Placement, PlacementName, named
from dualpipe_sim.order.schedule import Schedule

_LETTERS = "".join(kind for kind in Kind.__members__ if len(kind) == 1)
_OP = rf"(\d+)(BW|[{_LETTERS}])(\d+)(?:\.(\d+))?"
_OP_CELL = re.compile(_OP, re.ASCII)
_PAIR_CELL = re.compile(rf"\({_OP};{_OP}\)OVERLAP_F_([{''.join(map(str, PAIRED))}])", re.ASCII)
_MESSAGE_CELL = re.compile(r"(\d+)(SEND|RECV)_([FB])(\d+)", re.ASCII)
_COLLECTIVE_CELL = re.compile(r"(\d+)(REDUCE_GRAD|UNSHARD|RESHARD)", re.ASCII)
_KINDS = {**Kind.__members__, "BW": B}
_LONGEST_NUMBER = 18  # digits; what is longer is out of range whatever it says
_LONGEST_QUOTE = 40
_BYTE_ORDER_MARK = "\ufeff"

Row: TypeAlias = "list[Action | None]"
"""One rank's cells, nothing where a cell is empty."""


def format_order(schedule: Schedule) -> str:
    """Return the schedule's text form, one line a rank.

    >>> from dualpipe_sim import build
    >>> print(format_order(build("1f1b", ranks=2, micro_batches=2)), end="")
    0F0,0F1,0B0,0B1
    1F0,1B0,1F1,1B1
    """
    return format_rows(schedule.order)


def format_rows(rows: Iterable[Iterable[object]]) -> str:
    """Return the text of some actions for each rank, one line a rank."""
    return "".join(",".join(map(str, row)) + "\n" for row in rows)


def parse_order(text: str, placement: Placement | PlacementName = "explicit", name: str = "file") -> Schedule:
    r"""Read a schedule from its text form, with its communication (``compute_comms``) or without.

    >>> schedule = parse_order("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1")
    >>> schedule.ranks, schedule.micro_batches, str(schedule.order[1][0])
    (2, 2, '1F0')

    Args:
        text: one line a rank, cells separated by commas; empty cells are left out.
        placement: where the stages are and how they chain; by default one pipe, each stage on the rank whose row
            names it.
        name: what to call the schedule.

    Raises:
        ScheduleError: a cell that is nothing a rank can do, with its row, its place in the row and the reason, or ops
            that do not fit the placement.

    """
    texts = rows_of(text)
    rows = in_todays_form([_parse_row(cells, rank) for rank, cells in enumerate(texts)], texts)
    if not isinstance(placement, Placement):
        placement = _placement(rows, placement)
    if len(rows) != placement.ranks:
        there, ranks = number_of(len(rows), "row"), number_of(placement.ranks, "rank")
        raise ScheduleError(f"{name}: {there}, but the placement has {ranks}; a row is a rank")
    return order_of(rows, placement, _micro_batches_of_pipe(rows, placement), name)


def order_of(rows: Sequence[Row], placement: Placement, micro_batches_of_pipe: tuple[int, ...], name: str) -> Schedule:
    """Return the schedule of cells that are read already, a row a rank."""
    slices = slices_of(ops_of(cell) for row in rows for cell in row)
    has_messages = any(isinstance(cell, (Send, Receive)) for row in rows for cell in row)
    if has_messages and slices > 1:
        raise ScheduleError(f"{name}: sends and receives have no text for a slice; leave them out")
    order = OrderBuilder(placement, micro_batches_of_pipe, slices)
    for rank, row in enumerate(rows):
        line = order.rank(rank)
        for cell in row:
            ops = ops_of(cell)
            for kind, stage, micro_batch, part in ops:
                line.op(kind, stage, micro_batch, part or 0)
            if len(ops) == 2:
                line.overlap_last()
    schedule = order.schedule(name)
    cells = _program(rows)
    if has_messages:
        schedule = replace(schedule, program=cells)
    has_gathers = any(isinstance(cell, Collective) for row in cells for cell in row)
    return replace(schedule, sharded=cells) if has_gathers else schedule


def slices_of(cells: Iterable[tuple[Op, ...]]) -> int:
    """Return how many slices micro-batches are cut into, by the ops of cells; 1 where they are whole."""
    return 1 + max((op.slice or 0 for cell in cells for op in cell), default=0)


def _program(rows: Sequence[Row]) -> Program:
    return tuple(tuple(cell for cell in row if cell is not None) for row in rows)


def is_order(text: str) -> bool:
    """Return whether a text is an order and no name: several rows or cells, or one op."""
    return "\n" in text or "," in text or _OP_CELL.fullmatch(text.strip()) is not None


def rows_of(text: str) -> list[list[str]]:
    """Split a text into its rows, one a rank, and these into their cells, as any program that writes CSV would.

    Raises:
        ScheduleError: quotes that do not close, or a cell that has no end.

    """
    # (Python 3.10's csv takes no NUL, which is no task either way)
    lines = text.removeprefix(_BYTE_ORDER_MARK).replace("\0", "\ufffd").rstrip().splitlines()
    try:
        return list(csv.reader(lines, strict=True, skipinitialspace=True)) or [[]]
    except csv.Error as error:
        raise ScheduleError(f"this is no table of comma-separated cells: {error}") from None


def parse_cell(cell: str) -> Action | None:
    """Read one cell of a row; None where it is empty.

    Raises:
        ScheduleError: the cell and why it is nothing a rank can do; the caller knows where it stands.

    """
    text = cell.strip()
    if not text:
        return None
    quoted = repr(text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "…")
    match = next(
        (m for form in (_OP_CELL, _PAIR_CELL, _MESSAGE_CELL, _COLLECTIVE_CELL) if (m := form.fullmatch(text))), None
    )
    if not match:
        raise ScheduleError(
            f"{quoted} is no task; write an op as 5F3 (stage, F, B, I or W, micro-batch), of a slice as 5F3.1, "
            "or a pair as (0F7;7B3)OVERLAP_F_B"
        )
    if not _in_range(match.groups()):
        raise ScheduleError(
            f"{quoted} is out of range: stages go to {MOST_STAGES - 1}, micro-batches to {MOST_MICRO_BATCHES - 1}"
        )
    if match.re is _MESSAGE_CELL:
        return _message(*match.groups())
    if match.re is _COLLECTIVE_CELL:
        return Collective(int(match[1]), cast("Verb", match[2]))
    found = re.findall(_OP, text)
    ops = [Op(_KINDS[kind], int(stage), int(batch), int(part) if part else None) for stage, kind, batch, part in found]
    if len(ops) == 1:
        return ops[0]
    beside = str(match[match.re.groups])
    if [str(op.kind) for op in ops] != ["F", beside]:
        other = {"B": "a B", "F": "another F"}.get(beside, f"{'an' if beside == 'I' else 'a'} {beside}")
        raise ScheduleError(f"{quoted} must overlap an F with {other}, in this order")
    return Pair(*ops)


def _in_range(groups: Sequence[str | None]) -> bool:
    """Whether the numbers of a cell can be; of four groups in turn the first is a stage."""
    return all(
        len(number) <= _LONGEST_NUMBER and int(number) < (MOST_MICRO_BATCHES if place % 4 else MOST_STAGES)
        for place, number in enumerate(groups)
        if number is not None and number.isdigit()
    )


def _message(stage: str, verb: str, direction: str, micro_batch: str) -> Send | Receive:
    needed_by = int(stage)
    if verb == "SEND":
        needed_by += 1 if direction == "F" else -1
    tensor = Tensor(cast("Direction", direction), needed_by, int(micro_batch))
    return Send(tensor) if verb == "SEND" else Receive(tensor)


def in_todays_form(rows: list[Row], texts: list[list[str]]) -> list[Row]:
    """Return rows, read of some texts, with today's letters, and with whole micro-batches where each is one slice."""
    rows = _in_new_letters(rows, texts)
    named = {op.slice for row in rows for cell in row for op in ops_of(cell)}
    return [[_whole(cell) for cell in row] for row in rows] if named == {0} else rows


def _whole(cell: Action | None) -> Action | None:
    if isinstance(cell, Pair):
        return Pair(cell.forward._replace(slice=None), cell.backward._replace(slice=None))
    return cell._replace(slice=None) if isinstance(cell, Op) else cell


def _in_new_letters(rows: list[Row], texts: list[list[str]]) -> list[Row]:
    """Return rows with today's letters: where W is there but never I, a B that has a W is what I is today.

    It is so only if it is not written ``BW``, which is both of them.
    """
    ops = {op for row in rows for cell in row for op in ops_of(cell)}
    kinds = {op.kind for op in ops}
    if W not in kinds or I in kinds:
        return rows
    whole = {cell.strip().replace("BW", "W") for row in texts for cell in row if "BW" in cell}
    split = {op._replace(kind=B): op._replace(kind=I) for op in ops if op.kind == W and str(op) not in whole}
    return [[split.get(cell, cell) if isinstance(cell, Op) else cell for cell in row] for row in rows]


def _parse_row(cells: list[str], rank: int) -> Row:
    row = [_parse_cell(cell, f"row {rank}, cell {position}") for position, cell in enumerate(cells)]
    if not any(ops_of(cell) for cell in row):
        raise ScheduleError(f"row {rank} is empty; every row is a rank and needs at least one task")
    return row


def _parse_cell(cell: str, place: str) -> Action | None:
    try:
        return parse_cell(cell)
    except ScheduleError as error:
        raise ScheduleError(f"{place}: {error}") from None


def _placement(rows: Sequence[Row], name: PlacementName) -> Placement:
    rank_of_stage: dict[int, int] = {}
    for rank, row in enumerate(rows):
        for position, cell in enumerate(row):
            for stage in (op.stage for op in ops_of(cell)):
                if rank_of_stage.setdefault(stage, rank) != rank:
                    raise ScheduleError(
                        f"row {rank}, cell {position}: stage {stage} is already on rank {rank_of_stage[stage]}; "
                        "a stage sits on one rank"
                    )
    _refuse_gaps("stage", rank_of_stage)
    if name == "explicit":
        return Placement(len(rows), (tuple(rank_of_stage[stage] for stage in range(len(rank_of_stage))),))
    return named(name, len(rows), len(rank_of_stage))


def _micro_batches_of_pipe(rows: Sequence[Row], placement: Placement) -> tuple[int, ...]:
    pipe_of_stage = placement.pipe_of_stage.tolist()
    found: list[set[int]] = [set() for _ in placement.pipes]
    slices = {op.slice for row in rows for cell in row for op in ops_of(cell)}
    for rank, row in enumerate(rows):
        for position, cell in enumerate(row):
            for op in ops_of(cell):
                _, stage, micro_batch, part = op
                if part is None and len(slices) > 1:
                    raise ScheduleError(f"row {rank}, cell {position}: {op} names no slice, as others do")
                if stage >= placement.stages:
                    raise ScheduleError(
                        f"row {rank}, cell {position}: there is no stage {stage}; "
                        f"the placement has {number_of(placement.stages, 'stage')}"
                    )
                found[pipe_of_stage[stage]].add(micro_batch)
    _refuse_gaps("slice", [part for part in slices if part is not None])
    for micro_batches in found:
        _refuse_gaps("micro-batch", micro_batches)
    return tuple(len(micro_batches) for micro_batches in found)


def _refuse_gaps(what: str, numbers: Collection[int]) -> None:
    missing = next((number for number in range(len(numbers)) if number not in numbers), None)
    if missing is not None:
        raise ScheduleError(
            f"{what} {missing} has no op, but {what} {max(numbers)} has; {plural(what)} count from 0 without gaps"
        )
