"""Simulated annealing over partitions, placements and turns. Kirkpatrick et al., Science 220 (1983).

A move changes one thing: where a stage is cut, which rank it lies on, how many stages there are, whether its forward
runs again, or whose turn it is. A worse order is taken now and then, less often as it cools down. How much worse it may
be is drawn first, so that most moves are seen to be too bad by their work alone, or before their order is played to its
end. What changes an answer returns whether it could.
"""

from __future__ import annotations

from itertools import accumulate
from math import inf, log, sqrt
from typing import NamedTuple

from dualpipe_sim.base.compiled import Ints, compiled, ints
from dualpipe_sim.schedules.annealing.in_turn import Asked, Desk, Slate, answer_on, asked_of, desk_for, played, slate_of
from dualpipe_sim.schedules.annealing.problem import Answer, Problem

_COLDEST = 5e-5  # parts of the mean work of a rank
_TOGGLES = 0.04  # of moves, where forwards may run again
_LAZY = 20.0  # micro-batches that weights stand back at first
_STRETCH = 3.0  # times that one micro-batch alone takes


class Rules(NamedTuple):
    """How a walk goes.

    Attributes:
        most_stages: most stages that the model may be cut into.
        moves: how many changes are tried.
        hottest_s: how much worse an order may be at first that is taken every e-th time.
        cooling: what that is multiplied with at each move.
        recompute: whether forwards may run again.
        turns_only: whether the stages stay as they are.
        aim_s: a makespan that is short enough.

    """

    most_stages: int
    moves: int
    hottest_s: float
    cooling: float
    recompute: bool
    turns_only: bool
    aim_s: float


def anneal(
    problem: Problem,
    start: Answer,
    moves: int,
    hottest: float,
    seeds: tuple[int, int],
    *,
    turns_only: bool = False,
    aim_s: float = 0.0,
) -> Answer:
    """Return the answer with the shortest makespan met on a walk of so many moves.

    Args:
        problem: what is asked.
        start: where the walk begins.
        moves: how many changes are tried.
        hottest: how much worse an order may be at first that is taken every e-th time, in parts of a rank's mean work.
        seeds: two numbers from 1 to 2e9, which all that is drawn follows from.
        turns_only: whether the stages stay as they are.
        aim_s: a makespan that is short enough.

    """
    most_stages = max(problem.most_stages, start.stages)
    desk = desk_for(problem, most_stages)
    now, new, best = (slate_of(problem, start) for _ in range(3))
    heat_s = hottest * problem.mean_work_s
    cooling = (_COLDEST / hottest) ** (1 / max(moves, 1))
    rules = Rules(most_stages, moves, heat_s, cooling, problem.recompute, turns_only, aim_s)
    walk(asked_of(problem), rules, now, new, best, desk, ints(seeds))
    return answer_on(best)


@compiled
def walk(asked: Asked, rules: Rules, now: Slate, new: Slate, best: Slate, desk: Desk, seeds: Ints) -> None:
    """Walk on from ``now``; ``best`` is then the best met. ``new`` is where a move is tried."""
    heat_s = rules.hottest_s
    now_s, best_s = played(asked, now, desk, inf)
    for _ in range(rules.moves):
        if best_s <= rules.aim_s:
            return
        heat_s *= rules.cooling
        _copy(now, new)
        if not _moved(asked, rules, new, seeds) or not _all_have_some(asked, new):
            continue
        worst_s = now_s - heat_s * log(_drawn(seeds))
        cost_s, makespan_s = played(asked, new, desk, worst_s)
        if cost_s <= worst_s and cost_s < inf:
            now_s = cost_s
            _copy(new, now)
            if makespan_s < best_s:
                best_s = makespan_s
                _copy(new, best)


@compiled
def _moved(asked: Asked, rules: Rules, slate: Slate, seeds: Ints) -> bool:
    """Change one thing."""
    which = 1.0 if rules.turns_only else _drawn(seeds)
    if rules.recompute:
        if which < _TOGGLES:
            stage = _below(seeds, slate.stages[0])
            slate.again[stage] = 1 - slate.again[stage]
            return True
        which = (which - _TOGGLES) / (1.0 - _TOGGLES)
    if which < 0.35:
        return _cut_elsewhere(slate, seeds)
    if which < 0.6:
        return _placed_elsewhere(asked, slate, seeds)
    if which < 0.615:
        return _cut_in_two(asked, rules, slate, seeds)
    if which < 0.63:
        return _joined(asked, slate, seeds)
    for _ in range((1, 1, 2, 4)[_below(seeds, 4)]):
        spread = (1.0, 5.0, 20.0)[_below(seeds, 3)]  # in micro-batches
        row = 3 * _below(seeds, slate.stages[0]) + _below(seeds, 3 if asked.split else 2)
        slate.turn[row] += spread * _bell(seeds)
    return True


@compiled
def _cut_elsewhere(slate: Slate, seeds: Ints) -> bool:
    """Move one cut, or all of a row of cuts, by a layer."""
    stages, cuts = slate.stages[0], slate.cuts
    if stages == 1:
        return False
    first = last = 1 + _below(seeds, stages - 1)
    if _drawn(seeds) < 0.3:
        last = first + _below(seeds, stages - first)
    step = -1 if _drawn(seeds) < 0.5 else 1
    for place in range(first, last + 1):
        cuts[place] += step
    return bool(cuts[first - 1] < cuts[first] and cuts[last] < cuts[last + 1])


