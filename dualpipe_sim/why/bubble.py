"""Why a bubble is what it is: a rank's idle time as a sum of what ops and transfers take, as papers' formulas are.

In a fixed order idle time is a piecewise linear function of all times, without a constant. So where it has slopes, it
is the sum of each time by its slope: 21 = 7 F + 7 B says that a forward longer by a second is a bubble longer by seven.
The slopes are found by playing the order with a little more of each time.

In a corner, where several chains of waits are as long, slopes differ from side to side. There those are taken that hold
where a weight's backward is a little shorter than a forward, as schedules are drawn and formulas made for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from dualpipe_sim.analysis.metrics import idle_s, idle_s_by_cause
from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.base.show import brief
from dualpipe_sim.engine.longest_path import play_many
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import BESIDE, B, F, I
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.why.costs import Cost, costs_of

Over: TypeAlias = Literal["makespan", "span"]
Where: TypeAlias = Literal["warm_up", "steady", "drain"]
WHERE: Mapping[Where, str] = {"warm_up": "warm-up", "steady": "steady state", "drain": "drain"}
"""The parts of a rank's run: to the start of its first backward; from there to its last forward's end; the rest."""

_LEANS = {"W": -0.57, "X": -0.41, "transfer": -0.31, "F": 0.61, "I": 0.53, "B": 0.83}
"""Which way each time leans out of a corner; no two alike."""
_OUT = (2**-9, 2**-13, 2**-17)
"""How far out of a corner, as a share of a time: less, where the next corner is near."""
_STEP = 2**-12
"""A slope's step, as a share of that."""
_ROUNDING = 1e-9
_NONE = -1
_AGREES = 1e-5


@dataclass(frozen=True)
class Wait:
    """A stretch in which a rank idles.

    Attributes:
        where: in which part of the rank's run.
        begin_s: when it begins.
        end_s: when it ends.
        op: the op or pair that it ends with, as text; empty where the rank has no more.

    """

    where: Where
    begin_s: float
    end_s: float
    op: str

    __repr__ = brief

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end_s - self.begin_s


@dataclass(frozen=True)
class Bubble:
    """All that a rank idles.

    >>> from dualpipe_sim import simulate
    >>> bubble = bubble_of(simulate("figure5", schedule="zb-h1").played)
    >>> bubble.rank, bubble.seconds, bubble.waits[0].op, round(bubble.slopes["warm_up"]["I"], 3)
    (0, 7.0, '0I0', 7.0)

    Attributes:
        rank: the rank.
        waits: its idle stretches, in their order.
        slopes: of each part of its run, by how many seconds it idles longer for a second more of a cost, by the cost's
            key; they times what the costs take (``one_s``) are the part's seconds. None where there are no slopes:
            links or SMs are shared, or corners lie too close.
        one_s: what each cost takes, by key.
        letters: the formulas' letter of each cost, by key.

    """

    rank: int
    waits: tuple[Wait, ...]
    slopes: Mapping[Where, Mapping[str, float]] | None
    one_s: Mapping[str, float]
    letters: Mapping[str, str]

    __repr__ = brief

    @property
    def seconds(self) -> float:
        """How long it idles in all."""
        return sum(wait.seconds for wait in self.waits)

    def seconds_in(self, where: Where) -> float:
        """Return how long it idles in a part of its run."""
        return sum(wait.seconds for wait in self.waits if wait.where == where)

    def in_letters(self, *parts: Where) -> str:
        """Return the idle time of some parts of its run, or of all, as a sum; empty where it has no slopes.

        >>> from dualpipe_sim import simulate
        >>> bubble_of(simulate("figure5", schedule="1f1b").played).in_letters()
        '7 F + 7 B'
        """
        if self.slopes is None:
            return ""
        sums = {
            letter: sum(self.slopes[part].get(key, 0.0) for part in parts or WHERE)
            for key, letter in self.letters.items()
        }
        return in_letters(sums)


def in_letters(amounts: Mapping[str, float]) -> str:
    """Return amounts as a sum, what is taken away last.

    >>> in_letters({"F": 7.0, "W": -7.0, "I": 7.0, "C": 0.0})
    '7 F + 7 I - 7 W'
    """
    there = {letter: amount for letter, amount in amounts.items() if abs(amount) > _AGREES}
    more = " + ".join(f"{amount:.3g} {letter}" for letter, amount in there.items() if amount > 0)
    less = "".join(f" - {-amount:.3g} {letter}" for letter, amount in there.items() if amount < 0)
    return (more + less).strip() or "0"


