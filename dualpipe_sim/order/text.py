"""A schedule as text: the compute-only CSV of ``torch.distributed.pipelining``, a row a rank, a cell a task.

A cell is ``5F3`` (stage, kind, micro-batch) or ``(0F7;7B3)OVERLAP_F_B``. Torch's own reader stops at the first
mismatch and ignores the rest of a cell; this one matches whole cells.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TypeAlias

from dualpipe_sim.base.units import number_of, plural
from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.builder import MOST_MICRO_BATCHES, MOST_STAGES, OrderBuilder
from dualpipe_sim.order.ops import Kind, Op
from dualpipe_sim.order.placement import Placement, PlacementName, named
from dualpipe_sim.order.schedule import Schedule

_OP = r"(\d+)([FBIW])(\d+)"
_OP_CELL = re.compile(_OP, re.ASCII)
_PAIR_CELL = re.compile(rf"\({_OP};{_OP}\)OVERLAP_F_B", re.ASCII)
_LETTERS = Kind.__members__
_LONGEST_NUMBER = 18  # digits; what is longer is out of range whatever it says
_LONGEST_QUOTE = 40

Cell: TypeAlias = tuple[Op, ...]
"""One op, or a pair's two."""


def format_order(schedule: Schedule) -> str:
    """Return the schedule's text form, one line a rank.

    >>> from dualpipe_sim import build
    >>> print(format_order(build("1f1b", ranks=2, micro_batches=2)), end="")
    0F0,0F1,0B0,0B1
    1F0,1B0,1F1,1B1
    """
    return "".join(",".join(map(str, row)) + "\n" for row in schedule.order)


def parse_order(text: str, placement: Placement | PlacementName = "explicit", name: str = "file") -> Schedule:
    r"""Read a schedule from its text form.

    >>> schedule = parse_order("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1")
    >>> schedule.ranks, schedule.micro_batches, str(schedule.order[1][0])
    (2, 2, '1F0')

    Args:
        text: one line a rank, tasks separated by commas.
        placement: where the stages are and how they chain; by default one pipe, each stage on the rank whose row
            names it.
        name: what to call the schedule.

    Raises:
        ScheduleError: a cell that is no task, with its row, its place in the row and the reason, or ops that do not
            fit the placement.

    """
    rows = [_parse_row(line, rank) for rank, line in enumerate(rows_of(text))]
    if not isinstance(placement, Placement):
        placement = _placement(rows, placement)
    if len(rows) != placement.ranks:
        there, ranks = number_of(len(rows), "row"), number_of(placement.ranks, "rank")
        raise ScheduleError(f"{name}: {there}, but the placement has {ranks}; a row is a rank")
    return order_of(rows, placement, _micro_batches_of_pipe(rows, placement), name)


def order_of(
    rows: list[list[Cell]], placement: Placement, micro_batches_of_pipe: tuple[int, ...], name: str
) -> Schedule:
    """Return the schedule of cells that are read already, a row a rank."""
    order = OrderBuilder(placement, micro_batches_of_pipe)
    for rank, row in enumerate(rows):
        line = order.rank(rank)
        for cell in row:
            for kind, stage, micro_batch in cell:
                line.op(kind, stage, micro_batch)
            if len(cell) == 2:
                line.overlap_last()
    return order.schedule(name)


def is_order(text: str) -> bool:
    """Return whether a text is an order and no name: several rows or cells, or one op."""
    return "\n" in text or "," in text or _OP_CELL.fullmatch(text.strip()) is not None


def rows_of(text: str) -> list[str]:
    """Split a text into its rows, one a rank; the last one may end in a line break."""
    return text.removesuffix("\n").split("\n")


def parse_cell(cell: str) -> Cell:
    """Read one cell of a row.

    Raises:
        ScheduleError: the cell and why it is no task; the caller knows where it stands.

    """
    text = cell.strip()
    quoted = repr(text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "…")
    match = _OP_CELL.fullmatch(text) or _PAIR_CELL.fullmatch(text)
    if not text:
        raise ScheduleError("the cell is empty; an order holds no waiting, so leave it and its comma out")
    if not match:
        raise ScheduleError(
            f"{quoted} is no task; write an op as 5F3 (stage, F, B, I or W, micro-batch) "
            "or a pair as (0F7;7B3)OVERLAP_F_B"
        )
    parts = [part for part in match.groups() if part]
    numbers = [int(part[:_LONGEST_NUMBER]) for part in parts if part not in _LETTERS]
    if (
        max(map(len, parts)) > _LONGEST_NUMBER
        or max(numbers[::2]) >= MOST_STAGES
        or max(numbers[1::2]) >= MOST_MICRO_BATCHES
    ):
        raise ScheduleError(
            f"{quoted} is out of range: stages go to {MOST_STAGES - 1}, micro-batches to {MOST_MICRO_BATCHES - 1}"
        )
    kinds = parts[1::3]
    if len(kinds) == 2 and kinds != ["F", "B"]:
        raise ScheduleError(f"{quoted} must overlap an F with a B, in this order")
    return tuple(Op(Kind[kind], numbers[2 * i], numbers[2 * i + 1]) for i, kind in enumerate(kinds))


def _parse_row(line: str, rank: int) -> list[Cell]:
    if not line.strip():
        raise ScheduleError(f"row {rank} is empty; every row is a rank and needs at least one task")
    return [_parse_cell(cell, f"row {rank}, cell {position}") for position, cell in enumerate(line.split(","))]


def _parse_cell(cell: str, place: str) -> Cell:
    try:
        return parse_cell(cell)
    except ScheduleError as error:
        raise ScheduleError(f"{place}: {error}") from None


def _placement(rows: list[list[Cell]], name: PlacementName) -> Placement:
    rank_of_stage: dict[int, int] = {}
    for rank, row in enumerate(rows):
        for position, cell in enumerate(row):
            for _, stage, _ in cell:
                if rank_of_stage.setdefault(stage, rank) != rank:
                    raise ScheduleError(
                        f"row {rank}, cell {position}: stage {stage} is already on rank {rank_of_stage[stage]}; "
                        "a stage sits on one rank"
                    )
    _refuse_gaps("stage", rank_of_stage)
    if name == "explicit":
        return Placement(len(rows), (tuple(rank_of_stage[stage] for stage in range(len(rank_of_stage))),))
    return named(name, len(rows), len(rank_of_stage))


def _micro_batches_of_pipe(rows: list[list[Cell]], placement: Placement) -> tuple[int, ...]:
    pipe_of_stage = placement.pipe_of_stage.tolist()
    found: list[set[int]] = [set() for _ in placement.pipes]
    for rank, row in enumerate(rows):
        for position, cell in enumerate(row):
            for _, stage, micro_batch in cell:
                if stage >= placement.stages:
                    raise ScheduleError(
                        f"row {rank}, cell {position}: there is no stage {stage}; "
                        f"the placement has {number_of(placement.stages, 'stage')}"
                    )
                found[pipe_of_stage[stage]].add(micro_batch)
    for micro_batches in found:
        _refuse_gaps("micro-batch", micro_batches)
    return tuple(len(micro_batches) for micro_batches in found)


def _refuse_gaps(what: str, numbers: Collection[int]) -> None:
    missing = next((number for number in range(len(numbers)) if number not in numbers), None)
    if missing is not None:
        raise ScheduleError(
            f"{what} {missing} has no op, but {what} {max(numbers)} has; {plural(what)} count from 0 without gaps"
        )
