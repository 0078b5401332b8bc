"""A schedule: what runs after what on which rank. It knows no seconds."""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.ops import KINDS, B, I, Op, Pair, Task, W
from dualpipe_sim.order.placement import IntArray, Placement

_KIND_BITS = 2
_PAIR_BIT = 1 << _KIND_BITS
_STAGE_SHIFT = _KIND_BITS + 1
_STAGE_BITS = 20
_MICROBATCH_SHIFT = _STAGE_SHIFT + _STAGE_BITS
_ONE_MICROBATCH = 1 << _MICROBATCH_SHIFT
MOST_STAGES = 1 << _STAGE_BITS
MOST_MICROBATCHES = 1 << (63 - _MICROBATCH_SHIFT)
_NO_MICROBATCH = -1


@dataclass(frozen=True, eq=False)
class Schedule:
    """The order of ops on every rank, as columns: one row an op, rank after rank, in the order they run.

    The two ops of an overlapped pair stand in neighbouring rows, the forward first.

    Attributes:
        name: what the schedule is called in the registry (or the file it came from).
        placement: where the stages are.
        microbatches_of_pipe: micro-batches that enter each pipe, numbered from 0 in each.
        rank: rank of each op, shape ``(ops,)``, ascending.
        kind: kind code of each op (index into ``KINDS``).
        stage: global stage id of each op.
        microbatch: micro-batch of each op, counted in its own pipe.
        partner: row of the other op of an overlapped pair, or -1.

    """

    name: str
    placement: Placement
    microbatches_of_pipe: tuple[int, ...]
    rank: IntArray
    kind: IntArray
    stage: IntArray
    microbatch: IntArray
    partner: IntArray

    @property
    def ranks(self) -> int:
        """Number of pipeline ranks."""
        return self.placement.ranks

    @property
    def micro_batches(self) -> int:
        """Micro-batches of all pipes together."""
        return sum(self.microbatches_of_pipe)

    @cached_property
    def first_op(self) -> IntArray:
        """Row of the first (or only) op of each task, shape ``(tasks,)``."""
        rows = np.arange(len(self.rank))
        return rows[(self.partner < 0) | (self.partner > rows)]

    @cached_property
    def task_of_op(self) -> IntArray:
        """Task that each op belongs to, shape ``(ops,)``."""
        rows = np.arange(len(self.rank))
        return np.cumsum((self.partner < 0) | (self.partner > rows)) - 1

    @cached_property
    def rank_of_task(self) -> IntArray:
        """Rank of each task, shape ``(tasks,)``, ascending."""
        return self.rank[self.first_op]

    def op(self, row: int) -> Op:
        """Return the op in a row."""
        return Op(KINDS[self.kind[row]], int(self.stage[row]), int(self.microbatch[row]))

    def task(self, index: int) -> Task:
        """Return the op or pair that a task stands for."""
        row = int(self.first_op[index])
        return Pair(self.op(row), self.op(row + 1)) if self.partner[row] >= 0 else self.op(row)

    @cached_property
    def order(self) -> tuple[tuple[Task, ...], ...]:
        """The tasks of each rank in the order they run."""
        starts = np.searchsorted(self.rank_of_task, np.arange(self.ranks + 1)).tolist()
        return tuple(tuple(self.task(index) for index in range(start, end)) for start, end in pairwise(starts))

    def __eq__(self, other: object) -> bool:
        """Two schedules are equal where placement and order are; the name does not count."""
        if not isinstance(other, Schedule):
            return NotImplemented
        columns = ("rank", "kind", "stage", "microbatch", "partner")
        return (
            self.placement == other.placement
            and self.microbatches_of_pipe == other.microbatches_of_pipe
            and all(np.array_equal(getattr(self, column), getattr(other, column)) for column in columns)
        )

    def __hash__(self) -> int:
        return hash((self.placement, self.microbatches_of_pipe, len(self.rank)))


class Line:
    """One rank's order while it is written down; every method appends one task."""

    def __init__(self) -> None:
        self.codes = array("q")
        self._next: dict[int, int] = {}  # stream → the code of its next op
        self._deferred: deque[int] = deque()  # what each I left to do, as the code of its W

    def op(self, kind: int, stage: int, microbatch: int) -> None:
        """Append one op by name."""
        self.codes.append(microbatch << _MICROBATCH_SHIFT | stage << _STAGE_SHIFT | kind)

    def overlap_last(self) -> None:
        """Make the last two ops, a forward and a backward, one overlapped pair."""
        self.codes[-2] |= _PAIR_BIT

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
        """Append the oldest deferred backward for the weights."""
        self.codes.append(self._deferred.popleft())

    def pair(self, forward: int, backward: int) -> None:
        """Append an overlapped pair: the next forward of one stage with the next full backward of another."""
        self._append(forward << _STAGE_SHIFT, _PAIR_BIT)
        self._append(backward << _STAGE_SHIFT | B)

    @property
    def deferred(self) -> int:
        """How many backwards for the weights are still to be done."""
        return len(self._deferred)

    def _append(self, stream: int, mark: int = 0) -> int:
        # A stream is a stage's forwards or its backwards (B and I count on together), named by its first op's code.
        code = self._next.get(stream, stream)
        self._next[stream] = code + _ONE_MICROBATCH
        code += mark
        self.codes.append(code)
        return code


class OrderBuilder:
    """Writes a schedule down rank by rank, as a paper's figure reads."""

    def __init__(self, placement: Placement, microbatches_of_pipe: tuple[int, ...]) -> None:
        if placement.stages > MOST_STAGES:
            raise ScheduleError(f"{placement.stages} stages are too many; there can be {MOST_STAGES}")
        self.placement = placement
        self.microbatches_of_pipe = microbatches_of_pipe
        self._lines = [Line() for _ in range(placement.ranks)]

    def rank(self, rank: int) -> Line:
        """Return the line that a rank's tasks are appended to."""
        return self._lines[rank]

    def schedule(self, name: str = "") -> Schedule:
        """Return all lines as one schedule."""
        return from_codes(name, self.placement, self.microbatches_of_pipe, [line.codes for line in self._lines])


def from_codes(
    name: str, placement: Placement, microbatches_of_pipe: tuple[int, ...], codes: list[array[int]]
) -> Schedule:
    """Turn each rank's array of packed ops into a schedule's columns."""
    packed = np.concatenate([np.asarray(line, dtype=np.int64) for line in codes])
    paired: NDArray[np.int64] = np.flatnonzero(packed & _PAIR_BIT)
    partner = np.full(len(packed), -1)
    partner[paired] = paired + 1
    partner[paired + 1] = paired
    return Schedule(
        name,
        placement,
        microbatches_of_pipe,
        rank=np.repeat(np.arange(placement.ranks), [len(line) for line in codes]),
        kind=packed & (_PAIR_BIT - 1),
        stage=packed >> _STAGE_SHIFT & (MOST_STAGES - 1),
        microbatch=packed >> _MICROBATCH_SHIFT,
        partner=partner,
    )
