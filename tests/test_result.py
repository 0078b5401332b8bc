"""What tables say at a glance: the order of their rows, what does not fit, what formulas hold, what was measured."""

from __future__ import annotations

from typing import Any

import pytest

from dualpipe_sim import Comparison, Result, compare, simulate
from dualpipe_sim.result import notes_of, summaries_of

UNIT: dict[str, Any] = {"forward": 1.0, "backward_input": 1.0, "backward_weight": 1.0}


def column(comparison: Comparison, heading: str) -> list[str]:
    headings, rows = summaries_of(comparison)
    return [row[headings.index(heading)] for row in rows]


@pytest.fixture(scope="module")
def v3() -> Comparison:
    return compare("deepseek_v3")


def test_where_a_model_is_known_the_fastest_a_token_is_first_and_what_does_not_fit_last(v3: Comparison) -> None:
    fits = [run.fits for run in v3]
    assert fits == sorted(fits, reverse=True)
    assert not all(fits)
    for group in ([run for run in v3 if run.fits], [run for run in v3 if not run.fits]):
        speeds = [run.tokens_per_second_per_gpu or 0.0 for run in group]
        assert speeds == sorted(speeds, reverse=True)


def test_what_does_not_fit_says_so_everywhere(v3: Comparison) -> None:
    full = [run for run in v3 if not run.fits]
    words = "zb-h1, does not fit"
    assert words in [run.caption for run in full]
    table = v3.to_table()
    assert words in table.text(100)
    assert words in table.html()
    assert any(note.startswith("zb-h1 does not fit: rank 15 needs 95.3 GB") for note in notes_of(v3))
    assert words in v3.report().html
    chart = v3.gantt(lanes=False)
    titles = [axes.get_title(loc="left") for axes in chart.axes]
    assert sum(title.startswith(words) for title in titles) == 1
    alone = next(run for run in full if run.schedule == "zb-h1").gantt(lanes=False)
    assert "does not fit: peak 95.3 of 84.9 GB" in alone.get_title(loc="left")


def test_compute_idle_stands_beside_the_bubble_where_layers_are_simulated(v3: Comparison) -> None:
    idle = dict(zip([run.schedule for run in v3], column(v3, "compute idle"), strict=True))
    bubble = dict(zip([run.schedule for run in v3], column(v3, "bubble"), strict=True))
    # by its bubble ZB-H1 would be the better one
    assert (bubble["dualpipe"], bubble["zb-h1"]) == ("10.8%", "9.5%")
    assert (idle["dualpipe"], idle["zb-h1"]) == ("17.6%", "38.3%")
    assert "compute idle" not in summaries_of([simulate("figure5")])[0]


def test_different_numbers_of_micro_batches_are_compared_a_micro_batch() -> None:
    comparison = compare("figure5")
    assert {run.micro_batches for run in comparison} == {20, 24}
    each = column(comparison, "makespan/M")
    assert each == sorted(each, key=float)
    assert each[0] == "3.3"
    assert "makespan/M" not in summaries_of(compare("eight_ranks"))[0]


def test_chimera_is_compared_in_all_its_ways() -> None:
    # 8 ranks, 32 micro-batches, F = 1, B = 2. Direct: (P - 2)(F + 4 (B - F)) = 30 idle. Doubling fills the blocks: 9
    # are left, and takes twice the memory; the same on halves leaves half of that and takes no more.
    runs = {run.label: run for run in compare("eight_ranks")}
    makespans = {label: run.makespan_s for label, run in runs.items()}
    assert makespans["chimera (direct)"] == 96 + 30
    assert makespans["chimera (forward-doubling)"] == 96 + 9
    assert makespans["chimera (backward-halving)"] == 96 + 4.5
    assert makespans["dualpipe"] == 96 + 6
    peaks = {label: max(run.peak_activations_by_rank or []) for label, run in runs.items()}
    assert peaks["chimera (direct)"] == peaks["chimera (backward-halving)"] == 8
    assert peaks["chimera (forward-doubling)"] == 16
    halving = runs["chimera (backward-halving)"]
    assert (halving.micro_batches, halving.played.graph.schedule.micro_batches) == (32, 64)
    assert "runs 8 ranks × 64 half micro-batches, taken to be as efficient as whole ones" in notes_of([halving])[0]


def test_halves_of_micro_batches_of_layers_have_half_the_sequences() -> None:
    sizes: dict[str, Any] = {"ranks": 4, "micro_batches": 4, "parallel.expert": 8}
    halving = {"name": "chimera", "concatenation": "backward-halving"}
    (odd,) = compare("deepseek_v3", schedule=[halving], **sizes)
    assert odd.error == "training.micro_batch_size: 1 cannot be cut into 2 micro-batches"
    sizes["training.micro_batch_size"] = 2
    halved = simulate("deepseek_v3", schedule=halving, **sizes)
    whole = simulate("deepseek_v3", schedule="chimera", **sizes)
    costs = halved.played.graph.costs
    assert costs.job.micro_batch_size == 1  # type: ignore[attr-defined]
    tokens = [(run.tokens_per_second_per_gpu or 0.0) * (run.step_time_s or 0.0) for run in (halved, whole)]
    assert tokens[0] == pytest.approx(tokens[1])


