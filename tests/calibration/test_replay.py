"""Calibration by replay: simulate, write down, calibrate, simulate again; clocks, gaps, load and the host."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualpipe_sim import build, simulate
from dualpipe_sim.calibration import Calibration, calibrate, read_recording, write_costs
from dualpipe_sim.calibration.loaded import fit_replayed
from dualpipe_sim.calibration.replay import replays
from dualpipe_sim.costs.load import Load
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine.play import play
from dualpipe_sim.errors import ScheduleError, UserError
from dualpipe_sim.export import write_hta
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.result import Result
from dualpipe_sim.runtimes.registry import RUNTIMES, RuntimeInUse, RuntimeSpec, runtimes

TIMES = {"forward": "10 ms", "backward_input": "11 ms", "backward_weight": "9 ms", "transfer": "1 ms"}
OTHERS = ["zb-h1", "zb-h2", "zb-auto", "v-min", "v-half", "hanayo"]
"""Chains that torch's general runtime plays beside its own schedules."""

RUNS = [
    (runtime, schedule, options)
    for runtime in runtimes().values()
    for schedule in (*runtime.schedules, *(OTHERS if runtime.chains else ()))
    for options in ([{"stages_per_rank": 2}] if schedule.startswith(("interleaved", "looped")) else [{}])
]


every_run = pytest.mark.parametrize(
    ("runtime", "schedule", "options"), RUNS, ids=lambda value: getattr(value, "name", str(value))
)


def torch(version: str = "2.11") -> RuntimeInUse:
    return RUNTIMES.get("torch").with_options({"version": version})


def write_timeline(timeline: Timeline, path: Path, *, only: str = "", ahead_s: float = 0.0) -> Path:
    """Write a timeline, or one lane of it, as a run does; ``ahead_s`` is how far each rank's clock is ahead."""
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["rank", "lane", "task", "start_s", "end_s"])
        for rank, lane, task, start_s, end_s in timeline.rows():
            if only in ("", lane):
                lines.writerow([rank, lane, task, start_s + rank * ahead_s, end_s + rank * ahead_s])
    return path


@every_run
def test_what_a_simulated_run_was_made_of_comes_out_of_it(
    tmp_path: Path,
    runtime: RuntimeSpec,
    schedule: str,
    options: dict[str, object],
) -> None:
    setting: dict[str, Any] = {
        "pipeline": {"ranks": 4, "micro_batches": 12, "runtime": runtime.name},
        "schedule": {"name": schedule, **options},
    }
    before = simulate(setting | {"costs": {"kind": "uniform", **TIMES}})
    run, costs = write_timeline(before.played, tmp_path / "run.csv"), tmp_path / "costs.yaml"
    write_costs(calibrate([run], runtime=runtime.name), costs)
    again = simulate(setting | {"costs": {"kind": "measured", "file": str(costs)}})
    assert again.makespan_s == pytest.approx(before.makespan_s, rel=1e-6)


def through_a_trace(config: str, setting: dict[str, Any], folder: Path) -> tuple[Result, Result, Calibration]:
    """Simulate, write a trace, calibrate, simulate again."""
    before = simulate(config, **setting)
    write_hta(before.played, folder / "traces")
    runtime = setting["pipeline"]["runtime"]
    name = runtime if isinstance(runtime, str) else runtime["name"]
    options = None if isinstance(runtime, str) else {"version": runtime["version"]}
    found = calibrate(sorted((folder / "traces").iterdir()), runtime=name, runtime_options=options)
    write_costs(found, folder / "costs.yaml")
    measured = {"kind": "measured", "file": str(folder / "costs.yaml")}
    kept = {key: value for key, value in setting.items() if key in ("pipeline", "schedule")}
    return before, simulate(kept | {"costs": measured}), found


