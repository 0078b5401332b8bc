"""Error bars: what a bar says follows from what an error is; who gets one, and who is too close to call."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim import Comparison, Result
from dualpipe_sim.config import load_experiment
from dualpipe_sim.config.yaml_text import read_yaml
from dualpipe_sim.importers.published import of_row
from dualpipe_sim.plan import Plan, plan
from dualpipe_sim.scoring import ErrorBar, accuracy, error_bar
from dualpipe_sim.scoring.rows import CLASSES, class_of, read_rows
from tests.pages import script

if TYPE_CHECKING:
    from tests.conftest import CommandLine

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "accuracy.md"
PUBLISHED = sorted(path for path in (ROOT / "validation" / "published").glob("*.yaml") if path.stem != "provenance")
BAR = ErrorBar("moe", rows=10, median=0.1, p90=0.25, bias=-0.1)
DENSE: Mapping[str, object] = {
    "model": "gpt-1.5b",
    "gpu": "h100",
    "parallel": {"pipeline": 4, "data": 2},
    "training": {"global_batch": 32, "sequence_length": 1024},
    "schedule": "1f1b",
}


@cache
def generator() -> ModuleType:
    return script(ROOT / "docs" / "make_accuracy.py")


def run(schedule: str, speed: float, **changes: Any) -> Result:  # noqa: ANN401 - any field
    return Result(schedule, 4, 8, step_time_s=100 / speed, tokens_per_second_per_gpu=speed, **changes)


@pytest.fixture
def five_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let schedules be off by 5 %."""
    board = {"schedules": {"rows": 40, "median": 0.01, "p90": 0.05}}
    monkeypatch.setattr(accuracy, "_board", lambda: board)


def test_a_measured_step_at_either_end_of_a_bar_is_off_by_p90() -> None:
    least_s, most_s = BAR.range_s(6.0)
    assert [6.0 / least_s - 1, 6.0 / most_s - 1] == pytest.approx([0.25, -0.25])


@given(st.floats(1e-3, 1e3), st.floats(-0.99, 0.99), st.floats(0, 3))
def test_whatever_is_off_by_no_more_than_p90_lies_on_the_bar(measured_s: float, error: float, p90: float) -> None:
    least_s, most_s = replace(BAR, p90=p90).range_s(measured_s * (1 + error))
    if abs(error) <= p90:
        assert least_s <= measured_s * (1 + 1e-9)
        assert measured_s <= most_s * (1 + 1e-9)
    elif abs(error) > p90 + 1e-9:
        assert not least_s <= measured_s <= most_s


@pytest.mark.parametrize(
    ("p90", "step_s", "words"),
    [
        (0.25, 10.0, "step 10 s, 8 to 13.3 s: of 10 "),
        (0.25, 1.0, "step 1 s, 800 ms to 1.33 s: "),
        (1.5, 10.0, "step 10 s, 4 s or more: "),
    ],
)
def test_a_bar_in_words(p90: float, step_s: float, words: str) -> None:
    assert replace(BAR, p90=p90).in_words(step_s).startswith(words)


def test_a_prediction_is_of_the_class_that_the_same_run_is_scored_in() -> None:
    of_rows = [(row["id"], class_of(row), of_row(row, "x").config) for path in PUBLISHED for row in read_rows(path)]
    bars = {name: error_bar(load_experiment(config)) for name, _, config in of_rows}
    assert {name: bar and bar.kind for name, bar in bars.items()} == {name: kind for name, kind, _ in of_rows}
    assert not any(bar and bar.of_trace for bar in bars.values())


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "dense"),
        ({"stack": "megatron"}, "megatron-dense"),
        ({"stack": "megatron-2021"}, "megatron-dense"),
        ({"stack": "torch-eager"}, "dense"),
        ({"stack": "megatron", "parallel": {"pipeline": 4, "data": 2, "fsdp": 2}}, "dense"),
        ({"stack": "megatron", "parallel": {"pipeline": 4, "data": 2, "zero": 3}}, "dense"),
    ],
)
def test_classes_of_dense_models(changes: dict[str, object], kind: str) -> None:
    bar = error_bar(load_experiment({**DENSE, **changes}))
    assert bar is not None
    assert bar.kind == kind
    assert bar.of_trace is ("stack" not in changes)
    assert ("deepseek" in bar.provenance) is bar.of_trace


@pytest.mark.parametrize("config", ["figure5", "small", "deepseek_v3_stage_level"])
def test_what_is_not_made_of_shapes_and_a_gpu_has_no_bar(config: str) -> None:
    assert error_bar(load_experiment(config)) is None


