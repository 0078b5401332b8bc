"""What a rank surely holds, from an order and a job alone: no simulated peak is lower.

No times are needed: a rank runs its tasks in order, so what is there between two tasks is what the ops so far have
brought and freed. A running sum over the columns of the schedule says it for all ranks at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dualpipe_sim.base.arrays import IntArray
from dualpipe_sim.costs.phases import JobStageCosts
from dualpipe_sim.model.footprint import UnitBytes, bytes_by_unit, offloaded
from dualpipe_sim.order.ops import B, F, I, O, W
from dualpipe_sim.order.schedule import Schedule


class StageBytes(NamedTuple):
    """Bytes on the GPUs of a placement.

    Attributes:
        state: of each rank for the whole step, shape ``(ranks,)``.
        activations: that a micro-batch keeps at each stage until its backward, shape ``(stages,)``.
        deferred: that it keeps from I to W, shape ``(stages,)``.
        while_forward: logits, at the end of F, shape ``(stages,)``.

    """

    state: IntArray
    activations: IntArray
    deferred: IntArray
    while_forward: IntArray


def stage_bytes(costs: JobStageCosts, state: IntArray) -> StageBytes:
    """Return what a job keeps at each stage of a placement whose ranks have such state, shape ``(ranks,)``."""
    units, model = bytes_by_unit(costs.job, costs.stage_layers), costs.job.model
    for layer in offloaded(costs.job, costs.stage_layers):
        units[layer] = units[layer]._replace(activations=0)  # between F and the backward they lie elsewhere
    rows = []
    for stage in costs.stage_layers:
        names: list[int | str] = [*stage.layers, *range(model.layers, model.layers + stage.mtp)]
        names += ["embedding"] * stage.embedding
        names += stage.heads
        of_stage = [units[name] for name in names]
        activations, deferred = (sum(getattr(one, key) for one in of_stage) for key in UnitBytes._fields[:2])
        # The logits of the head and of multi-token prediction are there one after the other, so the most counts.
        rows.append((activations, deferred, max((one.while_forward for one in of_stage), default=0)))
    return StageBytes(state, *np.array(rows, dtype=np.int64).T)


def least_memory_bytes(schedule: Schedule, of_stage: StageBytes) -> IntArray:
    """Return bytes that no rank's peak is below when it runs this order, shape ``(ranks,)``.

    It counts state, and what is there between two tasks or at the end of a lone F, which the order alone says. What
    comes and goes within a task is left out, and so are the tensors between stages. With activations of 10 at a stage,
    0F0, 0F1, 0B0, 0B1 leave 10, 20, 10, 0: at least 20.
    """
    shapes, shape_of_task = schedule.task_shapes
    activations = of_stage.activations // schedule.slices
    changes: dict[int, IntArray] = {F: activations, W: -(of_stage.deferred // schedule.slices)}
    changes |= {B: -changes[F], I: -changes[W] - changes[F]}
    change = np.array([sum(int(changes[kind][at]) for kind, at in shape if kind in changes) for shape in shapes])
    ends_in_f = [shape[0][1] if shape[-1][0] == F else None for shape in shapes]
    logits = np.array([0 if at is None else int(of_stage.while_forward[at]) // schedule.slices for at in ends_in_f])
    # Ranks begin and end with nothing, so the running sum may pass from one to the next. Between the two ops of a pair
    # nothing is sure, so only whole tasks count.
    after_task = np.cumsum(change[shape_of_task] - _on_host(schedule, activations))
    most = np.maximum.reduceat(after_task + logits[shape_of_task], schedule.first_task_of_rank[:-1])
    return np.asarray(of_stage.state + np.maximum(most, 0), dtype=np.int64)


def _on_host(schedule: Schedule, activations: IntArray) -> IntArray:
    """Return what each task brings that may have left for the host, or not be back, between any two tasks."""
    brought = np.zeros(len(schedule.first_op), dtype=np.int64)
    copied = schedule.of_kinds(O)
    if copied.any():
        stage, unit = schedule.stage, schedule.unit
        away = np.zeros((schedule.placement.stages, int(unit.max()) + 1), dtype=bool)
        away[stage[copied], unit[copied]] = True
        sign = np.select([schedule.of_kinds(F), schedule.of_kinds(B, I)], [1, -1], 0)
        np.add.at(brought, schedule.task_of_op, sign * away[stage, unit] * activations[stage])
    return brought