@every_run
def test_layers_come_out_of_a_trace_as_whole_ops(
    tmp_path: Path,
    runtime: RuntimeSpec,
    schedule: str,
    options: dict[str, object],
) -> None:
    pipeline = {"ranks": 4, "micro_batches": 8, "runtime": runtime.name}
    setting = {"pipeline": pipeline, "schedule": {"name": schedule, **options}}
    before, again, _ = through_a_trace("deepseek_v3", setting, tmp_path)
    assert again.makespan_s == pytest.approx(before.makespan_s, rel=5e-3)


@pytest.mark.parametrize(
    ("runtime", "schedule", "options"),
    [(runtime.name, *rest) for runtime, *rest in RUNS]
    + [({"name": "torch", "version": "2.11"}, *rest) for runtime, *rest in RUNS if runtime.name == "torch"],
    ids=str,
)
def test_what_messages_take_comes_out_of_who_waited_for_them(
    tmp_path: Path, runtime: object, schedule: str, options: dict[str, object]
) -> None:
    # Tensors also wait behind others, and ops for others: that is no transfer's time.
    pipeline = {"ranks": 4, "micro_batches": 12, "runtime": runtime}
    setting = {"pipeline": pipeline, "schedule": {"name": schedule, **options}, "costs": {"kind": "uniform", **TIMES}}
    before, again, found = through_a_trace("figure5", setting, tmp_path)
    assert found.transfer is not None
    assert found.transfer.median_s == pytest.approx(1e-3, rel=2e-3)
    assert again.makespan_s == pytest.approx(before.makespan_s, rel=1e-4)


def test_a_host_comes_out_of_a_trace(tmp_path: Path) -> None:
    costs = tmp_path / "slow.yaml"
    write_costs(calibrate([host_csv(tmp_path / "run.csv", lag_s=0.0)], runtime="torch"), costs)
    setting: dict[str, Any] = {"pipeline": {"ranks": 1, "micro_batches": 8, "runtime": "torch"}, "schedule": "1f1b"}
    before, again, _ = through_a_trace(
        "figure5", setting | {"costs": {"kind": "measured", "file": str(costs)}}, tmp_path
    )
    assert sum((again.idle_s_by_cause or {})["host"]) > 1e-3
    assert again.makespan_s == pytest.approx(before.makespan_s, rel=5e-3)


def test_waiting_for_the_other_side_is_nobodys_time(tmp_path: Path) -> None:
    # One micro-batch too slow on rank 1 makes rank 0 wait; without the program that shows as launches and transfers.
    graph = lower(build("interleaved-1f1b", 4, 12, stages_per_rank=2), UniformCosts(5.0, 5.0, 5.0, transfer_s=0.5))
    program = lower(graph.schedule, UniformCosts(5.0, 5.0, 5.0, transfer_s=0.5), runtime=torch())
    run = write_timeline(play(program), tmp_path / "run.csv", only="compute")
    plain, replayed = calibrate([run]), calibrate([run], runtime="torch", runtime_options={"version": "2.11"})
    assert max(timed.launch_s for kinds in plain.ops.values() for timed in kinds.values()) > 1
    for kinds in replayed.ops.values():
        assert kinds["F"].cold_s == pytest.approx(2.5, rel=1e-6)
        assert kinds["B"].cold_s == pytest.approx(5.0, rel=1e-6)


def test_clocks_that_disagree_do_not_change_a_transfer(tmp_path: Path) -> None:
    program = lower(build("1f1b", 2, 8), UniformCosts(0.01, 0.01, 0.01, transfer_s=1e-3), runtime=torch())
    run = write_timeline(play(program), tmp_path / "run.csv", only="compute", ahead_s=0.3e-3)
    found = calibrate([run], runtime="torch", runtime_options={"version": "2.11"})
    assert found.transfer is not None
    assert found.transfer.median_s == pytest.approx(1e-3, rel=1e-6)


