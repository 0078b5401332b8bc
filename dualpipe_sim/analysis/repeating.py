"""What repeats: the stretch of a run in which every rank does the same again and again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dualpipe_sim.base.arrays import BoolArray, FloatArray, IntArray
from dualpipe_sim.graph.timeline import Timeline

_SAME = 1e-7  # share of a period below which times are the same
_LEAST_REPEATS = 3
_MOST_CANDIDATES = 6  # periods of one rank that are tried on all
_PLACES = (0.5, 0.25, 0.75)  # of a rank's tasks: where to look for what repeats


class Repeating(NamedTuple):
    """What repeats: on every rank tasks of the same ops, stages and times, a period later each time.

    Attributes:
        begin_s: where the first period begins.
        period_s: how long one lasts.
        repeats: how many there are, one behind the other.

    """

    begin_s: float
    period_s: float
    repeats: int

    @property
    def end_s(self) -> float:
        """Where the last period ends."""
        return self.begin_s + self.repeats * self.period_s


def repeating(timeline: Timeline) -> Repeating | None:
    """Return the longest stretch of a timeline that repeats at least three times on every rank, or None without any.

    Periods are guessed from the rank with the most tasks, and each is held to all ranks: a moment is *odd* where a task
    starts that does not start again a period later, or that starts a period later but not then. Between two odd moments
    everything repeats.

    >>> from dualpipe_sim import simulate
    >>> middle = repeating(simulate(schedule="1f1b", ranks=4, micro_batches=100, forward=1.0, backward=2.0).played)
    >>> middle.period_s, middle.repeats
    (3.0, 96)
    """
    tasks = _tasks(timeline)
    found = [
        one
        for period_s in dict.fromkeys(_periods(tasks))
        if (one := _repeated(tasks, period_s)) is not None and one.repeats >= _LEAST_REPEATS
    ]
    return max(found, key=lambda one: (one.repeats - 1) * one.period_s, default=None)


class _Tasks(NamedTuple):
    """Tasks that take time, rank after rank in order, shape ``(tasks,)`` each; ``ops`` numbers what they are."""

    rank: IntArray
    start_s: FloatArray
    length_s: FloatArray
    ops: IntArray

    def alike(self, one: IntArray | slice, other: IntArray | slice, period_s: float) -> BoolArray:
        """Return which of some tasks are others, a period later."""
        same_s = _SAME * period_s
        alike: BoolArray = (
            (self.rank[one] == self.rank[other])
            & (self.ops[one] == self.ops[other])
            & (np.abs(self.start_s[other] - self.start_s[one] - period_s) <= same_s)
            & (np.abs(self.length_s[other] - self.length_s[one]) <= same_s)
        )
        return alike


def _tasks(timeline: Timeline) -> _Tasks:
    schedule = timeline.graph.schedule
    stream = schedule.kind * schedule.placement.stages + schedule.stage
    first = schedule.first_op
    second = np.where(schedule.partner[first] > first, stream[np.minimum(first + 1, len(stream) - 1)] + 1, 0)
    ops = stream[first] * (int(stream.max()) + 2) + second
    length_s = timeline.task_end_s - timeline.task_start_s
    there = length_s > 0
    return _Tasks(timeline.rank[there], timeline.task_start_s[there], length_s[there], ops[there])


def _periods(tasks: _Tasks) -> Iterator[float]:
    """Yield what may be a period: of the rank with the most tasks, what follows a place in it and is repeated once."""
    if not len(tasks.rank):
        return
    count = np.bincount(tasks.rank)
    rank = int(count.argmax())
    first, tasks_of_rank = int(count[:rank].sum()), int(count[rank])
    for place in _PLACES:
        at, left = first + int(place * tasks_of_rank), _MOST_CANDIDATES
        for width in range(1, (first + tasks_of_rank - at) // 2 + 1):
            period_s = float(tasks.start_s[at + width] - tasks.start_s[at]) if at + width < len(tasks.rank) else 0.0
            if period_s > 0 and tasks.alike(slice(at, at + width), slice(at + width, at + 2 * width), period_s).all():
                yield period_s
                left -= 1
                if not left:
                    break


def _repeated(tasks: _Tasks, period_s: float) -> Repeating | None:
    """Return the longest stretch between two odd moments of a period, from its first task on."""
    key = tasks.rank * (2 * float((tasks.start_s + tasks.length_s).max()) + period_s) + tasks.start_s
    later = np.searchsorted(key, key + period_s * (1 - _SAME)).clip(max=len(key) - 1)
    again = tasks.alike(np.arange(len(key)), later, period_s)
    known = np.zeros(len(key), dtype=bool)
    known[later[again]] = True
    odd_s = np.sort(np.append(tasks.start_s[~again], tasks.start_s[~known] - period_s))
    between = int(np.diff(odd_s).argmax())
    starts_s = np.sort(tasks.start_s)
    behind = int(np.searchsorted(starts_s, odd_s[between] + _SAME * period_s, side="right"))
    if behind == len(starts_s):
        return None
    begin_s = float(starts_s[behind])
    return Repeating(begin_s, period_s, int((odd_s[between + 1] - begin_s) / period_s + _SAME) + 1)
