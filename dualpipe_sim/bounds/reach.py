"""How far stages are from where micro-batches start and end, one micro-batch alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.order.placement import Placement


@dataclass(frozen=True, eq=False)
class Reach:
    """How far the first input and the last output of each stage are from where micro-batches start and end.

    Attributes:
        forward_s: earliest start of a stage's F, shape ``(stages,)``.
        backward_s: earliest start of a stage's B or I, shape ``(stages,)``.
        onward_s: least seconds that the stages above need with the gradient that a stage's B or I makes: it goes up to
            the pipe's first stage, and a W may follow anywhere; shape ``(stages,)``.

    """

    forward_s: FloatArray
    backward_s: FloatArray
    onward_s: FloatArray


class Least(NamedTuple):
    """Least seconds that a stage's ops keep a micro-batch, each of shape ``(stages,)``.

    Attributes:
        forward_s: from the start of F to its output.
        backward_s: from the start of B or I to its output.
        weight_s: of a W that must follow I; 0 where the backward may be whole.

    """

    forward_s: FloatArray
    backward_s: FloatArray
    weight_s: FloatArray


def reach(placement: Placement, least: Least, hop_s: FloatArray, turn_s: float = 0.0) -> Reach:
    """Return the reach of each stage.

    Each pipe is walked down once and up twice, adding up what one micro-batch alone would take. Two stages with F = 1,
    B = 2 and a transfer of 0.5: the second starts F at 1.5 and B at 2.5, the first starts B at 5; after the second's
    last B, 0.5 + 2 are still to come.

    >>> from dualpipe_sim.order.placement import linear
    >>> reach(linear(2), Least(np.array([1.0, 1.0]), np.array([2.0, 2.0]), np.zeros(2)), np.array([0.5, 0.0]))
    Reach(forward_s=array([0. , 1.5]), backward_s=array([5. , 2.5]), onward_s=array([0. , 2.5]))

    Args:
        placement: where the stages are.
        least: what their ops take.
        hop_s: seconds of each stage's transfer to the next, shape ``(stages,)``.
        turn_s: seconds between F and backward of a pipe's last stage, for what ranks do of the output layer.

    """
    forward_s, backward_s, onward_s = (np.zeros(placement.stages) for _ in range(3))
    begin = 0
    for pipe in placement.pipes:
        end = begin + len(pipe)
        for stage in range(begin + 1, end):
            forward_s[stage] = forward_s[stage - 1] + least.forward_s[stage - 1] + hop_s[stage - 1]
        backward_s[end - 1] = forward_s[end - 1] + least.forward_s[end - 1] + turn_s
        for stage in range(end - 2, begin - 1, -1):
            backward_s[stage] = backward_s[stage + 1] + least.backward_s[stage + 1] + hop_s[stage]
        for stage in range(begin + 1, end):
            above_s = max(least.weight_s[stage - 1], onward_s[stage - 1])
            onward_s[stage] = hop_s[stage - 1] + least.backward_s[stage - 1] + above_s
        begin = end
    return Reach(forward_s, backward_s, onward_s)
