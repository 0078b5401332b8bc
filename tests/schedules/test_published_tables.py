"""What papers publish, measured: bubble and memory by the simulator against their tables and formulas."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dualpipe_sim import ScheduleError, Timeline, build
from dualpipe_sim.analysis import metrics
from dualpipe_sim.config.yaml_text import read_yaml
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine.play import play
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.schedules.registry import schedules
from dualpipe_sim.schedules.theory import FORMULAS, closed_form


class Times(NamedTuple):
    """Times of one rank's share of the model."""

    F: float = 1.0
    I: float = 1.0
    W: float = 1.0
    C: float = 0.0
    X: float | None = None


UNIT = Times()


def run(name: str, ranks: int, micro_batches: int, times: Times = UNIT, **options: object) -> Timeline:
    if schedules()[name].adapts_to_times:
        options = {"forward": times.F, "backward_input": times.I, "backward_weight": times.W, **options}
    order = build(name, ranks, micro_batches, **options)
    return play(lower(order, UniformCosts(times.F, times.I, times.W, times.X, times.C)))


def idle_s(timeline: Timeline) -> float:
    """Idle seconds of the rank that idles longest."""
    return float(metrics.idle_s(timeline).max())


def span_idle_s(timeline: Timeline) -> float:
    """Idle seconds inside the longest span from a rank's first op to its last."""
    begin = timeline.first_task_of_rank
    spans = timeline.task_end_s[begin[1:] - 1] - timeline.task_start_s[begin[:-1]]
    return float(spans.max() - metrics.busy_s(timeline).max())


def peak(timeline: Timeline) -> float:
    return float(metrics.peak_activations_by_rank(timeline).max())


# DeepSeek-V3 report, arXiv 2412.19437, table 2 and figure 5


def test_dualpipe_on_8_ranks_with_20_micro_batches_is_figure_5() -> None:
    timeline = run("dualpipe", 8, 20, Times(X=3.0))
    assert timeline.makespan_s == 66
    assert metrics.idle_s(timeline).tolist() == [6.0] * 8


