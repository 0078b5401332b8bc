"""From an answer to its order: each rank runs whatever is there, the op whose turn is earliest first.

A rank never waits while it could run an op. Forwards and backwards come before weights, which fill what is left; with a
limit on activations, a forward that does not fit stands back, and weights run to make room. A forward stands back as
well where it would leave a micro-batch that is under way without room to end: rooms are given as a banker lends money,
to the oldest micro-batch first (Dijkstra's algorithm against deadlock).
"""

from __future__ import annotations

from bisect import insort
from heapq import heappop, heappush
from math import inf
from typing import NamedTuple

from dualpipe_sim.search.problem import FORWARD, INPUT, WEIGHT, Answer, Lines, Problem

_IDLE_COUNTS = 2.0
"""What a second adds that all ranks idle: so that an order gets better before its makespan does."""

_ROUNDING = 1e-9


class Played(NamedTuple):
    """An answer's order, and how long it takes.

    Attributes:
        cost_s: what a search makes small: the makespan, and what ranks idle at the mean.
        makespan_s: seconds from the first op to the end of the last.
        lines: the order.

    """

    cost_s: float
    makespan_s: float
    lines: Lines


def play(problem: Problem, answer: Answer, worst_s: float = inf) -> Played | None:  # noqa: C901, PLR0912, PLR0915 - one loop, the search's hottest
    """Return the order of an answer with its times; None where its cost is above ``worst_s``, or nothing fits.

    Ops come to be in the order of their starts. The cost so far only grows, so that most answers end early.
    """
    rank_of, (forward_turn, input_turn) = answer.rank_of_stage, answer.turn
    micro_batches, last, hop_s = problem.micro_batches, answer.stages - 1, problem.hop_s
    until_s = problem.work_s(answer.cuts, rank_of)  # each rank's work and what it was idle
    cost_s, makespan_s, of_idle = 0.0, max(until_s), _IDLE_COUNTS / problem.ranks
    if makespan_s > worst_s:
        return None
    forward_s, input_s, weight_s = problem.stage_s(answer.cuts)
    room = None if problem.most_activations is None else _Room(problem, answer)
    ranks = range(problem.ranks)
    coming: list[list[tuple[float, int, float, int, int]]] = [[] for _ in ranks]  # by its moment
    forwards: list[list[tuple[float, int, int]]] = [[] for _ in ranks]  # ready, by its turn
    inputs: list[list[tuple[float, int, int]]] = [[] for _ in ranks]
    weights: list[list[tuple[int, int]]] = [[] for _ in ranks]
    done, free_s, next_s = [0] * problem.ranks, [0.0] * problem.ranks, [inf] * problem.ranks
    lines: Lines = [[] for _ in ranks]
    coming[rank_of[0]] = [(0.0, FORWARD, forward_turn[0] + i, 0, i) for i in range(micro_batches)]
    next_s[rank_of[0]] = 0.0
    left = answer.stages * micro_batches * (3 if problem.split else 2)
    while left:
        now = min(next_s)
        if now == inf:
            return None
        rank = next_s.index(now)
        arriving, ready_f, ready_i = coming[rank], forwards[rank], inputs[rank]
        while arriving and arriving[0][0] <= now:
            _, does, turn, stage, i = heappop(arriving)
            insort(ready_i if does else ready_f, (turn, stage, i))
        place = 0 if room is None or not ready_f else room.first_that_fits(rank, ready_f)
        to, handed = rank, None  # what is made, and for whom
        if ready_f and place >= 0 and (not ready_i or ready_f[place] <= ready_i[0]):
            does, (_, stage, i) = FORWARD, ready_f.pop(place)
            end_s = now + forward_s[stage]
            if stage < last:
                to, handed = rank_of[stage + 1], (FORWARD, forward_turn[stage + 1] + i, stage + 1, i)
            else:
                handed = (INPUT, input_turn[stage] + i, stage, i)
        elif ready_i:
            does, (_, stage, i) = INPUT, ready_i.pop(0)
            end_s = now + input_s[stage]
            if problem.split:
                weights[rank].append((stage, i))
            if stage:
                to, handed = rank_of[stage - 1], (INPUT, input_turn[stage - 1] + i, stage - 1, i)
        elif done[rank] < len(weights[rank]):
            does, (stage, i) = WEIGHT, weights[rank][done[rank]]
            end_s = now + weight_s[stage]
            done[rank] += 1
        else:  # what is there does not fit: a backward must come first
            next_s[rank] = arriving[0][0] if arriving else inf
            continue
        arrives_s = end_s if to == rank else end_s + hop_s
        if handed is not None:
            heappush(coming[to], (arrives_s, *handed))
        if room is not None:
            room.run(rank, does, stage, i)
        lines[rank].append((does, stage, i))
        left -= 1
        if now > free_s[rank]:
            until_s[rank] += now - free_s[rank]
            cost_s += of_idle * (now - free_s[rank])
            makespan_s = max(makespan_s, until_s[rank])
            if makespan_s + cost_s > worst_s:
                return None
        free_s[rank] = end_s
        more = ready_f or ready_i or done[rank] < len(weights[rank])
        next_s[rank] = end_s if more else max(end_s, arriving[0][0]) if arriving else inf
        if to != rank and next_s[to] > free_s[to]:
            next_s[to] = min(next_s[to], max(free_s[to], arrives_s))
    return Played(makespan_s + cost_s, max(free_s), lines)


