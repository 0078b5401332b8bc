"""The least work of ranks, over all ways to run their stages' ops alone or in pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.bounds.tasks import TaskTime
from dualpipe_sim.order.ops import B, F, I, S, T, TaskShape, W


class Shares(NamedTuple):
    """Seconds of ops so that no task takes less than its ops have together, each of shape ``(stages,)``.

    Attributes:
        forward_s: of an F.
        backward_s: of a backward, whole or I and W.

    """

    forward_s: FloatArray
    backward_s: FloatArray


class Work:
    """The least work of ranks.

    Attributes:
        micro_batches: how many come through each stage, shape ``(stages,)``.
        times: what tasks take at least.

    """

    def __init__(self, micro_batches: IntArray, times: Mapping[TaskShape, TaskTime]) -> None:
        self.micro_batches, self.times = micro_batches, times

    def all_s(self, stages: list[int]) -> float:
        """Seconds of all ops of a rank."""
        return max(self.sum_s(stages, one) for one in self.shares(stages)) + self._passes_s(stages, (S, T))

    def until_last_backward_s(self, stages: list[int]) -> float:
        """Seconds of a rank's ops until the output of its last B or I, whichever is faster, all W left for later."""
        most_s = max(self.sum_s(stages, one) for one in self.shares(stages, weights=False))
        return most_s + self._passes_s(stages, (S,))

    def shares(self, stages: list[int], *, weights: bool = True) -> tuple[Shares, Shares]:
        """Return shares of a rank's stages that sum to the most; without weights, until a backward's output.

        ``saved_s[a, b]`` is what a pair of the a-th stage's F and the b-th stage's B takes less than both alone. Each
        op is in one pair at most, so no pair takes less than its ops' shares if every F is given what it saves with its
        best partner, or every B is.
        """
        alone = self._whole_s if weights else self._output_s
        forward_s = np.array([self._s(F, stage) for stage in stages])
        backward_s = np.array([alone(stage) for stage in stages])
        pair_s = np.array([[self._pair_s(a, b, weights=weights) for b in stages] for a in stages])
        saved_s = np.maximum(0.0, np.add.outer(forward_s, backward_s) - pair_s)
        return Shares(forward_s - saved_s.max(axis=1), backward_s), Shares(forward_s, backward_s - saved_s.max(axis=0))

    def sum_s(self, stages: list[int], shares: Shares) -> float:
        """Seconds of all ops of a rank by their shares."""
        return float(((shares.forward_s + shares.backward_s) * self.micro_batches[stages]).sum())

    def _passes_s(self, stages: list[int], kinds: Sequence[int]) -> float:
        """Seconds of a rank's passes of the output layer, of which each S comes before its micro-batch's backwards."""
        passes = (((kind, stage),) for kind in kinds for stage in stages)
        return sum(int(self.micro_batches[one[0][1]]) * self.times[one].whole_s for one in passes if one in self.times)

    def _whole_s(self, stage: int) -> float:
        return min(self._s(B, stage), self._s(I, stage) + self._s(W, stage))

    def _output_s(self, stage: int) -> float:
        return min(self.times[((kind, stage),)].forward_s for kind in (B, I))

    def _pair_s(self, forward: int, backward: int, *, weights: bool) -> float:
        pair = self.times[(F, forward), (B, backward)]
        return pair.whole_s if weights else pair.backward_s

    def _s(self, kind: int, stage: int) -> float:
        return self.times[((kind, stage),)].whole_s
