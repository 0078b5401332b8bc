"""What every op of an order waits for.

An F waits for the F of the stage before it; a B or I for the F of its own stage and for the B or I of the stage after
it; a W for the I of its own stage; an R for the F of its own stage, and the B or I of that stage for the R, where there
is one. An O waits for the F of its own stage, the L for the O, and the B or I of that stage for the L, where there is
one. Where a stage's weights are gathered, its ops wait for the last gathering before them. Of a micro-batch in slices a
slice's F also waits, on its stage, for that of the slice before it, whose keys and values it attends to, and its B or I
for that of the slice after it, which adds to their gradients.
:func:`producers` says so of one op, :func:`dependencies` of all ops at once.
Whether the output comes from another rank makes no difference here.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dualpipe_sim.base.arrays import IntArray
from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.ops import COPIES, UNSHARD, B, F, I, Kind, L, O, Op, R, S, T, W
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.order.schedule import Schedule

_EVERY_OP_ONCE = "every stage needs one F and one B, or I and W, for each micro-batch of its pipe"


def producers(op: Op, placement: Placement, slices: int = 1) -> Iterator[tuple[Op, ...]]:
    """Yield what an op waits for, each as the ops of which one is there: the gradient comes from a B or from an I.

    (Only who sees the whole order knows whether there is an R or an L, which a B or I waits for too, and what is waited
    for at barriers of S and T: see :mod:`dualpipe_sim.order.barriers`.)

    >>> from dualpipe_sim.order.placement import linear
    >>> [[str(op) for op in either] for either in producers(Op(I, 0, 3), linear(2))]
    [['0F3'], ['1B3', '1I3']]
    """
    kind, stage, micro_batch, part = op
    if kind in (S, T):
        return
    if kind == W:
        yield (Op(I, stage, micro_batch, part),)
        return
    if kind == L:
        yield (Op(O, stage, micro_batch, part),)
        return
    if kind == F:
        if not placement.is_first[stage]:
            yield (Op(F, stage - 1, micro_batch, part),)
        if part:
            yield (Op(F, stage, micro_batch, part - 1),)
        return
    yield (Op(F, stage, micro_batch, part),)
    if kind in (R, O):
        return
    if not placement.is_last[stage]:
        yield Op(B, stage + 1, micro_batch, part), Op(I, stage + 1, micro_batch, part)
    if part is not None and part + 1 < slices:
        yield Op(B, stage, micro_batch, part + 1), Op(I, stage, micro_batch, part + 1)


def dependencies(schedule: Schedule) -> tuple[IntArray, IntArray]:
    """Return (producer row, consumer row) of everything that an op waits for, shape ``(dependencies,)`` each.

    A table of rows by (stage, micro-batch or slice of one) for each kind makes it a look-up for all ops of a kind at
    once: the F of stage s waits for ``forward_of[s - 1, micro-batch]``, and so on. Stage numbers go on from one pipe to
    the next, so the first stages of pipes, where s - 1 would be another pipe's, are left out.

    Raises:
        ScheduleError: an op that is missing, doubled, or on a rank that does not hold its stage.

    """
    stage, unit = schedule.stage, schedule.unit
    placement = schedule.placement
    forward, backward, weight = (np.flatnonzero(schedule.of_kinds(*kinds)) for kinds in ((F,), (B, I), (W,)))
    forward_of, backward_of, weight_of = (row_of_each(schedule, rows) for rows in (forward, backward, weight))
    _check_complete(schedule, forward_of, backward_of, weight_of)

    onward = forward[~placement.is_first[stage[forward]]]
    upstream = backward[~placement.is_last[stage[backward]]]
    again = np.flatnonzero(schedule.of_kinds(R))
    again_of = row_of_each(schedule, again) if len(again) else None
    gradient_for = upstream
    if schedule.late_again and again_of is not None:  # the R then waits for the gradient, and the backward for the R
        late = again_of[stage[upstream], unit[upstream]]
        gradient_for = np.where(late >= 0, late, upstream)
    waits = [
        (forward_of[stage[onward] - 1, unit[onward]], onward),
        (backward_of[stage[upstream] + 1, unit[upstream]], gradient_for),
        (forward_of[stage[backward], unit[backward]], backward),
        (backward_of[stage[weight], unit[weight]], weight),
    ]
    if schedule.slice is not None:
        later = forward[schedule.slice[forward] > 0]
        earlier = backward[schedule.slice[backward] + 1 < schedule.slices]
        waits += [
            (forward_of[stage[later], unit[later] - 1], later),
            (backward_of[stage[earlier], unit[earlier] + 1], earlier),
        ]
    if again_of is not None:
        waits += [(forward_of[stage[again], unit[again]], again), (again, backward_of[stage[again], unit[again]])]
    if schedule.of_kinds(*COPIES).any():
        waits += _copied(schedule, forward_of, backward_of)
    if schedule.of_kinds(UNSHARD).any():
        waits.append(_gathered(schedule))
    return np.concatenate([producer for producer, _ in waits]), np.concatenate([consumer for _, consumer in waits])


def _copied(schedule: Schedule, forward_of: IntArray, backward_of: IntArray) -> list[tuple[IntArray, IntArray]]:
    """Return what copies to the host and back wait for, and what waits for them.

    Raises:
        ScheduleError: what is copied out never comes back, or the reverse.

    """
    stage, unit = schedule.stage, schedule.unit
    out, back = (np.flatnonzero(schedule.of_kinds(kind)) for kind in COPIES)
    out_of, back_of = (row_of_each(schedule, rows) for rows in (out, back))
    for rows, others, lacks in (out, back_of, "never comes back"), (back, out_of, "was never copied out"):
        alone = rows[others[stage[rows], unit[rows]] < 0]
        if len(alone):
            raise ScheduleError(f"{_where(schedule, int(alone[0]))}: what it copies {lacks}; an O and an L go together")
    return [
        (forward_of[stage[out], unit[out]], out),
        (out_of[stage[back], unit[back]], back),
        (back, backward_of[stage[back], unit[back]]),
    ]


def _gathered(schedule: Schedule) -> tuple[IntArray, IntArray]:
    """Return (row of an UNSHARD, row of an op that waits for it), shape ``(waits,)`` each: the last of its stage.

    Raises:
        ScheduleError: an op of a stage whose weights are gathered, but not before it.

    """
    gathers = np.flatnonzero(schedule.of_kinds(UNSHARD))
    ops = np.flatnonzero(schedule.of_kinds(F, B, I, W, R) & np.isin(schedule.stage, schedule.stage[gathers]))
    # A stage is on one rank, whose rows stand in order: stage by stage, the gather before an op is the one to its left.
    rows = len(schedule.rank)
    places = np.sort(schedule.stage[gathers] * rows + gathers)
    left = np.searchsorted(places, schedule.stage[ops] * rows + ops) - 1
    found = places[np.maximum(left, 0)] % rows if len(places) else places
    early = (left < 0) | (schedule.stage[found] != schedule.stage[ops]) if len(ops) else np.zeros(0, dtype=bool)
    if early.any():
        op = schedule.op(int(ops[early][0]))
        raise ScheduleError(f"{op} on rank {schedule.rank[ops[early][0]]} stands before its stage's {op.stage}UNSHARD")
    return found, ops


def row_of_each(schedule: Schedule, rows: IntArray) -> IntArray:
    """Return the row of each (stage, slice of a micro-batch) among some ops, or -1.

    Of several the table, of shape ``(stages, most slices)``, has the last, so an op that does not find itself there is
    doubled.

    Raises:
        ScheduleError: an op that is doubled.

    """
    table = np.full((schedule.placement.stages, max(schedule.micro_batches_of_pipe) * schedule.slices), -1)
    table[schedule.stage[rows], schedule.unit[rows]] = rows
    doubled = rows[table[schedule.stage[rows], schedule.unit[rows]] != rows]
    if len(doubled):
        row = int(doubled[0])
        first = schedule.op(int(table[schedule.stage[row], schedule.unit[row]]))
        how = "runs twice" if first == schedule.op(row) else f"runs beside {first}"
        raise ScheduleError(f"{_where(schedule, row)} {how}; {_EVERY_OP_ONCE}")
    return table


def _check_complete(schedule: Schedule, forward_of: IntArray, backward_of: IntArray, weight_of: IntArray) -> None:
    """Raise the first op that is missing, or that stands on a rank that does not hold its stage."""
    placement = schedule.placement
    astray = np.flatnonzero(placement.rank_of_stage[schedule.stage] != schedule.rank)
    if len(astray):
        row = int(astray[0])
        raise ScheduleError(
            f"{_where(schedule, row)} is on the wrong rank: stage {schedule.stage[row]} sits on rank "
            f"{placement.rank_of_stage[schedule.stage[row]]}"
        )
    # Tables of (stage, micro-batch) that should have an F and a backward, and that should have a W. The columns are as
    # many as the pipe with the most micro-batches has.
    of_stage = np.array(schedule.micro_batches_of_pipe)[placement.pipe_of_stage] * schedule.slices
    expected = np.arange(forward_of.shape[1]) < of_stage[:, None]
    split = np.zeros_like(expected)
    split[expected] = schedule.kind[backward_of[expected]] == I
    split &= backward_of >= 0  # where no backward is, -1 has looked up the last row
    for kind, present, wanted in (
        (F, forward_of >= 0, expected),
        (B, backward_of >= 0, expected),
        (W, weight_of >= 0, split),
    ):
        missing = np.argwhere(wanted & ~present)
        if len(missing):
            stage, unit = missing[0].tolist()
            op = _named(schedule, kind, stage, unit)
            either = f" (nor {op._replace(kind=I)})" if kind == B else ""
            where = f"{op} on rank {placement.rank_of_stage[stage]}"
            raise ScheduleError(f"{where} never runs{either}; {_EVERY_OP_ONCE}")
    unsplit = np.argwhere((weight_of >= 0) & ~split)
    if len(unsplit):
        stage, unit = unsplit[0].tolist()
        needed = _named(schedule, I, stage, unit)
        raise ScheduleError(f"{_where(schedule, int(weight_of[stage, unit]))} needs {needed}, which never runs")


def _named(schedule: Schedule, kind: Kind, stage: int, unit: int) -> Op:
    micro_batch, part = divmod(unit, schedule.slices)
    return Op(kind, stage, micro_batch, None if schedule.slice is None else part)


def _where(schedule: Schedule, row: int) -> str:
    return f"{schedule.op(row)} on rank {schedule.rank[row]}"
