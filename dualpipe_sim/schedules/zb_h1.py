"""ZB-H1. Qi et al., ICLR 2024, https://arxiv.org/abs/2401.10241, figure 3 (top)."""

from dualpipe_sim.order.builder import Line, OrderBuilder
from dualpipe_sim.order.placement import linear
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import of_line


def zero_bubble_line(line: Line, rank: int, warm_up: int, deferred: int, micro_batches: int) -> None:
    """Write one rank of a handcrafted zero-bubble schedule.

    Args:
        line: the rank's order.
        rank: the rank, and its stage.
        warm_up: forwards before the first backward.
        deferred: how many backwards for the weights are put off behind later backwards for the input.
        micro_batches: micro-batches of the step.

    """
    warm_up = min(warm_up, micro_batches)
    for _ in range(warm_up):
        line.forward(rank)
    for done in range(micro_batches):
        if warm_up + done < micro_batches:
            line.forward(rank)
        line.backward_input(rank)
        if done >= deferred:
            line.weight()
    while line.deferred:
        line.weight()


@register("zb-h1", size=of_line(3))
def zb_h1(ranks: int, micro_batches: int) -> Schedule:
    """ZB-H1: 1F1B's memory, a third of its bubble. Qi et al. 2024, https://arxiv.org/abs/2401.10241, figure 3 (top).

    DeepSeek-V3's table calls it ZB1P.

    The backward is split. Other ranks wait for its half for the input, I; nobody waits for that for the weights, W,
    which therefore fills bubbles.

    Recipe, on rank r of P:

    1. Warm-up: P - 1 - r forwards.
    2. For each micro-batch: the next forward, while there is one; its I; and, from the (r + 1)-th on, the oldest W that
       was put off.
    3. The r W that are left.
    """
    order = OrderBuilder(linear(ranks), (micro_batches,))
    for rank in range(ranks):
        zero_bubble_line(order.rank(rank), rank, ranks - 1 - rank, rank, micro_batches)
    return order.schedule()
