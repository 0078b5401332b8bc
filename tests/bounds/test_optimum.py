"""The optimum by CP-SAT: what it must be by hand and by papers, and what it says of schedules and of the bound."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpipe_sim.analysis import metrics
from dualpipe_sim.bounds.makespan import MemoryLimit, placement_bound_s
from dualpipe_sim.bounds.optimum import Optimum, optimum
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine import longest_path
from dualpipe_sim.errors import UserError
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.order.op_times import OpTimes
from dualpipe_sim.order.placement import Placement, linear, opposed, v_shape
from dualpipe_sim.schedules.registry import build

ROUNDING = 1 + 1e-9


def unit_times(placement: Placement, **times: float) -> OpTimes:
    return OpTimes.uniform(placement, **times)


def best(placement: Placement, micro_batches: tuple[int, ...], *, split: bool = True) -> Optimum:
    found = optimum(placement, micro_batches, unit_times(placement), split=split)
    assert found.proved
    return found


def test_without_split_1f1b_is_optimal() -> None:
    # (M + P - 1)(F + B), the least that a full backward allows; gpipe takes as long.
    assert best(linear(3), (4,), split=False).makespan_s == (4 + 3 - 1) * 3
    assert best(linear(4), (8,), split=False).makespan_s == (8 + 4 - 1) * 3


@pytest.mark.parametrize(("ranks", "micro_batches"), [(2, 4), (4, 8)])
def test_split_leaves_only_the_way_to_the_last_rank(ranks: int, micro_batches: int) -> None:
    # ZB-H2 has no bubble within a rank's span: https://arxiv.org/abs/2401.10241, section 2.3. From time 0 the last rank
    # waits for P - 1 forwards, and that can be reached.
    assert best(linear(ranks), (micro_batches,)).makespan_s == ranks - 1 + 3 * micro_batches


def test_a_memory_limit_of_one_activation() -> None:
    # F F I I on rank 0, and the W of each: (4 + 1) a micro-batch until the last; rank 0 has nothing else to do.
    placement = linear(2)
    found = optimum(placement, (3,), unit_times(placement), memory_limit=1.0)
    assert (found.makespan_s, found.proved) == (15.0, True)


def test_a_limit_below_one_activation_fits_nothing() -> None:
    with pytest.raises(UserError, match="no order fits the memory limit"):
        optimum(linear(2), (3,), unit_times(linear(2)), memory_limit=0.5)


def test_times_without_a_tick_are_refused() -> None:
    times = OpTimes(np.array([1.0, np.pi]), np.ones(2), np.ones(2))
    with pytest.raises(UserError, match="whole multiples of one tick"):
        optimum(linear(2), (1,), times)


small = st.integers(1, 4)


@given(
    placement=st.sampled_from([linear(2), linear(3), v_shape(2), opposed(2)]),
    micro_batches=st.integers(1, 3),
    times=st.tuples(small, small, small, st.integers(0, 3)),
    limit=st.none() | st.integers(1, 4),
)
@settings(max_examples=15)
def test_the_bound_is_never_above_the_optimum_and_the_optimum_plays_as_found(
    placement: Placement, micro_batches: int, times: tuple[int, ...], limit: int | None
) -> None:
    forward, backward_input, backward_weight, transfer = times
    costs = UniformCosts(2.0 * forward, 2.0 * backward_input, 2.0 * backward_weight, transfer_s=float(transfer))
    of_pipe = (micro_batches,) * len(placement.pipes)
    stage_s = costs.on(placement).stage_s
    found = optimum(placement, of_pipe, OpTimes(stage_s[0], stage_s[2], stage_s[3], transfer), memory_limit=limit)
    timeline = longest_path.play(lower(found.schedule, costs))
    assert timeline.makespan_s <= found.makespan_s * ROUNDING
    activations = found.schedule.placement.activations_of_stage
    if limit is not None:
        assert metrics.peak_activations_by_rank(timeline).max() <= limit * ROUNDING
    most = MemoryLimit(activations, np.full(placement.ranks, float(limit or 1e9)), from_start=True)
    assert found.proved
    assert placement_bound_s(placement, of_pipe, costs.on(placement), limit=most) <= found.makespan_s * ROUNDING


@cache
def best_of(placement: Placement, of_pipe: tuple[int, ...]) -> Optimum:
    return optimum(placement, of_pipe, OpTimes.uniform(placement), within_s=20)


@pytest.mark.parametrize(
    "name", ["gpipe", "1f1b", "zb-h1", "zb-h2", "zb-v", "v-half", "v-min", "dualpipev", "dualpipe", "chimera"]
)
def test_no_schedule_is_faster_than_the_optimum_of_its_placement(name: str) -> None:
    order = build(name, 2, 4)
    makespan_s = longest_path.play(lower(order, UniformCosts(1.0, 1.0, 1.0))).makespan_s
    found = best_of(order.placement, order.micro_batches_of_pipe)
    assert found.bound_s <= makespan_s * ROUNDING
    if name in ("zb-h2", "zb-v"):  # no bubble but the way to the last rank, or back from it
        assert found.proved
        assert makespan_s == pytest.approx(found.makespan_s)
