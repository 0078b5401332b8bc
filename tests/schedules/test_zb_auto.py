"""The automatic zero-bubble scheduler. Qi et al., ICLR 2024, https://arxiv.org/abs/2401.10241, section 3.1.

Published rates are those of its tables 5 and 6.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpipe_sim import ScheduleError, build, format_order
from dualpipe_sim.analysis import metrics
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine import longest_path
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.order.op_times import OpTimes
from dualpipe_sim.order.ops import F, I, W
from dualpipe_sim.order.placement import Placement, linear, v_shape
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import schedules, spec

if TYPE_CHECKING:
    from tests.conftest import Calls

Placing = Literal["linear", "v"]

# F, I, W of a rank and the transfer, in ms, of the paper's 6.2B model on 8 ranks, by micro-batches.
PUBLISHED_6B = {
    24: (29.718, 29.444, 19.927, 0.527),
    32: (29.802, 29.428, 19.530, 0.577),
    64: (29.935, 29.621, 19.388, 0.535),
}
# The same model in a V on 16 ranks with 48 micro-batches; a stage is half a rank's share.
PUBLISHED_V = (2 * 14.407, 2 * 14.380, 2 * 9.676, 1.610)


def options(costs: UniformCosts) -> dict[str, object]:
    return {
        "forward": costs.forward,
        "backward_input": costs.backward_input,
        "backward_weight": costs.backward_weight,
        "transfer": costs.transfer_s,
    }


def uniform(forward: float, backward_input: float, backward_weight: float, transfer_s: float) -> UniformCosts:
    return UniformCosts(forward, backward_input, backward_weight, transfer_s=transfer_s)


def times_of(costs: UniformCosts, placement: Placement) -> OpTimes:
    stage_s = costs.on(placement).stage_s
    assert isinstance(costs.transfer_s, float)
    return OpTimes(stage_s[F], stage_s[I], stage_s[W], costs.transfer_s)


def span_bubble(schedule: Schedule, costs: UniformCosts) -> float:
    return metrics.span_bubble_ratio(longest_path.play(lower(schedule, costs, None)))


def peak_activations(schedule: Schedule, weight_gradient_inputs: float) -> float:
    """Most activations as the paper counts them: F adds 1, I frees what W does not need, W the rest."""
    adds = np.zeros(4)
    adds[[F, I, W]] = 1.0, weight_gradient_inputs - 1.0, -weight_gradient_inputs
    shares = schedule.ranks * schedule.placement.share_of_stage[schedule.stage]
    return max(
        float(np.cumsum((adds[schedule.kind] * shares)[schedule.rank == rank]).max()) for rank in range(schedule.ranks)
    )


seconds = st.floats(0.1, 3.0)


@st.composite
def settings_of(draw: st.DrawFn) -> tuple[int, int, UniformCosts]:
    """Return ranks, micro-batches and costs, each rank's share with its own times."""
    ranks = draw(st.integers(1, 6))
    shares = [tuple(draw(st.lists(seconds, min_size=ranks, max_size=ranks))) for _ in range(3)]
    costs = UniformCosts(shares[0], shares[1], shares[2], transfer_s=draw(st.sampled_from([0.0, 0.05, 1.0])))
    return ranks, draw(st.integers(1, 14)), costs


@pytest.mark.parametrize(("micro_batches", "published"), [(24, 0.0029), (32, 0.0022), (64, 0.0010)])
def test_at_twice_the_memory_it_reaches_the_published_rates(micro_batches: int, published: float) -> None:
    costs = uniform(*PUBLISHED_6B[micro_batches])
    schedule = build("zb-auto", 8, micro_batches, memory_limit=16.0, **options(costs))
    assert span_bubble(schedule, costs) <= published
    assert peak_activations(schedule, 0.43) <= 16 + 1e-9


def test_in_a_v_it_reaches_the_published_rate() -> None:
    costs = uniform(*PUBLISHED_V)
    schedule = build("zb-auto", 16, 48, placement="v", **options(costs))
    assert round(span_bubble(schedule, costs), 4) <= 0.0697
    assert peak_activations(schedule, 0.43) <= 16 + 1e-9


