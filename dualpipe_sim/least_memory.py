"""What a rank surely holds, from an order and a model alone: no simulated peak is lower."""

from __future__ import annotations

import numpy as np

from dualpipe_sim.costs.footprint import Kept, kept_by_unit, state_by_rank
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.ops import B, F, I, W
from dualpipe_sim.placement import IntArray, Placement
from dualpipe_sim.schedule import Schedule


def least_memory_bytes(schedule: Schedule, costs: LayerCosts) -> IntArray:
    """Return bytes that no rank's peak is below when it runs this order, shape ``(ranks,)``.

    State, and what is there between two tasks, or at the end of a lone F: the order alone says it. What comes and goes
    within a task and stage boundaries' tensors are left out.
    """
    placement = schedule.placement
    kept, deferred, while_forward = kept_by_stage(costs, placement)
    kind, stage = schedule.kind, schedule.stage
    change = np.select(
        [kind == F, kind == B, kind == I, kind == W],
        [kept[stage], -kept[stage], deferred[stage] - kept[stage], -deferred[stage]],
    )
    # Ranks begin and end with nothing, so the running sum may pass from one to the next.
    after_op = np.cumsum(change)
    last_op = np.append(schedule.first_op[1:], len(kind)) - 1
    lone_forward = (kind[last_op] == F).astype(np.int64)
    live = after_op[last_op] + lone_forward * while_forward[stage[last_op]]
    first = np.searchsorted(schedule.rank_of_task, np.arange(placement.ranks))
    state = np.sum(state_by_rank(costs, placement), axis=0)
    return np.asarray(state + np.maximum(np.maximum.reduceat(live, first), 0), dtype=np.int64)


def kept_by_stage(costs: LayerCosts, placement: Placement) -> tuple[IntArray, IntArray, IntArray]:
    """Return bytes of activations, of a deferred W's inputs, and of logits that a micro-batch keeps, ``(stages,)``."""
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
    activations, deferred, logits = np.array(rows, dtype=np.int64).T
    return activations, deferred, logits
