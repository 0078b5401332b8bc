"""What a rank holds over time, as columns: what charts of memory and the report draw, whatever is counted."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np

from dualpipe_sim.analysis.memory import COMPONENTS, Memory
from dualpipe_sim.analysis.metrics import live_by_task, whole_rank_share
from dualpipe_sim.arrays import FloatArray, IntArray
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import B, W

Amounts: TypeAlias = FloatArray | IntArray

ACTIVATIONS = "activations"


class Held(NamedTuple):
    """What one rank holds, from each moment until the next, in bytes or in activations.

    Attributes:
        at_s: moments at which it changes, ascending, shape ``(moments,)``.
        amounts: how much of each kind it holds from then on, shape ``(moments,)`` each; kinds stack from the first up.

    """

    at_s: FloatArray
    amounts: Mapping[str, Amounts]

    @property
    def total(self) -> FloatArray:
        """All kinds together, shape ``(moments,)``."""
        total: FloatArray = np.sum([*self.amounts.values()], axis=0)
        return total


def activations_held(timeline: Timeline) -> list[Held]:
    """Return the activations that each rank holds, in those of a whole rank's share of the model.

    A (stage, micro-batch) pair counts from the start of its F to the end of its B, or of its W where split.
    """
    schedule = timeline.graph.schedule
    weight = whole_rank_share(schedule)
    during = live_by_task(schedule, weight)
    leaves = np.where((schedule.kind == B) | (schedule.kind == W), weight[schedule.stage], 0.0)
    after = during - np.bincount(schedule.task_of_op, weights=leaves, minlength=len(during))
    at_s = np.stack([timeline.task_start_s, timeline.task_end_s], axis=1)
    amounts = np.stack([during, after], axis=1)
    first = timeline.first_task_of_rank
    return [
        Held(at_s[begin:end].ravel(), {ACTIVATIONS: amounts[begin:end].ravel()})
        for begin, end in pairwise(first.tolist())
    ]


def bytes_held(memory: Memory) -> list[Held]:
    """Return the bytes that each rank holds, by what they are used for."""
    held = []
    for rank in range(memory.ranks):
        at_s, size_bytes = memory.over_time(rank)
        held.append(Held(at_s, {name: size_bytes[:, column] for column, name in enumerate(COMPONENTS)}))
    return held
