"""Metrics: small timelines by hand, and the bubbles, peaks and rates that papers publish.

Letters are the papers': P ranks, M micro-batches, F, I, W the times of one rank's share, B = I + W, X that of a pair.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim.analysis import metrics
from dualpipe_sim.analysis.critical_path import critical_path
from dualpipe_sim.analysis.occupancy import in_flight_over_time
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine import longest_path
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.placement import v_shape
from dualpipe_sim.order.text import parse_order
from dualpipe_sim.schedules.registry import build

UNIT = UniformCosts(1.0, 1.0, 1.0)


def run(name: str, ranks: int, micro_batches: int, costs: UniformCosts = UNIT, **options: int) -> Timeline:
    return longest_path.play(lower(build(name, ranks, micro_batches, **options), costs))


def run_order(text: str, costs: UniformCosts) -> Timeline:
    return longest_path.play(lower(parse_order(text), costs))


# --- by hand ---------------------------------------------------------------------------------------------------------

# F = 1, B = 2, a transfer 0.5: rank 0 runs 0F0 0-1, 0F1 1-2, 0B0 5-7, 0B1 8-10, rank 1 1F0 1.5-2.5, 1B0 2.5-4.5,
# 1F1 4.5-5.5, 1B1 5.5-7.5.
TWO_BY_TWO = "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n"


@pytest.fixture
def two_by_two() -> Timeline:
    return run_order(TWO_BY_TWO, UniformCosts(1, 1.5, 0.5, transfer_s=0.5))


def test_busy_and_idle_time_of_each_rank(two_by_two: Timeline) -> None:
    assert metrics.busy_s(two_by_two).tolist() == [6, 6]
    assert metrics.idle_s(two_by_two).tolist() == [4, 4]
    assert metrics.bubble_ratio_by_rank(two_by_two).tolist() == [0.4, 0.4]
    assert metrics.bubble_ratio(two_by_two) == 0.4
    assert metrics.compute_idle_ratio(two_by_two) == 0.4


def test_a_span_leaves_out_what_comes_before_the_first_op_and_after_the_last(two_by_two: Timeline) -> None:
    # the spans are 10 on rank 0 and 7.5 - 1.5 = 6 on rank 1
    assert metrics.span_bubble_ratio(two_by_two) == (10 - 6) / 10


def test_every_idle_second_has_its_cause(two_by_two: Timeline) -> None:
    # rank 0 is idle from 2 to 5, half a second of it for 1B0's gradient under way, and from 7 to 8 for 1B1 and its
    # gradient; rank 1 is idle until 1.5 and from 7.5 on
    by_cause = {cause: idle.tolist() for cause, idle in metrics.idle_s_by_cause(two_by_two).items()}
    assert by_cause == {
        "warm_up": [0, 1.5],
        "drain": [0, 2.5],
        "exposed_transfer": [1.0, 0],
        "waiting": [3.0, 0],
    } | {cause: [0, 0] for cause in by_cause.keys() - {"warm_up", "drain", "exposed_transfer", "waiting"}}


def test_a_transfer_that_arrives_before_the_rank_is_free_exposes_nothing() -> None:
    timeline = run_order("0F0,0F1,0B0,0B1\n1F0,1F1,1B0,1B1\n", UniformCosts(1, 1, 1, transfer_s=0.5))
    # 1F1's input is there at 2.5, when 1F0 ends
    assert metrics.idle_s_by_cause(timeline)["exposed_transfer"][1] == 0


def test_in_flight_counts_from_the_start_of_f_to_the_end_of_b(two_by_two: Timeline) -> None:
    times, counts = (live := in_flight_over_time(two_by_two)[0]).at_s, live.total
    assert counts[np.searchsorted(times, [0.5, 1.5, 4, 6, 7.5, 9], side="right") - 1].tolist() == [1, 2, 2, 2, 1, 1]
    assert counts[-1] == 0
    assert metrics.peak_in_flight_by_rank(two_by_two).tolist() == [2, 1]
    assert metrics.peak_activations_by_rank(two_by_two).tolist() == [2, 1]


def test_in_flight_ends_with_w_where_the_backward_is_split() -> None:
    timeline = run_order("0F0,0I0,0F1,0I1,0W0,0W1\n", UNIT)
    assert metrics.peak_in_flight_by_rank(timeline).tolist() == [2]
    timeline = run_order("0F0,0I0,0W0,0F1,0I1,0W1\n", UNIT)
    assert metrics.peak_in_flight_by_rank(timeline).tolist() == [1]


def test_half_a_ranks_share_is_half_an_activation() -> None:
    order = parse_order("0F0,3F0,3B0,0B0\n1F0,2F0,2B0,1B0\n", v_shape(2))
    timeline = longest_path.play(lower(order, UNIT))
    assert metrics.peak_in_flight_by_rank(timeline).tolist() == [2, 2]
    assert metrics.peak_activations_by_rank(timeline).tolist() == [1.0, 1.0]


def test_the_critical_path_goes_through_both_ranks(two_by_two: Timeline) -> None:
    path = [two_by_two.graph.label(node) for node in critical_path(two_by_two).nodes]
    assert path == ["0F0", "0SEND_F0", "1F0", "1B0", "1F1", "1B1", "1SEND_B1", "0B1"]


def test_a_run_that_takes_no_time_has_no_bubble() -> None:
    timeline = run("1f1b", 2, 2, UniformCosts(0.0, 0.0, 0.0))
    assert metrics.bubble_ratio(timeline) == 0
    assert metrics.span_bubble_ratio(timeline) == 0


# --- bubbles ---------------------------------------------------------------------------------------------------------

time = st.floats(0.1, 10)


def idle_s(name: str, ranks: int, micro_batches: int, costs: UniformCosts, **options: int) -> list[float]:
    return [float(idle) for idle in metrics.idle_s(run(name, ranks, micro_batches, costs, **options))]


@given(st.sampled_from(["gpipe", "1f1b"]), st.integers(1, 8), st.integers(1, 24), time, time, time)
def test_gpipe_and_1f1b_idle_for_p_minus_1_forwards_and_backwards(
    name: str, P: int, M: int, F: float, I: float, W: float
) -> None:
    """(P-1)(F+B) on every rank (Narayanan et al. 2021, section 2.2)."""
    assert idle_s(name, P, M, UniformCosts(F, I, W)) == pytest.approx([(P - 1) * (F + I + W)] * P, rel=1e-9)


looped = st.sampled_from(["interleaved-1f1b", "looped-bfs"])


@given(looped, st.integers(1, 6), st.integers(1, 4), st.integers(2, 4), time, time)
def test_stages_that_are_a_vth_as_deep_idle_for_a_vth(name: str, P: int, K: int, v: int, F: float, B: float) -> None:
    """(P-1)(F+B)/v (Narayanan et al. 2021, section 2.2; Lamy-Poirier 2022, section 4.1), whole-rank F and B."""
    expected = [(P - 1) * (F + B) / v] * P
    costs = UniformCosts(F, B / 2, B / 2)
    assert idle_s(name, P, K * P, costs, stages_per_rank=v) == pytest.approx(expected, rel=1e-9)


@given(st.integers(1, 8), st.integers(0, 16), time, time, st.floats(0.01, 1))
def test_zb_h1_fills_a_third_of_1f1bs_bubble(P: int, more: int, F: float, I: float, part: float) -> None:
    """(P-1)(F+I-W) where W is no longer than F and I (Qi et al. 2024, section 2.1)."""
    W = part * min(F, I)
    assert idle_s("zb-h1", P, P + more, UniformCosts(F, I, W)) == pytest.approx([(P - 1) * (F + I - W)] * P, rel=1e-9)


@given(st.integers(1, 8), st.integers(0, 16), time, time, st.floats(0.01, 1), st.floats(0, 1))
def test_zb_h2s_span_leaves_out_warm_up_and_drain(
    P: int, more: int, F: float, I: float, part: float, under_way: float
) -> None:
    """(P-1)(F+I+2C-2W) over the span (Qi et al. 2024, table 3).

    That takes transfers C ≤ (F+I)/2, by hand: with longer ones rank 0's 2P-1 first forwards are over before the first
    gradient is back and its next forward is not there when the last rank could run it.
    """
    W, C = part * min(F, I), under_way * (F + I) / 2
    timeline = run("zb-h2", P, 2 * P - 1 + more, UniformCosts(F, I, W, transfer_s=C))
    idle = longest_span_s(timeline) - metrics.busy_s(timeline).max()
    assert idle == pytest.approx((P - 1) * (F + I + 2 * C - 2 * W), rel=1e-9, abs=1e-9)


@given(st.integers(1, 4), st.integers(1, 5), time, st.floats(1, 3))
def test_chimeras_blocks_idle_where_backwards_are_longer(half: int, K: int, F: float, ratio: float) -> None:
    """(D-2)(F+K(B-F)) for N = K·D micro-batches and B ≥ F (Li & Hoefler 2021, table 2)."""
    D, B = 2 * half, ratio * F
    expected = (D - 2) * (F + K * (B - F))
    assert idle_s("chimera", D, K * D, UniformCosts(F, B / 2, B / 2)) == pytest.approx(
        [expected] * D, abs=1e-9 * B * D * K
    )


def longest_span_s(timeline: Timeline) -> float:
    first = timeline.first_task_of_rank
    return float((timeline.task_end_s[first[1:] - 1] - timeline.task_start_s[first[:-1]]).max())


overlapping = st.tuples(st.floats(0.1, 10), st.floats(1, 2), st.floats(0.01, 1), st.floats(0, 1))
"""F, I/F, W/F and where in max(B, F) … F+B a pair lies, for I ≥ F ≥ W."""


def with_pairs(drawn: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    F, longer, shorter, overlap = drawn
    I, W = F * longer, F * shorter
    return F, I, W, I + W + overlap * F


@given(st.integers(1, 5), st.integers(0, 12), overlapping)
def test_dualpipe_idles_on_each_rank_by_its_distance_from_the_middle(
    h: int, more: int, drawn: tuple[float, float, float, float]
) -> None:
    """(h-1)(X+B-3W) on the middle ranks (DeepSeek-V3 report, table 2), for I = F; the other ranks less, by hand."""
    F, I, W, X = with_pairs(drawn)
    B, P = I + W, 2 * h
    middle = max((h - 1) * (X + F - 2 * W), (h - 1) * (X + B - 3 * W) - F)
    distances = [min(rank, P - 1 - rank) for rank in range(P)]
    expected = [middle - max(0, h - 2 - q) * (F + B - X) for q in distances]
    found = idle_s("dualpipe", P, 2 * P + 2 * more, UniformCosts(F, I, W, overlapped=X))
    assert found == pytest.approx(expected, abs=1e-9 * P * B)


@given(st.integers(1, 8), st.integers(0, 12), st.floats(0.1, 10), st.floats(0.01, 1), st.floats(0, 1))
def test_dualpipe_and_dualpipev_idle_as_published_where_i_is_f(
    h: int, more: int, F: float, shorter: float, overlap: float
) -> None:
    """(PP/2-1)(X+B-3W) for PP stages (DeepSeek-V3 report, table 2); a stage of DualPipeV is half as deep."""
    F, I, W, X = with_pairs((F, 1.0, shorter, overlap))
    costs = UniformCosts(F, I, W, overlapped=X)
    published = (h - 1) * (X + I + W - 3 * W)
    assert max(idle_s("dualpipe", 2 * h, 4 * h + 2 * more, costs)) == pytest.approx(published, abs=1e-9 * h * X)
    assert max(idle_s("dualpipev", h, 2 * h + more, costs)) == pytest.approx(published / 2, abs=1e-9 * h * X)


@pytest.mark.parametrize("P", [2, 4, 8, 16])
def test_dualpipes_bubble_and_peak_do_not_grow_with_micro_batches(P: int) -> None:
    """DeepSeek-V3 report, section 3.2.1: "neither the bubbles nor activation memory will increase" with them."""
    costs = UniformCosts(58.7, 77.9, 25.3, overlapped=124.3)
    timelines = [run("dualpipe", P, many * P, costs) for many in (2, 3, 4, 10, 20, 40)]
    for timeline in timelines:
        np.testing.assert_allclose(metrics.idle_s(timeline), metrics.idle_s(timelines[0]), rtol=1e-9)
        assert metrics.peak_in_flight_by_rank(timeline).tolist() == [P + 1] * P


def test_figure_5_idles_six_units_on_every_rank() -> None:
    """DeepSeek-V3 report, figure 5: 8 ranks, 20 micro-batches."""
    assert idle_s("dualpipe", 8, 20, UNIT) == [6] * 8


# --- memory ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 8), st.integers(0, 12))
@pytest.mark.slow
def test_peak_activations_are_the_published_ones(P: int, more: int) -> None:
    """In whole-rank activations; sources as for the bubbles."""
    M = 2 * P + more

    def peak(name: str, M: int) -> float:
        return float(metrics.peak_activations_by_rank(run(name, P, M)).max())

    assert peak("gpipe", M) == M
    assert peak("1f1b", M) == P
    assert peak("zb-h1", M) == P
    assert peak("zb-h2", M) == 2 * P - 1
    assert peak("zb-v", M) == P
    assert peak("interleaved-1f1b", 2 * P) == P + (P - 1) / 2
    assert peak("looped-bfs", M) == M


@pytest.mark.parametrize("P", [2, 4, 8, 16])
def test_dualpipev_holds_p_plus_1_of_half_as_deep_stages_twice(P: int) -> None:
    """DeepSeek's table counts PP+1 activations for PP = 2P stages: P + 1/2 of a whole rank."""
    timeline = run("dualpipev", P, 3 * P)
    assert metrics.peak_in_flight_by_rank(timeline).tolist() == [2 * P + 1] * P
    assert metrics.peak_activations_by_rank(timeline).tolist() == [P + 0.5] * P


