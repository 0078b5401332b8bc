"""Plans: what brute force finds is what a plan finds, and it says why the others are not it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpipe_sim.config import load_experiment
from dualpipe_sim.errors import UserError
from dualpipe_sim.pictures.plot import plan_chart
from dualpipe_sim.plan import plan
from dualpipe_sim.plan.run import RunCandidate
from dualpipe_sim.plan.space import candidates_of
from dualpipe_sim.plan.why_first import why_first
from dualpipe_sim.sweeps.table import read_table

CommandLine: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"

SMALL: dict[str, Any] = {
    "pipeline": {"ranks": 4, "layout": "balanced"},
    "schedule": "1f1b",
    "costs": {"kind": "layers"},
    "model": {"preset": "deepseek-v2-lite", "layers": 9},
    "gpu": "h800",
    "cluster": "h800-ib",
    "parallel": {"expert": 4, "data": 4},
    "training": {"sequence_length": 4096, "global_batch": 64},
}
"""16 GPUs, 16 micro-batches of one sequence on each of the four of a rank."""

FREE: dict[str, list[Any]] = {
    "schedules": [
        "1f1b",
        "gpipe",
        "zb-h1",
        "1f1b-overlap",
        "dualpipe",
        "chimera",
        "v-min",
        {"name": "zb-auto", "placement": ["linear", "v"]},
        {"name": "interleaved-1f1b", "stages_per_rank": [2, 3]},
    ],
    "ranks": [1, 2, 3, 4, 8],
    "expert": [1, 4, 5, 8, 16],
    "layouts": ["even", "balanced", [3, 2, 2, 2]],
    "micro_batch_size": [1, 2, 3, 4, 16],
    "recompute": [{}, {"norms": False, "up_projections": False, "activation": False}],
    "precision": ["bf16", "fp8"],
    "communication_sms": [8, 20, 131],
}


def small(free: dict[str, Any], gpu_gb: float = 80.0) -> dict[str, Any]:
    return {**SMALL, "gpu": {"preset": "h800", "memory": f"{gpu_gb} GB"}, "plan": free}


def by_brute_force(config: dict[str, Any], top: int) -> list[dict[str, object]]:
    """The best of all candidates, each run; of those that have the same layers on each stage the first."""
    experiment = load_experiment(config)
    run = RunCandidate(experiment)
    fitting: list[tuple[float, int, int, dict[str, object]]] = []
    seen: set[object] = set()
    for place, candidate in enumerate(candidates_of(experiment)):
        try:
            result = run.result(candidate)
        except UserError:
            continue
        same = candidate.label, candidate.setting_of("any"), tuple(result.layers_by_stage or ())
        if same in seen:
            continue
        seen.add(same)
        if result.error is None and not result.over_memory:
            assert result.step_time_s is not None
            assert result.peak_memory_bytes_by_rank is not None
            peak = max(result.peak_memory_bytes_by_rank)
            fitting.append((result.step_time_s, peak, place, candidate.to_dict()))
    return [candidate for *_, candidate in sorted(fitting, key=lambda one: one[:3])[:top]]


@st.composite
def spaces(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a space of a few dozen candidates at most."""
    keys = draw(st.lists(st.sampled_from(sorted(FREE)), min_size=1, max_size=3, unique=True))
    return {key: draw(st.lists(st.sampled_from(FREE[key]), min_size=1, max_size=4, unique_by=str)) for key in keys}


@pytest.mark.slow
@given(spaces(), st.integers(1, 3), st.floats(4, 40))
@settings(max_examples=25)
def test_a_plan_is_what_brute_force_finds(free: dict[str, Any], top: int, gpu_gb: float) -> None:
    config = small(free, gpu_gb)
    wanted = by_brute_force(config, top)
    try:
        found = plan(config, top=top, confirm=0)
    except UserError:
        assert wanted == []  # none can be at these sizes
        return
    assert [{key: row[key] for key in candidate} for row, candidate in zip(found.ranked, wanted, strict=True)] == wanted


WIDE = {
    "schedules": ["1f1b", "zb-h1", "dualpipe", "v-min"],
    "ranks": [2, 4],
    "layouts": ["even", "balanced"],
    "recompute": FREE["recompute"],
}


@pytest.mark.slow
def test_pruning_changes_no_answer_and_no_bound_is_above_a_step() -> None:
    pruned, whole = (plan(small(WIDE, 30), top=2, confirm=0, exhaustive=every) for every in (False, True))
    assert pruned.runs < whole.runs
    assert pruned.ranking == whole.ranking
    for place in pruned.ranking:
        assert pruned.rows[place] == whole.rows[place]
    for row in whole.rows:
        if row["step_time_s"] is not None:
            assert row["any_order_s"] <= row["step_time_s"] * (1 + 1e-9)  # type: ignore[operator]
            assert row["bound_s"] <= row["step_time_s"] * (1 + 1e-9)  # type: ignore[operator]


