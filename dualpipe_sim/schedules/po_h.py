"""PipeOffload, half: PO-H. Wan et al., ICML 2025, https://arxiv.org/abs/2503.01328."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.ops import F, I, L, O, W
from dualpipe_sim.order.placement import loop
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.gis import Turn, accepts, half, turns
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import of_loop

_ROUND_TRIPS = 3
"""What lives no longer than so many copies out and back stays, as in the release: little is to be had from it."""


def copies_fit(
    ranks: int, micro_batches: int, stages_per_rank: int = 2, group: int | None = None, apart: int = 1
) -> bool | str:
    """Whether there are such stages and groups, and turns with copies; or why not."""
    if apart < 1:
        return f"apart must be 1 or more, got {apart}"
    return accepts(ranks, micro_batches, stages_per_rank, group)


@register(
    "po-h",
    accepts=copies_fit,
    tries={"stages_per_rank": (2, 4)},
    size=of_loop(4),
)
def po_h(
    ranks: int, micro_batches: int, stages_per_rank: int = 2, group: int | None = None, apart: int = 1
) -> Schedule:
    """PO-H: GIS-H whose longest-lived half lies in the host's memory. Wan et al., https://arxiv.org/abs/2503.01328.

    What the first half of a rank's stages leave lives longest; it is copied out behind its forward and back before its
    backward, one stream doing both in turn. Which stages, how groups run and what stays are as in the authors'
    https://github.com/sail-sg/zero-bubble-pipeline-parallelism, which places copies by time; here they have turns, of
    an F, an I and a W. While out and back take ``apart`` turns at most, a step is as long as without.

    Recipe, on every rank:

    1. GIS in groups of half the ranks.
    2. What the forwards of the first ⌊v / 2⌋ stages leave is copied out, O, in the first turn behind them in which the
       copy stream is free, and back, L, in the last such turn before their backward. What lives no longer than three
       round trips stays.
    3. A turn runs its forward, starts its copies and runs its backward, which waits for its L.

    Args:
        ranks: pipeline ranks.
        micro_batches: micro-batches of the step.
        stages_per_rank: v, the stages that a rank holds.
        group: micro-batches that run through one stage before the rank turns to its next; by default half the ranks. 1
            holds least, about (v+2)/(8v) of a micro-batch in the whole model, and idles more.
        apart: turns from one copy out and back to the next; 2 is for copies that take up to two turns.

    """
    return offloading(ranks, micro_batches, stages_per_rank, stages_per_rank // 2, group or half(ranks), apart)


class Unit(NamedTuple):
    """What a forward leaves: its stage and micro-batch, and the turns of its forward and of its backward."""

    stage: int
    micro_batch: int
    made: int
    needed: int


Copies: TypeAlias = dict[int, tuple[int, int]]
"""Stage and micro-batch of what is copied in a turn."""


def offloading(ranks: int, micro_batches: int, stages_per_rank: int, copied: int, group: int, apart: int) -> Schedule:
    """Return GIS whose first stages of each rank, so many, are copied to the host."""
    order = OrderBuilder(loop(ranks, stages_per_rank), (micro_batches,))
    for rank in range(ranks):
        line, row = order.rank(rank), turns(rank, ranks, micro_batches, stages_per_rank, group)
        out, back = _copies(_units(row, copied * ranks), max(row), apart)
        for number in sorted({*row, *out, *back}):
            forward, backward = row.get(number, Turn())
            if forward is not None:
                line.op(F, *forward)
            if number in out:
                line.op(O, *out[number])
            if number in back:
                line.op(L, *back[number])
            if backward is not None:
                line.op(I, *backward)
                line.op(W, *backward)
    return order.schedule()


def _units(row: dict[int, Turn], stages: int) -> list[Unit]:
    """Return what a rank's forwards leave at stages below a number, in their order."""
    needed = {turn.backward: number for number, turn in row.items()}
    return [
        Unit(*turn.forward, number, needed[turn.forward])
        for number, turn in row.items()
        if turn.forward is not None and turn.forward[0] < stages
    ]


def _copies(units: list[Unit], last: int, apart: int) -> tuple[Copies, Copies]:
    """Return what is copied out in each turn, and back: one stream does one of each in turn, every so many turns.

    Each goes out as soon as there is a turn for it, and comes back in the last turn that leaves time for it.
    """
    units = [unit for unit in units if unit.needed - unit.made > _ROUND_TRIPS * apart]
    goes, comes, free = {}, {}, 0
    for unit in units:
        free = max(free, -(-unit.made // apart))
        goes[unit], free = free, free + 1
    free = last // apart
    for unit in sorted(units, key=lambda unit: -unit.needed):
        free = min(free, unit.needed // apart - 1)
        comes[unit], free = free, free - 1
    stays = {unit for unit in units if comes[unit] <= goes[unit]}
    out, back = ({one[unit] * apart: unit[:2] for unit in units if unit not in stays} for one in (goes, comes))
    return out, back