def test_nothing_in_a_v_can_be_better_at_the_published_setting() -> None:
    """A bound by hand for rank 15 of 16, where the tensors turn.

    No I can run there before the first micro-batch went up and came back, and 16 activations are 32 forwards. Before
    the last F ends, room for 96 forwards takes at least 64 I and 64 W. Then the last micro-batch goes up, back down
    and up the other way, and rank 0 ends with its W.
    """
    f, i, w, transfer = 14.407, 14.380, 9.676, 1.610
    hop, back = f + transfer, i + transfer
    first_input = 15 * hop + 2 * f + 15 * hop + i + 14 * back + transfer
    last_forward = first_input + 64 * f + 64 * (i + w)
    end = last_forward + 15 * hop + i + 15 * back + i + 15 * back + w
    busy = 48 * 2 * (f + i + w)
    costs = uniform(*PUBLISHED_V)
    schedule = build("zb-auto", 16, 48, placement="v", **options(costs))
    assert span_bubble(schedule, costs) == pytest.approx(1 - busy / end, abs=1e-9)


@settings(max_examples=60)
@given(settings_of())
def test_at_the_memory_of_1f1b_it_is_never_worse_than_zb_h1(setting: tuple[int, int, UniformCosts]) -> None:
    ranks, micro_batches, costs = setting
    schedule = build("zb-auto", ranks, micro_batches, times=times_of(costs, linear(ranks)))
    zb_h1 = span_bubble(build("zb-h1", ranks, micro_batches), costs)
    assert span_bubble(schedule, costs) <= zb_h1 + 1e-9


@settings(max_examples=40)
@given(settings_of())
def test_in_a_v_it_is_never_worse_than_zb_v(setting: tuple[int, int, UniformCosts]) -> None:
    ranks, micro_batches, costs = setting
    schedule = build("zb-auto", ranks, micro_batches, times=times_of(costs, v_shape(ranks)), placement="v")
    zb_v = span_bubble(build("zb-v", ranks, micro_batches), costs)
    assert span_bubble(schedule, costs) <= zb_v + 1e-9


@settings(max_examples=80)
@given(
    setting=settings_of(),
    placement=st.sampled_from(["linear", "v"]),
    limit=st.floats(1.0, 14.0) | st.just(1e6),
    weight_gradient_inputs=st.sampled_from([0.0, 0.366, 0.43, 1.0]),
)
def test_whatever_the_times_each_op_runs_once_within_the_limit(
    setting: tuple[int, int, UniformCosts], placement: Placing, limit: float, weight_gradient_inputs: float
) -> None:
    ranks, micro_batches, costs = setting
    where = spec("zb-auto").placement(ranks, {"placement": placement})
    schedule = build(
        "zb-auto",
        ranks,
        micro_batches,
        times=times_of(costs, where),
        placement=placement,
        memory_limit=limit,
        weight_gradient_inputs=weight_gradient_inputs,
    )
    assert schedule.placement == where
    ops = Counter(zip(schedule.kind.tolist(), schedule.stage.tolist(), schedule.micro_batch.tolist(), strict=True))
    wanted = {(k, s, m) for k in (F, I, W) for s in range(where.stages) for m in range(micro_batches)}
    assert ops == dict.fromkeys(wanted, 1)
    assert peak_activations(schedule, weight_gradient_inputs) <= limit + 1e-6
    span_bubble(schedule, costs)  # refuses an order in which ranks wait for each other


