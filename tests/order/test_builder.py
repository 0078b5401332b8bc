"""Orders written down wrongly: what no op can be is refused where it is written, the rest where it is run."""

from __future__ import annotations

import pytest

from dualpipe_sim import ScheduleError, simulate
from dualpipe_sim.order import OrderBuilder, linear
from dualpipe_sim.order.ops import B, F, Kind, R


@pytest.mark.parametrize("wrong", [[(F, 0, 0), (R, 0, 1)], [(B, 0, 0), (B, 0, 1)], [(B, 0, 0), (F, 0, 1)]])
def test_a_pair_is_a_forward_and_what_can_run_beside_it(wrong: list[tuple[int, int, int]]) -> None:
    order = OrderBuilder(linear(1), (2,))
    for op in wrong:
        order.rank(0).op(*op)
    order.rank(0).overlap_last()
    with pytest.raises(ValueError, match="an overlapped pair is an F and the B, I, W or F that follows it"):
        order.schedule()


def test_a_kind_that_is_none_is_refused() -> None:
    order = OrderBuilder(linear(1), (2,))
    order.rank(0).op(len(Kind), 0, 0)
    with pytest.raises(ValueError, match="an op of a kind that there is not"):
        order.schedule()


def test_a_weight_that_nobody_deferred_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no backward for the weights to do; a backward_input defers one"):
        OrderBuilder(linear(1), (1,)).rank(0).weight()


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