def bubble_of(timeline: Timeline, over: Over = "makespan") -> Bubble:
    """Return why the rank that idles longest does; of several the one with the shortest sum, as papers choose it.

    >>> from dualpipe_sim import simulate
    >>> bubble_of(simulate("figure5").played).in_letters()
    '3 F + 3 X - 6 W'

    Args:
        timeline: what was played.
        over: what counts: idle time of the ``makespan``, or of the ``span`` from a rank's first op to its last.

    """
    costs = list(costs_of(timeline.graph))
    ranks = _longest_idle(timeline, over)
    waits = _waits(timeline, ranks[0], over)
    one_s, letters = {cost.key: cost.one_s for cost in costs}, {cost.key: cost.letter for cost in costs}
    found = _slopes(timeline, ranks, costs, over) if costs and timeline.graph.fixed_durations else {}
    if not found:
        return Bubble(ranks[0], waits, None, one_s, letters)
    slopes = {rank: rows / np.array(list(one_s.values())) for rank, rows in found.items()}
    shortest = min(slopes, key=lambda rank: (round(float(np.abs(slopes[rank].sum(axis=0)).sum()), 6), rank))
    by_part = {
        where: dict(zip(one_s, row, strict=True)) for where, row in zip(WHERE, slopes[shortest].tolist(), strict=True)
    }
    return Bubble(shortest, _waits(timeline, shortest, over), by_part, one_s, letters)


def _longest_idle(timeline: Timeline, over: Over) -> list[int]:
    """Return the ranks that idle longest."""
    idle = idle_s(timeline)
    if over == "span":
        causes = idle_s_by_cause(timeline)
        idle = idle - causes["warm_up"] - causes["drain"]
    longest: list[int] = np.flatnonzero(idle >= idle.max() - _ROUNDING * timeline.makespan_s).tolist()
    return longest


class _Gaps(NamedTuple):
    """The gaps of a rank, those of no length too: begins and ends, the part of the run, the task behind or -1."""

    begin_s: FloatArray
    end_s: FloatArray
    part: IntArray
    task: IntArray


def _gaps(timeline: Timeline, rank: int, over: Over) -> _Gaps:
    schedule = timeline.graph.schedule
    tasks = np.arange(*timeline.first_task_of_rank[rank : rank + 2].tolist())
    tasks = tasks[~schedule.of_kinds(*BESIDE)[schedule.first_op[tasks]]]
    start_s, end_s = timeline.task_start_s[tasks], timeline.task_end_s[tasks]
    inner = over == "span"
    begin_s = end_s[:-1] if inner else np.concatenate([[0.0], end_s])
    until_s = start_s[1:] if inner else np.append(start_s, timeline.makespan_s)
    behind = tasks[1:] if inner else np.append(tasks, _NONE)
    steady_s, drain_s = _parts(schedule, tasks, start_s, end_s)
    part = np.where(until_s <= steady_s, 0, np.where(begin_s < drain_s, 1, 2))
    return _Gaps(begin_s, until_s, part, behind)


def _parts(schedule: Schedule, tasks: IntArray, start_s: FloatArray, end_s: FloatArray) -> tuple[float, float]:
    """Return when a rank's first backward starts, and when its last forward ends: that or later."""
    first = schedule.first_op[tasks]
    second = first + (schedule.partner[first] >= 0)
    forward, backward = (
        schedule.of_kinds(*kinds)[first] | schedule.of_kinds(*kinds)[second] for kinds in ((F,), (B, I))
    )
    begins_s = float(start_s[backward].min(initial=np.inf))
    return begins_s, max(begins_s, float(end_s[forward].max(initial=0.0)))


def _waits(timeline: Timeline, rank: int, over: Over) -> tuple[Wait, ...]:
    gaps, names = _gaps(timeline, rank, over), tuple(WHERE)
    long = np.flatnonzero(gaps.end_s - gaps.begin_s > _ROUNDING * timeline.makespan_s)
    return tuple(
        Wait(names[part], begin_s, end_s, "" if task == _NONE else str(timeline.graph.schedule.task(task)))
        for begin_s, end_s, part, task in zip(*(column[long].tolist() for column in gaps), strict=True)
    )


def _slopes(timeline: Timeline, ranks: Sequence[int], costs: Sequence[Cost], over: Over) -> dict[int, FloatArray]:
    """Return by how much each part idles longer as each cost grows, over its share of growth, (parts, costs) seconds.

    They are those of a near point that is in no corner, for the ranks where they are those of here.
    """
    graph = timeline.graph
    leans = np.array([_LEANS.get(cost.key, 0.2 + 0.07 * place) for place, cost in enumerate(costs)])
    member = np.array([cost.share for cost in costs])
    for out in _OUT:
        aside = 1 + out * leans
        factors = np.vstack([aside, aside + out * _STEP * np.eye(len(costs))])
        played = list(play_many(graph, (graph.duration_s * (1 + (row - 1) @ member) for row in factors)))
        found = {}
        for rank in ranks:
            there, *changed = (_idle_in_parts(one, rank, over) for one in played)
            slopes = np.array([(one - there) / (out * _STEP) for one in changed]).T
            if np.abs(slopes.sum(axis=1) - _idle_in_parts(timeline, rank, over)).max() <= _AGREES * timeline.makespan_s:
                found[rank] = slopes
        if found:
            return found
    return {}


def _idle_in_parts(timeline: Timeline, rank: int, over: Over) -> FloatArray:
    """Return how long a rank idles in each part of its run, shape ``(parts,)``."""
    gaps = _gaps(timeline, rank, over)
    return np.bincount(gaps.part, weights=gaps.end_s - gaps.begin_s, minlength=len(WHERE)).astype(np.float64)
