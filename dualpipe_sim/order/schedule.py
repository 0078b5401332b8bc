"""A schedule: what runs after what on which rank. It knows no seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from dualpipe_sim.base.arrays import BoolArray, IntArray, distinct
from dualpipe_sim.base.show import SHOWN_ROWS, Table, Tabular, line
from dualpipe_sim.base.units import number_of, sizes
from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.ops import (
    COPIES,
    OF_WEIGHTS,
    B,
    Collective,
    Kind,
    Op,
    Pair,
    Program,
    S,
    T,
    Task,
    TaskShape,
    Vocabulary,
    vocabulary_of,
)
from dualpipe_sim.order.placement import Placement

_KINDS = tuple(Kind)  # by number, which is faster than Kind(number)
_SHOWN_TASKS = 50  # more than fit a line


@dataclass(frozen=True, eq=False)
class Schedule(Tabular):
    """The order of ops on every rank, as columns: one row an op, rank after rank, in the order they run.

    The two ops of an overlapped pair stand in neighbouring rows, the forward first.

    >>> from dualpipe_sim import build
    >>> schedule = build("1f1b", ranks=2, micro_batches=3)
    >>> schedule.ranks, schedule.micro_batches
    (2, 3)
    >>> [str(task) for task in schedule.order[1]]
    ['1F0', '1B0', '1F1', '1B1', '1F2', '1B2']

    Attributes:
        name: what the schedule is called in the registry (or the file it came from).
        placement: where the stages are.
        micro_batches_of_pipe: micro-batches that enter each pipe, numbered from 0 in each.
        rank: rank of each op, shape ``(ops,)``, ascending.
        kind: kind of each op, as the number of a ``Kind``.
        stage: global stage id of each op.
        micro_batch: micro-batch of each op, counted in its own pipe.
        partner: row of the other op of an overlapped pair, or -1.
        program: the tasks with the sends and receives between them, where the order came with them; else a runtime
            is what adds them.
        sharded: the tasks with what is done about stages' weights between them, where the order came with that; else
            :mod:`~dualpipe_sim.order.gathers` adds it where weights are shared out.
        slices: how many slices each micro-batch is cut into along its sequence, of which a later one attends to all
            before it.
        slice: slice of each op, from 0, shape ``(ops,)``; None where micro-batches are whole.
        late_again: whether an R waits for its stage's gradient, as the backward behind it does.
        barriers: how many of them, 1 or 2, stand between a micro-batch's S and its backward on the last stage, where
            there are S and T.
        exchanges: whether ranks exchange attention over their slices until all attend to as much.
        micro_batch_share: how much of a micro-batch each of the order's is: 1/2 where it cuts them into halves, so that
            it has twice as many.

    """

    name: str
    placement: Placement
    micro_batches_of_pipe: tuple[int, ...]
    rank: IntArray
    kind: IntArray
    stage: IntArray
    micro_batch: IntArray
    partner: IntArray
    program: Program | None = None
    sharded: Program | None = None
    micro_batch_share: float = 1.0
    slices: int = 1
    slice: IntArray | None = None
    late_again: bool = False
    barriers: int = 1
    exchanges: bool = False

    @property
    def ranks(self) -> int:
        """Number of pipeline ranks."""
        return self.placement.ranks

    @property
    def micro_batches(self) -> int:
        """Micro-batches of all pipes together, each as large as the order's are."""
        return sum(self.micro_batches_of_pipe)

    @property
    def size(self) -> str:
        """Ranks and micro-batches in words: ``8 ranks × 32 micro-batches``, ``8 ranks × 64 half micro-batches``."""
        said = sizes(self.ranks, self.micro_batches)
        if self.slices > 1:
            return f"{said} of {self.slices} slices"
        return said if self.micro_batch_share == 1 else said.replace(" micro", " half micro")

    @cached_property
    def unit(self) -> IntArray:
        """Number of each op's slice among those of all micro-batches of its pipe, shape ``(ops,)``."""
        return self.micro_batch if self.slice is None else self.micro_batch * self.slices + self.slice

    def number_of(self, unit: int) -> str:
        """Return what a micro-batch, or a slice of one, is called by its number: ``3``, ``3.1``."""
        return f"{unit}" if self.slices == 1 else "{}.{}".format(*divmod(unit, self.slices))

    @cached_property
    def key(self) -> Hashable:
        """What tells it from all other orders: equal for two of the same rows."""
        columns = np.stack([self.rank, self.kind, self.stage, self.unit, self.partner])
        what = self.name, self.placement, self.micro_batches_of_pipe, self.program, self.slices, self.late_again
        return (*what, self.barriers, columns.tobytes())

    @cached_property
    def bare(self) -> Schedule:
        """The order without what is done about stages' weights: itself where nothing is."""
        gone = self.of_kinds(*OF_WEIGHTS)
        return self.only(~gone) if gone.any() else self

    def only(self, stays: BoolArray) -> Schedule:
        """Return the order of some of its ops, shape ``(ops,)``; an op whose pair's other one goes runs alone."""
        place = np.where(stays, np.cumsum(stays) - 1, -1)
        partner = self.partner[stays]
        columns = {name: getattr(self, name)[stays] for name in ("rank", "kind", "stage", "micro_batch")}
        return replace(
            self,
            **columns,
            partner=np.where(partner >= 0, place[partner], -1),
            slice=None if self.slice is None else self.slice[stays],
        )

    @cached_property
    def vocabulary(self) -> Vocabulary | None:
        """How ranks share the output layer out; None where the last stage has all of it."""
        return vocabulary_of({kind for kind in (S, T) if self.of_kinds(kind).any()}, self.barriers)

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

    @cached_property
    def first_task_of_rank(self) -> IntArray:
        """First task of each rank and, last, the number of tasks, shape ``(ranks + 1,)``."""
        return np.searchsorted(self.rank_of_task, np.arange(self.ranks + 1))

    @cached_property
    def task_shapes(self) -> tuple[list[TaskShape], IntArray]:
        """The distinct shapes of the tasks, and which of them each task has, shape ``(tasks,)``.

        A shape is one number while they are told apart: kind and stage of the first op, then those of what a pair has
        beside it, or ``ops`` for a lone op.

        Raises:
            ScheduleError: no op at all, or one of a stage or a micro-batch that does not exist.

        """
        self._check_range()
        stages, row = self.placement.stages, self.first_op
        op, ops = self.kind * stages + self.stage, len(Kind) * stages
        second = np.where(self.partner[row] < 0, ops, op[np.minimum(row + 1, len(op) - 1)])
        codes, shape_of_task = distinct(op[row] * (ops + 1) + second)
        shapes: list[TaskShape] = []
        for code in codes.tolist():
            first, beside = divmod(code, ops + 1)
            alone = divmod(first, stages)
            shapes.append((alone,) if beside == ops else (alone, divmod(beside, stages)))
        return shapes, shape_of_task

    def _check_range(self) -> None:
        """Refuse what no table by stage and micro-batch has a place for."""
        if not len(self.rank):
            raise ScheduleError("the order is empty: no rank has an op")
        if self.micro_batch[row := int(self.micro_batch.argmin())] < 0:  # as a builder packs a stage below 0, too
            raise ScheduleError(f"rank {self.rank[row]} has an op of a stage or a micro-batch below 0")
        stages = self.placement.stages
        if self.stage[row := int(self.stage.argmax())] >= stages:
            raise ScheduleError(
                f"{self.op(row)} on rank {self.rank[row]} names no stage; they go from 0 to {stages - 1}"
            )
        most = np.array(self.micro_batches_of_pipe)[self.placement.pipe_of_stage][self.stage]
        if self.micro_batch[row := int((self.micro_batch - most).argmax())] >= most[row]:
            named = f"{self.op(row)} on rank {self.rank[row]}"
            raise ScheduleError(f"{named} names no micro-batch; they go from 0 to {most[row] - 1}")

    @property
    def beyond_torch(self) -> str:
        """What it has that torch and other runtimes have no ops for, in words; empty where all runs there."""
        beside = self.kind[np.flatnonzero(self.partner > np.arange(len(self.partner))) + 1]
        found = {
            "slices of micro-batches": self.slices > 1,
            "barriers (of S and T)": self.vocabulary is not None,
            "copies to the host": bool(self.of_kinds(*COPIES).any()),
            "pairs but of F and B": bool((beside != int(B)).any()),
        }
        return " and ".join(what for what, there in found.items() if there)

    @property
    def cells_without_time(self) -> Counter[str]:
        """What its program does about parameters and gradients, which nobody says the time of, and how often."""
        if self.of_kinds(*OF_WEIGHTS).any():
            return Counter()
        cells = (cell for row in self.sharded or () for cell in row)
        return Counter(cell.verb for cell in cells if isinstance(cell, Collective))

    def of_kinds(self, *kinds: Kind) -> BoolArray:
        """Which ops are of one of these kinds, shape ``(ops,)``."""
        # (NumPy compares with a plain number several times as fast as with an enum's member)
        first, *others = map(int, kinds)
        chosen: BoolArray = self.kind == first
        for kind in others:
            chosen |= self.kind == kind
        return chosen

    def op(self, row: int) -> Op:
        """Return the op in a row."""
        part = None if self.slice is None else int(self.slice[row])
        return Op(_KINDS[self.kind[row]], int(self.stage[row]), int(self.micro_batch[row]), part)

    def task(self, index: int) -> Task:
        """Return the op or pair that a task stands for."""
        row = int(self.first_op[index])
        return Pair(self.op(row), self.op(row + 1)) if self.partner[row] >= 0 else self.op(row)

    @cached_property
    def order(self) -> tuple[tuple[Task, ...], ...]:
        """The tasks of each rank in the order they run."""
        bounds = pairwise(self.first_task_of_rank.tolist())
        return tuple(tuple(self.task(index) for index in range(begin, end)) for begin, end in bounds)

    def to_table(self) -> Table:
        """Return the order's text form, a row a rank, as the table that a schedule shows itself as."""
        bounds = list(pairwise(self.first_task_of_rank.tolist()))
        rows = [
            [f"{rank}", f"{end - begin:,}", self._written(begin, end)]
            for rank, (begin, end) in enumerate(bounds[:SHOWN_ROWS])
        ]
        title = f"{self.name}, {self.size}"
        return Table(("rank", "tasks", "order"), rows, ("order",), title, of=len(bounds))

    def _written(self, begin: int, end: int) -> str:
        shown = min(end, begin + _SHOWN_TASKS)
        return ",".join(str(self.task(index)) for index in range(begin, shown)) + (",…" if shown < end else "")

    def __repr__(self) -> str:
        return line(self, self.name, self.size, number_of(len(self.first_op), "task"))

    def __eq__(self, other: object) -> bool:
        """Two schedules are equal where placement and order are; name, program and what R, S and T wait for do not."""
        if not isinstance(other, Schedule):
            return NotImplemented
        columns = ("rank", "kind", "stage", "unit", "partner")
        return (
            self.placement == other.placement
            and self.micro_batches_of_pipe == other.micro_batches_of_pipe
            and self.slices == other.slices
            and all(np.array_equal(getattr(self, column), getattr(other, column)) for column in columns)
        )

    def __hash__(self) -> int:
        return hash((self.placement, self.micro_batches_of_pipe, len(self.rank)))
