"""The published runs of validation/published: each can be stated, cites its source, and holds together in itself."""

from __future__ import annotations

from collections import Counter
from functools import cache
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dualpipe_sim.config.load import load_experiment
from dualpipe_sim.config.yaml_text import read_yaml
from dualpipe_sim.importers.published import of_row
from dualpipe_sim.scoring.rows import CLASSES, class_of, measured_step_s, read_rows
from tests.pages import script

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "validation" / "published"
FILES = sorted(path for path in FOLDER.glob("*.yaml") if path.stem != "provenance")
RUNS = [run for path in FILES for run in read_rows(path)]


@cache
def generator() -> ModuleType:
    return script(ROOT / "docs" / "make_accuracy.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_cites_its_source_and_each_run_says_where_in_it_it_stands(path: Path) -> None:
    data: Any = read_yaml(path)
    assert list(data["sources"]) == [path.stem]
    about = data["sources"][path.stem]
    assert about["url"].startswith("https://")
    assert all(about[key] for key in ("title", "table", "step_time"))
    assert [run["id"] for run in data["runs"] if run["source"] != path.stem or not run["where"]] == []


def test_no_two_runs_have_one_name() -> None:
    assert [name for name, times in Counter(run["id"] for run in RUNS).items() if times > 1] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_run_can_be_stated(path: Path) -> None:
    for run in read_rows(path):
        assert load_experiment(of_row(run, path.name).config).choice.ranks == run["parallel"]["pp"]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run["id"])
def test_sizes_multiply_to_what_is_stated(run: Any) -> None:  # noqa: ANN401 - a row
    cut = run["parallel"]
    assert prod(cut.get(key, 1) for key in ("tp", "cp", "pp", "dp")) == run["cluster"]["gpus"]
    if "micro_batches" in run:
        assert run["micro_batch"] * run["micro_batches"] * cut["dp"] == run["global_batch"]
    assert measured_step_s(run)


@pytest.mark.parametrize(
    "run", [run for run in RUNS if "tokens_per_s_per_gpu" in run["measured"]], ids=lambda r: r["id"]
)
def test_a_step_follows_from_the_tokens_that_were_published(run: Any) -> None:  # noqa: ANN401 - a row
    tokens = run["global_batch"] * run["seq_len"] / run["cluster"]["gpus"]
    assert run["measured"]["step_time_s"] == pytest.approx(tokens / run["measured"]["tokens_per_s_per_gpu"], rel=2e-5)


def test_runs_that_set_a_constant_are_known_and_do_not_count() -> None:
    names = {run["id"] for run in RUNS} | {run["source"] for run in RUNS}
    taken = generator().set_constants()
    assert taken <= names
    counted = [run for run in generator().rows() if run.get("score", True)]
    assert [run["id"] for run in counted if {run["id"], run["source"]} & taken] == []
    assert len(counted) == sum(run.get("score", True) and not {run["id"], run["source"]} & taken for run in RUNS)


def test_constants_name_files_of_the_package() -> None:
    files = [file for one in generator().constants() for file in one["files"]]
    assert files
    assert [file for file in files if not (ROOT / "dualpipe_sim" / file).is_file()] == []


def test_the_page_has_every_run_and_the_preset_as_many_as_count() -> None:
    page = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    assert [run["id"] for run in RUNS if f"| {run['id']} |" not in page] == [], "run: make board"
    preset: Any = read_yaml(ROOT / "dualpipe_sim" / "scoring" / "accuracy.yaml")
    counted = Counter(class_of(run) for run in generator().rows() if run.get("score", True))
    counted["dense"] += counted["megatron-dense"]
    assert {kind: preset[kind]["rows"] for kind in CLASSES} == counted, "run: make board"
    assert all(0 <= preset[kind]["median"] <= preset[kind]["p90"] for kind in CLASSES)
