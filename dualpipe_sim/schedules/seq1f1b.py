"""Seq1F1B. Ao et al., NAACL 2025, https://arxiv.org/abs/2406.03488, and https://github.com/thunlp/Seq1F1B."""

from collections.abc import Iterator

from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.ops import B, F
from dualpipe_sim.order.placement import loop
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.one_f_one_b import in_turns
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import Size


def accepts(ranks: int, micro_batches: int, slices: int = 4, stages_per_rank: int = 1) -> bool | str:
    """Whether micro-batches can be cut into so many slices, or why not."""
    if slices < 1:
        return f"slices must be 1 or more, got {slices}"
    if stages_per_rank <= 1:
        return stages_per_rank == 1 or f"stages_per_rank must be 1 or more, got {stages_per_rank}"
    if ranks % slices:
        return f"slices must divide the {ranks} ranks where a rank has more stages than one, got {slices}"
    if micro_batches * slices % ranks:
        return f"slices of all micro-batches, {micro_batches * slices}, must be a multiple of the {ranks} ranks"
    return True


@register(
    "seq1f1b",
    accepts=accepts,
    tries={"slices": (2, 4, 8)},
    size=lambda ranks, micro_batches, slices, stages_per_rank: Size(stages_per_rank * ranks, slices * micro_batches),
)
def seq1f1b(ranks: int, micro_batches: int, slices: int = 4, stages_per_rank: int = 1) -> Schedule:
    """Seq1F1B: 1F1B on slices of sequences. Ao et al., NAACL 2025, https://arxiv.org/abs/2406.03488.

    A slice attends to those before it, so a micro-batch's gradients come from its last slice on; that is why a rank
    takes all slices of one micro-batch in before it turns to one forward, one backward. With several stages a rank it
    is interleaved 1F1B on slices, in groups of as many as ranks.

    Recipe, on rank r of P, with k slices of each micro-batch and one stage a rank:

    1. Warm-up: the forwards of P - 1 - r + k - 1 slices, in the order of the sequence.
    2. Steady state: the forward of the next slice, the backward of the oldest micro-batch's last slice left, in turn.
    3. Drain: the backwards that are left.

    Args:
        ranks: pipeline ranks.
        micro_batches: micro-batches of the step.
        slices: slices of each micro-batch along its sequence; with several stages a rank a divisor of the ranks.
        stages_per_rank: stages of each rank, in a loop.

    """
    order = OrderBuilder(loop(ranks, stages_per_rank), (micro_batches,), slices)
    first_slices = list(range(slices))
    for rank in range(ranks):
        line, ahead = order.rank(rank), ranks - 1 - rank
        if stages_per_rank == 1:
            in_turns(line, rank, micro_batches * slices, warm_up=ahead + slices - 1)
            continue
        turns = list(range(stages_per_rank))
        forwards = list(_in_groups(ranks, micro_batches, first_slices, turns))
        backwards = list(_in_groups(ranks, micro_batches, first_slices[::-1], turns[::-1]))
        warm_up = min(2 * ahead + (stages_per_rank - 1) * ranks + slices - 1, len(forwards))
        for number in range(len(forwards) + warm_up):
            if number < len(forwards):
                turn, micro_batch, part = forwards[number]
                line.op(F, turn * ranks + rank, micro_batch, part)
            if number >= warm_up:
                turn, micro_batch, part = backwards[number - warm_up]
                line.op(B, turn * ranks + rank, micro_batch, part)
    return order.schedule()


def _in_groups(ranks: int, micro_batches: int, slices: list[int], turns: list[int]) -> Iterator[tuple[int, int, int]]:
    """Yield turn, micro-batch and slice of a rank's ops: every turn for as many slices as ranks, then the next ones."""
    units = [(micro_batch, part) for micro_batch in range(micro_batches) for part in slices]
    for begin in range(0, len(units), ranks):
        for turn in turns:
            yield from ((turn, *unit) for unit in units[begin : begin + ranks])
