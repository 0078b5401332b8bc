"""What every op of an order needs from another: the forward before it, the backward behind it, its own other half."""

from __future__ import annotations

import numpy as np

from dualpipe_sim.arrays import IntArray
from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.ops import B, F, I, W
from dualpipe_sim.order.schedule import Schedule

_EVERY_OP_ONCE = "every stage needs one F and one B, or I and W, for each micro-batch of its pipe"


def _table(schedule: Schedule, rows: IntArray) -> IntArray:
    """Row of each (stage, micro-batch) among some ops, or -1, shape ``(stages, most micro-batches)``."""
    table = np.full((schedule.placement.stages, max(schedule.micro_batches_of_pipe)), -1)
    stage, micro_batch = schedule.stage[rows], schedule.micro_batch[rows]
    table[stage, micro_batch] = rows
    doubled = rows[table[stage, micro_batch] != rows]
    if len(doubled):
        row = int(doubled[0])
        kept = schedule.op(int(table[schedule.stage[row], schedule.micro_batch[row]]))
        how = "runs twice" if kept == schedule.op(row) else f"runs beside {kept}"
        raise ScheduleError(f"{_where(schedule, row)} {how}; {_EVERY_OP_ONCE}")
    return table


def needs(schedule: Schedule) -> tuple[IntArray, IntArray]:
    """Return (producer row, consumer row) of everything that an op needs from another op.

    Raises:
        ScheduleError: an op that is missing, doubled, or on a rank that does not hold its stage.

    """
    kind, stage, micro_batch = schedule.kind, schedule.stage, schedule.micro_batch
    placement = schedule.placement
    forward_of = _table(schedule, np.flatnonzero(kind == F))
    backward_of = _table(schedule, np.flatnonzero((kind == B) | (kind == I)))
    weight_of = _table(schedule, np.flatnonzero(kind == W))
    _check_complete(schedule, forward_of, backward_of, weight_of)

    forward = np.flatnonzero((kind == F) & ~placement.is_first[stage])
    backward = np.flatnonzero((kind == B) | (kind == I))
    upstream = backward[~placement.is_last[stage[backward]]]
    weight = np.flatnonzero(kind == W)
    needs = [
        (forward_of[stage[forward] - 1, micro_batch[forward]], forward),
        (backward_of[stage[upstream] + 1, micro_batch[upstream]], upstream),
        (forward_of[stage[backward], micro_batch[backward]], backward),
        (backward_of[stage[weight], micro_batch[weight]], weight),
    ]
    return np.concatenate([source for source, _ in needs]), np.concatenate([target for _, target in needs])


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
    expected = (
        np.arange(forward_of.shape[1]) < np.array(schedule.micro_batches_of_pipe)[placement.pipe_of_stage][:, None]
    )
    split = np.zeros_like(expected)
    split[expected] = schedule.kind[backward_of[expected]] == I
    split &= backward_of >= 0
    for kind, present, wanted in (
        ("F", forward_of >= 0, expected),
        ("B", backward_of >= 0, expected),
        ("W", weight_of >= 0, split),
    ):
        missing = np.argwhere(wanted & ~present)
        if len(missing):
            stage, micro_batch = missing[0].tolist()
            either = f" (nor {stage}I{micro_batch})" if kind == "B" else ""
            where = f"{stage}{kind}{micro_batch} on rank {placement.rank_of_stage[stage]}"
            raise ScheduleError(f"{where} never runs{either}; {_EVERY_OP_ONCE}")
    unsplit = np.argwhere((weight_of >= 0) & ~split)
    if len(unsplit):
        stage, micro_batch = unsplit[0].tolist()
        raise ScheduleError(
            f"{_where(schedule, int(weight_of[stage, micro_batch]))} needs {stage}I{micro_batch}, which never runs"
        )


def _where(schedule: Schedule, row: int) -> str:
    return f"{schedule.op(row)} on rank {schedule.rank[row]}"
