"""1F1B with overlapped pairs, as Megatron-Core combines them, https://github.com/NVIDIA/Megatron-LM."""

from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.placement import linear
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import of_line


@register("1f1b-overlap", size=of_line())
def one_f_one_b_overlap(ranks: int, micro_batches: int) -> Schedule:
    """1F1B whose steady-state neighbours overlap, as Megatron-Core's combined 1F1B, https://github.com/NVIDIA/Megatron-LM.

    A fair rival for DualPipe: the same overlap without a second copy of the parameters. A pair takes in a forward
    and a backward at once and hands both on when it ends, so a micro-batch needs two turns a rank, not one: the
    warm-up is 2 × (ranks - 1 - rank) + 1, and up to 2 × ranks micro-batches are in flight on rank 0.

    Recipe, on rank r of P:

    1. Warm-up: 2 (P - 1 - r) + 1 forwards.
    2. Steady state: pairs of a forward and the oldest micro-batch's backward, overlapped, until no forward is left.
    3. Drain: the 2 (P - 1 - r) + 1 backwards that are left.
    """
    order = OrderBuilder(linear(ranks), (micro_batches,))
    for rank in range(ranks):
        line = order.rank(rank)
        warm_up = min(2 * (ranks - 1 - rank) + 1, micro_batches)
        for _ in range(warm_up):
            line.forward(rank)
        for _ in range(micro_batches - warm_up):
            line.pair(rank, rank)
        for _ in range(warm_up):
            line.backward(rank)
    return order.schedule()