# Formulas are shown only where the simulated number must be theirs; else there is a reason.


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"noise": {"slow_ranks": {1: 2.0}}}, "ranks are not all as fast"),
        ({"pipeline.transfers": "rendezvous"}, "transfers wait for both of their sides"),
        ({"transfer": 0.1}, "it leaves out transfers, which take time here"),
        ({"forward": [1, 1, 1, 2]}, "stages or micro-batches do not all take the same time"),
        ({"schedule": "zb-h1", "micro_batches": 2}, "it holds where M ≥ P, W ≤ F, W ≤ I, no transfer time"),
        ({"schedule": "dualpipe", "backward_input": 2.0}, "it holds where I = F ≥ W, B ≤ X ≤ F+B, no transfer time"),
    ],
)
def test_a_formula_that_does_not_hold_is_a_dash_with_a_reason(setting: dict[str, Any], reason: str) -> None:
    run = simulate(**{"schedule": "1f1b", "ranks": 4, "micro_batches": 8, **UNIT, **setting})
    assert run.theory is not None
    assert run.theory["exact"] is False
    assert str(run.theory["reason"]).startswith(reason)
    assert column(Comparison((run,)), "paper idle") == ["–"]


def test_a_slow_rank_idles_the_others_and_no_formula_says_how_long() -> None:
    run = simulate(schedule="1f1b", ranks=4, micro_batches=8, **UNIT, noise={"slow_ranks": {1: 2.0}})
    assert run.makespan_s == 53
    assert column(Comparison((run,)), "idle") == ["29"]


def test_one_micro_batch_on_eight_ranks_leaves_most_formulas_behind() -> None:
    names = ["gpipe", "1f1b", "zb-h1", "zb-h2", "zb-v", "looped-bfs", "interleaved-1f1b"]
    comparison = compare(schedule=names, ranks=8, micro_batches=1, **UNIT)
    said = dict(zip([run.schedule for run in comparison], column(comparison, "paper idle"), strict=True))
    assert said == dict.fromkeys(names, "–") | {"gpipe": "21", "1f1b": "21"}
    assert {run.schedule: run.makespan_s for run in comparison} == {
        **dict.fromkeys(names, 24.0),
        **dict.fromkeys(["zb-h1", "zb-h2", "zb-v"], 17.0),
    }


# What was measured of the very run


def test_what_was_measured_stands_beside_the_run_it_is_of(v3: Comparison) -> None:
    (measured,) = [run for run in v3 if run.measured is not None]
    assert measured.label == "dualpipe"
    note = notes_of(v3)[-1]
    assert note.startswith(
        "dualpipe as measured by DeepSeek (https://arxiv.org/abs/2505.09343, table 4): step 19.93 s (-9.5%"
    )
    assert "180,000 GPU-hours a trillion tokens (-9.4% here)" in note
    assert "routing_skew 1.12" in note
    assert note in v3.to_table().html().replace("&#x27;", "'")
    assert measured.to_dict()["measured"] == measured.measured


@pytest.mark.parametrize(
    ("setting", "is_the_same"),
    [
        ({"engine": "simpy"}, True),
        ({"training.routing_skew": 1.12}, False),
        ({"schedule": "1f1b"}, False),
        ({"micro_batches": 128}, False),
    ],
)
def test_what_was_measured_is_left_out_of_another_run(setting: dict[str, Any], is_the_same: bool) -> None:
    assert (simulate("deepseek_v3", **setting).measured is not None) == is_the_same


# Units


@pytest.mark.parametrize(
    ("costs", "makespan"),
    [
        (UNIT, "66"),
        ({"forward": 1.0, "backward": 2.0}, "66"),
        (UNIT | {"transfer": "0 s"}, "66 s"),
        (UNIT | {"costs.unitless": False}, "66 s"),
        ({"forward": "1 ms", "backward": "2 ms"}, "66 ms"),
        ({"forward": "1 ms", "backward": "2 ms", "costs.unitless": True}, "0.066"),
    ],
)
def test_times_without_a_unit_are_shown_without_one(costs: dict[str, Any], makespan: str) -> None:
    run: Result = simulate(schedule="dualpipe", ranks=8, micro_batches=20, **costs)
    assert column(Comparison((run,)), "makespan") == [makespan]
    assert f", {makespan}, bubble" in repr(run)
    axes = run.gantt()
    assert axes.get_title(loc="left").endswith(f", {makespan}")
    assert axes.get_xlabel() == f"time ({makespan.partition(' ')[2] or 'units'})"
