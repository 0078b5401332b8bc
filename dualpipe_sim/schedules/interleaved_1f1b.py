"""Interleaved 1F1B. Narayanan et al. 2021, https://arxiv.org/abs/2104.04473, figure 4 (bottom)."""

from collections.abc import Iterator
from typing import NamedTuple

from dualpipe_sim.base.units import number_of
from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.placement import loop
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import of_loop


def default_group(ranks: int, micro_batches: int) -> int | None:
    """Micro-batches that run through a stage before the next stage's turn, by torch's rule; None where not whole."""
    rounds = max(1, micro_batches // ranks)
    return micro_batches // rounds if micro_batches % rounds == 0 else None


def accepts(ranks: int, micro_batches: int, group: int | None = None) -> bool | str:
    """Whether groups come out whole, or why a group that is asked for cannot be."""
    if group is None:
        return default_group(ranks, micro_batches) is not None
    if group > micro_batches:
        return f"group {group} is more than {number_of(micro_batches, 'micro-batch')}"
    if group < ranks:
        return f"group {group} is less than {number_of(ranks, 'rank')}, which would wait for each other in a circle"
    if 0 < (ragged := micro_batches % group) < ranks:
        return f"group {group} leaves a last group of {ragged}, less than {number_of(ranks, 'rank')}"
    return True


REQUIRES = (
    "micro-batches that split into whole groups (a multiple of ranks always does; "
    "with option group: ranks ≤ group ≤ micro-batches, and a last group of 0 or at least ranks)"
)


class Turns(NamedTuple):
    """Whose turn it is on a rank.

    Attributes:
        forwards: stage of each of its forwards, in the order they run.
        backwards: stage of each of its backwards.
        filling: forwards until its last stage's first turn.

    """

    forwards: list[int]
    backwards: list[int]
    filling: int


def turns_by_rank(
    name: str, ranks: int, micro_batches: int, stages_per_rank: int, group: int | None
) -> Iterator[tuple[int, Turns]]:
    """Yield each rank with its turns; a schedule's name is for the refusal of fewer than two stages a rank."""
    if stages_per_rank < 2:
        raise ScheduleError(f"{name}: stages_per_rank must be 2 or more, got {stages_per_rank}")
    size = group or default_group(ranks, micro_batches) or micro_batches
    for rank in range(ranks):
        stages = [rank + ranks * turn for turn in range(stages_per_rank)]
        forwards = list(_grouped(stages, micro_batches, size))
        backwards = list(_grouped(stages[::-1], micro_batches, size))
        yield rank, Turns(forwards, backwards, (stages_per_rank - 1) * size)


def _grouped(stages: list[int], micro_batches: int, group: int) -> Iterator[int]:
    """Yield the stage of each of a rank's ops: every stage in turn, a group of micro-batches each."""
    for start in range(0, micro_batches, group):
        for stage in stages:
            yield from (stage for _ in range(min(group, micro_batches - start)))


@register(
    "interleaved-1f1b",
    requires=REQUIRES,
    accepts=accepts,
    tries={"stages_per_rank": (2, 3, 4)},
    size=of_loop(),
)
def interleaved_1f1b(ranks: int, micro_batches: int, stages_per_rank: int = 2, group: int | None = None) -> Schedule:
    """Interleaved 1F1B: v stages a rank. Narayanan et al. 2021, https://arxiv.org/abs/2104.04473, figure 4 (bottom).

    A stage is a v-th as long, so the pipe fills and drains v times as fast, for v times as many transfers.

    Recipe, on rank r of P, which holds stages r, r + P, …, r + (v - 1) P:

    1. Forwards go by groups of g micro-batches, as many as ranks where that divides them: a group through the rank's
       first stage, the same group through its second, and so on; then the next group. Backwards go likewise, from the
       rank's last stage to its first.
    2. Warm-up: the first 2 (P - 1 - r) + (v - 1) g forwards.
    3. Steady state: the next forward and the next backward in turn.
    4. Drain: the backwards that are left.

    Args:
        ranks: pipeline ranks.
        micro_batches: micro-batches of the step.
        stages_per_rank: v, the stages that a rank holds, 2 or more.
        group: micro-batches that run through one stage before the rank turns to its next.

    """
    order = OrderBuilder(loop(ranks, stages_per_rank), (micro_batches,))
    for rank, (forwards, backwards, filling) in turns_by_rank(
        "interleaved-1f1b", ranks, micro_batches, stages_per_rank, group
    ):
        line = order.rank(rank)
        warm_up = min(2 * (ranks - 1 - rank) + filling, len(forwards))
        for stage in forwards[:warm_up]:
            line.forward(stage)
        for forward, backward in zip(forwards[warm_up:], backwards, strict=False):
            line.forward(forward)
            line.backward(backward)
        for stage in backwards[len(forwards) - warm_up :]:
            line.backward(stage)
    return order.schedule()
