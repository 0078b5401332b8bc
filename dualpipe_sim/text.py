"""A schedule as text: the compute-only CSV of ``torch.distributed.pipelining``, a row a rank, a cell a task.

A cell is ``5F3`` (stage, kind, micro-batch) or ``(0F7;7B3)OVERLAP_F_B``. Torch's own reader stops at the first
mismatch and ignores the rest of a cell; this one matches whole cells.
"""

from __future__ import annotations

import re

from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.ops import KINDS
from dualpipe_sim.placement import Placement
from dualpipe_sim.schedule import MOST_MICROBATCHES, MOST_STAGES, OrderBuilder, Schedule

_OP = r"(\d+)([FBIW])(\d+)"
_OP_CELL = re.compile(_OP, re.ASCII)
_PAIR_CELL = re.compile(rf"\({_OP};{_OP}\)OVERLAP_F_B", re.ASCII)
_CODE = {letter: code for code, letter in enumerate(KINDS)}


def format_order(schedule: Schedule) -> str:
    """Return the schedule's text form, one line a rank.

    >>> from dualpipe_sim import build
    >>> print(format_order(build("1f1b", ranks=2, micro_batches=2)), end="")
    0F0,0F1,0B0,0B1
    1F0,1B0,1F1,1B1
    """
    return "".join(",".join(map(str, row)) + "\n" for row in schedule.order)


def parse_order(text: str, placement: Placement | None = None, name: str = "file") -> Schedule:
    """Read a schedule from its text form.

    Args:
        text: one line a rank, tasks separated by commas.
        placement: where the stages are and how they chain; by default one pipe, each stage on the rank whose row names it.
        name: what to call the schedule.

    Raises:
        ScheduleError: a cell that is no task, with its row, its place in the row and the reason.

    """
    rows = [_parse_row(line, rank) for rank, line in enumerate(text.removesuffix("\n").split("\n"))]
    placement = placement or _placement_from_rows(rows)
    if len(rows) != placement.ranks:
        raise ScheduleError(f"{name}: {len(rows)} rows, but the placement has {placement.ranks} ranks; a row is a rank")
    order = OrderBuilder(placement, _microbatches_of_pipe(rows, placement))
    for rank, row in enumerate(rows):
        line = order.rank(rank)
        for cell in row:
            for kind, stage, microbatch in cell:
                line.op(kind, stage, microbatch)
            if len(cell) == 2:
                line.overlap_last()
    return order.schedule(name)


_Cell = list[tuple[int, int, int]]  # (kind code, stage, micro-batch) of one op or of a pair's two


def _parse_row(line: str, rank: int) -> list[_Cell]:
    if not line.strip():
        raise ScheduleError(f"row {rank} is empty; every row is a rank and needs at least one task")
    return [_parse_cell(cell, rank, position) for position, cell in enumerate(line.split(","))]


def _parse_cell(cell: str, rank: int, position: int) -> _Cell:
    def refuse(why: str) -> ScheduleError:
        return ScheduleError(f"row {rank}, cell {position}: {cell.strip()!r} {why}")

    text = cell.strip()
    match = _OP_CELL.fullmatch(text) or _PAIR_CELL.fullmatch(text)
    if not match:
        raise refuse("is no task; write an op as 5F3 (stage, F, B, I or W, micro-batch) or a pair as (0F7;7B3)OVERLAP_F_B")
    parts = match.groups()
    ops = [(_CODE[parts[i + 1]], int(parts[i]), int(parts[i + 2])) for i in range(0, len(parts), 3)]  # type: ignore[index]
    if len(ops) == 2 and [KINDS[kind] for kind, _, _ in ops] != ["F", "B"]:
        raise refuse("must overlap an F with a B, in this order")
    for _, stage, microbatch in ops:
        if stage >= MOST_STAGES or microbatch >= MOST_MICROBATCHES:
            raise refuse(f"is out of range: stages go to {MOST_STAGES - 1}, micro-batches to {MOST_MICROBATCHES - 1}")
    return ops


def _placement_from_rows(rows: list[list[_Cell]]) -> Placement:
    rank_of_stage: dict[int, int] = {}
    for rank, row in enumerate(rows):
        for position, cell in enumerate(row):
            for _, stage, _ in cell:
                if rank_of_stage.setdefault(stage, rank) != rank:
                    raise ScheduleError(
                        f"row {rank}, cell {position}: stage {stage} is already on rank {rank_of_stage[stage]}; "
                        "a stage sits on one rank"
                    )
    missing = set(range(max(rank_of_stage) + 1)) - set(rank_of_stage)
    if missing:
        raise ScheduleError(f"stage {min(missing)} has no op, but stage {max(rank_of_stage)} has; stages count from 0 without gaps")
    return Placement(len(rows), (tuple(rank_of_stage[stage] for stage in range(len(rank_of_stage))),))


def _microbatches_of_pipe(rows: list[list[_Cell]], placement: Placement) -> tuple[int, ...]:
    most = [0] * len(placement.pipes)
    pipe_of_stage = placement.pipe_of_stage
    for rank, row in enumerate(rows):
        for position, cell in enumerate(row):
            for _, stage, microbatch in cell:
                if stage >= placement.stages:
                    raise ScheduleError(f"row {rank}, cell {position}: there is no stage {stage}; the placement has {placement.stages} stages")
                pipe = int(pipe_of_stage[stage])
                most[pipe] = max(most[pipe], microbatch + 1)
    return tuple(most)
