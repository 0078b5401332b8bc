"""Scores: rows are predicted as they run, errors are summed up as is said, and what is off points to a part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim import simulate
from dualpipe_sim.config.yaml_text import as_block
from dualpipe_sim.errors import UserError
from dualpipe_sim.importers.published import of_row
from dualpipe_sim.scoring import Board, Errors, Prediction, score
from dualpipe_sim.scoring.rows import class_of, read_rows

if TYPE_CHECKING:
    from tests.conftest import CommandLine

ROW: dict[str, Any] = {
    "id": "small", "source": "mine", "model_name": "small", "model": {"layers": 8, "hidden": 256, "heads": 8,
    "kv_heads": 4, "head_dim": 32, "ffn": 1024, "activation": "swiglu", "vocab": 1024, "tied_embedding": False},
    "cluster": {"gpu": "h100-80g-sxm", "gpus": 8}, "parallel": {"tp": 1, "pp": 2, "dp": 4, "zero": 1},
    "schedule": "1f1b", "seq_len": 128, "global_batch": 32, "micro_batch": 1, "precision": "bf16",
    "recompute": "none", "framework": "Megatron-Core 0.12",
}  # fmt: skip
STEP_S = simulate(of_row(ROW, "x").config).step_time_s or 0.0
PEAK = max(simulate(of_row(ROW, "x").config).peak_memory_bytes_by_rank or [0])


def row(name: str, /, measured_s: float | None = None, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any value
    measured = {} if measured_s is None else {"measured": {"step_time_s": measured_s}}
    return ROW | {"id": name} | measured | changes


CLASSES = [
    ({}, "megatron-dense"),
    ({"framework": "MegaScale"}, "megatron-dense"),
    ({"framework": "NeMo 24.07"}, "megatron-dense"),
    ({"framework": "NeMo AutoModel"}, "dense"),
    ({"framework": "torchtitan"}, "dense"),
    ({"framework": "vTrain on Megatron"}, "dense"),  # whose name does not begin so
    ({"parallel": ROW["parallel"] | {"zero": 3}}, "dense"),
    ({"parallel": ROW["parallel"] | {"fsdp": 4}}, "dense"),
    ({"parallel": ROW["parallel"] | {"fsdp": 1}}, "megatron-dense"),
    ({"model": ROW["model"] | {"experts": {"routed": 8, "active": 2, "ffn": 64}}}, "moe"),
    ({"model": None, "parallel": "x"}, "megatron-dense"),
]


@pytest.mark.parametrize(("changes", "kind"), CLASSES)
def test_classes(changes: dict[str, Any], kind: str) -> None:
    assert class_of(ROW | changes) == kind


def test_errors_by_hand() -> None:
    """Of ten the ninth is p90, of eleven the tenth: the nearest rank."""
    assert Errors.of(one / 10 for one in range(1, 11)) == (10, 0.55, 0.9, 0.55)
    assert Errors.of(one / 10 for one in range(1, 12)).p90 == 1.0
    assert Errors.of([-0.1, -0.2, 0.4]) == (3, 0.2, 0.4, -0.1)
    assert Errors.of([]) == (0, None, None, None)


@given(st.lists(st.floats(-0.9, 5), min_size=1))
def test_nine_of_ten_are_no_larger_than_p90(errors: list[float]) -> None:
    found = Errors.of(errors)
    assert found.p90 is not None
    assert found.median is not None
    assert found.median <= found.p90
    assert sum(abs(one) <= found.p90 for one in errors) >= 0.9 * len(errors)
    assert sum(abs(one) < found.p90 for one in errors) < 0.9 * len(errors)


def test_a_row_is_predicted_as_it_runs() -> None:
    measured = {"step_time_s": STEP_S / 1.1, "memory_alloc_gib": PEAK / 2**30 / 0.9}
    (one,) = score([row("a", measured=measured)]).predictions
    assert (one.step_time_s, one.memory_bytes, one.fits, one.stack) == (STEP_S, PEAK, True, "megatron")
    assert one.error == pytest.approx(0.1)
    assert one.memory_error == pytest.approx(-0.1)
    assert one.parts_s is not None
    assert sum(one.parts_s.values()) == pytest.approx(STEP_S)
    assert (one.kind, one.source, one.assumed) == ("megatron-dense", "mine", ())


def test_what_cannot_be_stated_stops_no_other() -> None:
    rows = [
        row("fine", STEP_S),
        row("no size", model=ROW["model"] | {"hidden": None}),
        row("no gpu", cluster={"gpu": "abacus", "gpus": 8}),
        row("no batch", global_batch=33),
        row("odd", measured={"step_time_s": "fast"}),
        row("no model", model=None),
        {},
    ]
    board = score(rows)
    assert board.stated == 1
    assert [one.id for one in board.predictions] == [
        "fine",
        "no size",
        "no gpu",
        "no batch",
        "odd",
        "no model",
        "run 6",
    ]
    why = [one.unsupported or "" for one in board.predictions]
    assert why[0] == ""
    for found, message in zip(
        why[1:],
        (
            "model.hidden: must be a whole number, got None",
            "there is no preset of 'abacus'",
            "33 sequences are no whole micro-batches",
            "odd: measured.step_time_s: must be a number above zero, got 'fast'",
            "model: must be a mapping, got None",
            "must be a mapping",
        ),
        strict=True,
    ):
        assert message in found
        assert "\n" not in found
    assert board.to_dict()["classes"]["megatron-dense"]["rows"] == 6  # type: ignore[index]


def test_classes_and_sources_are_summed_up_apart() -> None:
    experts = ROW["model"] | {"experts": {"routed": 8, "active": 2, "ffn": 64}}
    rows = [
        row("a", STEP_S / 1.1),
        row("b", STEP_S / 0.8, source="theirs"),
        row("c", STEP_S, framework="torchtitan", source="theirs"),
        row("d", STEP_S / 3, score=False),  # which is no fair comparison
        row("e", 1.0, model=experts),
        row("f"),  # not measured
    ]
    found = score(rows).to_dict()
    classes: Any = found["classes"]
    assert (classes["megatron-dense"]["rows"], classes["dense"]["rows"], classes["moe"]["rows"]) == (4, 5, 1)
    assert classes["megatron-dense"]["median"] == pytest.approx(0.15)
    assert classes["megatron-dense"]["p90"] == pytest.approx(0.2)
    sources: Any = found["sources"]
    assert (sources["mine"]["rows"], sources["theirs"]["rows"]) == (4, 2)
    predictions: Any = found["predictions"]
    assert predictions[5]["error"] is None
    assert list(predictions[0]) == [
        "id", "class", "step_time_s", "memory_bytes", "fits", "stack", "assumed", "parts_s", "measured_step_time_s",
        "error", "measured_memory_bytes", "memory_error",
    ]  # fmt: skip


def test_gpus_and_precisions_are_summed_up_apart_where_there_are_several() -> None:
    other = {"gpu": "h200-141g-sxm", "gpus": 8}
    rows = [
        row("a", STEP_S / 1.1),
        row("b", STEP_S),
        row("c", 1.0, cluster=other, precision="fp8"),
        row("d", cluster={}),
    ]
    board = score(rows)
    assert {gpu: [one.id for one in found] for gpu, found in board.gpus.items()} == {
        "h100": ["a", "b"],
        "h200": ["c"],
        "": ["d"],
    }
    found: Any = board.to_dict()
    assert found["gpus"]["h100"]["median"] == pytest.approx(0.05)
    assert list(found["gpus"]) == ["h100", "h200"]
    assert {name: one["rows"] for name, one in found["precisions"].items()} == {"bf16": 3, "fp8": 1}
    assert [table.headings[0] for table in board.group_tables()] == ["class", "source", "GPU", "precision"]
    alike = score(rows[:2])
    assert [table.headings[0] for table in alike.group_tables()] == ["class", "source"]
    assert Board((Prediction("x", "moe", gpu="abacus"),)).gpus["abacus"][0].id == "x"


def test_runs_that_differ_in_what_was_measured_alone_are_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def counted(point: Any) -> dict[str, object]:  # noqa: ANN401 - a point
        seen.append(point)
        return {"step_time_s": 1.0, "memory_bytes": 1, "fits": True, "parts_s": {}}

    monkeypatch.setattr("dualpipe_sim.scoring.run.predicted", counted)
    board = score([row("a", 1.0), row("b", 2.0), row("c", 1.0, micro_batch=2)])
    assert len(seen) == 2
    assert [one.error for one in board.predictions] == [0.0, -0.5, 0.0]


def off(part: str, factor: float, number: int = 8) -> Board:
    """Return a board whose measured steps have a part that takes so many times as long as is predicted."""
    rows = []
    for place in range(number):
        parts = {"compute": 1.0 + place, "tensor parallelism": 0.5 * place, "bubble": 2.0 / (1 + place)}
        measured_s = sum(parts.values()) + (factor - 1) * parts[part]
        rows.append(
            Prediction(
                f"{place}", "dense", step_time_s=sum(parts.values()), parts_s=parts, measured_step_time_s=measured_s
            )
        )
    return Board(tuple(rows))


@pytest.mark.parametrize(("part", "key"), [("compute", "gpu.gemm"), ("tensor parallelism", "cluster.nvlink")])
@pytest.mark.parametrize("factor", [0.7, 1.5])
def test_a_systematic_error_points_to_its_part(part: str, key: str, factor: float) -> None:
    (found,) = off(part, factor).pointers()
    assert found.part == part
    assert found.factor == pytest.approx(factor, rel=0.02)
    assert key in found.constant
    assert found.after < found.before / 4


def test_no_error_and_few_runs_point_to_nothing() -> None:
    assert off("compute", 1.0).pointers() == []
    assert off("compute", 1.5, number=4).pointers() == []


def test_a_file_holds_a_list_of_runs(tmp_path: Path) -> None:
    path = tmp_path / "runs.yaml"
    for text, number in ((as_block({"runs": [ROW, ROW]}), 2), (json.dumps([ROW]), 1)):
        path.write_text(text, encoding="utf-8")
        assert len(read_rows(path)) == number
    for text, message in (
        ("runs: 5", "runs: must be a list of runs, got 5"),
        ("a: b", "runs: must be a list of runs, got None"),
        ("runs: []", "runs: must be a list of runs, got []"),
        ("runs: [1]", "runs[0]: must be a mapping, got 1"),
        ("runs: [", "found"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError) as error:
            read_rows(path)
        assert message in str(error.value)
        assert str(path) in str(error.value)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    path = tmp_path / "runs.yaml"
    rows = [row("a", STEP_S / 1.2), row("b", STEP_S, framework="torchtitan"), row("bad", parallel={"pp": 2})]
    path.write_text(as_block({"runs": rows}), encoding="utf-8")
    return path


def test_the_command_prints_classes_sources_and_the_worst(command_line: CommandLine, runs: Path) -> None:
    done = command_line("score", runs)
    assert done.returncode == 0
    said = " ".join(done.stdout.split())
    assert "megatron-dense 2 1 20.0% 20.0% +20.0%" in said
    assert "furthest off measured predicted error predicted parts" in said
    assert "2 of 3 runs can be stated" in said
    assert done.stderr == f"{runs}: bad: parallel.dp: must be a whole number, got None\n"


def test_the_command_prints_json_alike_with_several_workers(command_line: CommandLine, runs: Path) -> None:
    one, two = (json.loads(command_line("score", runs, "--json", "-j", n).stdout) for n in ("1", "2"))
    assert one == two
    assert (one["rows"], one["stated"]) == (3, 2)
    why = f"{runs}: bad: parallel.dp: must be a whole number, got None"
    assert one["predictions"][2] == {"id": "bad", "class": "megatron-dense", "unsupported": why}


def test_the_command_shows_one_run(command_line: CommandLine, runs: Path) -> None:
    said = " ".join(command_line("score", runs, "--id", "a").stdout.split())
    assert "compute" in said
    assert "+20.0% off" in said
    for name, message in (("c", "there is no run 'c'"), ("bad", "parallel.dp: must be a whole number")):
        done = command_line("score", runs, "--id", name)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in " ".join(done.stderr.split())
