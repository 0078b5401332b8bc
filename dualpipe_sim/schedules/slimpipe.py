"""SlimPipe. Li et al., SC'25, https://arxiv.org/abs/2504.14519; its Megatron-LM, https://github.com/Cuiym715/Megatron-LM."""

from dataclasses import replace

from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.ops import B, F
from dualpipe_sim.order.placement import loop
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import Size


@register(
    "slimpipe",
    requires="at least as many slices as ranks",
    accepts=lambda ranks, micro_batches, slices=None, stages_per_rank=1: (  # noqa: ARG005 - as every schedule's
        f"slices must be at least as many as the {ranks} ranks, got {slices}"
        if slices is not None and slices < ranks
        else stages_per_rank >= 1 or f"stages_per_rank must be 1 or more, got {stages_per_rank}"
    ),
    size=lambda ranks, micro_batches, slices, stages_per_rank: Size(
        stages_per_rank * ranks, (slices or ranks) * micro_batches
    ),
)
def slimpipe(ranks: int, micro_batches: int, slices: int | None = None, stages_per_rank: int = 1) -> Schedule:
    """SlimPipe: even slices, interleaved, with few in flight. Li et al., SC'25, https://arxiv.org/abs/2504.14519.

    Forwards go by groups of slices, within a group stage by stage; backwards are their exact mirror. Ranks exchange
    queries, keys and values until all slices attend to as much, so slices are equally long.

    Recipe, on rank r of P, with n slices of each micro-batch and v stages a rank:

    1. Forwards go by groups of g slices, g the least divisor of n that is no less than P: a group through the rank's
       first stage, the same group through its second, and so on. Backwards go from the last of these to the first.
    2. Warm-up: the first n v + 2 (P - 1 - r) - 1 forwards.
    3. Steady state: the next forward and the next backward in turn.
    4. Drain: the backwards that are left.

    Args:
        ranks: pipeline ranks.
        micro_batches: micro-batches of the step.
        slices: slices of each micro-batch along its sequence; by default as many as ranks.
        stages_per_rank: stages of each rank, in a loop.

    """
    slices = ranks if slices is None else slices
    group = next(size for size in range(ranks, slices + 1) if slices % size == 0)
    order = OrderBuilder(loop(ranks, stages_per_rank), (micro_batches,), slices)
    turns = [
        (turn, part)
        for begin in range(0, slices, group)
        for turn in range(stages_per_rank)
        for part in range(begin, begin + group)
    ]
    for rank in range(ranks):
        line = order.rank(rank)
        forwards = [(F, batch, turn, part) for batch in range(micro_batches) for turn, part in turns]
        backwards = [(B, batch, turn, part) for batch in range(micro_batches) for turn, part in reversed(turns)]
        warm_up = min(slices * stages_per_rank + 2 * (ranks - 1 - rank) - 1, len(forwards))
        steady = [op for both in zip(forwards[warm_up:], backwards, strict=False) for op in both]
        for kind, batch, turn, part in (*forwards[:warm_up], *steady, *backwards[len(forwards) - warm_up :]):
            line.op(kind, turn * ranks + rank, batch, part)
    return replace(order.schedule(), exchanges=True)