@pytest.mark.parametrize("load", [Load(0.3, 0.03, 0.0), Load(0.0, 0.03, 0.25), Load(0.25, 0.03, 0.16)])
@pytest.mark.parametrize("schedule", ["interleaved-zb", "zb-v"])
def test_load_that_was_put_in_comes_out(tmp_path: Path, load: Load, schedule: str) -> None:
    options = {"stages_per_rank": 2} if schedule == "interleaved-zb" else {}
    costs = UniformCosts(0.012, 0.012, 0.01, transfer_s=1e-3)
    cold = lower(build(schedule, 2, 12, **options), costs, runtime=torch())
    timeline = play(replace(cold, load=load))
    recording = read_recording([write_timeline(timeline, tmp_path / "run.csv")])
    found = fit_replayed(recording, torch())
    assert found.load is not None
    assert found.load.beta == pytest.approx(load.beta, abs=0.01)
    assert found.load.gamma == pytest.approx(load.gamma, abs=0.01)
    again = play(lower(cold.schedule, found.costs, runtime=torch())).makespan_s
    assert again == pytest.approx(timeline.makespan_s, rel=0.002)


def host_csv(path: Path, *, lag_s: float) -> Path:
    """A rank whose host takes 3 ms an op and 1 ms between ops; the GPU's 2 ms follow the host by ``lag_s``."""
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["rank", "lane", "task", "start_s", "end_s", "host_start_s", "host_end_s"])
        for place, task in enumerate(["0F0", "0B0", "0F1", "0B1", "0F2", "0B2", "0F3", "0B3"]):
            begin_s = 4e-3 * place
            end_s = max(begin_s + lag_s + 2e-3, begin_s + 3e-3)
            lines.writerow([0, "compute", task, begin_s + lag_s, end_s, begin_s, begin_s + 3e-3])
    return path


def test_a_host_that_is_slower_than_its_gpu_is_what_a_step_takes(tmp_path: Path) -> None:
    run, costs = host_csv(tmp_path / "run.csv", lag_s=0.0), tmp_path / "costs.yaml"
    found = calibrate([run], runtime="torch")
    assert found.ops[0]["F"].host_s == pytest.approx(3e-3)
    assert found.ops[0]["F"].host_after_s == pytest.approx(1e-3)
    write_costs(found, costs)
    setting: dict[str, Any] = {"pipeline": {"ranks": 1, "micro_batches": 4, "runtime": "torch"}, "schedule": "1f1b"}
    slow = simulate(setting | {"costs": {"kind": "measured", "file": str(costs)}})
    assert slow.makespan_s == pytest.approx(31e-3)
    assert sum((slow.idle_s_by_cause or {})["host"]) == pytest.approx(7e-3)
    fast = simulate(setting | {"costs": {"kind": "measured", "file": str(costs), "host": False}})
    assert (fast.makespan_s or 0) < 25e-3


def test_what_a_profiler_adds_to_the_host_is_taken_out(tmp_path: Path) -> None:
    run = host_csv(tmp_path / "run.csv", lag_s=0.0)
    found = calibrate([run], runtime="torch", step_time_s=26e-3)
    assert found.host_share == pytest.approx(23 / 28, abs=1e-3), "7 ops of 4 ms come before the last one of 3 ms"
    assert found.ops[0]["F"].host_s == pytest.approx(3e-3 * 23 / 28, rel=1e-3)
    assert calibrate([run], runtime="torch", step_time_s=1.0).host_share == 1.0
    with pytest.raises(UserError, match="--step-time needs --runtime"):
        calibrate([run], step_time_s=26e-3)


def test_a_gap_that_nothing_explains_belongs_to_the_op_before_it(tmp_path: Path) -> None:
    # 2 ms of loss stand behind every forward of the last stage.
    path = tmp_path / "run.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["rank", "lane", "task", "start_s", "end_s"])
        for place in range(6):
            at_s = 0.032 * place
            lines.writerow([0, "compute", f"0F{place}", at_s, at_s + 0.01])
            lines.writerow([0, "compute", f"0B{place}", at_s + 0.012, at_s + 0.032])
    found = calibrate([path], runtime="torch")
    assert found.ops[0]["F"].cold_s == pytest.approx(0.012)
    assert found.ops[0]["B"].cold_s == pytest.approx(0.020)


