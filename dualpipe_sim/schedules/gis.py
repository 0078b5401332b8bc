"""Generalized interleaved schedule (GIS). Wan et al., ICML 2025, https://arxiv.org/abs/2503.01328."""

from __future__ import annotations

from math import gcd
from typing import NamedTuple

from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.ops import F, I, W
from dualpipe_sim.order.placement import loop
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import of_loop


def half(ranks: int) -> int:
    """Return the micro-batches of a turn through the ranks that keeps each busy, F, I and W of each lasting as long."""
    return -(-ranks // 2)


def accepts(ranks: int, micro_batches: int, stages_per_rank: int = 2, group: int | None = None) -> bool | str:  # noqa: ARG001 - as every schedule's
    """Whether there are such stages and groups, or why not."""
    if stages_per_rank < 1:
        return f"stages_per_rank must be 1 or more, got {stages_per_rank}"
    return group is None or 1 <= group <= ranks or f"group must be from 1 to the {ranks} ranks, got {group}"


class Turn(NamedTuple):
    """What a rank does in one turn: (stage, micro-batch) of its forward and of its backward, where it has them."""

    forward: tuple[int, int] | None = None
    backward: tuple[int, int] | None = None


def turns(rank: int, ranks: int, micro_batches: int, stages_per_rank: int, group: int) -> dict[int, Turn]:
    """Return the turns of a rank by number, an F, an I and a W long each; in a turn without an op it waits.

    The paper's building block: a group of g micro-batches takes g turns at each of a rank's stages, and comes to the
    next of them k g turns later, k as small as lets it pass all ranks; where that turn is another group's, g more. What
    comes back does so as evenly, from one turn behind the last stage's first forward for each rank behind this one.
    """
    k = -(-half(ranks) // group)
    common = gcd(k, stages_per_rank)
    later = [group * (k * turn + turn * common // stages_per_rank) for turn in range(stages_per_rank)]
    back = later[-1] + ranks - 1 - rank
    forwards: dict[int, tuple[int, int]] = {}
    backwards: dict[int, tuple[int, int]] = {}
    for micro_batch in range(micro_batches):
        first = micro_batch // group * group * stages_per_rank + micro_batch % group
        for turn, more in enumerate(later):
            forwards[first + more] = rank + ranks * turn, micro_batch
            backwards[back + first + more] = rank + ranks * (stages_per_rank - 1 - turn), micro_batch
    return {number: Turn(forwards.get(number), backwards.get(number)) for number in sorted({*forwards, *backwards})}


@register(
    "gis",
    accepts=accepts,
    tries={"stages_per_rank": (2, 3, 4)},
    size=of_loop(3),
)
def gis(ranks: int, micro_batches: int, stages_per_rank: int = 2, group: int | None = None) -> Schedule:
    """GIS: interleaved, with fewer in flight as backwards are split. Wan et al., https://arxiv.org/abs/2503.01328.

    A weight gradient follows its backward for the input at once. Groups smaller than the ranks hold less and idle more.

    Recipe, on rank r of P, with turns as long as an F, an I and a W:

    1. Forwards go by groups of g micro-batches: a group takes g turns at the rank's first stage and comes to its next
       stage g turns later (with g < P / 2 as many groups later as lets it pass all ranks).
    2. Backwards go likewise, from the rank's last stage to its first, and begin P - 1 - r turns behind its last stage's
       first forward.
    3. A turn runs its forward, where it has one, then the I and at once the W of its backward.

    Args:
        ranks: pipeline ranks.
        micro_batches: micro-batches of the step.
        stages_per_rank: v, the stages that a rank holds.
        group: micro-batches that run through one stage before the rank turns to its next; by default as many as ranks.
            With fewer than half of them, others run in between.

    """
    order = OrderBuilder(loop(ranks, stages_per_rank), (micro_batches,))
    for rank in range(ranks):
        line = order.rank(rank)
        for forward, backward in turns(rank, ranks, micro_batches, stages_per_rank, group or ranks).values():
            if forward is not None:
                line.op(F, *forward)
            if backward is not None:
                line.op(I, *backward)
                line.op(W, *backward)
    return order.schedule()
