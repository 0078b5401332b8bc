"""Simulated against measured: numbers by hand, runs that do not fit, and real runs of torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from dualpipe_sim import UserError, simulate
from dualpipe_sim.calibration import calibrate, write_costs
from dualpipe_sim.calibration.compare_run import RunComparison, compare_run
from dualpipe_sim.config import load_experiment

if TYPE_CHECKING:
    from tests.calibration.conftest import RunFile
    from tests.conftest import CommandLine

Compared: TypeAlias = Callable[[Mapping[str, object], "str | Iterable[tuple[object, ...]]"], RunComparison]

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL: dict[str, object] = {
    "pipeline": {"ranks": 2, "micro_batches": 1},
    "schedule": "1f1b",
    "costs": {"forward": "10 ms", "backward_input": "10 ms", "backward_weight": "10 ms", "transfer": "2 ms"},
}
MEASURED = """\
0,compute,0F0,100.000,100.010
1,compute,1F0,100.013,100.025
1,compute,1B0,100.026,100.046
0,compute,0B0,100.050,100.072
"""


@pytest.fixture
def compared(run_file: RunFile) -> Compared:
    """Return a function that compares a configuration with a run of these rows."""
    return lambda config, rows: compare_run(load_experiment(config), [run_file(rows)])


def test_a_run_worked_out_by_hand(compared: Compared) -> None:
    """Simulated: F at 0 and 12 ms, B at 22 and 44 ms, done at 64 ms."""
    run = compared(SMALL, MEASURED)
    assert run.makespan_s == pytest.approx((0.064, 0.072))
    assert run.makespan_s.error == pytest.approx(-8 / 72)
    assert run.busy_s == [pytest.approx((0.030, 0.032))] * 2
    assert run.idle_s == [pytest.approx((0.034, 0.040))] * 2
    assert {kind: one.ops for kind, one in run.kinds.items()} == {"F": 2, "B": 2}
    assert run.kinds["F"].median_s == pytest.approx((0.010, 0.011))
    assert run.kinds["B"].median_s == pytest.approx((0.020, 0.021))
    worst = run.worst(3)
    assert [one.label for one in worst[:2]] == ["0B0", "1F0"]
    assert worst[0].length_s == pytest.approx((0.020, 0.022))
    assert worst[1].start_s == pytest.approx((0.012, 0.013))


def test_a_simulated_run_is_itself(compared: Compared) -> None:
    for schedule in ("dualpipe", "zb-h1"):
        config = {**SMALL, "pipeline": {"ranks": 4, "micro_batches": 8}, "schedule": schedule}
        run = compared(config, simulate(config).played.rows())
        assert run.makespan_s.error == pytest.approx(0.0)
        assert run.simulated.task_start_s == pytest.approx(run.measured.task_start_s)
        assert run.simulated.end_s == pytest.approx(run.measured.end_s)
        assert all(abs(one.length_s.difference) < 1e-12 for one in run.worst(1000))


def test_of_several_steps_the_one_in_the_middle_counts(compared: Compared) -> None:
    """Steps of 72, 70 and 75 ms; the last of four lacks an op."""
    second = MEASURED.replace("100.0", "200.0").replace("200.072", "200.070")
    third = MEASURED.replace("100.0", "300.0").replace("300.072", "300.075")
    cut = "0,compute,0F0,400,401\n"
    run = compared(SMALL, MEASURED + second + third + cut)
    assert run.steps_s == pytest.approx((0.072, 0.070, 0.075))
    assert run.makespan_s.measured == pytest.approx(0.072)


def test_launches_are_idle_on_both_sides(compared: Compared, tmp_path: Path) -> None:
    """1B0 is launched 1 ms after 1F0: its own time is 20 ms and the makespan has the launch."""
    (tmp_path / "costs.yaml").write_text(
        "{transfer: 2 ms, stages: {0: {F: 10 ms, B: 20 ms}, 1: {F: 10 ms, B: {time: 20 ms, launch: 1 ms}}}}"
    )
    costs = {"kind": "measured", "file": str(tmp_path / "costs.yaml")}
    run = compared({**SMALL, "costs": costs}, MEASURED)
    assert run.makespan_s.simulated == pytest.approx(0.065)
    assert run.busy_s[1].simulated == pytest.approx(0.030)
    assert run.kinds["B"].median_s.simulated == pytest.approx(0.020)
    task = next(one for one in run.worst(4) if one.label == "1B0")
    assert task.start_s.simulated == pytest.approx(0.023)


def test_the_halves_of_a_pair_may_be_measured_one_by_one(compared: Compared) -> None:
    config = {**SMALL, "pipeline": {"ranks": 2, "micro_batches": 4}, "schedule": "dualpipe"}
    rows = []
    for rank, lane, task, start, end in simulate(config).played.rows():
        halves = task.removesuffix("OVERLAP_F_B").strip("()").split(";")
        cuts = [start + (end - start) * part / len(halves) for part in range(len(halves) + 1)]
        rows += [(rank, lane, *half) for half in zip(halves, cuts, cuts[1:], strict=False)]
    run = compared(config, rows)
    assert "pair" in run.kinds
    assert run.makespan_s.error == pytest.approx(0.0)
    assert run.measured.task_start_s == pytest.approx(run.simulated.task_start_s)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("", "no op was found"),
        (MEASURED.replace("1B0", "1B1"), "1B1 on rank 1 is no op of this 1f1b"),
        (MEASURED.replace("1,compute,1B0", "0,compute,1B0"), "1B0 on rank 0 is on rank 1 in the schedule"),
        (MEASURED.replace("0,compute,0B0,100.050,100.072\n", ""), "0B0 of rank 0 did not run"),
        (MEASURED.replace("1,compute,1F0,100.013", "1,compute,1F0,0100.0261"), "1B0 began before 1F0 on rank 1"),
        (MEASURED.replace("1,compute,1F0,", "1,compute,(1F0;1B0)OVERLAP_F_B,"), "ran as a pair, but the schedule has"),
    ],
)
def test_a_run_of_something_else_is_one_clear_line(compared: Compared, tmp_path: Path, rows: str, said: str) -> None:
    rows = rows.replace("0100.0261,100.025", "100.0261,100.027")
    with pytest.raises(UserError) as refused:
        compared(SMALL, rows)
    assert str(refused.value).startswith(f"{tmp_path / 'run.csv'}: ")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_command_prints_draws_and_gives_json(command_line: CommandLine, run_file: RunFile, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(json.dumps(SMALL))
    arguments = ("compare-run", tmp_path / "mine.yaml", run_file(MEASURED))
    done = command_line(*arguments, "--plot", tmp_path / "both.svg")
    assert (done.returncode, done.stderr) == (0, "")
    assert "makespan: simulated 64 ms (-11.1%), measured 72 ms\n" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    drawn = (tmp_path / "both.svg").read_text()
    assert "simulated: 2 ranks" in drawn
    assert "measured: 2 ranks" in drawn
    said = json.loads(command_line(*arguments, "--json", "--worst", "1").stdout)
    assert said["makespan_s"] == pytest.approx({"simulated": 0.064, "measured": 0.072, "error": -8 / 72})
    assert [one["task"] for one in said["worst_ops"]] == ["0B0"]
    assert said["kinds"]["F"]["median_s"]["measured"] == pytest.approx(0.011)
    assert len(said["busy_s_by_rank"]) == len(said["idle_s_by_rank"]) == 2


# --- real runs -----------------------------------------------------------------------------------------------------

RANKS, MICRO_BATCHES = 2, 6
NAMES = ("1f1b", "dualpipev", "dualpipe", "zb-h1")


@pytest.fixture(scope="module")
def real_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Schedules run by torch on the CPU, with ops that sleep for 20 ms."""
    pytest.importorskip("torch.distributed.pipelining", reason="torch is not installed; make test-all runs this")
    folder = tmp_path_factory.mktemp("runs")
    sizes = ("--ranks", f"{RANKS}", "--micro-batches", f"{MICRO_BATCHES}", "--op-ms", "20", "--steps", "3")
    done = subprocess.run(
        [sys.executable, EXAMPLES / "run_in_pytorch.py", *NAMES, *sizes, "--profile", "-o", folder],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")))},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder


def real_comparison(folder: Path, name: str, calibrated_from: list[Path]) -> RunComparison:
    write_costs(calibrate(calibrated_from), folder / "costs.yaml")
    config = {
        "pipeline": {"ranks": RANKS, "micro_batches": MICRO_BATCHES},
        "schedule": name,
        "costs": {"kind": "measured", "file": str(folder / "costs.yaml")},
    }
    return compare_run(load_experiment(config), [folder / f"{name}.timeline.csv"])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_real_run_is_simulated_within_a_tenth_of_its_own_costs(real_runs: Path, name: str) -> None:
    for files in (
        [real_runs / f"{name}.timeline.csv"],
        [real_runs / f"{name}.rank{rank}.json" for rank in range(RANKS)],
    ):
        run = real_comparison(real_runs, name, files)
        assert abs(run.makespan_s.error or 0.0) < 0.10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["1f1b", "dualpipe"])
def test_a_real_run_is_simulated_from_another_ones_costs(real_runs: Path, name: str) -> None:
    """Of zb-h1, whose ops are alone: B of the others is its I + W, and pairs are its F + I + W."""
    run = real_comparison(real_runs, name, [real_runs / "zb-h1.timeline.csv"])
    assert abs(run.makespan_s.error or 0.0) < 0.10
