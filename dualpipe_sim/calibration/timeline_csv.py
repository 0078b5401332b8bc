"""Timelines as CSV (``rank,lane,task,start_s,end_s``), written by ``dualpipe-sim timeline`` or by a real run.

Behind these a run may write ``host_start_s,host_end_s``: when the host entered and left the call that issued the row.
An overlapped pair is one row; rows of its halves that lie within it are its phases.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.base.units import SECONDS
from dualpipe_sim.calibration.actions import Action, inputs_of, kind_of_no_op
from dualpipe_sim.calibration.recording import Occurrences, Ran, Recording, Step
from dualpipe_sim.calibration.tables import action_of, rank_of, rows_of
from dualpipe_sim.errors import UserError, quoted
from dualpipe_sim.order.ops import OF_WEIGHTS, Tensor

HEADER = ["rank", "lane", "task", "start_s", "end_s"]
HOST = ["host_start_s", "host_end_s"]
_SAME_S = 1e-6
"""Moments of two rows that are as close as this may be one moment, rounded."""

LATEST_S = 1e11
"""Later than any clock says: beyond it differences of times say nothing."""
_LANES = [str(lane) for lane in Lane]
_OF_WEIGHTS = [str(kind) for kind in OF_WEIGHTS]


class Row(NamedTuple):
    """Something that ran on a lane of a rank.

    Attributes:
        rank: the rank.
        lane: ``compute``, ``alltoall``, ``send`` or ``recv``.
        action: the op, pair or message; of a phase, the op that it is part of.
        phase: the rest of a phase's name, empty for whatever is whole.
        start_s: when it started.
        end_s: when it ended.
        host_s: when the host entered and left the call that issued it, where that is known.

    """

    rank: int
    lane: str
    action: Action
    phase: str
    start_s: float
    end_s: float
    host_s: tuple[float, float] | None = None


def read_rows(text: str, source: str) -> Iterator[Row]:
    """Yield the rows of a timeline.

    Raises:
        UserError: no such timeline; the line, the value and what would be right.

    """
    for cells, where in rows_of(text, source, HEADER, HOST):
        yield _row(cells, where)


def add_timeline(recording: Recording, text: str, source: str) -> None:
    """Add what a timeline says to a recording; an op that ran before is of the next step.

    Raises:
        UserError: it is no timeline, or one of a rank that the recording has from another file.

    """
    seen = Occurrences()
    needed: defaultdict[tuple[int, Tensor], list[Ran]] = defaultdict(list)
    received: list[tuple[int, Tensor, float]] = []
    rows = list(read_rows(text, source))
    halves = _halves(rows)
    for place, row in enumerate(rows):
        recording.add_rank(row.rank, source)
        if row.phase:
            recording.left_out["phases of ops; only whole ops count"] += 1
        elif place in halves.inside:
            continue
        elif row.action.cell:
            step: Step = 0, seen.next((row.rank, row.action.text))
            length_s = row.end_s - row.start_s
            timed_s = tuple(rows[half].end_s - rows[half].start_s for half in halves.of_pair.get(place, ()))
            ran = Ran(row.rank, step, row.action, row.start_s, row.end_s, length_s, host_s=row.host_s, halves_s=timed_s)
            recording.ops.append(ran)
            for tensor in inputs_of(row.action):
                needed[row.rank, tensor].append(ran)
        elif row.action.tensor is None:
            recording.left_out[f"rows of {kind_of_no_op(row.action.text)}, which is no op"] += 1
        elif row.lane == "recv":
            received.append((row.rank, row.action.tensor, row.end_s))
            recording.moved_s.append(row.end_s - row.start_s)
    for rank, tensor, there_s in received:
        # A run may write down only some steps' receives, so that a step is known by time alone.
        later = [ran for ran in needed[rank, tensor] if ran.start_s >= there_s]
        if later:
            first = min(later, key=lambda ran: ran.start_s)
            recording.arrived_s[rank, first.step, tensor] = there_s


class _Halves(NamedTuple):
    """Rows of halves, by their places: of each pair, and all of them."""

    of_pair: dict[int, tuple[int, ...]]
    inside: set[int]


def _halves(rows: list[Row]) -> _Halves:
    """Find the rows of single ops that are halves of an overlapped pair whose row holds them in time."""
    lone: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        if len(row.action.cell) == 1 and not row.phase:
            lone[row.rank, row.action.text].append(place)
    of_pair: dict[int, tuple[int, ...]] = {}
    for place, row in enumerate(rows):
        if len(row.action.cell) > 1:
            found = [
                next((one for one in lone[row.rank, str(op)] if _is_within(rows[one], row)), None)
                for op in row.action.cell
            ]
            if None not in found:
                of_pair[place] = tuple(one for one in found if one is not None)
    return _Halves(of_pair, {half for halves in of_pair.values() for half in halves})


def _is_within(row: Row, other: Row) -> bool:
    return other.start_s - _SAME_S <= row.start_s and row.end_s <= other.end_s + _SAME_S


def _row(cells: list[str], where: str) -> Row:
    rank, lane, task, start, end, *host = cells
    if lane not in _LANES:
        raise UserError(f"{where}: lane must be {', '.join(_LANES)}, got {quoted(lane)}")
    number = rank_of(rank, where)
    name, _, phase = task.partition(" ")
    action = Action(name, ()) if kind_of_no_op(name) in _OF_WEIGHTS else action_of(name, where)
    start_s, end_s = _seconds(start, where, "start_s"), _seconds(end, where, "end_s")
    if end_s < start_s:
        raise UserError(f"{where}: {task} ends at {end_s} s, before it starts at {start_s} s")
    return Row(number, lane, action, phase, start_s, end_s, _host_s(host, where))


def _host_s(cells: list[str], where: str) -> tuple[float, float] | None:
    """Return when the host entered and left; None where nobody says so."""
    if not any(cells):
        return None
    start_s, end_s = (_seconds(cell, where, key) for cell, key in zip(cells, HOST, strict=True))
    if end_s < start_s:
        raise UserError(f"{where}: {HOST[1]} is {end_s} s, before {HOST[0]}, {start_s} s")
    return start_s, end_s


def _seconds(text: str, where: str, key: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not abs(seconds) < LATEST_S:
        raise UserError(f"{where}: {key} must be a number of seconds, got {quoted(text)}")
    return seconds if abs(seconds) >= SECONDS.least else 0.0
