"""Orders of F and I to begin with: some forwards to warm up, then forwards and backwards in turn.

An order of this kind is given by how many forwards each rank runs before its first backward. More of them hide more of
the way down and back, and hold more activations. What is best depends on times, so several are made, and W are placed
in each.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator

from dualpipe_sim.schedules.zero_bubble.problem import ROUNDING, F, I, Lines, Problem

_STEPS = (1.0, 1.5, 2.0, 3.0)


def linear_orders(problem: Problem) -> Iterator[Lines]:
    """Yield orders for one stage a rank, with as much warm-up as the limit allows and with less.

    A rank's warm-up is so many forwards longer than the next rank's that the first backward finds no gap in front of
    it: 1 in ZB-H1, 2 in ZB-H2, else what times say.
    """
    for step in _steps(problem):
        yield in_turn(problem, [1 + _whole(step * (problem.ranks - 1 - rank)) for rank in range(problem.ranks)])
    yield in_turn(problem, _timed_warm_up(problem, beyond=0))
    yield in_turn(problem, _timed_warm_up(problem, beyond=1))


def v_orders(problem: Problem) -> Iterator[Lines]:
    """Yield orders for a V, with as much warm-up as the limit allows and with less; a step of 1 is ZB-V's."""
    ranks = problem.ranks
    for step in _steps(problem):
        # From the V's end, rank 0's second stage, back to its beginning, each stage warms up with ``step`` more.
        up = [1 + _whole(step * rank) for rank in range(ranks)]
        down = [up[-1] + _whole(step * (ranks - 1 - rank)) for rank in range(ranks)]
        yield v_in_turn(problem, down, up)


def in_turn(problem: Problem, warm_up: list[int]) -> Lines:
    """Return the order in which each rank runs so many forwards, then a backward and a forward in turn.

    ``warm_up`` has a number for each rank, of which memory allows ``most``. With 2 ranks, 3 micro-batches and warm-ups
    of 2 and 1, rank 0 runs 0F0 0F1 0I0 0F2 0I1 0I2.
    """
    most = _whole(problem.limit)

    def rank_line(rank: int, run: Callable[[int, int], None]) -> None:
        for _ in range(min(warm_up[rank], most)):
            run(F, rank)
        for _ in range(problem.micro_batches):
            run(I, rank)
            run(F, rank)

    return _write(problem, rank_line)


def v_in_turn(problem: Problem, down: list[int], up: list[int]) -> Lines:
    """Return ZB-V's order with other numbers of micro-batches in flight when the first backward runs.

    Args:
        problem: the sizes.
        down: forwards of each rank's first stage before its first backward.
        up: forwards of each rank's second stage before its first backward.

    """

    def rank_line(rank: int, run: Callable[[int, int], None]) -> None:
        first, second = rank, problem.stages - 1 - rank
        for _ in range(down[rank] - up[rank] + 1):
            run(F, first)
        for _ in range(up[rank] - 1):
            run(F, second)
            run(F, first)
        for _ in range(up[-1] - up[rank] + 1):
            run(F, second)
            run(I, second)
        for _ in range(problem.micro_batches):
            run(F, first)
            run(I, first)
            run(F, second)
            run(I, second)

    return _write(problem, rank_line)


def _write(problem: Problem, rank_line: Callable[[int, Callable[[int, int], None]], None]) -> Lines:
    """Write each rank's line down; a stage that has no micro-batch left sits its turn out.

    ``rank_line`` says what a rank runs by calls of ``run(kind, stage)``, which counts the micro-batches on.
    """
    lines: Lines = []
    for rank in range(problem.ranks):
        line: list[int] = []
        done: Counter[tuple[int, int]] = Counter()

        # (line and done are defaults, so that each rank's ``run`` keeps its own)
        def run(kind: int, stage: int, line: list[int] = line, done: Counter[tuple[int, int]] = done) -> None:
            if done[kind, stage] < problem.micro_batches:
                line.append(problem.code(kind, stage, done[kind, stage]))
                done[kind, stage] += 1

        rank_line(rank, run)
        lines.append(line)
    return lines


def _steps(problem: Problem) -> list[float]:
    """Return how many more forwards a rank may warm up with than the next one: as many as fit, and usual numbers."""
    most = (_whole(problem.limit / problem.share) * problem.share - 1) / max(problem.ranks - 1, 1)
    allowed = min(most, problem.micro_batches)
    return sorted({allowed, *(step for step in _STEPS if step < most or problem.share == 1)})


def _timed_warm_up(problem: Problem, beyond: int) -> list[int]:
    """Return the forwards that each rank has time for until its first backward can run, and so many beyond.

    From the last rank to the first, ``back_s`` is when the first micro-batch's gradient is there. A rank runs the
    forwards that end by then, at least one more than the rank after it, and its I follows.
    """
    ends = _forward_ends_s(problem)
    warm_up = [1]
    back_s = ends[-1][0] + problem.stage_s[I][-1]
    for rank in reversed(range(problem.ranks - 1)):
        back_s += problem.hop_s[rank]
        in_time = sum(end <= back_s + ROUNDING for end in ends[rank]) + beyond
        count = min(max(in_time, warm_up[-1] + 1), len(ends[rank]))
        warm_up.append(count)
        back_s = max(back_s, ends[rank][count - 1]) + problem.stage_s[I][rank]
    return warm_up[::-1]


def _forward_ends_s(problem: Problem) -> list[list[float]]:
    """Return when forwards would end if ranks ran nothing else, as many as the limit allows: ``ends[rank][n]``."""
    arrivals = [0.0] * min(_whole(problem.limit), problem.micro_batches)
    ends = []
    for forward_s, hop_s in zip(problem.stage_s[F], [*problem.hop_s, 0.0], strict=True):
        now_s, line = 0.0, []
        for arrival_s in arrivals:
            now_s = max(now_s, arrival_s) + forward_s
            line.append(now_s)
        ends.append(line)
        arrivals = [end_s + hop_s for end_s in line]
    return ends


def _whole(number: float) -> int:
    return math.floor(number + ROUNDING)
