"""The pen that a schedule is written down with: each rank's ops as packed integers, then columns."""

from __future__ import annotations

from array import array
from collections import deque

import numpy as np

from dualpipe_sim.base.arrays import IntArray
from dualpipe_sim.base.units import number_of
from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.ops import PAIRED, B, F, I, Kind, W
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.order.schedule import Schedule

# An op is one integer: micro-batch | stage | kind, from the highest bits down. An F that begins an overlapped pair has
# a mark in place of its kind; anything else that would, a number that is no kind.
_STAGE_SHIFT = 5
_MARK = (1 << _STAGE_SHIFT) - 1
_STAGE_BITS = 20
_MICRO_BATCH_SHIFT = _STAGE_SHIFT + _STAGE_BITS
_ONE_MICRO_BATCH = 1 << _MICRO_BATCH_SHIFT
MOST_STAGES = 1 << _STAGE_BITS
MOST_MICRO_BATCHES = 1 << (63 - _MICRO_BATCH_SHIFT)


class Line:
    """One rank's order while it is written down; every method appends one task.

    Where micro-batches are cut into slices, the next op of a stage is that of the next slice: forwards begin with a
    micro-batch's first one, backwards with its last.
    """

    def __init__(self, slices: int = 1) -> None:
        self.codes = array("q")
        self._slices = slices
        self._next: dict[int, int] = {}  # stream → the code of its next op
        self._deferred: deque[int] = deque()  # what each I left to do, as the code of its W

    def op(self, kind: int, stage: int, micro_batch: int, part: int = 0) -> None:
        """Append one op by name, where micro-batches are cut that of one slice."""
        unit = micro_batch * self._slices + part
        self.codes.append(unit << _MICRO_BATCH_SHIFT | stage << _STAGE_SHIFT | kind)

    def overlap_last(self) -> None:
        """Make the last two ops, a forward and what runs beside it, one overlapped pair."""
        self.codes[-2] ^= _MARK

    def forward(self, stage: int) -> None:
        """Append the forward of the stage's next micro-batch."""
        self._append(stage << _STAGE_SHIFT)

    def backward(self, stage: int) -> None:
        """Append the full backward of the stage's next micro-batch."""
        self._append(stage << _STAGE_SHIFT | B)

    def backward_input(self, stage: int) -> None:
        """Append the backward for the input of the stage's next micro-batch, and defer its weight part."""
        self._deferred.append(self._append(stage << _STAGE_SHIFT | B, I - B) + W - I)

    def weight(self) -> None:
        """Append the oldest deferred backward for the weights.

        Raises:
            ValueError: none is deferred.

        """
        if not self._deferred:
            raise ValueError("there is no backward for the weights to do; a backward_input defers one")
        self.codes.append(self._deferred.popleft())

    def pair(self, forward: int, backward: int) -> None:
        """Append an overlapped pair: the next forward of one stage with the next full backward of another."""
        self._append(forward << _STAGE_SHIFT, _MARK)
        self._append(backward << _STAGE_SHIFT | B)

    def pair_input(self, forward: int, backward: int) -> None:
        """Append a pair: the next forward of one stage with the next backward for the input of another."""
        self.forward(forward)
        self.backward_input(backward)
        self.overlap_last()

    def pair_weight(self, forward: int) -> None:
        """Append a pair: the next forward of a stage with the oldest deferred backward for the weights."""
        self.forward(forward)
        self.weight()
        self.overlap_last()

    def pair_forwards(self, stage: int) -> None:
        """Append a pair: a stage's next two forwards."""
        self.forward(stage)
        self.forward(stage)
        self.overlap_last()

    @property
    def deferred(self) -> int:
        """How many backwards for the weights are still to be done."""
        return len(self._deferred)

    def _append(self, stream: int, mark: int = 0) -> int:
        # A stream is a stage's forwards or its backwards (B and I count on together), named by its first op's code.
        code = self._next.get(stream, stream)
        self._next[stream] = code + _ONE_MICRO_BATCH
        if self._slices > 1 and stream & B:  # the last slice's gradient comes first
            code += (self._slices - 1 - 2 * ((code >> _MICRO_BATCH_SHIFT) % self._slices)) * _ONE_MICRO_BATCH
        code += mark
        self.codes.append(code)
        return code


