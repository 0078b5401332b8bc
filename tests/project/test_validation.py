"""What was measured on GPUs, and what the page about it says."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.pages import script

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "validation_runs.md"
EXACTLY_SPLIT = ("1f1b", "gpipe", "zb-v", "dualpipe")


@pytest.fixture(scope="module")
def predict() -> ModuleType:
    return script(ROOT / "validation" / "predict.py")


@pytest.fixture(scope="module")
def sets(predict: ModuleType) -> dict[str, list[dict[str, Any]]]:
    return predict.predict_all()  # type: ignore[no-any-return]


def error(row: dict[str, Any], way: str) -> float:
    return abs(float(row[f"{way}_s"]) / float(row["measured_s"]) - 1)


def test_the_pages_tables_are_what_the_results_give(predict: ModuleType, sets: dict[str, list[dict[str, Any]]]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert predict.filled(page, sets) == page
    for name in sets:
        assert f"<!-- {name} times -->" in page


def test_every_measured_run_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    runs = [path.stem for path in (ROOT / "validation" / "results").glob("*/*.json")]
    assert len(runs) == 54
    assert all(f"| {run} |" in page for run in runs)


def test_the_stored_predictions_are_of_this_code(sets: dict[str, list[dict[str, Any]]]) -> None:
    stored = json.loads((ROOT / "validation" / "results" / "predicted.json").read_text(encoding="utf-8"))
    for name, rows in sets.items():
        for row, before in zip(rows, stored[name], strict=True):
            assert row["async_s"] == pytest.approx(before["async_s"], rel=1e-6)
            assert row["rendezvous_s"] == pytest.approx(before["rendezvous_s"], rel=1e-6)


def test_no_run_is_predicted_from_itself(sets: dict[str, list[dict[str, Any]]]) -> None:
    assert all(row["costs_from"] != row["name"] for rows in sets.values() for row in rows)


def test_dense_steps_are_as_near_as_the_page_says(sets: dict[str, list[dict[str, Any]]]) -> None:
    for row in sets["dense"]:
        schedule = row["name"].split("-m")[0]
        most = 0.021 if schedule in EXACTLY_SPLIT else 0.031 if schedule.startswith("interleaved") else 0.023
        assert error(row, "async") < most, row["name"]
        assert error(row, "rendezvous") < 0.061, row["name"]


def test_with_measured_lengths_rendezvous_is_what_ran(sets: dict[str, list[dict[str, Any]]]) -> None:
    rows = sets["dense"] + sets["memory"] + sets["transformer"]
    assert max(abs(row["replayed_error"]["rendezvous"]) for row in rows) < 0.0005
    assert min(row["replayed_error"]["async"] for row in rows) == pytest.approx(-0.024, abs=0.001)


def test_schedules_rank_as_the_page_says(predict: ModuleType, sets: dict[str, list[dict[str, Any]]]) -> None:
    assert predict.order_of_schedules(sets["dense"]) == (144, {"async": 11, "rendezvous": 18})


@pytest.mark.parametrize(("name", "most"), [("dense", 0.043), ("memory", 0.03), ("transformer", 0.048)])
def test_peak_memory_is_as_near_as_the_page_says(sets: dict[str, list[dict[str, Any]]], name: str, most: float) -> None:
    for row in sets[name]:
        for said, was in zip(row["predicted_activation_bytes"], row["activation_bytes"], strict=True):
            assert abs(said / was - 1) < most, row["name"]


def test_dualpipes_peak_does_not_grow_with_micro_batches(sets: dict[str, list[dict[str, Any]]]) -> None:
    few, many = (
        next(row["activation_bytes"] for row in sets[name] if row["name"] == run)
        for name, run in (("dense", "dualpipe-m12-even"), ("memory", "dualpipe-m40-even"))
    )
    assert max(many) == pytest.approx(max(few), rel=0.005)
