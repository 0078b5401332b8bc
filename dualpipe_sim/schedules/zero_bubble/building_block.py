"""Orders made from a building block: one micro-batch's ops in slots, repeated, then squeezed.

Qi et al., NeurIPS 2024, https://arxiv.org/abs/2405.15362. Time is cut into slots of one stage's op each. A block lays
the four ops that pass a micro-batch's tensors on into slots of each rank: F down the V and up again, I back down and up
the V. Every six slots the next micro-batch does the same. A rank has six ops of a micro-batch, F, I and W of two
stages, so if no two of them are in the same slot modulo 6, the repeated blocks fill its slots exactly. How long a block
keeps its activations says how many are live in the steady state.

The blocks' first and last micro-batches leave slots empty. :func:`squeezed` pulls ops into them, as far as each rank
holds no more than before.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import NamedTuple, TypeAlias

from dualpipe_sim.order.op_times import OpTimes
from dualpipe_sim.order.placement import v_shape
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.zero_bubble.problem import NOTHING, F, I, Lines, Problem, W
from dualpipe_sim.schedules.zero_bubble.weights import place_weights

PERIOD = 6
"""Slots from one micro-batch's block to the next one's."""

Row: TypeAlias = dict[int, int]
"""One rank's ops by slot."""


class Slots(NamedTuple):
    """Slots of the first micro-batch on one rank; down and up are the rank's first and second stage.

    The micro-batch passes them in this order: through all ranks' first stages, back through their second ones, and as a
    gradient through the second ones and the first ones.
    """

    forward_down: int
    forward_up: int
    input_up: int
    input_down: int


SlotsOf: TypeAlias = Callable[[int, int], Slots]
"""The slots of a rank, by (ranks, rank)."""


def build_v(ranks: int, micro_batches: int, slots_of: SlotsOf) -> Schedule:
    """Return the schedule of a building block, with the weights where unit times leave a gap."""
    placement = v_shape(ranks)
    times = OpTimes.uniform(placement)
    problem = Problem(placement, micro_batches, times, limit=ranks * micro_batches, deferred=1.0)
    lines, peak = squeezed(problem, slots_of)
    within = Problem(placement, micro_batches, times, limit=peak * problem.share, deferred=1.0)
    trial = place_weights(within, lines)
    if trial is None:
        raise AssertionError(f"a building block deadlocks at {ranks} ranks and {micro_batches} micro-batches")
    return within.schedule(trial.lines)


def squeezed(problem: Problem, slots_of: SlotsOf) -> tuple[Lines, int]:
    """Return the order of F and I, and the most (stage, micro-batch) pairs that a rank holds."""
    rows = [_repeated(problem, rank, slots_of(problem.ranks, rank)) for rank in range(problem.ranks)]
    peaks = _pull_earlier(problem, rows)
    lines = [[row[slot] for slot in sorted(row) if problem.kind(row[slot]) != W] for row in rows]
    return lines, max(peaks)


def block(ranks: int, rank: int, of_first: Slots) -> dict[tuple[int, int], int]:
    """Return the slots of a rank's first ops by (kind, stage), each W in the first free one behind its I."""
    down, up = rank, 2 * ranks - 1 - rank
    kinds = ((F, down), (F, up), (I, up), (I, down))
    start = {(kind, stage): slot for (kind, stage), slot in zip(kinds, of_first, strict=True)}
    taken = {slot % PERIOD for slot in of_first}
    for stage in (up, down):
        # One of six slots in a row is free, since at most five of the rank's six ops have theirs.
        free = next(slot for slot in range(start[I, stage], start[I, stage] + PERIOD) if slot % PERIOD not in taken)
        taken.add(free % PERIOD)
        start[W, stage] = free
    return start


def _repeated(problem: Problem, rank: int, of_first: Slots) -> Row:
    """Return a rank's ops of all micro-batches."""
    return {
        slot + PERIOD * micro_batch: problem.code(kind, stage, micro_batch)
        for (kind, stage), slot in block(problem.ranks, rank, of_first).items()
        for micro_batch in range(problem.micro_batches)
    }


def _pull_earlier(problem: Problem, rows: list[Row]) -> list[int]:
    """Pull each op, in the order of slots, into an earlier free one while its rank's peak does not grow.

    An op stays after the op that it waits for, and after the same op of the micro-batch before. If an F is pulled from
    slot s to slot t, its pair is in flight in slots t to s - 1 as well; if a W is, its pair no longer is there.

    Returns:
        The most pairs that each rank holds.

    """
    slot_of = {code: slot for row in rows for slot, code in row.items()}
    in_flight = [_in_flight(problem, row, max(slot_of.values()) + 1) for row in rows]
    peaks = [max(levels) for levels in in_flight]
    for slot, rank in sorted((slot, rank) for rank, row in enumerate(rows) for slot in row):
        row, code, levels = rows[rank], rows[rank][slot], in_flight[rank]
        ready = max(_slot_before(problem, slot_of, code), _slot_of_previous(problem, slot_of, code)) + 1
        target = slot
        if problem.kind(code) == F:
            # From its slot on backwards, as far as there is room for its activation in every slot on the way.
            earlier = slot - 1
            while earlier >= ready and levels[earlier] < peaks[rank]:
                target = target if earlier in row else earlier
                earlier -= 1
        else:
            target = next((free for free in range(ready, slot) if free not in row), slot)
        if target < slot:
            row[target] = row.pop(slot)
            slot_of[code] = target
            change = (1, 0, -1)[problem.kind(code)]
            for between in range(target, slot):
                levels[between] += change
    return peaks


def _in_flight(problem: Problem, row: Row, slots: int) -> list[int]:
    """(Stage, micro-batch) pairs in flight on a rank in each slot, from 0 on; a pair stays until its W."""
    change = {slot: (1, 0, -1)[problem.kind(code)] for slot, code in row.items()}
    return list(accumulate(change.get(slot, 0) for slot in range(slots)))


def _slot_before(problem: Problem, slot_of: dict[int, int], code: int) -> int:
    """Return the slot of the op that an op waits for, or -1."""
    producer = problem.waits_for[code]
    return NOTHING if producer == NOTHING else slot_of[producer]


def _slot_of_previous(problem: Problem, slot_of: dict[int, int], code: int) -> int:
    """Return the slot of the same kind and stage's op of the micro-batch before, or -1."""
    return NOTHING if code % problem.micro_batches == 0 else slot_of[code - 1]
