"""From an order to an answer that plays much like it: where a walk begins from an order that is known to be good."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dualpipe_sim.order.ops import B, F, I, R, W
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.annealing.problem import FORWARD, INPUT, WEIGHT, Answer, Problem

_Op = tuple[int, int, int]
"""What it does, stage, micro-batch."""

_DOES = {F: (FORWARD,), I: (INPUT,), W: (WEIGHT,), B: (INPUT, WEIGHT), R: ()}


def as_answer(problem: Problem, cuts: Sequence[int], schedule: Schedule) -> Answer:
    """Return an answer whose turns are when a schedule's ops start, in micro-batches, at the mean over those.

    Args:
        problem: what is asked.
        cuts: the first layer of each of the schedule's stages and, last, the number of layers.
        schedule: an order of one pipe, of whole micro-batches.

    """
    rank_of_stage = tuple(int(rank) for rank in schedule.placement.rank_of_stage)
    period_s = max(problem.work_s(cuts, rank_of_stage)) / problem.micro_batches or 1.0
    turn = [[0.0] * len(rank_of_stage) for _ in range(3)]
    for (does, stage, micro_batch), start_s in _starts_s(problem, cuts, schedule):
        turn[does][stage] += (start_s / period_s - micro_batch) / problem.micro_batches
    again = set(schedule.stage[schedule.of_kinds(R)].tolist())
    return Answer(
        tuple(cuts),
        rank_of_stage,
        tuple(stage in again for stage in range(len(rank_of_stage))),
        tuple(map(tuple, turn)),
    )


def makespan_s(problem: Problem, cuts: Sequence[int], schedule: Schedule) -> float:
    """Return the makespan of a schedule in seconds."""
    lasts_s = problem.stage_s(cuts)
    return max(start_s + lasts_s[does][stage] for (does, stage, _), start_s in _starts_s(problem, cuts, schedule))


def _starts_s(problem: Problem, cuts: Sequence[int], schedule: Schedule) -> Iterator[tuple[_Op, float]]:
    """Yield the ops of a schedule with when each starts, as early as the order lets it."""
    lasts_s, last = problem.stage_s(cuts), len(cuts) - 2
    rank_of = schedule.placement.rank_of_stage
    lines = [
        [(does, op.stage, op.micro_batch) for task in line for op in task.ops for does in _DOES[op.kind]]
        for line in schedule.order
    ]
    end_s: dict[_Op, float] = {}
    place, free_s, moved = [0] * len(lines), [0.0] * len(lines), True
    while moved:
        moved = False
        for rank, line in enumerate(lines):
            while place[rank] < len(line):
                op = line[place[rank]]
                needed = _needed(op, last)
                if needed is not None and needed not in end_s:
                    break
                ready_s = 0.0
                if needed is not None:
                    ready_s = end_s[needed] + problem.hop_s * (rank_of[needed[1]] != rank)
                start_s = max(free_s[rank], ready_s)
                free_s[rank] = end_s[op] = start_s + lasts_s[op[0]][op[1]]
                place[rank], moved = place[rank] + 1, True
                yield op, start_s


def _needed(op: _Op, last: int) -> _Op | None:
    """Return the op that an op waits for."""
    does, stage, micro_batch = op
    if does == FORWARD:
        return (FORWARD, stage - 1, micro_batch) if stage else None
    if does == INPUT:
        return (INPUT, stage + 1, micro_batch) if stage < last else (FORWARD, stage, micro_batch)
    return INPUT, stage, micro_batch