ALL_PARALLELISMS = {
    "schedules": ["1f1b", "dualpipe"],
    "ranks": [2, 4],
    "tensor": [1, 2],
    "context": [1, 2],
    "expert": [1, 4],
    "micro_batch_size": [1, 2],
}


@pytest.mark.thorough
def test_over_all_parallelisms_pruning_changes_no_answer() -> None:
    config = small(ALL_PARALLELISMS, 40)
    config |= {
        "model": {"preset": "deepseek-v2-lite", "layers": 4},
        "training": {"sequence_length": 4096, "global_batch": 32},
    }
    pruned, whole = (plan(config, top=2, confirm=0, exhaustive=every) for every in (False, True))
    assert len(pruned.rows) == len(whole.rows) == 64
    assert pruned.runs < whole.runs
    assert pruned.runs + sum(pruned.reasons.get(one, 0) for one in ("work", "bound")) == whole.runs
    assert pruned.ranking == whole.ranking
    assert [pruned.rows[place] for place in pruned.ranking] == [whole.rows[place] for place in whole.ranking]


AUTOMATIC: dict[str, Any] = {
    "schedule": "1f1b",
    "model": {"preset": "llama3-8b", "layers": 8},
    "gpu": "h100",
    "stack": "megatron",
    "parallel": {"tensor": 2, "pipeline": 2, "gpus": 16},
    "training": {"sequence_length": 8192, "global_batch": 32},
}


def test_without_a_section_all_is_free_that_has_usual_values() -> None:
    candidates = candidates_of(load_experiment(AUTOMATIC))
    found = {key: {str(getattr(one, key)) for one in candidates} for key in ("ranks", "tensor", "context", "expert")}
    assert found == {"ranks": {"1", "2", "4", "8"}, "tensor": {"1", "2", "4", "8"}, "context": {"1"}, "expert": {"1"}}
    assert {one.micro_batch_size for one in candidates} == {1, 2, 4}
    assert {one.recompute for one in candidates} == {("norms", "up_projections", "activation"), ("full",)}
    # Those that Megatron-Core runs; on one rank they are all one.
    assert {one.schedule for one in candidates} == {"1f1b", "interleaved-1f1b"}
    assert {one.schedule for one in candidates if one.ranks == 1} == {"1f1b"}
    longer = load_experiment(AUTOMATIC, {"training.sequence_length": 32768, "training.global_batch": 16})
    assert {one.context for one in candidates_of(longer)} == {1, 2, 4}
    experts = load_experiment(AUTOMATIC, {"model": {"preset": "qwen3-30b-a3b", "layers": 8}})
    assert {one.expert for one in candidates_of(experts)} == {1, 2, 4, 8, 16}
    assert "interleaved-1f1b-overlap" in {one.schedule for one in candidates_of(experts)}
    torch = load_experiment(AUTOMATIC, {"stack": "torch-eager"})
    assert {one.schedule for one in candidates_of(torch)} >= {"zb-v", "interleaved-zb", "dualpipev"}


@pytest.mark.thorough
def test_a_plan_of_all_that_is_usual_is_what_brute_force_finds() -> None:
    """On GPUs that clock down when busy, whose bounds know that: few of hundreds are run."""
    few = {"parallel": {**AUTOMATIC["parallel"], "gpus": 8}, "training": {**AUTOMATIC["training"], "global_batch": 16}}
    small_gpu = {**AUTOMATIC, **few, "gpu": {"preset": "h100", "memory": "40 GB"}}
    found = plan(small_gpu, top=2, confirm=0)
    run = RunCandidate(load_experiment(small_gpu))
    steps_s = [run(one)["step_time_s"] for one in by_brute_force(small_gpu, 2)]
    assert [row["step_time_s"] for row in found.ranked] == steps_s
    assert found.runs < len(found.candidates) / 10


def test_layouts_that_put_the_same_layers_on_each_stage_are_run_once() -> None:
    found = plan({**AUTOMATIC, "plan": {"layouts": ["even", [4, 4], [5, 3]]}}, confirm=0)
    assert (found.runs, found.reasons) == (2, {"same": 1})
    (same,) = (row for row in found.rows if row["reason"] == "same")
    assert same["detail"] == "the same layers are on each stage with layout even"


def test_every_candidate_that_is_ruled_out_has_its_reason_in_a_word_and_in_a_sentence() -> None:
    found = plan(small({**WIDE, "ranks": [2, 3, 4], "precision": ["bf16", "fp8"]}, 14), top=1, confirm=0)
    assert set(found.reasons) <= {"sizes", "state", "activations", "work", "bound", "memory"}
    assert {"sizes", "activations"} <= set(found.reasons)
    for row in found.rows:
        assert (row["reason"] is None) == (row["detail"] is None)
    details = {row["reason"]: row["detail"] for row in found.rows}
    assert details["sizes"] == "16 GPUs are no multiple of 3 ranks"
    assert "with its activations, its GPU has 14.0" in str(details["activations"])


