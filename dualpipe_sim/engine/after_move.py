"""One order after a small change: only what follows the change is computed again.

An order that was played is kept with the *sequence* in which its tasks can be computed, each after all that it waits
for. A task that moves on its rank changes what some tasks of that rank wait for, and the sequence between the first and
the last of them; what stands before that keeps its times. The sequence is mended as Pearce and Kelly do (A dynamic
topological sort algorithm for directed acyclic graphs, 2006): of what has to come later now, all that follows from it
goes with it; and if what it has to come after is among that, the order deadlocks.

All is plain lists and not arrays, since one task after the other is looked at.
"""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import NamedTuple

import numpy as np

from dualpipe_sim.base.arrays import IntArray
from dualpipe_sim.base.show import line
from dualpipe_sim.engine.any_order import AnyOrder
from dualpipe_sim.errors import DeadlockError, UserError


class Move(NamedTuple):
    """A task goes from one place of an order to another, and those between close up; of neighbours, they swap.

    >>> order = ["0F0", "0F1", "0F2", "0B0"]
    >>> move = Move(place=3, to=1)
    >>> order.insert(move.to, order.pop(move.place))
    >>> order
    ['0F0', '0B0', '0F1', '0F2']

    Attributes:
        place: where it stands, counted over all ranks.
        to: where it then stands, on the same rank.

    """

    place: int
    to: int


class _Changed(NamedTuple):
    """What a move makes of an order.

    Attributes:
        begin: first place of the order that changes.
        tasks: what then stands from there on, as far as it changes.
        first: first turn of the sequence that changes.
        rest: the sequence from there on.
        end_s: seconds until each task is done.
        makespan_s: seconds until the last one is.

    """

    begin: int
    tasks: list[int]
    first: int
    rest: list[int]
    end_s: list[float]
    makespan_s: float


