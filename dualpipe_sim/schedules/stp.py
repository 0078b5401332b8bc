"""STP: forwards braided with whatever else runs. Qi et al. 2025, https://arxiv.org/abs/2510.27257, figures 1 and 4."""

from dataclasses import replace

from dualpipe_sim.order.builder import Line, OrderBuilder
from dualpipe_sim.order.placement import v_shape
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import Size


def nine_steps(line: Line, ranks: int, rank: int, micro_batches: int) -> None:
    """Write one rank, as https://github.com/MICLAB-BUPT/STP has it, for at least 3 × ranks - 1 micro-batches."""
    down, up = rank, 2 * ranks - 1 - rank
    below = ranks - 1 - rank
    full = 2 * (micro_batches - 3 * ranks + 1) + 1 + rank  # pairs of the steady state with a full backward
    split = rank  # and those behind them, whose W is left for the end

    # 1. forwards down the V, until the first micro-batch is back
    for _ in range(2 * below):
        line.forward(down)
    # 2. both ways, until the first backward arrives
    for _ in range(rank + 1):
        line.forward(down)
        line.forward(up)
    # 3. forwards alone, two at a time
    if (rank + 1) % 2:
        line.forward(down)
    for _ in range((rank + 1) // 2):
        line.pair_forwards(down)
    # 4. the first backwards, their weights beside forwards down
    for _ in range(below):
        line.pair_input(up, up)
        line.pair_weight(down)
    # 5. the steady state: every forward beside a backward of its stage
    for turn in range(full + split):
        stage = down if turn % 2 else up
        (line.pair if turn < full else line.pair_input)(stage, stage)
    # 6. backwards down beside nothing, the last forwards up beside backwards up
    for _ in range(2 * ranks - 2 - rank):
        line.backward(down)
        line.pair_input(up, up)
    # 7. backwards both ways
    for _ in range(rank + 1):
        line.backward(down)
        line.backward(up)
    # 8. backwards down, with two of the weights between them
    line.backward(down)
    for _ in range(below):
        line.weight()
        line.weight()
        line.backward(down)
    # 9. the rest of the weights
    for _ in range(2 * rank):
        line.weight()


@register("stp", size=lambda ranks, micro_batches: Size(2 * ranks, max(micro_batches, 3 * ranks), 3))
def stp(ranks: int, micro_batches: int) -> Schedule:
    """STP: all-reduces of tensor parallelism hidden in pairs, in a V. Qi et al. 2025, https://arxiv.org/abs/2510.27257.

    Almost every forward is braided with another op of its rank: a full backward, a backward for the input or for the
    weights, or a second forward. So all but some 2 × ranks all-reduces of a rank go beside compute, at the price of a
    longer warm-up: more than 3 × ranks pairs of stage and micro-batch are in flight. Fewer micro-batches than
    3 × ranks - 1 run as the first of that many.

    Recipe, on rank r of P, for M ≥ 3P - 1 micro-batches; stage 0 is the rank's one on the way down, stage 1 that up:

    1. 2(P - 1 - r) forwards of stage 0.
    2. r + 1 times: a forward of stage 0, one of stage 1.
    3. r + 1 forwards of stage 0, two at a time as pairs; a single one first if they are odd.
    4. P - 1 - r times: a pair of a forward and an I of stage 1, and one of a forward of stage 0 and the oldest W.
    5. 2(M - 3P + 1) + 1 + 2r pairs of a forward and a backward, of stages 1, 0, 1, …; the backwards of the last r are
       halves, I alone.
    6. 2P - 2 - r times: a backward of stage 0, and a pair of a forward and an I of stage 1.
    7. r + 1 times: a backward of stage 0, one of stage 1.
    8. A backward of stage 0; P - 1 - r times two W and another such backward.
    9. The 2r W that are left.
    """
    fewest = max(micro_batches, 3 * ranks - 1)
    order = OrderBuilder(v_shape(ranks), (fewest,))
    for rank in range(ranks):
        nine_steps(order.rank(rank), ranks, rank, fewest)
    whole = order.schedule()
    return replace(whole.only(whole.micro_batch < micro_batches), micro_batches_of_pipe=(micro_batches,))