class OrderBuilder:
    """Writes a schedule down rank by rank, as a paper's figure reads.

    >>> from dualpipe_sim.order import format_order, linear
    >>> order = OrderBuilder(linear(1), (2,))
    >>> line = order.rank(0)
    >>> for _ in range(2):
    ...     line.forward(0)
    ...     line.backward_input(0)
    >>> line.weight()
    >>> line.weight()
    >>> print(format_order(order.schedule()), end="")
    0F0,0I0,0F1,0I1,0W0,0W1
    """

    def __init__(self, placement: Placement, micro_batches_of_pipe: tuple[int, ...], slices: int = 1) -> None:
        if placement.stages > MOST_STAGES:
            raise ScheduleError(f"{placement.stages} stages are too many; there can be {MOST_STAGES}")
        if len(micro_batches_of_pipe) != len(placement.pipes):
            pipes = number_of(len(placement.pipes), "pipe")
            raise ScheduleError(f"micro-batches of each pipe: got {micro_batches_of_pipe} for {pipes}")
        if slices < 1 or max(micro_batches_of_pipe) * slices >= MOST_MICRO_BATCHES:
            raise ScheduleError(f"slices: must be 1 or more, and fewer than {MOST_MICRO_BATCHES} in all, got {slices}")
        self.placement = placement
        self.micro_batches_of_pipe = micro_batches_of_pipe
        self._slices = slices
        self._lines = [Line(slices) for _ in range(placement.ranks)]

    def rank(self, rank: int) -> Line:
        """Return the line that a rank's tasks are appended to."""
        return self._lines[rank]

    def schedule(self, name: str = "") -> Schedule:
        """Return all lines as one schedule.

        Raises:
            ValueError: an overlapped pair of ops that cannot be one.

        """
        codes = [line.codes for line in self._lines]
        return from_codes(name, self.placement, self.micro_batches_of_pipe, codes, self._slices)


def from_codes(
    name: str,
    placement: Placement,
    micro_batches_of_pipe: tuple[int, ...],
    codes: list[array[int]],
    slices: int = 1,
) -> Schedule:
    """Turn each rank's array of packed ops into a schedule's columns."""
    packed = np.concatenate([np.asarray(line, dtype=np.int64) for line in codes])
    marked = (packed & _MARK).astype(np.uint8)
    begins = marked == _MARK
    if ((marked >= len(Kind)) & (marked <= _MARK - len(Kind))).any():
        raise ValueError("an op of a kind that there is not")
    paired: IntArray = np.flatnonzero(begins)
    broken = (marked >= len(Kind)) & ~begins
    follows = np.isin(marked, PAIRED)
    if broken.any() or begins[-1:].any() or (begins[:-1] & ~follows[1:]).any():
        raise ValueError("an overlapped pair is an F and the B, I, W or F that follows it, and nothing else")
    partner = np.full(len(packed), -1)
    partner[paired] = paired + 1
    partner[paired + 1] = paired
    unit = packed >> _MICRO_BATCH_SHIFT
    return Schedule(
        name,
        placement,
        micro_batches_of_pipe,
        rank=np.repeat(np.arange(placement.ranks), [len(line) for line in codes]),
        kind=np.where(begins, F, marked).astype(np.int64),
        stage=packed >> _STAGE_SHIFT & (MOST_STAGES - 1),
        micro_batch=unit if slices == 1 else unit // slices,
        partner=partner,
        slices=slices,
        slice=None if slices == 1 else unit % slices,
    )