def test_the_file_and_the_page_say_the_same() -> None:
    board: Any = read_yaml(ROOT / "dualpipe_sim" / "scoring" / "accuracy.yaml")
    page = PAGE.read_text(encoding="utf-8")
    for kind in CLASSES:
        (row,) = re.findall(rf"(?m)^\| `{kind}` \| \d+ \| (\d+) \| ([\d.]+) % \| ([\d.]+) % \| ", page)
        errors = board[kind]
        assert [float(one) for one in row] == pytest.approx(
            [errors["rows"], 100 * errors["median"], 100 * errors["p90"]], abs=0.06
        )
    (row,) = re.findall(r"(?m)^\| GPUs are the limit of both \| (\d+) \| ([\d.]+) % \| ([\d.]+) % \|$", page)
    off = accuracy.schedule_errors()
    assert [float(one) for one in row] == pytest.approx([off.rows, 100 * off.median, 100 * off.p90], abs=0.06)


@pytest.mark.thorough
@pytest.mark.slow
def test_what_schedules_are_off_by_is_what_the_recorded_runs_give() -> None:
    by_gpus, by_hosts, everything = generator().schedules().values()
    assert by_gpus.rows + by_hosts.rows == everything.rows == 436  # of docs/validation_torch.md: 120 + 120 + 120 + 76
    found = (by_gpus.rows, by_gpus.median, by_gpus.p90)
    assert tuple(accuracy.schedule_errors()) == pytest.approx(found, abs=6e-5)


@pytest.mark.usefixtures("five_percent")
def test_what_is_slower_by_no_more_than_schedules_are_off_is_too_close_to_call() -> None:
    """106 tokens a second are 4.7 % fewer than 111 are more, 105 are 5.7 %."""
    runs = [run("a", 111.0), run("b", 106.0), run("c", 105.0)]
    assert accuracy.too_close_to_call(Comparison(tuple(runs))) == ["b"]
    said = accuracy.remarks(Comparison(tuple(runs)), BAR)[1]
    assert said == (
        "too close to call with a: b; of 40 measured steps, predicted from another schedule's run, "
        "nine in ten lie within 5.0 %"
    )
    assert accuracy.remarks(Comparison((runs[0], runs[2])), BAR)[1].startswith("a is faster than the others; ")


@pytest.mark.usefixtures("five_percent")
def test_what_does_not_fit_or_was_refused_is_no_rival() -> None:
    over = [{"rank": 0, "excess_bytes": 1}]
    first, full, refused = run("a", 100.0), run("b", 100.0, over_memory=over), Result("c", 4, 8, error="no")
    assert accuracy.too_close_to_call(Comparison((first, full, refused))) == []
    assert accuracy.too_close_to_call(Comparison((full, run("d", 99.0, over_memory=over), refused))) == ["d"]
    assert accuracy.too_close_to_call(Comparison((refused,))) == []
    assert accuracy.remarks(Comparison((refused,)), BAR) == ()
    slow = Comparison((first, run("e", 50.0), full, refused))
    assert accuracy.remarks(slow, BAR)[1].startswith("a is faster than the others that fit; ")
    assert accuracy.remarks(Comparison((first, full, refused)), BAR) == (BAR.in_words(1.0),)


@pytest.mark.usefixtures("five_percent")
def test_time_is_that_of_a_token_and_a_schedule_that_is_there_twice_has_its_size() -> None:
    twice = replace(run("b", 99.0), micro_batches=16, step_time_s=2.0)
    assert accuracy.too_close_to_call(Comparison((run("a", 100.0), run("b", 99.5), twice))) == ["b, 4 × 8", "b, 4 × 16"]


@pytest.mark.usefixtures("five_percent")
def test_collectives_are_named_where_there_are_any() -> None:
    """The measured runs have none, so that their errors say nothing of what these add."""
    words = "none with collectives inside its ops"
    plain, exchanged = run("a", 111.0), run("b", 90.0, alltoall_hidden_ratio=0.0)
    summed = run("c", 90.0, exposed_tensor_parallel_s_by_rank=[0.0, 0.1])
    assert words not in accuracy.remarks(Comparison((plain, run("d", 90.0))), BAR)[1]
    assert words in accuracy.remarks(Comparison((plain, exchanged)), BAR)[1]
    assert words in accuracy.remarks(Comparison((plain, summed)), BAR)[1]


@pytest.fixture(scope="module")
def found() -> Plan:
    free = "plan={schedules: [1f1b, gpipe, dualpipe], ranks: [2, 4], micro_batch_size: [1, 2, 4]}"
    return plan("plan_deepseek_v2_lite", settings=[free], top=4, confirm=1)


