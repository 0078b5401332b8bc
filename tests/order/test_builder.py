"""Orders written down wrongly: what no op can be is refused where it is written, the rest where it is run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dualpipe_sim import ScheduleError, simulate
from dualpipe_sim.order import OrderBuilder, linear
from dualpipe_sim.order.builder import Line
from dualpipe_sim.order.ops import F


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda line: line.op(7, 0, 0), "no op has kind 7, stage 0 and micro-batch 0"),
        (lambda line: line.op(0, -1, 0), "no op has kind 0, stage -1 and micro-batch 0"),
        (lambda line: line.op(0, 0, 1 << 50), "no op has kind 0, stage 0 and micro-batch 1125899906842624"),
        (lambda line: line.overlap_last(), "the last two ops are no F and B, which an overlapped pair is made of"),
        (lambda line: line.weight(), "there is no backward for the weights to do; a backward_input defers one"),
    ],
)
def test_a_line_refuses_what_is_no_op(wrong: Callable[[Line], None], message: str) -> None:
    line = OrderBuilder(linear(1), (1,)).rank(0)
    line.forward(0)
    with pytest.raises(ValueError, match=message):
        wrong(line)


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ([], "the order is empty: no rank has an op"),
        ([(F, 3, 0)], "3F0 on rank 0 names no stage; they go from 0 to 0"),
        ([(F, 0, 0), (F, 0, 2)], "0F2 on rank 0 names no micro-batch; they go from 0 to 1"),
    ],
)
def test_ops_of_no_stage_and_no_micro_batch_are_named(ops: list[tuple[int, int, int]], message: str) -> None:
    order = OrderBuilder(linear(1), (2,))
    for op in ops:
        order.rank(0).op(*op)
    with pytest.raises(ScheduleError, match=message):
        simulate(schedule=order.schedule())


def test_a_stage_below_0_is_named() -> None:
    order = OrderBuilder(linear(1), (2,))
    order.rank(0).forward(-1)
    with pytest.raises(ScheduleError, match="rank 0 has an op of a stage or a micro-batch below 0"):
        simulate(schedule=order.schedule())


def test_each_pipe_has_its_micro_batches() -> None:
    with pytest.raises(ScheduleError, match=r"micro-batches of each pipe: got \(2, 2\) for 1 pipe"):
        OrderBuilder(linear(2), (2, 2))
