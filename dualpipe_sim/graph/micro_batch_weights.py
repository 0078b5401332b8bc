"""Micro-batches of different sizes: how long their ops take over what costs say of the mean one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.base.units import number_of
from dualpipe_sim.costs.asked import lane_seconds
from dualpipe_sim.costs.phases import StageCosts
from dualpipe_sim.errors import UnfitCostsError
from dualpipe_sim.order.ops import OF_WEIGHTS, F
from dualpipe_sim.order.schedule import Schedule


def size_of_op(schedule: Schedule, costs: StageCosts) -> FloatArray | None:
    """Return how large each op's tensors are over those of a mean micro-batch, shape ``(ops,)``; None where all are so.

    A slice has as many tokens as any other of its micro-batch.

    Raises:
        UnfitCostsError: weights for another number of micro-batches.

    """
    weights: Sequence[float] | None = getattr(costs, "micro_batch_weights", None)
    if weights is None:
        return None if schedule.slices == 1 else np.full(len(schedule.rank), 1 / schedule.slices)
    whole = round(schedule.micro_batches * schedule.micro_batch_share)
    if len(weights) != whole:
        all_of_them = number_of(whole, "micro-batch")
        raise UnfitCostsError(f"costs.micro_batch_weights: must have one for each of {all_of_them}, got {len(weights)}")
    of_pipe = np.array(schedule.micro_batches_of_pipe)
    before = (np.cumsum(of_pipe) - of_pipe)[schedule.placement.pipe_of_stage]
    number = (before[schedule.stage] + schedule.micro_batch) * schedule.micro_batch_share
    size: FloatArray = np.array(weights, dtype=np.float64)[number.astype(np.int64)]
    return size / schedule.slices


def weight_of_op(schedule: Schedule, costs: StageCosts) -> FloatArray | None:
    """Return how long each op takes over that of a mean micro-batch, shape ``(ops,)``; None where all are alike.

    Raises:
        UnfitCostsError: weights for another number of micro-batches, or shares of another number of slices.

    """
    size, shares = size_of_op(schedule, costs), getattr(costs, "slices", None)
    if size is None:
        return None
    if shares is None or schedule.slice is None:
        return np.where(schedule.of_kinds(*OF_WEIGHTS), 1.0, size)
    if callable(shares):
        shares = shares(schedule.slices)
    if len(shares) != schedule.slices:
        cut = number_of(schedule.slices, "slice")
        raise UnfitCostsError(f"costs.slices: must have one share for each of the {cut}, got {len(shares)}")
    of_slice = np.array(shares, dtype=np.float64)[schedule.slice] * schedule.slices
    return np.where(schedule.of_kinds(*OF_WEIGHTS), 1.0, size * of_slice)


def weight_of_phase(
    schedule: Schedule, costs: StageCosts, weight: FloatArray, task: IntArray, half: IntArray, lane: IntArray
) -> FloatArray:
    """Return how long each phase takes over what costs say, shape ``(phases,)``: as its op's micro-batch.

    In a pair none of whose phases is its second op's each is of both, and takes as much longer as what its two ops have
    on its lane would, one after the other.

    Args:
        schedule: the order.
        costs: what ops take where their micro-batch weighs 1.
        weight: of each op.
        task: task of each phase.
        half: which op of its task each phase is part of.
        lane: lane of each phase.

    """
    first = schedule.first_op[task]
    own: FloatArray = weight[first + half]
    both = (schedule.partner[first] >= 0) & (np.bincount(task, weights=half)[task] == 0)
    if both.any():
        forward, beside, on = first[both], first[both] + 1, lane[both]
        kinds = np.unique(schedule.kind[beside]).tolist()
        of_kind_s = {kind: lane_seconds(costs, kind, schedule.placement.stages) for kind in {int(F), *kinds}}
        forward_s = of_kind_s[F][on, schedule.stage[forward]]
        beside_s = np.select(
            [schedule.kind[beside] == kind for kind in kinds],
            [of_kind_s[kind][on, schedule.stage[beside]] for kind in kinds],
        )
        weighed_s = forward_s * weight[forward] + beside_s * weight[beside]
        alone_s = forward_s + beside_s
        own[both] = np.divide(weighed_s, alone_s, out=np.ones_like(alone_s), where=alone_s > 0)
    return own