class _Room:
    """What ranks hold, and what micro-batches under way will still hold."""

    def __init__(self, problem: Problem, answer: Answer) -> None:
        ranks = range(problem.ranks)
        self._most = (problem.most_activations or inf) + _ROUNDING
        self._of_stage = problem.activations(answer)
        self._until_weight = problem.split
        self._whole = [0.0 for _ in ranks]  # of one micro-batch, all stages of a rank
        for stage, rank in enumerate(answer.rank_of_stage):
            self._whole[rank] += self._of_stage[stage]
        self._held = [0.0 for _ in ranks]  # until W
        self._to_come: list[dict[int, float]] = [{} for _ in ranks]  # by micro-batch under way: what it will still hold
        self._kept: list[dict[int, float]] = [{} for _ in ranks]  # and what waits for its I

    def first_that_fits(self, rank: int, forwards: list[tuple[float, int, int]]) -> int:
        """Return the place of the first forward that may run now, or -1."""
        for place, (_, stage, i) in enumerate(forwards):
            if self._is_safe(rank, self._of_stage[stage], i):
                # (where W must make room first, no other forward may take the room that they make)
                return place if self._held[rank] + self._of_stage[stage] <= self._most else -1
        return -1

    def _is_safe(self, rank: int, size: float, micro_batch: int) -> bool:
        """Return whether all micro-batches can end one after the other if this one takes so much more."""
        to_come, kept = self._to_come[rank], self._kept[rank]
        free = self._most - sum(kept.values()) - size
        if free < 0:
            return False
        for one in sorted({*to_come, micro_batch}):
            own = size if one == micro_batch else 0.0
            if to_come.get(one, self._whole[rank]) - own > free:
                return False
            free += kept.get(one, 0.0) + own
        return True

    def run(self, rank: int, does: int, stage: int, micro_batch: int) -> None:
        """Take note of an op."""
        size, kept = self._of_stage[stage], self._kept[rank]
        if does == FORWARD:
            self._held[rank] += size
            kept[micro_batch] = kept.get(micro_batch, 0.0) + size
            self._to_come[rank][micro_batch] = self._to_come[rank].get(micro_batch, self._whole[rank]) - size
            return
        if does == INPUT:
            kept[micro_batch] -= size
            if kept[micro_batch] < _ROUNDING and self._to_come[rank][micro_batch] < _ROUNDING:
                del kept[micro_batch], self._to_come[rank][micro_batch]
        if does == (WEIGHT if self._until_weight else INPUT):
            self._held[rank] -= size
