"""Timelines as CSV (``rank,lane,task,start_s,end_s``), written by ``dualpipe-sim timeline`` or by a real run."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.calibration.actions import Action, inputs_of, parse_action
from dualpipe_sim.calibration.recording import Occurrences, Ran, Recording, Step
from dualpipe_sim.errors import ScheduleError, UserError
from dualpipe_sim.order.ops import Tensor

HEADER = ["rank", "lane", "task", "start_s", "end_s"]
_MOST_RANKS = 1 << 20
_LANES = [str(lane) for lane in Lane]


class Row(NamedTuple):
    """Something that ran on a lane of a rank.

    Attributes:
        rank: the rank.
        lane: ``compute``, ``alltoall``, ``send`` or ``recv``.
        action: the op, pair or message; of a phase, the op that it is part of.
        phase: the rest of a phase's name, empty for whatever is whole.
        start_s: when it started.
        end_s: when it ended.

    """

    rank: int
    lane: str
    action: Action
    phase: str
    start_s: float
    end_s: float


def read_rows(text: str, source: str) -> Iterator[Row]:
    """Yield the rows of a timeline.

    Raises:
        UserError: no such timeline; the line, the value and what would be right.

    """
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(lines, [])
        if [cell.strip() for cell in header] != HEADER:
            said = ",".join(header)[:60]
            raise UserError(f"{source}: must begin with the line {','.join(HEADER)}, got {said!r}")
        for cells in lines:
            if cells:
                yield _row(cells, f"{source}: line {lines.line_num}")
    except csv.Error as error:
        raise UserError(f"{source}: line {lines.line_num}: is no CSV: {error}") from error


def add_timeline(recording: Recording, text: str, source: str) -> None:
    """Add what a timeline says to a recording; an op that ran before is of the next step.

    Raises:
        UserError: it is no timeline, or one of a rank that the recording has from another file.

    """
    seen = Occurrences()
    needed: defaultdict[tuple[int, Tensor], list[Ran]] = defaultdict(list)
    received: list[tuple[int, Tensor, float]] = []
    for row in read_rows(text, source):
        recording.add_rank(row.rank, source)
        if row.phase:
            recording.left_out["phases of ops; only whole ops count"] += 1
        elif row.action.cell:
            step: Step = 0, seen.next((row.rank, row.action.text))
            ran = Ran(row.rank, step, row.action, row.start_s, row.end_s, row.end_s - row.start_s)
            recording.ops.append(ran)
            for tensor in inputs_of(row.action):
                needed[row.rank, tensor].append(ran)
        elif row.action.tensor is not None and row.lane == "recv":
            received.append((row.rank, row.action.tensor, row.end_s))
    for rank, tensor, there_s in received:
        # A run may write down only some steps' receives, so that a step is known by time alone.
        later = [ran for ran in needed[rank, tensor] if ran.start_s >= there_s]
        if later:
            first = min(later, key=lambda ran: ran.start_s)
            recording.arrived_s[rank, first.step, tensor] = there_s


def _row(cells: list[str], where: str) -> Row:
    if len(cells) != len(HEADER):
        raise UserError(f"{where}: must have {len(HEADER)} cells, {','.join(HEADER)}, got {len(cells)}")
    rank, lane, task, start, end = (cell.strip() for cell in cells)
    if lane not in _LANES:
        raise UserError(f"{where}: lane must be {', '.join(_LANES)}, got {lane[:40]!r}")
    if not (rank.isascii() and rank.isdecimal() and len(rank) < 10 and int(rank) < _MOST_RANKS):
        raise UserError(f"{where}: rank must be a whole number, got {rank[:40]!r}")
    name, _, phase = task.partition(" ")
    try:
        action = parse_action(name)
    except ScheduleError as error:
        raise UserError(f"{where}: {error}") from error
    start_s, end_s = _seconds(start, where, "start_s"), _seconds(end, where, "end_s")
    if end_s < start_s:
        raise UserError(f"{where}: {task} ends at {end_s} s, before it starts at {start_s} s")
    return Row(int(rank), lane, action, phase, start_s, end_s)


def _seconds(text: str, where: str, key: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise UserError(f"{where}: {key} must be a number of seconds, got {text[:40]!r}")
    return seconds
