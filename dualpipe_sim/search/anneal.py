"""Simulated annealing over partitions, placements and turns. Kirkpatrick et al., Science 220 (1983).

A move changes one thing: where a stage is cut, which rank it lies on, how many stages there are, or whose turn it is. A
worse order is taken now and then, less often as it cools down. How much worse it may be is drawn first, so that most
moves are seen to be too bad by their work alone, or before their order is played to its end.
"""

from __future__ import annotations

from bisect import insort
from math import inf, log
from random import Random

from dualpipe_sim.search.in_turn import play
from dualpipe_sim.search.problem import Answer, Problem

_COLDEST = 5e-5  # parts of the mean work of a rank
_JUMPS = (1.0, 5.0, 20.0)  # spreads of a turn's move, in micro-batches


def anneal(problem: Problem, start: Answer, moves: int, hottest: float, random: Random) -> Answer:
    """Return the best answer met on a walk of so many moves.

    Args:
        problem: what is asked.
        start: where the walk begins.
        moves: how many changes are tried.
        hottest: how much worse an order may be at first that is taken every e-th time, in parts of a rank's mean work.
        random: what draws the moves.

    """
    played = play(problem, start)
    now, now_s = start, inf if played is None else played.cost_s
    best, best_s = now, now_s
    cooling = (_COLDEST / hottest) ** (1 / max(moves, 1))
    heat_s = hottest * problem.mean_work_s
    for _ in range(moves):
        heat_s *= cooling
        answer = _moved(now, problem, random)
        if answer is None or len(set(answer.rank_of_stage)) < problem.ranks:  # (each rank has its part)
            continue
        worst_s = now_s - heat_s * log(1.0 - random.random())
        played = play(problem, answer, worst_s)
        if played is not None and played.cost_s <= worst_s:
            now, now_s = answer, played.cost_s
            if now_s < best_s:
                best, best_s = now, now_s
    return best


def _moved(answer: Answer, problem: Problem, random: Random) -> Answer | None:
    """Return an answer with one thing changed, or None where that cannot be."""
    which = random.random()
    if which < 0.35:
        return _cut_elsewhere(answer, random)
    if which < 0.6:
        return _placed_elsewhere(answer, problem, random)
    if which < 0.63:
        return _cut_more_or_less(answer, problem, random)
    return _in_other_turn(answer, random)


def _cut_elsewhere(answer: Answer, random: Random) -> Answer | None:
    """Move one cut, or all of a row of cuts, by a layer."""
    if answer.stages == 1:
        return None
    first = random.randrange(1, answer.stages)
    last = first if random.random() < 0.7 else random.randrange(first, answer.stages)
    step = random.choice((-1, 1))
    cuts = [cut + step if first <= place <= last else cut for place, cut in enumerate(answer.cuts)]
    if cuts[first - 1] >= cuts[first] or cuts[last] >= cuts[last + 1]:
        return None
    return answer._replace(cuts=tuple(cuts))


def _placed_elsewhere(answer: Answer, problem: Problem, random: Random) -> Answer | None:
    """Let two stages change ranks, or move one to another rank."""
    ranks, one = list(answer.rank_of_stage), random.randrange(answer.stages)
    if random.random() < 0.6:
        other = random.randrange(answer.stages)
        ranks[one], ranks[other] = ranks[other], ranks[one]
    else:
        ranks[one] = random.randrange(problem.ranks)
    return None if tuple(ranks) == answer.rank_of_stage else answer._replace(rank_of_stage=tuple(ranks))


def _cut_more_or_less(answer: Answer, problem: Problem, random: Random) -> Answer | None:
    """Cut a stage in two, of which one goes to another rank, or join two."""
    cuts, ranks, turns = list(answer.cuts), list(answer.rank_of_stage), [list(turn) for turn in answer.turn]
    if random.random() < 0.5:
        if answer.stages >= problem.most_stages:
            return None
        at = random.randrange(1, problem.layers)
        if at in answer.cuts:
            return None
        insort(cuts, at)
        stage = cuts.index(at) - 1
        ranks.insert(stage + random.randrange(2), random.randrange(problem.ranks))
        for turn in turns:
            turn.insert(stage, turn[stage])
    else:
        if answer.stages <= problem.ranks:
            return None
        stage = random.randrange(1, answer.stages)
        del cuts[stage]
        del ranks[stage - random.randrange(2)]
        for turn in turns:
            del turn[stage - random.randrange(2)]
    forward, backward = map(tuple, turns)
    return Answer(tuple(cuts), tuple(ranks), (forward, backward))


def _in_other_turn(answer: Answer, random: Random) -> Answer:
    """Let ops of some stages come earlier or later."""
    turns = [list(turn) for turn in answer.turn]
    for _ in range(random.choice((1, 1, 2, 4))):
        turns[random.randrange(2)][random.randrange(answer.stages)] += random.gauss(0.0, random.choice(_JUMPS))
    forward, backward = map(tuple, turns)
    return answer._replace(turn=(forward, backward))


def begun(problem: Problem, stages: int) -> Answer:
    """Return where a walk begins: stages of as many layers, one after the other on the ranks, round and round.

    Without a limit forwards of early stages come first; with one, backwards do, so that little is held.
    """
    cuts = tuple(round(problem.layers * stage / stages) for stage in range(stages + 1))
    ranks = tuple(stage % problem.ranks for stage in range(stages))
    early = 1.0 if problem.most_activations is None else -1.0
    backward_first = 2.0 * problem.micro_batches + stages if problem.most_activations is not None else 0.0
    forward = tuple(early * stage for stage in range(stages))
    backward = tuple(2.0 * stages - stage - 2 * problem.micro_batches - backward_first for stage in range(stages))
    return Answer(cuts, ranks, (forward, backward))
