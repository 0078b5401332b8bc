"""Chimera. Li & Hoefler, SC'21, https://arxiv.org/abs/2107.06925, figures 3, 7 and 8."""

from dataclasses import replace
from typing import Literal, get_args

from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.ops import B, F
from dualpipe_sim.order.placement import opposed
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import Size

Concatenation = Literal["direct", "forward-doubling", "backward-halving"]


def micro_batches_of_block(ranks: int, concatenation: Concatenation) -> int:
    """Micro-batches of one basic unit of the schedule, all pipes together."""
    return 2 * ranks if concatenation == "forward-doubling" else ranks


@register(
    "chimera",
    requires="an even number of ranks and micro-batches that are a multiple of ranks "
    "(of 2 × ranks with forward-doubling)",
    accepts=lambda ranks, micro_batches, concatenation="direct": (
        ranks % 2 == 0 and micro_batches % micro_batches_of_block(ranks, concatenation) == 0
    ),
    tries={"pairs": (1, 2, 4), "concatenation": get_args(Concatenation)},
    size=lambda ranks, micro_batches, concatenation: Size(
        ranks, micro_batches * (2 if concatenation == "backward-halving" else 1)
    ),
)
def chimera(ranks: int, micro_batches: int, pairs: int = 1, concatenation: Concatenation = "direct") -> Schedule:
    """Chimera: opposed 1F1B pipes merged. Li & Hoefler, SC'21, https://arxiv.org/abs/2107.06925, figures 3, 7 and 8.

    The schedule is a table of slots as wide as a forward, in blocks; a rank's order is its ops by slot. The stage at
    depth d of its pipe has a block's forwards in slots d, d + 2, d + 4, … and its backwards from slot
    2 × ranks - 1 - d on, again every second slot. A block begins where the one before leaves slots open.

    Recipe, on P ranks with f pairs of pipes:

    1. Pipe after pipe is laid over the ranks, each pair P / f ranks further on: one down, one up.
    2. With ``direct`` a block takes P micro-batches, P / 2f in each pipe. The k-th of them, from 0, in block n has its
       forward at depth d in slot 2 P n + d + 2 k and its backward there in slot 2 P n + 2 P - 1 - d + 2 k.
    3. A rank runs its ops by slot, pipes merged, and closes the gaps that times leave.

    Args:
        ranks: pipeline ranks, D in the paper.
        micro_batches: micro-batches of the step, in all pipes together.
        pairs: f, pairs of opposed pipes, each pair starting ranks / f further on (the paper's section 3.6).
        concatenation: how more micro-batches than ranks run (its section 3.5). With ``direct`` every slot is one
            micro-batch. With ``forward-doubling`` a slot of forwards takes two micro-batches, one after the other,
            and a slot of backwards one: where B = 2 F all slots are equally long, and no bubbles stay between blocks.
            ``backward-halving`` is the same order on halves of micro-batches, twice as many: a slot of forwards takes
            the two halves of one. It needs no more activations than ``direct``.

    """
    if pairs < 1 or ranks // 2 % pairs:
        raise ScheduleError(f"chimera: pairs must divide half the ranks, {ranks // 2}, got {pairs}")
    halves = concatenation == "backward-halving"
    if halves:
        micro_batches *= 2
    at_once = 1 if concatenation == "direct" else 2  # micro-batches in a slot of forwards
    turns = ranks // (2 * pairs)  # slots of forwards of each pipe in a block
    block_slots = (1 + at_once) * ranks
    placement = opposed(ranks, pairs)
    order = OrderBuilder(placement, (micro_batches // (2 * pairs),) * (2 * pairs))
    for rank in range(ranks):
        slots = []
        for stage in placement.stages_of_rank(rank):
            depth = stage % ranks
            for micro_batch in range(micro_batches // (2 * pairs)):
                block, place = divmod(micro_batch, at_once * turns)
                forward = block * block_slots + depth + 2 * (place // at_once)
                # the backwards of a block go over the pipes `at_once` times, ranks slots apart
                backward = block * block_slots + 2 * ranks - 1 - depth + place // turns * ranks + 2 * (place % turns)
                slots += [(forward, micro_batch, F, stage), (backward, micro_batch, B, stage)]
        line = order.rank(rank)
        for _, micro_batch, kind, stage in sorted(slots):
            line.op(kind, stage, micro_batch)
    schedule = order.schedule()
    return replace(schedule, micro_batch_share=0.5) if halves else schedule
