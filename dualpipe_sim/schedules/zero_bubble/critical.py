"""Improve an order along its critical path: move ops that its end waits for, keep what helps.

The critical path of an order is a chain of ops without a gap that leads to its end. It crosses ranks; its part on one
rank is a stretch. Only a change of the chain can bring the end forward, so only moves at stretches are tried: a W out
of the chain or into a gap before it, and an exchange of neighbours at either end of a stretch. A search like this is
known from job-shop scheduling. The first move that makes the order better is kept, and the search begins anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dualpipe_sim.schedules.zero_bubble.problem import ROUNDING, Problem, Trial, W, play

_GAPS = 3  # so many of the longest gaps before the last stretch are tried


class Stretch(NamedTuple):
    """Ops of one rank on the critical path that run without a gap: ``line[first]`` up to and with ``line[last]``."""

    rank: int
    first: int
    last: int


class Move(NamedTuple):
    """One op of a rank's line taken out and put where another is now."""

    rank: int
    source: int
    target: int


def improve(problem: Problem, trial: Trial, tries: int) -> Trial:
    """Return the order after moves along its critical path, each of which made it better.

    Args:
        problem: times and limit.
        trial: the order to begin with.
        tries: how many moves to try at most.

    """
    while True:
        for move in moves(problem, trial):
            if tries == 0:
                return trial
            tries -= 1
            moved = _moved(problem, trial, move)
            if moved is not None and moved.score < trial.score:
                trial = moved
                break
        else:
            return trial


def moves(problem: Problem, trial: Trial) -> Iterator[Move]:
    """Yield moves that may shorten the longest span, or else the makespan, those nearest to the end first.

    The last stretch (number 0) ends the line, so to change the order at its end would not end the line any earlier.
    """
    ends = [trial.end_s[line[-1]] for line in trial.lines]
    spans = [end - _start_s(problem, trial, line[0]) for end, line in zip(ends, trial.lines, strict=True)]
    for rank in dict.fromkeys((spans.index(max(spans)), ends.index(max(ends)))):
        for number, stretch in enumerate(critical_stretches(problem, trial, rank)):
            if number > 0:
                yield from _weight_later(problem, trial, stretch)
                yield from _swap(problem, trial, stretch, stretch.last - 1)
            yield from _weight_earlier(problem, trial, stretch, 1 if number else _GAPS)
            yield from _swap(problem, trial, stretch, stretch.first)


def critical_stretches(problem: Problem, trial: Trial, rank: int) -> list[Stretch]:
    """Return the chain of ops without a gap that ends a rank's line, rank by rank, the last stretch first.

    It walks back from the line's last op. If an op starts the moment its input arrives from another rank, the stretch
    begins here and the chain goes on at the op that made the input; else it goes on at the op before it on the rank, if
    that ends when this one starts; else the chain begins here.
    """
    lines, end_s = trial.lines, trial.end_s
    place = {code: index for line in lines for index, code in enumerate(line)}
    stretches = []
    index = last = len(lines[rank]) - 1
    while True:
        code = lines[rank][index]
        start_s = _start_s(problem, trial, code) - ROUNDING
        producer = problem.waits_for[code]
        if producer >= 0 and problem.rank(producer) != rank and end_s[producer] + problem.delay_s[code] >= start_s:
            stretches.append(Stretch(rank, index, last))
            rank = problem.rank(producer)
            index = last = place[producer]
        elif index > 0 and end_s[lines[rank][index - 1]] >= start_s:
            index -= 1
        else:
            return [*stretches, Stretch(rank, index, last)]


def _weight_later(problem: Problem, trial: Trial, stretch: Stretch) -> Iterator[Move]:
    """Yield moves of a stretch's last W behind the stretch, into the next gap that holds it, and to the end.

    Taken out of the stretch, it lets the ops behind it in the stretch start earlier.
    """
    line = trial.lines[stretch.rank]
    source = next((k for k in range(stretch.last, stretch.first - 1, -1) if problem.kind(line[k]) == W), None)
    if source is None:
        return
    duration_s = problem.duration_s[line[source]] - ROUNDING
    later = range(stretch.last + 1, len(line))
    gap = next((k for k in later if _wait_s(problem, trial, stretch.rank, k) >= duration_s), len(line))
    # (targets count in the line without the W, so what stood at ``gap`` is then at ``gap - 1``)
    for target in sorted({stretch.last, gap - 1, len(line) - 1}):
        yield Move(stretch.rank, source, target)


def _weight_earlier(problem: Problem, trial: Trial, stretch: Stretch, gaps: int) -> Iterator[Move]:
    """Yield moves of a stretch's first W that is ready into the longest gaps before it.

    A W is ready in a gap if its I stands before the gap.
    """
    line = trial.lines[stretch.rank]
    place = {code: index for index, code in enumerate(line)}
    weights = [k for k in range(stretch.first, stretch.last + 1) if problem.kind(line[k]) == W]
    # Negative, so that the longest gap sorts first.
    waits = [(-_wait_s(problem, trial, stretch.rank, k), k) for k in range(1, stretch.first + 1)]
    for _, gap in sorted(wait for wait in waits if wait[0] < -ROUNDING)[:gaps]:
        source = next((k for k in weights if place[problem.waits_for[line[k]]] < gap), None)
        if source is not None:
            yield Move(stretch.rank, source, gap)


def _swap(problem: Problem, trial: Trial, stretch: Stretch, index: int) -> Iterator[Move]:
    """Yield the exchange of an op in a stretch with the next, unless that one is a W or of the same kind and stage."""
    line = trial.lines[stretch.rank]
    if stretch.first <= index < len(line) - 1:
        before, after = line[index], line[index + 1]
        if problem.kind(after) != W and before // problem.micro_batches != after // problem.micro_batches:
            yield Move(stretch.rank, index + 1, index)


def _moved(problem: Problem, trial: Trial, move: Move) -> Trial | None:
    """Return the order after a move, or None where the limit forbids it or ranks wait for each other."""
    line = list(trial.lines[move.rank])
    line.insert(move.target, line.pop(move.source))
    if not problem.fits(line):
        return None
    lines = list(trial.lines)
    lines[move.rank] = line
    return play(problem, lines)


def _start_s(problem: Problem, trial: Trial, code: int) -> float:
    return trial.end_s[code] - problem.duration_s[code]


def _wait_s(problem: Problem, trial: Trial, rank: int, index: int) -> float:
    """Seconds that a rank is idle before an op of its line that is not the first."""
    line = trial.lines[rank]
    return _start_s(problem, trial, line[index]) - trial.end_s[line[index - 1]]
