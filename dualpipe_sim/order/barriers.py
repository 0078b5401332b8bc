"""Where ranks wait for each other with no tensor between two of them: around the passes of a cut vocabulary.

An S waits for the F of the last stage, whose output all ranks get. What else there is depends on the order's
:data:`~dualpipe_sim.order.ops.Vocabulary`: the S of all ranks before a T, the S or the T of all ranks before the last
stage's backward, or all ranks at once. Barriers take no time themselves: neither what they broadcast nor what they sum.
:func:`waits_of` says so of one op, :func:`barriers` of all ops at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from dualpipe_sim.base.arrays import IntArray
from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.dependencies import row_of_each
from dualpipe_sim.order.ops import BESIDE, B, F, I, Kind, Op, S, T, Vocabulary
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.order.schedule import Schedule

ONE_PIPE = "S and T are passes of all ranks for the last stage of one pipe"
"""What orders of several pipes are told."""

_NONE = -1


def waits_of(op: Op, placement: Placement, how: Vocabulary) -> Iterator[Op]:
    """Yield what an op waits for at barriers; not that of one pass of all ranks, which starts on them at once.

    >>> from dualpipe_sim.order.placement import linear
    >>> [str(one) for one in waits_of(Op(B, 1, 3), linear(2), "two barriers")]
    ['0T3', '1T3']
    """
    last = placement.stages - 1
    if op.kind == S:
        yield op._replace(kind=F, stage=last)
    elif op.kind == T or (op.kind in (B, I) and op.stage == last):
        kind = T if op.kind != T and how == "two barriers" else S
        yield from (op._replace(kind=kind, stage=stage) for stage in placement.first_stage_of_rank.tolist())


def barriers(schedule: Schedule) -> tuple[IntArray, IntArray]:
    """Return (row, row that waits for it) of everything that ops wait for at barriers, shape ``(waits,)`` each.

    The order has what :func:`~dualpipe_sim.order.dependencies.dependencies` asks for.

    Raises:
        ScheduleError: an S or a T that is missing, doubled, or not named by its rank's first stage; or several pipes.

    """
    how, placement = schedule.vocabulary, schedule.placement
    if how is None:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    if len(placement.pipes) > 1:
        raise ScheduleError(f"{schedule.name}: {ONE_PIPE}, and there are {len(placement.pipes)}")
    last = placement.stages - 1
    forward, backward = (
        row_of_each(schedule, np.flatnonzero(schedule.of_kinds(*kinds)))[last:] for kinds in ((F,), (B, I))
    )
    logits = _of_ranks(schedule, S)
    waits = [(forward, logits)]
    if how == "together":
        waits.append((logits, backward))
    else:
        gradients = _of_ranks(schedule, T)
        waits += [(logits, gradients), (gradients if how == "two barriers" else logits, backward)]
    return _each_with_each(waits)


def meetings(schedule: Schedule) -> tuple[IntArray, IntArray]:
    """Return (task, task that waits until it is done) around passes of all ranks at once, shape ``(waits,)`` each.

    A pass starts when all ranks have come to it, and they go on when all are through. What runs beside compute no rank
    waits for.
    """
    if schedule.vocabulary != "together":
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    in_turn = np.flatnonzero(~schedule.of_kinds(*BESIDE)[schedule.first_op])
    place = np.searchsorted(in_turn, schedule.task_of_op[_of_ranks(schedule, S)])
    before, behind = (_beside(schedule, in_turn, place, step) for step in (-1, 1))
    passes = in_turn[place]
    return _each_with_each([(before, passes), (passes, behind)])


def _each_with_each(waits: Sequence[tuple[IntArray, IntArray]]) -> tuple[IntArray, IntArray]:
    """Pair every one of one side with every one of the other, micro-batch by micro-batch."""
    pairs = [np.broadcast_arrays(before[:, None], after[None]) for before, after in waits]
    before, after = (np.concatenate([one.ravel() for one in side]) for side in zip(*pairs, strict=True))
    there = (before != _NONE) & (after != _NONE)
    return before[there], after[there]


def _of_ranks(schedule: Schedule, kind: Kind) -> IntArray:
    """Return the row of each rank's S or T of each micro-batch, shape ``(ranks, micro-batches)``."""
    own = schedule.placement.first_stage_of_rank
    rows = np.flatnonzero(schedule.of_kinds(kind))
    astray = rows[own[schedule.rank[rows]] != schedule.stage[rows]]
    if len(astray):
        row = int(astray[0])
        raise ScheduleError(
            f"{schedule.op(row)} on rank {schedule.rank[row]} is named by another stage; a rank's S and T are named by "
            f"its first one, {own[schedule.rank[row]]}"
        )
    of_ranks = row_of_each(schedule, rows)[own]
    missing = np.argwhere(of_ranks < 0)
    if len(missing):
        rank, unit = missing[0].tolist()
        micro_batch, part = divmod(unit, schedule.slices)
        op = Op(kind, int(own[rank]), micro_batch, None if schedule.slice is None else part)
        raise ScheduleError(
            f"{op} on rank {rank} never runs; every rank does its share of each micro-batch's output layer"
        )
    return of_ranks


def _beside(schedule: Schedule, in_turn: IntArray, place: IntArray, step: int) -> IntArray:
    """Return the task before each pass in its rank's turn (-1) or behind it (1), or ``_NONE`` where there is none.

    A pass behind a pass waits for all ranks to have come to it already, and is left out.
    """
    beside = np.clip(place + step, 0, len(in_turn) - 1)
    rank, kind = schedule.rank_of_task[in_turn], schedule.kind[schedule.first_op[in_turn]]
    there = (beside != place) & (rank[beside] == rank[place])
    if step > 0:
        there &= kind[beside] != int(S)
    return np.where(there, in_turn[beside], _NONE)
