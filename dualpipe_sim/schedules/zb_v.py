"""ZB-V. Qi et al., ICLR 2024, https://arxiv.org/abs/2401.10241, section 6 and figure 7."""

from collections.abc import Iterator

from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.ops import F, I, W
from dualpipe_sim.order.placement import v_shape
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import Size


def rank_order(ranks: int, rank: int, micro_batches: int) -> Iterator[tuple[int, int, int]]:
    """Yield one rank's ops as (kind, stage, micro-batch), for at least 2 × ranks - 1 micro-batches."""
    down, up = rank, 2 * ranks - 1 - rank
    done: dict[tuple[int, int], int] = dict.fromkeys(((kind, stage) for kind in (F, I, W) for stage in (down, up)), 0)

    def run(kinds: tuple[int, ...], stage: int) -> Iterator[tuple[int, int, int]]:
        for kind in kinds:
            yield kind, stage, done[kind, stage]
            done[kind, stage] += 1

    # forwards down the V, until the first micro-batch is back
    for _ in range(2 * (ranks - rank) - 1):
        yield from run((F,), down)
    # both ways, until the first backward arrives
    for _ in range(rank):
        yield from run((F,), up)
        yield from run((F,), down)
    # backwards of the second half only
    for _ in range(ranks - rank):
        yield from run((F, I, W), up)
    # the steady state, until the last forward
    while done[F, up] < micro_batches:
        yield from run((F, I, W) if done[F, down] < micro_batches else (I, W), down)
        yield from run((F, I, W), up)
    # backwards for the input on the critical path first, with weights where nothing else is left to do
    for _ in range(rank):
        yield from run((I,), down)
        yield from run((I,), up)
    for _ in range(ranks - rank):
        yield from run((I, W), down)
    for stage in (up, down):
        while done[W, stage] < micro_batches:
            yield from run((W,), stage)


@register("zb-v", size=lambda ranks, micro_batches: Size(2 * ranks, max(micro_batches, 2 * ranks), 3))
def zb_v(ranks: int, micro_batches: int) -> Schedule:
    """ZB-V: no bubble at 1F1B's memory, in a V. Qi et al., ICLR 2024, https://arxiv.org/abs/2401.10241, section 6.

    The static order that ``torch.distributed.pipelining`` runs, without a bubble where F = I = W. Fewer micro-batches
    than 2 × ranks - 1 run as the first of that many, as torch does it.

    Recipe, on rank r of P, which holds stages a = r, on the way down, and b = 2 P - 1 - r, on the way back up:

    1. 2 (P - r) - 1 times F of a, until the first micro-batch is back.
    2. r times F of b, F of a, until the first backward arrives.
    3. P - r times F, I and W of b.
    4. Until all forwards are done: F, while there is one, I and W of a; then F, I and W of b.
    5. r times I of a, I of b.
    6. P - r times I and W of a.
    7. The W that are left, those of b first.
    """
    order = OrderBuilder(v_shape(ranks), (micro_batches,))
    for rank in range(ranks):
        line = order.rank(rank)
        for kind, stage, micro_batch in rank_order(ranks, rank, max(micro_batches, 2 * ranks - 1)):
            if micro_batch < micro_batches:
                line.op(kind, stage, micro_batch)
    return order.schedule()
