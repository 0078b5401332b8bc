"""What a rank surely holds, from an order and a model alone: no simulated peak is lower."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dualpipe_sim.arrays import IntArray
from dualpipe_sim.costs.footprint import Kept, kept_by_unit, state_by_rank
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.order.ops import B, F, I, W
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.order.schedule import Schedule


class Keeps(NamedTuple):
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


def keeps_of(costs: LayerCosts, placement: Placement, state: IntArray | None = None) -> Keeps:
    """Return what a model keeps on a placement; ``state`` is that of its ranks, if it is known already."""
    if state is None:
        state = np.sum(state_by_rank(costs, placement), axis=0)
    units = kept_by_unit(costs)
    layers, modules = costs.model.layers, costs.model.mtp_depth
    rows = []
    for held in costs.on(placement).held:
        names: list[int | str] = [*held.layers, *range(layers, layers + held.mtp)]
        names += ["embedding"] * held.embedding
        names += (["head", "mtp head"] if modules else ["head"]) * held.head
        kept = [units[name] for name in names]
        activations, deferred = (sum(getattr(one, key) for one in kept) for key in Kept._fields[:2])
        rows.append((activations, deferred, max((one.while_forward for one in kept), default=0)))
    return Keeps(state, *np.array(rows, dtype=np.int64).T)


def least_memory_bytes(schedule: Schedule, keeps: Keeps) -> IntArray:
    """Return bytes that no rank's peak is below when it runs this order, shape ``(ranks,)``.

    State, and what is there between two tasks, or at the end of a lone F: the order alone says it. What comes and goes
    within a task and stage boundaries' tensors are left out.
    """
    kind, stage = schedule.kind, schedule.stage
    kept, deferred = keeps.activations[stage], keeps.deferred[stage]
    change = np.select([kind == F, kind == B, kind == I, kind == W], [kept, -kept, deferred - kept, -deferred])
    # Ranks begin and end with nothing, so the running sum may pass from one to the next.
    after_op = np.cumsum(change)
    last_op = np.append(schedule.first_op[1:], len(kind)) - 1
    logits = np.where(kind[last_op] == F, keeps.while_forward[stage[last_op]], 0)
    most = np.maximum.reduceat(after_op[last_op] + logits, schedule.first_task_of_rank[:-1])
    return np.asarray(keeps.state + np.maximum(most, 0), dtype=np.int64)
