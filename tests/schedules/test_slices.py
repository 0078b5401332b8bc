"""Micro-batches in slices: what papers say of them, and what an order of slices may not do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim import Result, ScheduleError, UserError, build, parse_order, simulate
from dualpipe_sim.analysis.metrics import idle_s as idle_s_of_ranks
from dualpipe_sim.order.check import check_order
from dualpipe_sim.order.text import parse_cell
from dualpipe_sim.schedules.theory import closed_form

SMALL = st.integers(1, 8)


def run(name: str, ranks: int, micro_batches: int, *, costs: dict[str, Any] | None = None, **options: object) -> Result:
    given_costs = {"forward": 1, "backward_input": 1.5, "backward_weight": 0.5, **(costs or {})}
    return simulate(
        {
            "pipeline": {"ranks": ranks, "micro_batches": micro_batches},
            "schedule": {"name": name, **options},
            "costs": {"kind": "uniform", **given_costs},
        }
    )


def idle_s(result: Result) -> float:
    assert result.timeline is not None
    return float(idle_s_of_ranks(result.timeline).max())


@given(SMALL, SMALL, SMALL)
def test_seq1f1b_idles_a_kth_of_1f1b_and_holds_k_slices_and_one_a_rank_behind(ranks: int, batches: int, k: int) -> None:
    result = run("seq1f1b", ranks, batches, slices=k)
    assert idle_s(result) == pytest.approx((ranks - 1) * 3 / k)
    peaks = [min(k + ranks - 1 - rank, k * batches) / k for rank in range(ranks)]
    assert result.peak_activations_by_rank == pytest.approx(peaks)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(2, 3))
def test_interleaved_seq1f1b_idles_a_vth_of_it_and_holds_its_warm_up(k: int, times: int, groups: int, v: int) -> None:
    """Warm-up 2(P-r-1) + (v-1)P + k-1 units, as in its release, and the forward behind."""
    ranks = k * times
    batches = groups * times
    result = run("seq1f1b", ranks, batches, slices=k, stages_per_rank=v)
    assert idle_s(result) == pytest.approx((ranks - 1) * 3 / (k * v))
    ahead = [2 * (ranks - rank - 1) + (v - 1) * ranks + k - 1 for rank in range(ranks)]
    peaks = [min(one + 1, k * v * batches) / (k * v) for one in ahead]
    assert result.peak_activations_by_rank == pytest.approx(peaks)


@given(SMALL, SMALL, st.lists(st.floats(0.1, 1), min_size=1, max_size=6))
def test_terapipe_idles_by_its_largest_slice(ranks: int, batches: int, sizes: list[float]) -> None:
    shares = [size / sum(sizes) for size in sizes]
    result = run("terapipe", ranks, batches, slices=len(shares), costs={"slices": shares})
    assert idle_s(result) == pytest.approx((ranks - 1) * 3 * max(shares))
    assert result.peak_activations_by_rank == pytest.approx([batches] * ranks)


@given(st.integers(1, 6), SMALL, st.integers(0, 6), st.integers(1, 3))
def test_slimpipe_idles_and_holds_what_its_paper_says(ranks: int, batches: int, more: int, stages: int) -> None:
    n = ranks + more
    result = run("slimpipe", ranks, batches, slices=n, stages_per_rank=stages)
    assert idle_s(result) == pytest.approx((ranks - 1) * 3 / (n * stages))
    peaks = [min(1 + 2 * (ranks - 1 - rank) / (n * stages), batches) for rank in range(ranks)]
    assert result.peak_activations_by_rank == pytest.approx(peaks)


# Published plans of SlimPipe without recomputation (Li et al., SC'25, https://arxiv.org/abs/2504.14519; its release,
# https://github.com/Cuiym715/Megatron-LM, examples/sc25slimpipe/csv): ranks, micro-batches, slices, stages a rank, and
# the bubble's share of the step.
PLANS = [
    (16, 64, 16, 6, 0.24), (8, 32, 8, 12, 0.23), (16, 32, 16, 6, 0.49), (8, 8, 8, 10, 1.08), (16, 8, 32, 5, 1.16),
    (8, 8, 16, 5, 1.08), (4, 8, 16, 10, 0.23), (8, 16, 32, 5, 0.27), (8, 4, 8, 4, 5.19), (8, 4, 16, 4, 2.66),
    (8, 16, 8, 7, 0.78),
]  # fmt: skip


@pytest.mark.parametrize(("ranks", "batches", "slices", "stages", "percent"), PLANS)
def test_slimpipes_plans_have_the_bubble_that_was_published(
    ranks: int, batches: int, slices: int, stages: int, percent: float
) -> None:
    result = run("slimpipe", ranks, batches, slices=slices, stages_per_rank=stages)
    assert result.makespan_s is not None
    assert 100 * idle_s(result) / result.makespan_s == pytest.approx(percent, abs=0.006)


@pytest.mark.parametrize(("batches", "idle"), [(8, 16.2), (16, 30.6)])
def test_uneven_slices_cost_seq1f1b_dear(batches: int, idle: float) -> None:
    """Later slices attend to more: 1/10, 2/10, 3/10, 4/10 of the time, where even ones idle for 2.25."""
    shares = [0.1, 0.2, 0.3, 0.4]
    assert idle_s(run("seq1f1b", 4, batches, slices=4, costs={"slices": shares})) == pytest.approx(idle)
    assert idle_s(run("seq1f1b", 4, batches, slices=4)) == pytest.approx(2.25)


@given(SMALL, SMALL, st.sampled_from([0.25, 1.0, 2.0]))
def test_forwards_that_run_again_early_cost_their_time_once(ranks: int, batches: int, again: float) -> None:
    """Exact by replay: M(F+B+R) + (P-1)(F+B) early, (M+P-1)(F+B+R) where they wait for the gradient."""
    early, late = (
        run("1f1b-recompute", ranks, batches, early=one, costs={"recompute": again}) for one in (True, False)
    )
    assert early.makespan_s == pytest.approx(batches * (3 + again) + (ranks - 1) * 3)
    assert late.makespan_s == pytest.approx((batches + ranks - 1) * (3 + again))


def test_the_last_rank_need_not_run_its_forwards_again() -> None:
    text = "".join(str(task) + " " for task in build("1f1b-recompute", 2, 2, last=False).order[1])
    assert text == "1F0 1B0 1F1 1B1 "
    assert [str(task) for task in build("1f1b-recompute", 2, 2).order[1]] == ["1F0", "1R0", "1B0", "1F1", "1R1", "1B1"]


def test_a_slices_transfer_is_its_share_of_a_micro_batchs() -> None:
    # Down and up a rank, a slice: F 1/4, hop 1/8 and back; the rest of rank 1's work hides behind.
    whole, cut = (run("terapipe", 2, 1, slices=k, costs={"transfer": 0.5}).makespan_s for k in (1, 4))
    assert whole == pytest.approx(3 + 3 + 2 * 0.5)
    assert cut == pytest.approx(3 + (3 + 2 * 0.5) / 4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0F0.1,0F0.0,0B0.1,0B0.0", "rank 0, cell 0: 0F0.1 comes before 0F0.0 (cell 1), which it needs"),
        ("0F0.0,0F0.1,0B0.0,0B0.1", "rank 0, cell 2: 0B0.0 comes before 0B0.1 (cell 3), which it needs"),
        ("0F0.0,0F0.1,0B0.1", "rank 0: 0B0.0 never runs, nor do 0I0.0 and 0W0.0"),
        ("0F0.0,0F0.2,0B0.2,0B0.0", "rank 0: 0F0.1 never runs"),
        (
            "0F0.0,0F0.1,0B0.1,0B0.0,0F0.1",
            "rank 0, cell 4: 0F0.1 is there already (rank 0, cell 1); every op runs once",
        ),
        ("0F0,0F0.1,0B0.1,0B0.0", "rank 0, cell 0: 0F0 names no slice; they go from 0 to 1"),
        ("0F0.0,0F0.99999999,0B0.99999999,0B0.0", "rank 0, cell 1: 0F0.99999999 names no slice; they go from 0 to 1"),
    ],
)
def test_what_is_wrong_with_slices_is_said_of_the_slice(text: str, said: str) -> None:
    assert said in [str(finding) for finding in check_order(text)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0F0,0F0.1,0B0.1,0B0.0", "row 0, cell 0: 0F0 names no slice, as others do"),
        ("0F0.0,0F0.99999999,0B0.99999999,0B0.0", "slice 1 has no op, but slice 99999999 has"),
        ("0F0.0,0F0.1,0SEND_F0,0B0.1,0B0.0", "sends and receives have no text for a slice"),
    ],
)
def test_an_order_is_of_slices_in_all_its_cells_or_in_none(text: str, said: str) -> None:
    with pytest.raises(ScheduleError, match=said):
        parse_order(text)


def test_one_slice_is_the_whole_micro_batch() -> None:
    whole, cut = "0F0,0B0\n", "0F0.0,0B0.0\n"
    assert parse_order(cut) == parse_order(whole)
    assert check_order(cut) == []


@pytest.mark.parametrize("cell", ["0SEND_F900000", "0RECV_B274877906943", "1F274877906943"])
def test_large_micro_batches_are_read_as_before(cell: str) -> None:
    assert str(parse_cell(cell)) == cell


@pytest.mark.parametrize(
    ("name", "options", "costs", "said"),
    [
        (
            "seq1f1b",
            {"slices": 4},
            {"slices": [0.5, 0.5]},
            "must have one share for each of the 4 slices",
        ),
        ("seq1f1b", {"slices": 2}, {"slices": [0.5, 0.6]}, "costs.slices: .* sum to 1, .*, got a sum of 1.1"),
        ("seq1f1b", {"slices": 0}, {}, "seq1f1b: slices must be 1 or more, got 0; the nearest that works?: slices 1"),
        (
            "seq1f1b",
            {"slices": 3, "stages_per_rank": 2},
            {},
            "seq1f1b: slices must divide the 4 ranks where a rank has more stages than one, got 3",
        ),
        ("slimpipe", {"slices": 3}, {}, "slimpipe: slices must be at least as many as the 4 ranks, got 3"),
    ],
)
def test_shares_and_slices_that_do_not_fit_are_refused(
    name: str, options: dict[str, Any], costs: dict[str, Any], said: str
) -> None:
    with pytest.raises((UserError, ScheduleError), match=said):
        run(name, 4, 8, costs=costs, **options)


def test_formulas_are_those_of_slices() -> None:
    found = closed_form("slimpipe", 8, 16, options={"slices": 16, "stages_per_rank": 2})
    assert found is not None
    assert (found.bubble_s, found.peak_activations, found.exact) == (7 * 3 / 32, 1 + 14 / 32, True)
