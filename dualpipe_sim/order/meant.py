"""What an order that may have mistakes is meant to be: its placement and its micro-batches, by what most of it says."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import TypeAlias

from dualpipe_sim.base.units import number_of
from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.ops import Op
from dualpipe_sim.order.placement import Placement, PlacementName, named, stages_to_fill

_ON_TWO_STAGES = 4  # uses of a micro-batch

NOWHERE = -1
"""The rank of a stage without any op."""

Rows: TypeAlias = Sequence[Sequence[tuple[Op, ...]]]
"""One row a rank, of cells: each the ops of a task, or nothing where the cell is junk."""


def meant_placement(rows: Rows, name: PlacementName) -> Placement:
    """Return where the stages are.

    Raises:
        ScheduleError: a number of stages that the placement of this name cannot have.

    """
    stages = stages_to_fill(name, len(rows), _numbers(Counter(op.stage for _, op in _ops(rows))))
    if name != "explicit":
        return named(name, len(rows), stages)
    ranks_of_stage: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for rank, op in _ops(rows):
        ranks_of_stage[op.stage][rank] += 1
    # A stage is where most of its ops are; one without any is reported as missing.
    home = [ranks_of_stage[stage].most_common(1) for stage in range(stages)]
    return Placement(len(rows), (tuple(ranks[0][0] if ranks else NOWHERE for ranks in home),))


def meant_micro_batches(rows: Rows, placement: Placement, micro_batches: int | None) -> tuple[int, ...]:
    """Return the micro-batches of each pipe: those that the user expects of all pipes together, or those there are.

    Raises:
        ScheduleError: a number that cannot be dealt out to the pipes.

    """
    pipes = len(placement.pipes)
    if micro_batches is not None:
        if micro_batches < 1 or micro_batches % pipes:
            raise ScheduleError(
                f"micro-batches must be a positive multiple of the {number_of(pipes, 'pipe')}, got {micro_batches}"
            )
        return (micro_batches // pipes,) * pipes
    pipe_of_stage = placement.pipe_of_stage.tolist()
    uses: list[Counter[int]] = [Counter() for _ in range(pipes)]
    for _, op in _ops(rows):
        if op.stage < placement.stages:
            uses[pipe_of_stage[op.stage]][op.micro_batch] += 1
    return tuple(_numbers(used) for used in uses)


def meant_slices(rows: Rows) -> int:
    """Return how many slices micro-batches are cut into; 1 where no op names one."""
    uses = Counter(op.slice for _, op in _ops(rows) if op.slice is not None)
    return max(2, _numbers(uses)) if uses else 1


def _numbers(uses: Mapping[int, int]) -> int:
    """Return how many numbers from 0 on are meant: one far above the others is a slip and not a size.

    So is a last one that is used once, where others have an F and a B on several stages.
    """
    used = sorted(uses)
    full = [number + 1 for place, number in enumerate(used) if uses[number] > 1 and number <= 2 * place + 1]
    if full and max(uses.values()) >= _ON_TWO_STAGES:
        return max(full)
    return next(number for number in count(max(full, default=1)) if number not in uses)


def _ops(rows: Rows) -> Iterator[tuple[int, Op]]:
    for rank, row in enumerate(rows):
        for cell in row:
            for op in cell:
                yield rank, op