class Evaluated:
    """An order that was played, and that can be changed a move at a time.

    >>> from dualpipe_sim import build
    >>> from dualpipe_sim.costs.uniform import UniformCosts
    >>> from dualpipe_sim.graph.lowering import lower
    >>> tasks = AnyOrder.of(lower(build("1f1b", ranks=2, micro_batches=2), UniformCosts(1.0, 1.0, 1.0)))
    >>> played = Evaluated(tasks, np.arange(8))  # 0F0,0F1,0B0,0B1 and 1F0,1B0,1F1,1B1
    >>> played.makespan_s, played.after(Move(1, 2)), played.after(Move(2, 0))
    (9.0, 12.0, inf)
    >>> played.make(Move(1, 2))
    >>> played.makespan_s, played.order
    (12.0, array([0, 2, 1, 3, 4, 5, 6, 7]))

    Attributes:
        makespan_s: seconds until the last task is done.

    Raises:
        DeadlockError: an order in which ranks wait for each other in a circle.
        UserError: what is no order of these tasks.

    """

    def __init__(self, tasks: AnyOrder, order: IntArray) -> None:
        tasks.check(order[None])
        self._schedule = tasks.schedule
        self._order: list[int] = order.tolist()
        self._rank: list[int] = tasks.schedule.rank_of_task.tolist()
        self._duration_s: list[float] = tasks.duration_s.tolist()
        self._waits, self._needed_by = _waits(tasks)
        # Two more stand for what is before the first task of a rank, and behind its last.
        self._start, self._stop = tasks.tasks, tasks.tasks + 1
        self._previous, self._next = [self._start] * (self._stop + 1), [self._stop] * (self._stop + 1)
        bounds = list(pairwise(tasks.schedule.first_task_of_rank.tolist()))
        for begin, end in bounds:
            _link(self._previous, self._next, [self._start, *self._order[begin:end], self._stop])
        self._last_places = [end - 1 for begin, end in bounds if begin < end]
        self._sequence = self._in_sequence()
        self._turn = [0] * self._start + [self._start] * 2  # (what is behind a rank's last task is after all of them)
        self._note_turns(0)
        self._end_s = [0.0] * (self._stop + 1)
        self._compute(self._sequence, self._previous, self._end_s)
        self.makespan_s = max(self._end_s)

    def __repr__(self) -> str:
        return line(self, self._schedule.name, self._schedule.size, f"makespan_s={self.makespan_s:g}")

    @property
    def order(self) -> IntArray:
        """Tasks by number, rank after rank in the order they run, shape ``(tasks,)``."""
        return np.array(self._order)

    def after(self, move: Move) -> float:
        """Return the makespan after a move, in seconds; infinite where the order would deadlock.

        Raises:
            UserError: a place that is none, or that is another rank's.

        """
        changed = self._changed(move)
        return inf if changed is None else changed.makespan_s

    def make(self, move: Move) -> None:
        """Make a move.

        Raises:
            DeadlockError: the order would deadlock; it stays as it is.
            UserError: a place that is none, or that is another rank's.

        """
        changed = self._changed(move)
        if changed is None:
            task, other = (self._schedule.task(self._order[place]) for place in move)
            raise DeadlockError(f"{self._schedule.name}: the order deadlocks with {task} in the place of {other}")
        begin, end = changed.begin, changed.begin + len(changed.tasks)
        _link(self._previous, self._next, self._with_ends(begin, changed.tasks))
        self._order[begin:end] = changed.tasks
        self._sequence[changed.first :] = changed.rest
        self._note_turns(changed.first)
        self._end_s, self.makespan_s = changed.end_s, changed.makespan_s

    def _changed(self, move: Move) -> _Changed | None:
        """Play the order after a move, None where it deadlocks."""
        (place, to), order, rank = move, self._order, self._rank
        if not (0 <= place < len(order) and 0 <= to < len(order)) or rank[order[place]] != rank[order[to]]:
            raise UserError(f"a move is between two places of one rank, of {len(order)} in all; got {place} and {to}")
        begin, middle, end = (place, place + 1, to + 1) if place < to else (to, place, place + 1)
        later, earlier = order[begin:middle], order[middle:end]
        first, tasks = self._turn[order[begin]], earlier + later
        rest = self._mended(first, later, behind=earlier[-1])
        if rest is None:
            return None
        previous, end_s = self._previous.copy(), self._end_s.copy()
        for one, other in pairwise(self._with_ends(begin, tasks)):
            previous[other] = one
        self._compute(rest, previous, end_s)
        lasts = [tasks[-1] if begin <= last < end else order[last] for last in self._last_places]
        return _Changed(begin, tasks, first, rest, end_s, max(map(end_s.__getitem__, lasts)))

    def _mended(self, first: int, later: list[int], behind: int) -> list[int] | None:
        """Return the sequence from a turn on, now that some tasks come behind another of their rank.

        What follows from them and stood before that one goes behind it with them. None where that one is among it.
        """
        turn, needed_by, following = self._turn, self._needed_by, self._next
        last, delayed = turn[behind], set(later)
        follow = [one for task in later for one in needed_by[task]]
        while follow:
            task = follow.pop()
            if turn[task] > last or task in delayed:
                continue
            if task == behind:
                return None
            delayed.add(task)
            follow += needed_by[task]
            follow.append(following[task])
        between = self._sequence[first : last + 1]
        at_once = [task for task in between if task not in delayed]
        return at_once + [task for task in between if task in delayed] + self._sequence[last + 1 :]

    def _compute(self, sequence: list[int], previous: list[int], end_s: list[float]) -> None:
        """Fill in when each task of a sequence is done."""
        waits, duration_s = self._waits, self._duration_s
        for task in sequence:
            ready_s = end_s[previous[task]]
            for before, hop_s in waits[task]:
                arrival_s = end_s[before] + hop_s
                if arrival_s > ready_s:  # noqa: PLR1730 - the hottest line, and max() is a call
                    ready_s = arrival_s
            end_s[task] = ready_s + duration_s[task]

    def _with_ends(self, begin: int, tasks: list[int]) -> list[int]:
        """Return some tasks that shall stand from a place on with the one before and the one behind those there now."""
        return [self._previous[self._order[begin]], *tasks, self._next[self._order[begin + len(tasks) - 1]]]

    def _note_turns(self, first: int) -> None:
        for turn in range(first, len(self._sequence)):
            self._turn[self._sequence[turn]] = turn

    def _in_sequence(self) -> list[int]:
        """Return all tasks, each after all that it waits for."""
        missing = [len(waits) + (self._previous[task] != self._start) for task, waits in enumerate(self._waits)]
        sequence = [task for task, count in enumerate(missing) if not count]
        for task in sequence:  # which grows
            behind = self._next[task]
            for one in (*self._needed_by[task], *([behind] if behind != self._stop else [])):
                missing[one] -= 1
                if not missing[one]:
                    sequence.append(one)
        if len(sequence) < len(missing):
            stuck = self._schedule.task(next(task for task in self._order if missing[task]))
            raise DeadlockError(f"{self._schedule.name}: the order deadlocks: {stuck} waits for ever")
        return sequence


def _waits(tasks: AnyOrder) -> tuple[list[tuple[tuple[int, float], ...]], list[list[int]]]:
    """Return what each task waits for, with the seconds in between, and what waits for it."""
    waits: list[tuple[tuple[int, float], ...]] = []
    needed_by: list[list[int]] = [[] for _ in range(tasks.tasks)]
    for task, slots in enumerate(zip(tasks.before.T.tolist(), tasks.hop_s.T.tolist(), strict=True)):
        waits.append(tuple((before, hop_s) for before, hop_s in zip(*slots, strict=True) if before != tasks.tasks))
        for before, _ in waits[-1]:
            needed_by[before].append(task)
    return waits, needed_by


def _link(previous: list[int], following: list[int], chain: list[int]) -> None:
    """Note down that tasks of a rank run one after the other."""
    for one, other in pairwise(chain):
        following[one], previous[other] = other, one