@given(st.integers(1, 8), st.integers(1, 5))
def test_chimera_holds_between_half_the_depth_and_the_depth(half: int, K: int) -> None:
    """D/2+1 … D activations (Li & Hoefler 2021, table 2)."""
    D = 2 * half
    peaks = metrics.peak_activations_by_rank(run("chimera", D, K * D))
    assert (peaks.min(), peaks.max()) == (D / 2 + 1, D)


# --- published rates -------------------------------------------------------------------------------------------------

# The Zero Bubble paper's 6.2B model on 8 ranks: profiled times in ms (table 6) and bubble rates (table 5), by M.
PROFILES = {
    24: (29.718, 29.444, 19.927, 0.527),
    32: (29.802, 29.428, 19.530, 0.577),
    64: (29.935, 29.621, 19.388, 0.535),
}
RATES = {
    "1f1b": {24: 0.2347, 32: 0.1898, 64: 0.1091},
    "zb-h1": {24: 0.1323, 32: 0.1045, 64: 0.0554},
    "zb-h2": {24: 0.0698, 32: 0.0559, 64: 0.0294},
}


@pytest.mark.parametrize("M", PROFILES)
@pytest.mark.parametrize("name", RATES)
def test_bubble_rates_are_the_zero_bubble_papers_to_four_decimals(name: str, M: int) -> None:
    """https://arxiv.org/abs/2401.10241, tables 5 and 6.

    A rate is (longest - busy) / longest. The paper's table takes the longest stage from time 0 for 1F1B and ZB-H1, from
    that stage's own first op for ZB-H2.
    """
    F, I, W, C = PROFILES[M]
    timeline = run(name, 8, M, UniformCosts(F, I, W, transfer_s=C))
    longest = longest_span_s(timeline) if name == "zb-h2" else timeline.makespan_s
    rate = (longest - metrics.busy_s(timeline).max()) / longest
    assert round(rate, 4) == RATES[name][M]


def test_the_span_bubble_ratio_is_the_papers_rate_of_zb_h2() -> None:
    F, I, W, C = PROFILES[24]
    timeline = run("zb-h2", 8, 24, UniformCosts(F, I, W, transfer_s=C))
    assert round(metrics.span_bubble_ratio(timeline), 4) == 0.0698


def test_zb_v_has_no_bubble_at_unit_costs() -> None:
    """Qi et al. 2024, section 6: over the span, where F = I = W."""
    assert metrics.span_bubble_ratio(run("zb-v", 8, 24)) == pytest.approx(0, abs=1e-12)