def test_halves_of_a_pair_are_timed_apart_and_a_loss_between_them_is_the_forwards(tmp_path: Path) -> None:
    timeline = play(lower(build("dualpipev", 2, 8), UniformCosts(0.01, 0.01, 0.01, transfer_s=1e-3), runtime=torch()))
    path = tmp_path / "run.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["rank", "lane", "task", "start_s", "end_s"])
        for rank, lane, task, start_s, end_s in timeline.rows():
            lines.writerow([rank, lane, task, start_s, end_s])
            if "OVERLAP" in task:
                forward, backward = task.removesuffix(")OVERLAP_F_B").removeprefix("(").split(";")
                lines.writerow([rank, lane, forward, start_s, start_s + 0.004])
                lines.writerow([rank, lane, backward, end_s - 0.010, end_s])
    found = calibrate([path], runtime="torch", runtime_options={"version": "2.11"})
    assert not found.pairs
    assert found.ops[0]["F"].cold_s == pytest.approx(0.005, rel=1e-3)
    assert found.ops[0]["B"].cold_s == pytest.approx(0.010, rel=1e-3)


def test_a_run_is_known_by_its_order(tmp_path: Path) -> None:
    timeline = play(lower(build("interleaved-1f1b", 2, 8, stages_per_rank=2, group=4), UniformCosts(1.0, 1.0, 1.0)))
    recording = read_recording([write_timeline(timeline, tmp_path / "run.csv")])
    megatron = RUNTIMES.get("megatron").with_options({})
    (replay,) = replays(recording, [(0, 0)], megatron, 1)
    assert replay.timeline.graph.schedule.name == "interleaved-1f1b"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            "0,compute,0F0,0,1\n0,compute,0B0,1,3\n2,compute,2F0,1,2\n2,compute,2B0,2,3\n",
            "nothing of rank 1 was",
        ),
        (
            "0,compute,0F0,0,1\n0,compute,0B0,1,3\n1,compute,2F0,1,2\n1,compute,2B0,2,3\n",
            "nothing of stage 1 was",
        ),
        ("0,compute,0F0,0,1\n1,compute,1F0,1,2\n1,compute,1B0,2,3\n", "0B0"),
    ],
)
def test_a_run_that_is_not_whole_cannot_be_replayed(run_file: Any, rows: str, said: str) -> None:  # noqa: ANN401
    with pytest.raises((UserError, ScheduleError), match=said):
        calibrate([run_file(rows)], runtime="torch")


def test_another_runtime_than_ran_it_is_refused(tmp_path: Path) -> None:
    timeline = play(lower(build("zb-v", 2, 8), UniformCosts(1.0, 1.0, 1.0)))
    with pytest.raises(ScheduleError, match="runtime megatron has no schedule"):
        calibrate([write_timeline(timeline, tmp_path / "run.csv")], runtime="megatron")


def test_steps_that_were_held_up_do_not_count(tmp_path: Path) -> None:
    one = play(lower(build("1f1b", 2, 8), UniformCosts(0.01, 0.01, 0.01, transfer_s=1e-3), runtime=torch()))
    path = write_timeline(one, tmp_path / "run.csv")
    with path.open("a", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        for step, stretch in ((1, 1.0), (2, 3.0)):
            for rank, lane, task, start_s, end_s in one.rows():
                at_s = step * 10 * one.makespan_s
                lines.writerow([rank, lane, task, at_s + stretch * start_s, at_s + stretch * end_s])
    found = calibrate([path], warm_up=0, runtime="torch", runtime_options={"version": "2.11"})
    assert found.ops[0]["F"].cold_s == pytest.approx(0.01, rel=1e-6)
    assert np.isclose(found.ops[0]["B"].cold_s or 0, 0.02, rtol=1e-6)
