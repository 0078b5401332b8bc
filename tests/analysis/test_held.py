"""Memory of a step out of what each stage holds, against what torch's own runtime took on two H100."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dualpipe_sim import simulate
from dualpipe_sim.calibration import calibrate, write_costs
from dualpipe_sim.errors import UserError

RUNS = Path(__file__).parents[2] / "validation" / "torch_runs"
TORCH = {"name": "torch", "version": "2.11"}
NAMES = sorted(path.name.removesuffix(".memory.csv") for path in RUNS.glob("large-*.memory.csv"))


def measured_bytes(name: str) -> list[int]:
    """Most bytes of each rank beyond what it held before the step."""
    summary = json.loads((RUNS / f"{name}.json").read_text(encoding="utf-8"))
    return [peak - rest for peak, rest in zip(summary["peak_bytes"], summary["at_rest_bytes"], strict=True)]


def predicted_bytes(run: str, costs: Path) -> list[int]:
    summary = json.loads((RUNS / f"{run}.json").read_text(encoding="utf-8"))
    options = {key: value for key, value in summary.get("options", {}).items() if key != "group"}
    setting: dict[str, Any] = {
        "pipeline": {"ranks": 2, "micro_batches": summary["micro_batches"], "runtime": TORCH},
        "schedule": {"name": summary["schedule"], **options},
        "costs": {"kind": "measured", "file": str(costs)},
    }
    return simulate(setting).peak_memory_bytes_by_rank or []


@pytest.mark.parametrize("source", ["large-zb-v-m8", "large-interleaved-zb-m8"])
def test_peaks_of_all_runs_follow_from_one(source: str, tmp_path: Path) -> None:
    costs = tmp_path / "costs.yaml"
    files = [RUNS / f"{source}.csv", RUNS / f"{source}.memory.csv"]
    write_costs(calibrate(files, runtime="torch", runtime_options={"version": "2.11"}), costs)
    assert len(NAMES) == 14
    for run in NAMES:
        assert predicted_bytes(run, costs) == pytest.approx(measured_bytes(run), rel=0.05), run


def test_a_full_backward_alone_says_nothing_of_a_deferred_weight_gradient(tmp_path: Path) -> None:
    costs = tmp_path / "costs.yaml"
    files = [RUNS / "large-interleaved-1f1b-m8.csv", RUNS / "large-interleaved-1f1b-m8.memory.csv"]
    write_costs(calibrate(files, runtime="torch", runtime_options={"version": "2.11"}), costs)
    assert predicted_bytes("large-1f1b-m8", costs) == pytest.approx(measured_bytes("large-1f1b-m8"), rel=0.05)


def test_rows_of_memory_are_checked(tmp_path: Path) -> None:
    table = tmp_path / "memory.csv"
    table.write_text("rank,task,before_bytes,peak_bytes,after_bytes\n0,0F0,1,x,2\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 2: peak_bytes must be a whole number of bytes, got 'x'"):
        calibrate([table])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('0,"0F0,1,2,3', "line 2: is no CSV"),
        ("x,0F0,1,2,3", "line 2: rank must be"),
        ("0,0F0,1,2", "must have 5 cells"),
    ],
)
def test_a_table_of_memory_that_is_none_is_refused(row: str, said: str, tmp_path: Path) -> None:
    table = tmp_path / "memory.csv"
    table.write_text(f"rank,task,before_bytes,peak_bytes,after_bytes\n{row}\n", encoding="utf-8")
    with pytest.raises(UserError, match=said):
        calibrate([table])