def test_gpus_and_sequences_hold() -> None:
    found = plan(small({"ranks": [2, 4], "micro_batch_size": [1, 2]}), top=4, confirm=0)
    assert len(found.ranking) == 4
    for row in found.ranked:
        assert row["ranks"] * row["data_parallel"] == 16  # type: ignore[operator]
        assert row["micro_batches"] * row["micro_batch_size"] * row["data_parallel"] == 64  # type: ignore[operator]


@pytest.mark.slow
def test_a_model_that_cannot_fit_says_by_how_much_and_what_comes_closest() -> None:
    config = small(WIDE, 5.0)
    found = plan(config, confirm=0)
    assert found.ranking == ()
    runs = plan(small(WIDE, 500.0), exhaustive=True, confirm=0, top=1)
    least = min(row["peak_memory_bytes"] for row in runs.rows if row["step_time_s"] is not None)  # type: ignore[type-var]
    assert found.leanest is not None
    assert found.rows[found.leanest]["peak_memory_bytes"] == least
    assert found.closest().startswith(f"nothing fits: the least that any candidate needs is {least / 1e9:.1f} GB")  # type: ignore[operator]


def test_the_best_are_confirmed_with_contention_which_only_makes_them_slower() -> None:
    found = plan(small({"schedules": ["1f1b", "zb-h1", "dualpipe"]}), confirm=2)
    assert found.certain
    confirmed = [row for row in found.ranked if row["confirmed_step_time_s"] is not None]
    assert len(confirmed) >= 2
    for row in confirmed:
        assert row["confirmed_step_time_s"] >= row["step_time_s"] * (1 - 1e-9)  # type: ignore[operator]
    times = [row["confirmed_step_time_s"] for row in confirmed]
    assert times == sorted(times)  # type: ignore[type-var]


@pytest.mark.slow
def test_workers_change_nothing() -> None:
    alone, shared = (plan(small(WIDE, 30), top=2, confirm=1, workers=workers) for workers in (1, 2))
    assert alone.ranked == shared.ranked


def test_a_plan_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    first = plan(small(WIDE, 30), top=2, confirm=1, output=whole)
    rows = [line for line in whole.read_text().splitlines() if json.loads(line)["step_time_s"] is not None]
    part.write_text("\n".join(rows[:2]) + "\n")
    told: list[tuple[int, int]] = []
    again = plan(small(WIDE, 30), top=2, confirm=1, output=part, resume=True, progress=lambda *done: told.append(done))
    assert again.ranked == first.ranked
    assert len(told) == len(first.rows) + len(rows) - 2  # all are judged, two need not be run again
    assert told == sorted(told)
    assert told[-1] == (len(first.rows), len(first.rows))
    assert read_table(part).rows == read_table(whole).rows