@pytest.mark.parametrize("pp", [2, 4, 8])
@pytest.mark.parametrize("times", [Times(X=3.0), Times(2.0, 2.0, 1.0, X=4.0), Times(3.0, 3.0, 2.0, X=5.5)])
def test_deepseeks_table_of_pipeline_bubbles(pp: int, times: Times) -> None:
    F, I, W, _, X = times
    B = I + W
    assert X is not None
    one_direction, zb1p = run("1f1b", pp, 4 * pp, times), run("zb-h1", pp, 4 * pp, times)
    dualpipe = run("dualpipe", pp, 4 * pp, times)
    # DualPipeV holds PP stages on PP/2 ranks, so a rank's share takes twice as long as a stage
    dualpipev = run("dualpipev", pp // 2, 4 * pp, Times(2 * F, 2 * I, 2 * W, X=2 * X))
    assert idle_s(one_direction) == pytest.approx((pp - 1) * (F + B))
    assert idle_s(zb1p) == pytest.approx((pp - 1) * (F + B - 2 * W))
    assert idle_s(dualpipe) == pytest.approx((pp / 2 - 1) * (X + B - 3 * W))
    assert idle_s(dualpipev) == pytest.approx((pp / 2 - 1) * (X + B - 3 * W))
    # activations of one stage
    assert peak(one_direction) == peak(zb1p) == pp
    assert peak(dualpipe) == 2 * peak(dualpipev) == pp + 1
    assert peaks_are_equal_on_every_rank(dualpipe)
    assert [copies_of_the_model(t) for t in (one_direction, zb1p, dualpipe, dualpipev)] == [1, 1, 2, 1]


def peaks_are_equal_on_every_rank(timeline: Timeline) -> bool:
    return len(set(metrics.peak_activations_by_rank(timeline))) == 1


def copies_of_the_model(timeline: Timeline) -> int:
    return len(timeline.graph.schedule.placement.pipes)


@pytest.mark.parametrize("ranks", [4, 6, 8])
def test_dualpipes_outer_ranks_idle_less_where_pairs_overlap(ranks: int) -> None:
    # with X = F + B - gain, rank q < P/2 - 1 idles (P/2 - 2 - q) gains less than the middle
    F, I, W, gain = 3.0, 3.0, 1.0, 0.5
    timeline = run("dualpipe", ranks, 4 * ranks, Times(F, I, W, X=F + I + W - gain))
    idle = metrics.idle_s(timeline)
    middle = ranks // 2 - 1
    for q in range(middle):
        assert idle[q] == pytest.approx(idle[middle] - (middle - 1 - q) * gain)
    assert idle.tolist() == pytest.approx(idle[::-1].tolist())


# Chimera, arXiv 2107.06925, table 2 (F = B) and section 3.5


@pytest.mark.parametrize("D", [2, 4, 6, 8, 12])
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_chimeras_table_of_bubbles_and_activations(D: int, blocks: int) -> None:
    N = blocks * D
    equal = Times(1.0, 0.5, 0.5)
    for name in ("gpipe", "1f1b"):
        assert metrics.bubble_ratio(run(name, D, N, equal)) == pytest.approx((D - 1) / (N + D - 1))
    assert set(metrics.peak_activations_by_rank(run("gpipe", D, N, equal))) == {N}
    assert sorted(metrics.peak_activations_by_rank(run("1f1b", D, N, equal))) == list(range(1, D + 1))
    for f in (f for f in range(1, D) if D // 2 % f == 0):
        timeline = run("chimera", D, N, equal, pairs=f)
        assert metrics.bubble_ratio(timeline) == pytest.approx((D - 2 * f) / (2 * f * N + D - 2 * f))
        activations = metrics.peak_activations_by_rank(timeline)
        assert (activations.min(), activations.max()) == (D - D / (2 * f) + 1, D)
        assert copies_of_the_model(timeline) == 2 * f


@pytest.mark.parametrize("D", [4, 6, 8])
def test_chimera_with_backwards_twice_as_long(D: int) -> None:
    assert metrics.bubble_ratio(run("chimera", D, D)) == pytest.approx((D - 2) / (3 * D / 2 + D - 2))
    assert idle_s(run("chimera", D, D)) == (D - 2) * 2


@pytest.mark.parametrize(("D", "f"), [(4, 1), (6, 1), (8, 1), (8, 2), (12, 3)])
def test_forward_doubling_leaves_no_bubble_between_blocks_and_takes_twice_the_memory(D: int, f: int) -> None:
    doubled = [run("chimera", D, M, pairs=f, concatenation="forward-doubling") for M in (2 * D, 4 * D, 8 * D)]
    assert len({idle_s(timeline) for timeline in doubled}) == 1
    assert {peak(timeline) for timeline in doubled} == {2 * D}
    direct = [idle_s(run("chimera", D, M, pairs=f)) for M in (2 * D, 4 * D, 8 * D)]
    assert direct[0] < direct[1] < direct[2]
    # halves of micro-batches in the same order: half the bubble, and no more memory than without
    half = Times(UNIT.F / 2, UNIT.I / 2, UNIT.W / 2)
    halved = run("chimera", D, 2 * D, half, pairs=f, concatenation="backward-halving")
    assert halved.graph.schedule == doubled[1].graph.schedule
    assert idle_s(halved) == idle_s(doubled[0]) / 2
    assert peak(halved) == D


# Zero Bubble, arXiv 2401.10241, tables 5 and 9: four models in three settings each; milliseconds

PRINTED: Any = read_yaml(Path(__file__).parents[2] / "examples" / "data" / "published.yaml")
SETTINGS: list[dict[str, Any]] = PRINTED["zero_bubble"]["settings"]


def times_of(setting: dict[str, Any]) -> Times:
    return Times(setting["F"], setting["B"], setting["W"], setting["transfer"])


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda one: f"{one['model']}-{one['micro_batches']}")
def test_zero_bubble_rates_from_profiled_times(setting: dict[str, Any]) -> None:
    # a rate is of the longest rank's own span
    sizes = setting["stages"], setting["micro_batches"], times_of(setting)
    for method, name in {"1F1B": "1f1b", "ZB-H1": "zb-h1", "ZB-H2": "zb-h2"}.items():
        rate = metrics.span_bubble_ratio(run(name, *sizes))
        assert rate == pytest.approx(setting["bubble"][method], abs=5e-5), method
    assert peak(run("zb-h2", *sizes)) == 2 * setting["stages"] - 1


def test_interleaved_1f1b_waits_where_the_paper_does_not() -> None:
    # its interleaved column lets only the first micro-batch of each group wait on its way from the last rank to the
    # first, and is smaller; with all of them waiting:
    setting = next(one for one in SETTINGS if (one["model"], one["micro_batches"]) == ("6.2B", 24))
    timeline = run("interleaved-1f1b", 8, 24, times_of(setting), stages_per_rank=setting["layers"])
    assert metrics.span_bubble_ratio(timeline) == pytest.approx(0.0827, abs=5e-5)
    assert setting["bubble"]["1F1B-I"] == 0.0808


@pytest.mark.parametrize("ranks", [2, 3, 4, 8])
@pytest.mark.parametrize("rounds", [2, 3])
def test_zb_v_has_no_bubble_at_unit_times_and_1f1bs_memory(ranks: int, rounds: int) -> None:
    timeline = run("zb-v", ranks, rounds * ranks)
    assert metrics.span_bubble_ratio(timeline) == pytest.approx(0.0, abs=1e-12)
    assert peak(timeline) == ranks


def test_zb_v_is_near_its_published_rate() -> None:
    # 6.2B on 16 ranks, M = 48: per stage 14.407, 14.380, 9.676 ms, and 1.610 ms a transfer; a rank has two stages.
    # The published rate is that of a schedule adapted to these times, the order here is the static one.
    timeline = run("zb-v", 16, 48, Times(2 * 14.407, 2 * 14.380, 2 * 9.676, 1.610))
    assert metrics.span_bubble_ratio(timeline) == pytest.approx(0.0697, abs=0.002)


# Hanayo, arXiv 2308.15762: more waves, smaller bubble; at most as many micro-batches in flight as ranks where M = P


@pytest.mark.parametrize("ranks", [4, 8])
def test_hanayos_bubble_shrinks_with_waves(ranks: int) -> None:
    runs = [run("hanayo", ranks, ranks, waves=waves) for waves in (1, 2, 4)]
    idle = [idle_s(timeline) for timeline in runs]
    assert idle == sorted(idle, reverse=True)
    assert max(map(peak, runs)) == pytest.approx(ranks)


# Overlapped variants: the bubble of the schedule without pairs


@pytest.mark.parametrize("gain", [0.0, 0.5, 1.0])
def test_overlapped_variants_keep_the_bubble_of_the_schedule_without_pairs(gain: float) -> None:
    times = Times(X=3.0 - gain)
    assert idle_s(run("1f1b-overlap", 4, 16, times)) == pytest.approx(idle_s(run("1f1b", 4, 16)))
    assert idle_s(run("interleaved-1f1b-overlap", 4, 16, times)) == pytest.approx(
        idle_s(run("interleaved-1f1b", 4, 16))
    )
    assert peak(run("1f1b-overlap", 4, 16, times)) == 2 * 4


# Every closed form, at any sizes and times in its range


seconds = st.integers(1, 12).map(lambda quarters: quarters / 4)


@st.composite
def settings(draw: st.DrawFn) -> tuple[str, int, int, Times, dict[str, object]]:
    name = draw(st.sampled_from(sorted(FORMULAS)))
    options: dict[str, object] = {}
    if "stages_per_rank" in schedules()[name].options:
        options["stages_per_rank"] = draw(st.integers(2, 3))
    if "barriers" in schedules()[name].options:
        options["barriers"] = draw(st.integers(1, 2))
    if name == "chimera":
        options["pairs"] = draw(st.integers(1, 3))
        options["concatenation"] = draw(st.sampled_from(["direct", "direct", "forward-doubling"]))
    F, I, W = draw(st.one_of(st.just((1.0, 1.0, 1.0)), st.tuples(seconds, seconds, seconds)))
    X = draw(st.one_of(st.none(), st.floats(0, 1).map(lambda gain: F + I + W - gain * min(F, I + W))))
    times = Times(F, I, W, draw(st.sampled_from([0.0, 0.0, 0.25])), X)
    return name, draw(st.integers(1, 8)), draw(st.integers(1, 24)), times, options


@given(settings())
def test_closed_forms_are_what_the_simulator_measures(
    setting: tuple[str, int, int, Times, dict[str, object]],
) -> None:
    name, ranks, micro_batches, times, options = setting
    try:
        timeline = run(name, ranks, micro_batches, times, **options)
    except ScheduleError:
        assume(False)
    formula = closed_form(
        name,
        ranks,
        micro_batches,
        forward=times.F,
        backward_input=times.I,
        backward_weight=times.W,
        overlapped=times.X,
        transfer_s=times.C,
        options=options,
    )
    assert formula is not None
    measured = idle_s(timeline) if formula.over == "makespan" else span_idle_s(timeline)
    if formula.exact and formula.bubble_s is not None:
        assert measured == pytest.approx(formula.bubble_s, abs=1e-9)
    if formula.peak_activations is not None:
        assert peak(timeline) == pytest.approx(formula.peak_activations)


@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_every_closed_form_holds_somewhere_and_names_its_source(name: str) -> None:
    formula = closed_form(name, 4, 16)
    assert formula is not None
    assert formula.exact
    assert formula.bubble_s is not None
    assert (formula.peak_activations is None) == (
        name in {"po-f", "po-h", "stp"}
    )  # which papers give by its order alone
    assert formula.source
    assert np.isfinite([formula.bubble_s, formula.peak_activations or 0.0]).all()


def test_a_schedule_without_published_formula_has_none() -> None:
    assert closed_form("hanayo", 4, 16) is None
