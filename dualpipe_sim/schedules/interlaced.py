"""Interlaced pipelines. Lin et al., OSDI'24 (nnScaler), https://www.usenix.org/conference/osdi24/presentation/lin-zhiqi."""

from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.ops import S
from dualpipe_sim.order.placement import linear
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import of_line


@register("interlaced", size=of_line(3, 2))
def interlaced(ranks: int, micro_batches: int) -> Schedule:
    """1F1B whose output layer all ranks do at once. Lin et al., OSDI'24, https://www.usenix.org/conference/osdi24/presentation/lin-zhiqi.

    The vocabulary is cut over all ranks, and its pass, written as S, is one op of all of them: it starts when all have
    come to it and ends on all together. As in 1F1B but with half as many forwards more; the order is that of
    https://arxiv.org/abs/2411.05288, which compares with it.

    Recipe, on rank r of P: w = ⌊3 P / 2⌋ - r, c = P - r and u = w - c - ⌊(P - r - 1) / 2⌋, or 0 if that is less:

    1. w times F.
    2. c times S.
    3. u times B, S.
    4. M - w times F, B, S where r and P are both even or both odd, else B, F, S.
    5. w - c - u times B, S.
    6. c times B.
    """
    order = OrderBuilder(linear(ranks), (micro_batches,))
    for rank in range(ranks):
        line = order.rank(rank)
        passes = iter(range(micro_batches))
        warm_up = min(3 * ranks // 2 - rank, micro_batches)
        ahead = min(ranks - rank, warm_up)
        before = max(0, warm_up - ahead - (ranks - rank - 1) // 2)
        for _ in range(warm_up):
            line.forward(rank)
        for _ in range(ahead):
            line.op(S, rank, next(passes))
        for _ in range(before):
            line.backward(rank)
            line.op(S, rank, next(passes))
        for _ in range(micro_batches - warm_up):
            if rank % 2 == ranks % 2:
                line.forward(rank)
                line.backward(rank)
            else:
                line.backward(rank)
                line.forward(rank)
            line.op(S, rank, next(passes))
        for _ in range(warm_up - ahead - before):
            line.backward(rank)
            line.op(S, rank, next(passes))
        for _ in range(ahead):
            line.backward(rank)
    return order.schedule()
