"""Measured costs in a configuration: from their file, changed, refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualpipe_sim import UserError, compare, simulate

COSTS = """
pipes: 1
transfer: 2 ms
stages:
  0: {F: 10 ms, B: {time: 20 ms, launch: 1 ms}}
  1: {F: 10 ms, B: 20 ms}
"""


def config_with(folder: Path, text: str, **costs: object) -> dict[str, object]:
    (folder / "costs.yaml").write_text(text)
    section = {"kind": "measured", "file": str(folder / "costs.yaml"), **costs}
    return {"pipeline": {"ranks": 2, "micro_batches": 1}, "schedule": "1f1b", "costs": section}


def test_a_configuration_runs_measured_costs(tmp_path: Path) -> None:
    """F, transfer, F, B, transfer, launch, B."""
    assert simulate(config_with(tmp_path, COSTS)).makespan_s == pytest.approx(0.065)
    assert simulate(config_with(tmp_path, COSTS, launch=False)).makespan_s == pytest.approx(0.064)
    assert simulate(config_with(tmp_path, COSTS, transfer="5 ms")).makespan_s == pytest.approx(0.071)
    # 300 MB at 100 GB/s take 3 ms.
    by_size = config_with(tmp_path, COSTS, transfer="300 MB", launch=False)
    cluster = {"nvlink": {"bandwidth": "100 GB/s"}}
    assert simulate({**by_size, "cluster": cluster}).makespan_s == pytest.approx(0.066)


def test_a_schedule_whose_ops_were_not_measured_is_refused_alone(tmp_path: Path) -> None:
    runs = compare({**config_with(tmp_path, COSTS), "compare": ["zb-h1", "1f1b"]}, micro_batches=2)
    assert [run.schedule for run in runs if run.error is None] == ["1f1b"]
    assert "has no time for I of stage 0" in str(runs[1].error)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stages: {}", "stages: must hold one stage at least, or pairs must"),
        ("stages: 3", "stages: must be a mapping of keys, got 3"),
        ("stages: {a: {F: 1}}", "stages.a: must be a whole number, 0 or more, got 'a'"),
        ("stages: {0: {G: 1}}", "stages[0].G: unknown key (known: F, B, I, W, R, memory)"),
        ("stages: {0: {F: fast}}", "stages[0].F.time: must be a time like 5 us or 18.5 ms, got 'fast'"),
        ("stages: {0: {F: {tim: 1}}}", "stages[0].F.tim: unknown key; did you mean 'time'?"),
        ("stages: {0: {F: 1}}\npairs: {7: 1}", "pairs"),
        ("stages: {0: {F: 1}}\npairs: {0F7B: 1}", "'0F7B' must be the stages of a forward and a backward, like 0F;7B"),
        ("stages: {0: {F: 1}}\npipes: 2", "pipes: 1 stages do not make up 2 equally long pipes"),
        ("pipes: 1", "stages: must hold one stage at least, or pairs must"),
        ("just words", "must be a mapping of keys"),
    ],
)  # fmt: skip
def test_a_wrong_costs_file_is_one_clear_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        simulate(config_with(tmp_path, text))
    assert f"{tmp_path / 'costs.yaml'}: " in str(refused.value)
    assert said in str(refused.value)
