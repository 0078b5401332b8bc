"""What torch's own runtime did on GPUs, and what the page about it says."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import pytest

from tests.pages import script

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "validation_torch.md"


@pytest.fixture(scope="module")
def predict() -> ModuleType:
    return script(ROOT / "validation" / "predict_torch.py")


@pytest.fixture(scope="module")
def stored(predict: ModuleType) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((predict.FOLDER / "predicted.json").read_text(encoding="utf-8"))
    return rows


def of_model(predict: ModuleType, rows: list[dict[str, Any]], model: str, kind: str) -> list[dict[str, Any]]:
    runs = {run.name: run for run in predict.read_runs(model)}
    return [row for row in rows if row["run"] in runs and predict.kind_of(row, runs) == kind]


@pytest.mark.thorough
def test_the_pages_tables_are_what_the_results_give(predict: ModuleType, stored: list[dict[str, Any]]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    runs = {run.name: run for run in predict.read_runs()}
    assert len(runs) == 53
    assert predict.filled(page, stored, runs) == page
    assert all(f"| {run.name.removeprefix(run.model + '-')} |" in page for run in runs.values())


@pytest.mark.parametrize("source", ["large-1f1b-m8", "large-zb-v-m16", "medium-dualpipev-m8", "moe-gpipe-m8"])
def test_the_stored_predictions_are_of_this_code(
    predict: ModuleType, stored: list[dict[str, Any]], source: str
) -> None:
    runs = predict.read_runs(source.partition("-")[0])
    before = {row["run"]: row for row in stored if row["from"] == source}
    rows = list(predict.predictions(runs, [run for run in runs if run.name == source]))
    assert {row["run"] for row in rows} == set(before)
    for row in rows:
        assert row["predicted_s"] == pytest.approx(before[row["run"]]["predicted_s"], rel=1e-6)
        assert row["predicted_peak_bytes"] == before[row["run"]]["predicted_peak_bytes"]


@pytest.mark.parametrize(("model", "usual", "worst"), [("small", 0.020, 0.109), ("moe", 0.015, 0.050)])
def test_where_the_host_is_the_limit_its_speed_is_nearly_all_of_the_error(
    predict: ModuleType, stored: list[dict[str, Any]], model: str, usual: float, worst: float
) -> None:
    left = predict.beyond_hosts([row for row in stored if row["run"].startswith(f"{model}-")])
    assert median(left) == pytest.approx(usual, abs=5e-4)
    assert max(left) == pytest.approx(worst, abs=5e-4)


@pytest.mark.parametrize(
    ("kind", "usual", "worst"),
    [("itself", 0.005, 0.015), ("same schedule, other size", 0.01, 0.03), ("other schedules", 0.015, 0.04)],
)
def test_where_the_gpu_is_the_limit_steps_are_as_near_as_the_page_says(
    predict: ModuleType, stored: list[dict[str, Any]], kind: str, usual: float, worst: float
) -> None:
    errors = [abs(predict.error_of(row)) for row in of_model(predict, stored, "large", kind)]
    assert median(errors) < usual
    assert max(errors) < worst


def test_hosts_are_the_limit_of_small_kernels_and_gpus_of_large_ones(predict: ModuleType) -> None:
    names = ["large-zb-v-m8", "moe-gpipe-m8", "small-1f1b-m8"]
    runs = [run for run in predict.read_runs() if run.name in names]
    assert predict.limited_by_hosts(runs) == set(names[1:])


def test_hardly_any_two_schedules_come_out_in_the_wrong_order(
    predict: ModuleType, stored: list[dict[str, Any]]
) -> None:
    runs = {run.name: run for run in predict.read_runs("large")}
    pairs, wrong = predict.wrong_orders([row for row in stored if row["run"] in runs], runs)
    assert pairs > 200
    assert wrong / pairs < 0.06


def test_peaks_are_as_near_as_the_page_says(predict: ModuleType, stored: list[dict[str, Any]]) -> None:
    for model in ("large", "small", "moe"):
        runs = {run.name for run in predict.read_runs(model)}
        errors = [
            abs(said / was - 1)
            for row in stored
            if row["run"] in runs and row["predicted_peak_bytes"] is not None
            for said, was in zip(row["predicted_peak_bytes"], row["peak_bytes"], strict=True)
        ]
        assert len(errors) > 100
        assert max(errors) < 0.05


def test_shapes_alone_put_schedules_of_a_large_model_in_order(predict: ModuleType) -> None:
    runs = {run.name: run for run in predict.read_runs("large")}
    rows = predict.from_shapes(runs)
    assert len(rows) == 14
    errors = [abs(predict.error_of(row)) for row in rows]
    assert median(errors) < 0.035
    assert max(errors) < 0.045
    pairs, wrong = predict.wrong_orders(rows, runs)
    assert (pairs, wrong) == (34, 0)
