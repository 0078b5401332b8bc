"""DualPipe. DeepSeek-V3 report, https://arxiv.org/abs/2412.19437, section 3.2.1, figure 5."""

from dualpipe_sim.order.builder import Line, OrderBuilder
from dualpipe_sim.order.placement import opposed
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import of_line


def eight_steps(line: Line, zero: int, one: int, q: int, half: int, pairs: int) -> None:
    """Write one rank of DualPipe: the eight steps of DeepSeek's released code.

    Args:
        line: the rank's order.
        zero: the stage of direction 0, the one whose micro-batches reach this rank first.
        one: the stage of direction 1.
        q: how far this rank is from the nearer end of the pipe.
        half: ranks from an end of the pipe to its middle; the middle rank has q = half - 1.
        pairs: how often step 4 overlaps a forward and a backward in each direction.

    """
    to_middle = half - q - 1
    # 1: forwards of direction 0, until direction 1 arrives
    for _ in range(2 * to_middle):
        line.forward(zero)
    # 2: forwards of both directions
    for _ in range(q + 1):
        line.forward(zero)
        line.forward(one)
    # 3: the first backwards of direction 1, their weights filling the wait for the next
    for _ in range(to_middle):
        line.backward_input(one)
        line.weight()
        line.forward(one)
    # 4: the main part, a forward of one direction overlapped with a backward of the other
    for turn in range(pairs):
        if turn == 0 and to_middle == 0:
            line.forward(zero)
            line.backward(one)
        else:
            line.pair(zero, one)
        line.pair(one, zero)
    # 5: direction 0 has no forwards left
    for _ in range(to_middle):
        line.backward(one)
        line.pair(one, zero)
    # 6: backwards of both directions; from the middle on, weights are deferred
    for turn in range(2 * (q + 1)):
        stage = zero if turn % 2 else one
        if turn < q + 1:
            line.backward(stage)
        else:
            line.backward_input(stage)
    # 7: deferred weights fill the waits for direction 0's last backwards
    for _ in range(to_middle):
        line.weight()
        line.backward_input(zero)
    # 8: what weights are left
    for _ in range(q + 1):
        line.weight()


@register(
    "dualpipe",
    requires="an even number of ranks and an even number of micro-batches, at least 2 × ranks",
    accepts=lambda ranks, micro_batches: ranks % 2 == 0 and micro_batches % 2 == 0 and micro_batches >= 2 * ranks,
    size=of_line(),
)
def dualpipe(ranks: int, micro_batches: int) -> Schedule:
    """DualPipe: two opposed pipes, overlapped. DeepSeek-V3 report, https://arxiv.org/abs/2412.19437, figure 5.

    The order is that of the released code, https://github.com/deepseek-ai/DualPipe, which also asks for at least
    2 × ranks micro-batches; the report itself asks only that both be divisible by 2.

    Recipe, on rank r of P: h = P / 2, q the ranks from it to the nearer end, 0 the pipe that begins at that end and 1
    the other one:

    1. 2 (h - q - 1) times F0.
    2. q + 1 times F0, F1.
    3. h - q - 1 times I1, the oldest W put off, F1.
    4. M / 2 - P + q + 1 times the pairs F0 with B1 and F1 with B0; on a middle rank the very first F0, B1 stand alone.
    5. h - q - 1 times B1 and the pair F1 with B0.
    6. q + 1 times B1, B0; the last q + 1 of them as I, their W put off.
    7. h - q - 1 times the oldest W put off, I0.
    8. The q + 1 W that are left.
    """
    half = ranks // 2
    order = OrderBuilder(opposed(ranks), (micro_batches // 2, micro_batches // 2))
    for rank in range(ranks):
        q = min(rank, ranks - 1 - rank)
        down, up = rank, 2 * ranks - 1 - rank
        zero, one = (down, up) if rank < half else (up, down)
        eight_steps(order.rank(rank), zero, one, q, half, pairs=micro_batches // 2 - ranks + q + 1)
    return order.schedule()