def test_settings_slower_by_no_more_than_the_median_error_are_too_close_to_call(found: Plan) -> None:
    steps_s = [row["confirmed_step_time_s"] or row["step_time_s"] for row in found.ranked]
    for median in (0.0, 0.03, 0.1, 1.0):
        bar = replace(BAR, median=median)
        slower = [float(str(step_s)) / float(str(steps_s[0])) - 1 for step_s in steps_s]
        assert accuracy.plan_close(found, bar) == [place for place in (2, 3, 4) if slower[place - 1] <= median]
    assert accuracy.plan_close(found, replace(BAR, median=1.0)) == [2, 3, 4]
    (_, said) = accuracy.plan_remarks(found, replace(BAR, median=1.0))
    assert said.startswith("too close to call with 1: 2 to 4 and up to ")
    assert accuracy.plan_remarks(found, None) == []


def test_a_plan_counts_candidates_that_it_does_not_rank_where_they_may_be_close(found: Plan) -> None:
    (_, said) = accuracy.plan_remarks(found, replace(BAR, median=10.0))
    others = [row for place, row in enumerate(found.rows) if place not in found.ranking]
    assert f"up to {sum(row['reason'] in (None, 'work', 'bound') for row in others)} not ranked" in said


def test_places_in_words() -> None:
    assert accuracy.places_in_words([2, 3, 4, 7, 9, 10]) == "2 to 4, 7, 9 to 10"


FEW = ("deepseek_v3", "--set", "pipeline.micro_batches=32", "--set", "compare=[1f1b, dualpipe]")


def shown() -> tuple[str, dict[str, object]]:
    """Return what tables say of steps of DeepSeek-V3, and what JSON does."""
    bar = error_bar(load_experiment("deepseek_v3"))
    assert bar is not None
    told = {"class": "moe", "rows": bar.rows, "median": bar.median, "p90": bar.p90}
    return f"of {bar.rows} published runs with experts nine in ten lie within", told


def test_run_and_compare_show_a_bar_and_json_has_it(command_line: CommandLine) -> None:
    words, told = shown()
    assert words in " ".join(command_line("run", *FEW).stdout.split())
    assert json.loads(command_line("run", *FEW, "--json").stdout)["step_time_error"] == told
    assert words in " ".join(command_line("compare", *FEW).stdout.split())
    data = json.loads(command_line("compare", *FEW, "--json").stdout)
    assert (data["step_time_error"], set(data["schedule_error"])) == (told, {"rows", "median", "p90"})
    assert set(data["too_close_to_call"]) < {run["schedule"] for run in data["runs"]}


def test_reports_and_sweeps_show_a_bar(command_line: CommandLine, tmp_path: Path) -> None:
    words, _ = shown()
    assert command_line("report", *FEW, "-o", tmp_path / "report.html").returncode == 0
    assert words in (tmp_path / "report.html").read_text(encoding="utf-8")
    swept = command_line("sweep", "deepseek_v3", "--over", "pipeline.micro_batches=32,48").stdout
    assert " ".join(swept.split()).count(f"steps: {words}") == 1


def test_nothing_is_said_of_machines_where_nothing_is_predicted_of_them(command_line: CommandLine) -> None:
    for command, keys in (
        ("run", ["step_time_error"]),
        ("compare", ["step_time_error", "schedule_error", "too_close_to_call"]),
    ):
        assert "nine in ten" not in command_line(command, "figure5").stdout
        data = json.loads(command_line(command, "figure5", "--json").stdout)
        assert [data[key] for key in keys] == [None] * len(keys)
    assert "nine in ten" not in command_line("sweep", "figure5", "--over", "pipeline.micro_batches=16,32").stdout


def test_a_plan_says_what_is_too_close_to_call(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("plan", "plan_deepseek_v2_lite", "--set", "plan={schedules: [1f1b, dualpipe], ranks: [2, 4]}")
    said = command_line(*command, "--confirm", "0")
    words = " ".join(said.stdout.split())
    assert "published runs with experts nine in ten lie within" in words
    assert "too close to call with 1" in words
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, command_line(*command, "--confirm", "0").stdout.splitlines())) <= 60
    data = json.loads(command_line(*command, "--confirm", "0", "--json").stdout)
    assert data["too_close_within"] == {"error": "median", "share": data["step_time_error"]["median"]}
    assert set(data["too_close_to_call"]) <= set(range(2, len(data["ranking"]) + 1))
