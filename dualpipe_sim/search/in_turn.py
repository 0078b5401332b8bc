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

IDLE_COUNTS = 2.0
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


def play(problem: Problem, answer: Answer, worst_s: float = inf) -> Played | None:
    """Return the order of an answer with its times; None where its cost is above ``worst_s``, or nothing fits."""
    return _Play(problem, answer).to_the_end(worst_s)


class _Play:
    """One order while it comes to be, op by op in the order of their starts."""

    def __init__(self, problem: Problem, answer: Answer) -> None:
        ranks = range(problem.ranks)
        self._problem, self._rank_of, self._turn = problem, answer.rank_of_stage, answer.turn
        self._work_s = problem.work_s(answer.cuts, answer.rank_of_stage)
        self._stage_s = problem.stage_s(answer)
        self._room = None if problem.most_activations is None else _Room(problem, answer)
        # What has come to each rank by its moment, and is ready to run by its turn.
        self._coming: list[list[tuple[float, int, float, int, int]]] = [[] for _ in ranks]
        self._ready: tuple[list[list[tuple[float, int, int]]], ...] = ([[] for _ in ranks], [[] for _ in ranks])
        self._weights: list[list[tuple[int, int]]] = [[] for _ in ranks]
        self._weights_done = [0 for _ in ranks]
        self._free_s = [0.0 for _ in ranks]
        self._lines: Lines = [[] for _ in ranks]

    def to_the_end(self, worst_s: float) -> Played | None:  # noqa: C901, PLR0912, PLR0915 - one loop, the search's hottest
        """Run op after op, as long as the cost can still be below ``worst_s``."""
        problem, rank_of, (forward_s, input_s, weight_s) = self._problem, self._rank_of, self._stage_s
        micro_batches, last, hop_s = problem.micro_batches, len(rank_of) - 1, problem.hop_s
        (forward_turn, input_turn), (forwards, inputs) = self._turn, self._ready
        coming, weights, done, free_s, room = self._coming, self._weights, self._weights_done, self._free_s, self._room
        until_s, of_idle = list(self._work_s), IDLE_COUNTS / problem.ranks  # (work and what was idle)
        cost_s, makespan_s = 0.0, max(until_s)
        next_s = [inf] * problem.ranks
        coming[rank_of[0]] = [(0.0, FORWARD, forward_turn[0] + i, 0, i) for i in range(micro_batches)]
        next_s[rank_of[0]] = 0.0
        left = (last + 1) * micro_batches * (3 if problem.split else 2)
        if makespan_s > worst_s:
            return None
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
            if ready_f and place >= 0 and (not ready_i or ready_f[place] <= ready_i[0]):
                does, (_, stage, i) = FORWARD, ready_f.pop(place)
            elif ready_i:
                does, (_, stage, i) = INPUT, ready_i.pop(0)
            elif done[rank] < len(weights[rank]):
                does, (stage, i) = WEIGHT, weights[rank][done[rank]]
                done[rank] += 1
            else:  # what is there does not fit: a backward must come first
                next_s[rank] = arriving[0][0] if arriving else inf
                continue
            to = rank
            if does == FORWARD:
                end_s = now + forward_s[stage]
                if stage < last:
                    to, arrives = rank_of[stage + 1], (FORWARD, forward_turn[stage + 1] + i, stage + 1, i)
                else:
                    arrives = (INPUT, input_turn[stage] + i, stage, i)
                self._hand(arrives, rank, to, end_s, hop_s)
            elif does == INPUT:
                end_s = now + input_s[stage]
                if problem.split:
                    weights[rank].append((stage, i))
                if stage:
                    to = rank_of[stage - 1]
                    self._hand((INPUT, input_turn[stage - 1] + i, stage - 1, i), rank, to, end_s, hop_s)
            else:
                end_s = now + weight_s[stage]
            if room is not None:
                room.run(rank, does, stage, i)
            self._lines[rank].append((does, stage, i))
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
                next_s[to] = min(next_s[to], max(free_s[to], end_s + hop_s))
        return Played(makespan_s + cost_s, max(free_s), self._lines)

    def _hand(self, op: tuple[int, float, int, int], rank: int, to: int, at_s: float, hop_s: float) -> None:
        heappush(self._coming[to], (at_s if to == rank else at_s + hop_s, *op))


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