@pytest.mark.parametrize(("placement", "limit"), [("linear", 16.0), ("v", 8.0)])
def test_at_unit_times_no_bubble_is_left_where_the_papers_leave_none(placement: Placing, limit: float) -> None:
    """ZB-H2 at 2P - 1 activations and ZB-V at P have none for F = I = W."""
    schedule = build("zb-auto", 8, 24, placement=placement, memory_limit=limit)
    assert span_bubble(schedule, uniform(1.0, 1.0, 1.0, 0.0)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("placement", ["linear", "v"])
def test_more_memory_helps(placement: Placing) -> None:
    costs = uniform(*PUBLISHED_6B[24])
    bubbles = [
        span_bubble(build("zb-auto", 8, 24, placement=placement, memory_limit=limit, **options(costs)), costs)
        for limit in (2.0, 4.0, 8.0, 12.0, 16.0)
    ]
    assert bubbles == sorted(bubbles, reverse=True)
    assert bubbles[-1] < bubbles[0] / 10


def test_the_same_question_has_the_same_answer_in_any_unit_of_time() -> None:
    costs = uniform(*PUBLISHED_6B[24])
    times = times_of(costs, linear(8))
    slower = OpTimes(
        times.forward_s * 1024, times.backward_input_s * 1024, times.backward_weight_s * 1024, 0.527 * 1024
    )
    first = build("zb-auto", 8, 24, times=times, memory_limit=12)
    assert first == build("zb-auto", 8, 24, times=times, memory_limit=12)
    assert first == build("zb-auto", 8, 24, times=slower, memory_limit=12)


def test_times_by_name_are_uniform_times() -> None:
    named = build("zb-auto", 4, 8, placement="v", forward=2.0, backward_input=3.0, transfer=0.25)
    times = OpTimes.uniform(v_shape(4), forward=2.0, backward_input=3.0, transfer=0.25)
    assert times.forward_s.tolist() == [1.0] * 8
    assert times.backward_weight_s.tolist() == [0.5] * 8
    assert named == build("zb-auto", 4, 8, placement="v", times=times)
    assert build("zb-auto", 4, 8) == build("zb-auto", 4, 8, times=OpTimes.uniform(linear(4)))


def test_one_rank_runs_forwards_and_backwards_in_turn() -> None:
    # One activation fits, so each micro-batch must be done before the next begins.
    assert format_order(build("zb-auto", 1, 2)) == "0F0,0I0,0W0,0F1,0I1,0W1\n"


@pytest.mark.parametrize(("placement", "limit", "calls_of_an_op"), [("linear", 2.0, 400), ("v", 0.5, 800)])
@pytest.mark.slow
def test_large_orders_take_no_more_work_an_op_than_small_ones(
    calls: Calls, placement: Placing, limit: float, calls_of_an_op: int
) -> None:
    """A million calls take about a second; 32 ranks and 256 micro-batches are some 25,000 ops, twice that in a V."""
    for ranks, micro_batches in ((4, 32), (8, 64)):
        costs = options(uniform(*PUBLISHED_V))
        found = partial(
            build, "zb-auto", ranks, micro_batches, placement=placement, memory_limit=limit * ranks, **costs
        )
        assert calls(found) < calls_of_an_op * len(found().kind)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"memory_limit": 0.5},
            "zb-auto: memory_limit must be 1 or more (one micro-batch through one rank's share of the model), got 0.5",
        ),
        ({"weight_gradient_inputs": 1.5}, "zb-auto: weight_gradient_inputs must be a part from 0 to 1, got 1.5"),
        ({"times": OpTimes.uniform(v_shape(4))}, "zb-auto: times must have 4 stages, got 8"),
        ({"times": OpTimes.uniform(linear(4)), "forward": 2.0}, "zb-auto: give either times or forward, not both"),
        ({"times": 3}, "zb-auto: option times must be an OpTimes, got 3"),
        ({"placement": "loop"}, "zb-auto: option placement must be 'linear' or 'v', got 'loop'"),
        ({"transfer": -1.0}, "times: transfer_s must be finite and 0 or more, got -1.0"),
    ],
)
def test_wrong_options_are_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ScheduleError) as refusal:
        build("zb-auto", 4, 8, **wrong)
    assert str(refusal.value) == message


def test_times_of_different_shapes_are_refused() -> None:
    with pytest.raises(
        ScheduleError, match=r"backward_weight_s must have a time for each stage, shape \(2,\), got \(3,\)"
    ):
        OpTimes(np.ones(2), np.ones(2), np.ones(3))


def test_only_schedules_that_adapt_take_times() -> None:
    adaptive = [name for name, one in schedules().items() if one.adapts_to_times]
    assert adaptive == ["searched", "vocab-1f1b", "zb-auto"]
    assert {"forward", "backward_input", "backward_weight", "transfer"} <= set(spec("zb-auto").options)
    with pytest.raises(ScheduleError, match="1f1b: unknown option 'forward'"):
        build("1f1b", 4, 8, forward=2.0)
    with pytest.raises(ScheduleError, match="1f1b is the same for all times"):
        spec("1f1b").placement(4, {})