@compiled
def _placed_elsewhere(asked: Asked, slate: Slate, seeds: Ints) -> bool:
    """Let two stages change ranks, or move one to another rank."""
    stages, rank_of = slate.stages[0], slate.rank_of
    one = _below(seeds, stages)
    before = rank_of[one]
    if _drawn(seeds) < 0.6:
        other = _below(seeds, stages)
        rank_of[one], rank_of[other] = rank_of[other], before
    else:
        rank_of[one] = _below(seeds, asked.ranks)
    return bool(rank_of[one] != before)


@compiled
def _cut_in_two(asked: Asked, rules: Rules, slate: Slate, seeds: Ints) -> bool:
    """Cut a stage in two, of which one goes to another rank."""
    stages = slate.stages[0]
    if stages >= rules.most_stages:
        return False
    at = 1 + _below(seeds, asked.layers - 1)
    stage = 0
    while slate.cuts[stage + 1] <= at:
        stage += 1
    if slate.cuts[stage] == at:
        return False
    for place in range(stages, stage, -1):
        slate.cuts[place + 1] = slate.cuts[place]
        _stage_to(slate, place - 1, place)
    slate.cuts[stage + 1] = at
    slate.rank_of[stage + _below(seeds, 2)] = _below(seeds, asked.ranks)
    slate.stages[0] = stages + 1
    return True


@compiled
def _joined(asked: Asked, slate: Slate, seeds: Ints) -> bool:
    """Join two neighbours, on the rank of one of them."""
    stages = slate.stages[0]
    if stages <= asked.ranks:
        return False
    stage = 1 + _below(seeds, stages - 1)
    if _drawn(seeds) < 0.5:
        _stage_to(slate, stage, stage - 1)
    for place in range(stage, stages):
        slate.cuts[place] = slate.cuts[place + 1]
        if place + 1 < stages:
            _stage_to(slate, place + 1, place)
    slate.stages[0] = stages - 1
    return True


@compiled
def _stage_to(slate: Slate, stage: int, place: int) -> None:
    """Let all that is said of a stage be said of another."""
    slate.rank_of[place] = slate.rank_of[stage]
    slate.again[place] = slate.again[stage]
    for does in range(3):
        slate.turn[3 * place + does] = slate.turn[3 * stage + does]


@compiled
def _copy(one: Slate, other: Slate) -> None:
    """Make the other slate say what one says."""
    stages = other.stages[0] = one.stages[0]
    other.stages[1] = one.stages[1]
    for stage in range(stages):
        other.cuts[stage + 1] = one.cuts[stage + 1]
        other.rank_of[stage] = one.rank_of[stage]
        other.again[stage] = one.again[stage]
    for row in range(3 * stages):
        other.turn[row] = one.turn[row]


@compiled
def _all_have_some(asked: Asked, slate: Slate) -> bool:
    """Return whether each rank has a stage."""
    for rank in range(asked.ranks):
        some = False
        for stage in range(slate.stages[0]):
            some = some or slate.rank_of[stage] == rank
        if not some:
            return False
    return True


@compiled
def _drawn(seeds: Ints) -> float:
    """Draw a number between 0 and 1, neither included. L'Ecuyer, CACM 31 (1988), figure 3.

    A generator of its own, since it draws the same whether it is compiled or not.
    """
    seeds[0] = 40014 * seeds[0] % 2147483563
    seeds[1] = 40692 * seeds[1] % 2147483399
    return float(((seeds[0] - seeds[1]) % 2147483562 + 1) / 2147483564.0)


@compiled
def _below(seeds: Ints, count: int) -> int:
    """Draw a whole number from 0 on, below a count."""
    return int(_drawn(seeds) * count)


@compiled
def _bell(seeds: Ints) -> float:
    """Draw from nearly a normal distribution of mean 0 and deviation 1: a sum of six even draws."""
    total = 0.0
    for _ in range(6):
        total += _drawn(seeds)
    return (total - 3.0) * sqrt(2.0)


def begun(problem: Problem, stages: int, *, zigzag: bool = False, deep_first: bool = False) -> Answer:
    """Return where a walk begins: stages of as many layers, one after the other on the ranks, round and round.

    Args:
        problem: what is asked.
        stages: how many.
        zigzag: whether every other round goes backwards, as in V and W shapes.
        deep_first: whether micro-batches go on before others begin, so that little is held; else forwards of early
            stages come first.

    """
    ranks, micro_batches = problem.ranks, problem.micro_batches
    cuts = tuple(round(problem.layers * stage / stages) for stage in range(stages + 1))
    turns = [divmod(stage, ranks) for stage in range(stages)]
    rank_of_stage = tuple(ranks - 1 - rank if zigzag and around % 2 else rank for around, rank in turns)
    early, sooner = (-1.0, 2.0 * micro_batches + stages) if deep_first else (1.0, 0.0)
    forward = tuple(early * stage for stage in range(stages))
    backward = tuple(2.0 * stages - stage - 2 * micro_batches - sooner for stage in range(stages))
    weight = tuple(turn + _LAZY for turn in backward)
    return Answer(cuts, rank_of_stage, (False,) * stages, (forward, backward, weight))


def spread_out(problem: Problem, stages: int, *, zigzag: bool = False) -> Answer:
    """Return another such beginning, whose ranks wait for forwards in turn.

    Turns are when one micro-batch alone would run its ops, several times as slowly; so those of many fit between.
    """
    answer = begun(problem, stages, zigzag=zigzag)
    forward_s, input_s, _ = problem.stage_s(answer.cuts)
    in_turns = _STRETCH * problem.micro_batches / (problem.mean_work_s or 1.0)
    starts = [seconds * in_turns for seconds in accumulate([*forward_s, *reversed(input_s)], initial=0.0)]
    backward = tuple(reversed(starts[stages : 2 * stages]))
    turn = tuple(starts[:stages]), backward, tuple(start + 1.0 for start in backward)
    return answer._replace(turn=turn, waits=True)