def test_what_was_planned_for_another_model_is_not_gone_on_with(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    plan(small(WIDE, 30), confirm=0, output=table)
    with pytest.raises(UserError, match="cannot be resumed"):
        plan(small(WIDE, 40), confirm=0, output=table, resume=True)


def test_causes_sum_to_the_step_and_changes_name_what_they_would_buy() -> None:
    found = plan(small({"schedules": ["1f1b", "dualpipe"]}), confirm=0)
    reason = why_first(found)
    for place, row in enumerate(found.ranked[:2]):
        assert sum(seconds[place] for seconds in reason.causes_s.values()) == pytest.approx(row["step_time_s"])
    assert reason.causes_s["recompute"][0] > 0
    gains = {change.what: change.gain for change in reason.changes if change.gain is not None}
    assert gains["10 % more NVLink"] >= 0
    assert gains["10 % more InfiniBand"] >= 0
    assert gains["twice the micro-batches"] > 0  # the way to the last rank and back is paid for once
    assert any(what.startswith("one layer from stage") for what in gains)


@pytest.mark.parametrize(
    ("recompute", "forwards"),
    [
        ("none", 0.0),
        (["mlp"], 0.5),
        ("full", 1.0),
        ({"full": True, "layers": 2, "norms": False, "activation": False}, 0.5),
        ({"full": True, "together": 2}, 1.0),
    ],
    ids=str,
)
def test_whatever_runs_again_is_a_cause_of_its_own(recompute: object, forwards: float) -> None:
    """Of eight layers on two ranks; ``mlp`` is more than a third of a layer's forward, two layers of four are half."""
    settings = {**AUTOMATIC, "training": {**AUTOMATIC["training"], "recompute": recompute}}
    settings["parallel"] = {"pipeline": 2, "gpus": 16}
    (redone_s,) = why_first(plan({**settings, "plan": {"schedules": ["1f1b"]}}, top=1, confirm=0)).causes_s["recompute"]
    whole = {**settings, "training": {**settings["training"], "recompute": "full"}}
    (of_all_s,) = why_first(plan({**whole, "plan": {"schedules": ["1f1b"]}}, top=1, confirm=0)).causes_s["recompute"]
    assert redone_s == pytest.approx(forwards * of_all_s, rel=0.4 if recompute == ["mlp"] else 0.02)
    assert of_all_s > 0


def test_the_longest_chain_of_waits_is_the_pipeline() -> None:
    found = plan(small({"schedules": ["zb-h1"]}), confirm=0)
    assert sum(why_first(found).critical_s.values()) <= found.ranked[0]["step_time_s"]  # type: ignore[operator]


def test_the_command_prints_the_ranking_the_reasons_and_why(tmp_path: Path, command_line: CommandLine) -> None:
    config, chart = tmp_path / "small.yaml", tmp_path / "plan.png"
    config.write_text(json.dumps(small(WIDE, 30)))
    done = command_line("plan", config, "--free", "ranks=2,3,4", "--why", "--chart", chart)
    assert done.returncode == 0, done.stderr
    for words in ("16 GPUs; all:", "surely the fastest of all candidates", "sizes: cannot be", "binding:", "gain"):
        assert words in " ".join(done.stdout.split())
    assert chart.stat().st_size > 0
    shown = json.loads(command_line("plan", config, "--top", "1", "--confirm", "0", "--json").stdout)
    assert len(shown["ranking"]) == 1
    assert shown["ranking"][0]["reason"] is None


def test_the_command_says_that_nothing_fits(tmp_path: Path, command_line: CommandLine) -> None:
    config = tmp_path / "small.yaml"
    config.write_text(json.dumps(small({}, 2)))
    done = command_line("plan", config)
    assert done.returncode == 0
    assert "nothing fits: the least that any candidate needs is" in done.stdout
    mistaken = command_line("plan", config, "--free", "ranks")
    assert mistaken.stderr == "dualpipe-sim: --free ranks: must be key=value,value,…, like ranks=8,16,32\n"


def test_the_chart_has_every_candidate_that_fits_and_a_ring_around_the_first() -> None:
    found = plan(small(WIDE, 30), exhaustive=True, confirm=0)
    axes = plan_chart(found)
    drawn = {str(line.get_label()): line for line in axes.get_lines()}
    schedules = {str(row["schedule"]) for row in found.fitting}
    assert schedules <= drawn.keys()
    assert sum(len(np.atleast_1d(drawn[name].get_xdata())) for name in schedules) == len(found.fitting)
    first = found.ranked[0]
    assert np.atleast_1d(drawn["chosen"].get_ydata()).tolist() == [first["step_time_s"]]
    assert axes.get_title(loc="left") == f"{len(found.fitting)} candidates that fit"


@pytest.mark.slow
def test_deepseeks_choice_is_found_where_memory_is_left_for_what_a_plan_does_not_count() -> None:
    # DualPipe on 16 ranks, 64-way expert parallelism, 20 SMs, all recomputed, FP8: https://arxiv.org/abs/2412.19437,
    # sections 3.2 and 3.3. On 16 ranks, since DualPipeV on 8 is the same plan.
    free = ["plan.ranks=[16]", "plan.micro_batch_size=[1]", "plan.communication_sms=[20]"]
    found = plan("plan_deepseek_v3", settings=[*free, "gpu={preset: h800, memory: 66 GB}"], top=1, confirm=0)
    first = found.candidates[found.ranking[0]]
    assert (first.schedule, first.expert, first.communication_sms) == ("dualpipe", 64, 20)
    assert (first.precision, len(first.recompute)) == ("fp8", 3)


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        call()
    return str(error.value)


def test_errors_say_what_to_do() -> None:
    uniform = {"forward": 1, "backward_input": 1, "backward_weight": 1}
    no_model = {"pipeline": {"ranks": 2, "micro_batches": 4}, "schedule": "1f1b", "costs": uniform}
    needed = "config: costs.kind: a plan needs a model on GPUs, so costs of kind 'layers'"
    assert refusal(lambda: plan(no_model)) == needed
    assert "top must be 1 or more" in refusal(lambda: plan(small({}), top=0))
    never = refusal(lambda: plan(small({"ranks": [3, 5]})))
    assert never == "config: plan: no candidate can be; the first: 16 GPUs are no multiple of 3 ranks"
    assert "did you mean 'ranks'?" in refusal(lambda: plan(small({"rank": [3]})))
    odd = refusal(lambda: plan(small({"schedules": [{"name": "hanayo", "waves": ["x"]}]})))
    assert odd == "config: plan.schedules: hanayo: option waves must be a whole number, got 'x'"
