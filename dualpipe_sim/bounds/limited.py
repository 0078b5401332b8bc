"""What a memory limit makes a rank wait for: Little's law, rounds of micro-batches, and the first backward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.bounds.reach import Least, Reach
from dualpipe_sim.bounds.room import Way, idle_bound_s
from dualpipe_sim.bounds.work import Shares, Work
from dualpipe_sim.order.placement import Placement

_BACKWARDS = 4  # of each stage are tried as the moment until which a rank idles
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class MemoryLimit:
    """Most that a rank may hold of what its stages' micro-batches keep between F and backward.

    An order that copies some of it to the host and back may be faster than a bound within this limit.

    Attributes:
        activations: what a micro-batch keeps at each stage, shape ``(stages,)``.
        most: what fits on each rank, shape ``(ranks,)``.
        from_start: whether it is there from F's start to the backward's end, or that of its W, or surely only from F's
            end to the backward's start.

    """

    activations: FloatArray
    most: FloatArray
    from_start: bool


class _Path(NamedTuple):
    """A pipe's way through a rank: which of its stages are the pipe's, when they begin, and what is held then."""

    own: NDArray[np.bool_]
    begins_s: FloatArray
    held: FloatArray

    def way(self, shares: Shares) -> Way:
        """Return it with what ops take."""
        forward_s, backward_s = shares.forward_s[self.own], shares.backward_s[self.own]
        return Way(self.begins_s, np.cumsum(np.concatenate([forward_s, backward_s[::-1]])), self.held)


@dataclass(frozen=True, eq=False)
class Limited:
    """A placement under a memory limit.

    Attributes:
        limit: what ranks may hold.
        placement: where the stages are.
        work: what tasks take, and how many there are.
        reached: how far stages are.
        least: what their ops take.

    """

    limit: MemoryLimit
    placement: Placement
    work: Work
    reached: Reach
    least: Least

    def bound_s(self, rank: int) -> float:
        """Return seconds that no order's makespan is below, by what one rank may hold; infinite where nothing fits."""
        stages = self.placement.stages_of_rank(rank)
        if self.limit.activations[stages].max() > self.limit.most[rank]:
            return inf
        head_s, tail_s = (float(of[stages].min()) for of in (self.reached.forward_s, self.reached.onward_s))
        bound_s = self._until_room_s(rank, stages)
        turns_s = (self.reached.backward_s - self.reached.forward_s)[stages]
        to_gradient_s, to_weights_s = self.least.backward_s[stages], self.least.weight_s[stages]
        ends = [(np.maximum(turns_s - self.least.forward_s[stages], 0.0), tail_s)]
        if self.limit.from_start:
            ends = [(turns_s + to_gradient_s, tail_s), (turns_s + to_gradient_s + to_weights_s, 0.0)]
        for kept_s, then_s in ends:
            held_s = max([self._filled_s(rank, stages, kept_s), *self._in_rounds_s(rank, stages, kept_s)])
            bound_s = max(bound_s, head_s + held_s + then_s)
        return bound_s

    def _filled_s(self, rank: int, stages: list[int], kept_s: FloatArray) -> float:
        """Return the seconds that a rank must hold something, so that no more than the limit is there at any time.

        A micro-batch keeps a stage's activations for ``kept_s``, its way to the pipe's end and back, or longer.
        Activations x seconds, summed over all micro-batches, are an area, and below the limit it needs so much time
        (Little's law): 8 micro-batches that each hold 1 activation for 6 s need 48 / 4 = 12 s where 4 activations fit.
        """
        filled = float((self.work.micro_batches * self.limit.activations)[stages] @ kept_s)
        return filled / float(self.limit.most[rank]) if filled else 0.0

    def _in_rounds_s(self, rank: int, stages: list[int], kept_s: FloatArray) -> Iterator[float]:
        """Yield the seconds that each stage must hold something, where k micro-batches fit at once, no part of one.

        Let s_0 <= s_1 <= … be when micro-batches come to be held and e_0 <= e_1 <= … when they cease to. Each is held
        for ``kept``, so that e_j >= s_j + kept: of the j + 1 that have ceased by e_j, the last came at s_j or later. At
        s_(j+k) at most k are held, so that j + 1 have ceased: s_(j+k) >= e_j. And s_(j+1) >= s_j + F. So if M - 1 = q k
        + r, the last ceases at (q + 1) kept + r F after s_0, or later.
        """
        for stage, each_s in zip(stages, kept_s.tolist(), strict=True):
            size = float(self.limit.activations[stage])
            if size:
                at_once = int(self.limit.most[rank] / size * (1 + _ROUNDING))
                rounds, rest = divmod(int(self.work.micro_batches[stage]) - 1, at_once)
                yield (rounds + 1) * each_s + rest * float(self.least.forward_s[stage])

    def _until_room_s(self, rank: int, stages: list[int]) -> float:
        """Return what :mod:`dualpipe_sim.bounds.room` says of one rank."""
        activations, room = self.limit.activations[stages], float(self.limit.most[rank])
        if np.ptp(activations) == 0:
            room = float(activations[0]) * int(room / activations[0] * (1 + _ROUNDING)) if activations[0] else inf
        if not self.limit.from_start:  # one forward may be on its way there, and not be held yet
            room += float(activations.max())
        if room >= float(self.work.micro_batches[stages] @ activations):
            return 0.0
        paths = list(self._paths(stages))
        shares = max(self.work.shares(stages), key=partial(self.work.sum_s, stages))
        ways = [one.way(shares) for one in paths]
        if not _waits(ways, room):
            return 0.0
        moments_s = np.concatenate([one.begins_s[one.own.sum() :, :_BACKWARDS].ravel() for one in paths])
        return idle_bound_s(ways, room, moments_s=np.unique(moments_s))

    def _paths(self, stages: list[int]) -> Iterator[_Path]:
        """Yield what micro-batches of each pipe do on a rank.

        The j-th of a pipe comes to a stage j times the longest F of the stages until there after the first; and back to
        it j times the longest F of the pipe, or the longest backward until there.
        """
        of_stage = np.array(stages)
        pipe_of, count = self.placement.pipe_of_stage, self.work.micro_batches
        for pipe in np.unique(pipe_of[of_stage]).tolist():
            all_of = np.flatnonzero(pipe_of == pipe)
            forward_s, backward_s = self.least.forward_s[all_of], self.least.backward_s[all_of]
            apart_s = np.maximum.accumulate(forward_s)
            back_apart_s = np.maximum(np.maximum.accumulate(backward_s[::-1])[::-1], forward_s.max())
            own = pipe_of[of_stage] == pipe
            here, at = of_stage[own], of_stage[own] - all_of[0]
            earlier = np.arange(int(count[all_of[0]]))
            comes_s = self.reached.forward_s[here, None] + apart_s[at, None] * earlier
            back_s = self.reached.backward_s[here, None] + back_apart_s[at, None] * earlier
            own_held = self.limit.activations[here]
            held = np.cumsum(np.concatenate([own_held, -own_held[::-1]]))
            yield _Path(own, np.concatenate([comes_s, back_s[::-1]]), held)


def _waits(ways: list[Way], room: float) -> bool:
    """Return whether forwards that fit may leave a rank idle until the first backward."""
    fits_s, first_s, head_s = 0.0, inf, inf
    for way in ways:
        half = len(way.held) // 2
        fits_s = max(fits_s, room * float((way.work_s[:half] / np.maximum(way.held[:half], 1e-300)).max()))
        first_s = min(first_s, float(way.begins_s[half:, 0].min()))
        head_s = min(head_s, float(way.begins_s[0, 0]))
    return head_s + fits_s < first_s
