"""What runs are said to take, against what they take, and how more than there is is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim import compare, parse_order, simulate
from dualpipe_sim.base.memory import at_most, free_bytes, short_of
from dualpipe_sim.config.load import load_experiment
from dualpipe_sim.demand import MOST_STEPS, check, demand
from dualpipe_sim.errors import TooLargeError, UserError
from dualpipe_sim.robustness import robust
from dualpipe_sim.schedules.registry import schedules
from dualpipe_sim.sweeps import sweep

if TYPE_CHECKING:
    from tests.conftest import CommandLine

_MEASURED = """
import json, sys
from pathlib import Path
from dualpipe_sim.cli import simulate
from dualpipe_sim.config.load import load_experiment
from dualpipe_sim.demand import demand
from dualpipe_sim.simulation import run
experiment = load_experiment(sys.argv[1], settings=sys.argv[2:])
said = demand(experiment, experiment.choice)
def peak():  # (ru_maxrss is no less than that of the process that started this one)
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])
before = peak()
run(experiment).to_dict()
took = peak() - before
print(json.dumps([said.memory_bytes, took]))
"""


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system does not tell")
@pytest.mark.parametrize(
    "arguments",
    [
        ("eight_ranks", "schedule=1f1b", "pipeline.ranks=64", "pipeline.micro_batches=4096"),
        ("eight_ranks", "schedule=dualpipe", "pipeline.ranks=64", "pipeline.micro_batches=4096"),
        ("eight_ranks", "schedule=zb-h1", "pipeline.ranks=32", "pipeline.micro_batches=4096"),
        ("eight_ranks", "schedule=1f1b", "pipeline.micro_batches=30000"),
        ("eight_ranks", "schedule={name: hanayo, waves: 4}", "pipeline.micro_batches=2048"),
        ("eight_ranks", "schedule=1f1b", "pipeline.micro_batches=8192", "pipeline.runtime=torch"),
        ("eight_ranks", "schedule=1f1b", "pipeline.micro_batches=8192", "noise={jitter: 0.1, runs: 10}"),
        ("eight_ranks", "schedule=1f1b", "pipeline.micro_batches=16384", "engine=simpy"),
        ("deepseek_v3", "pipeline.micro_batches=480"),
        ("no_alltoall", "schedule=1f1b", "pipeline.micro_batches=2000"),
    ],
    ids=" ".join,
)
def test_a_run_takes_about_the_memory_that_it_is_said_to_take(arguments: tuple[str, ...]) -> None:
    told = subprocess.run([sys.executable, "-c", _MEASURED, *arguments], capture_output=True, text=True, check=True)
    said, took = json.loads(told.stdout)
    assert 0.9 * took < said < 2 * took


SMALL = {"schedule": "1f1b", "ranks": 8, "forward": 1.0, "backward": 2.0}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"micro_batches": 40_000_000},
            "8 ranks × 40,000,000 micro-batches: 320.0 GB of memory are more than are free",
        ),
        ({"micro_batches": 40_000_000}, r"\(1.0 GB\); the most is 8 ranks × 124,997 micro-batches$"),
        ({"micro_batches": 10**9}, r"3.2e\+10 steps of work are more than are done at once \(1e\+10\); the most is 8"),
        ({"micro_batches": 1, "ranks": 10**6}, r"2e\+12 steps of work are more than .* the most is 70,709 ranks × 1 "),
        ({"micro_batches": 8, "schedule": {"name": "hanayo", "waves": 10**7}}, "take fewer stages, or smaller options"),
        (
            {"micro_batches": 2000, "noise": {"jitter": 0.1, "runs": 10**6}},
            r"steps of work .*; the most is 154,730 draws",
        ),
    ],
)
def test_more_than_there_is_room_for_is_refused_with_the_most_that_there_is(
    more: Mapping[str, object], said: str
) -> None:
    with pytest.raises(TooLargeError, match=said):
        simulate(None, **{"max_memory": "1 GB", **SMALL, **more})


def test_the_most_that_is_named_is_no_more_than_there_is() -> None:
    experiment = load_experiment(None, {"schedule": "1f1b", "pipeline": {"ranks": 8, "micro_batches": 124_997}})
    one_more = load_experiment(None, {"schedule": "1f1b", "pipeline": {"ranks": 8, "micro_batches": 124_998}})
    with at_most(1e9):
        check(experiment, experiment.choices)
        with pytest.raises(TooLargeError):
            check(one_more, one_more.choices)


def test_all_runs_of_a_comparison_are_kept_so_their_sum_counts() -> None:
    one = demand(load_experiment("figure5"), load_experiment("figure5").choice).memory_bytes
    with pytest.raises(TooLargeError, match="of 4 schedules: "):
        compare("figure5", max_memory=2 * one)
    assert len(compare("figure5", max_memory=5 * one)) == 4


def test_a_point_that_is_too_large_is_a_row_of_a_sweep() -> None:
    rows = sweep({**_plain(), "max_memory": "1 GB"}, {"micro_batches": [8, 40_000_000]})
    assert rows[0]["error"] is None
    assert "40,000,000 micro-batches: 320.0 GB of memory" in str(rows[1]["error"])


def test_a_sweep_of_too_many_points_is_refused_before_there_is_any() -> None:
    values = list(range(1, 1001))
    with pytest.raises(
        UserError, match=r"1000 \(a\) x 1000 \(b\) x 1000 \(c\) make 1000000000 points, more than 1000000"
    ):
        sweep(_plain(), {"a": values, "b": values, "c": values})


def test_scenarios_that_take_hours_are_refused() -> None:
    with pytest.raises(UserError, match=r"the most is [0-9,]+ draws"):
        robust(_plain(), **{"scenarios.runs": 10**6, "pipeline.micro_batches": 10**5})  # type: ignore[arg-type]


def test_an_order_that_is_there_counts_as_large_as_it_is() -> None:
    experiment = load_experiment(None, {"schedule": parse_order("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1")})
    assert demand(experiment, experiment.choice).memory_bytes >= 8 * 400
    with pytest.raises(TooLargeError, match="more than are free"):
        simulate(schedule=parse_order("0F0,0B0\n1F0,1B0"), max_memory=100)


@given(st.sampled_from(sorted(schedules())), st.integers(1, 10**7), st.integers(1, 10**9))
def test_no_size_is_built_before_it_is_refused(name: str, ranks: int, micro_batches: int) -> None:
    experiment = load_experiment(
        None, {"schedule": name, "pipeline": {"ranks": ranks, "micro_batches": micro_batches}, "max_memory": 1e7}
    )
    needs = demand(experiment, experiment.choice)
    if needs.memory_bytes > 1e7 or needs.steps > MOST_STEPS:
        with pytest.raises(TooLargeError):
            check(experiment, experiment.choices)
    else:
        check(experiment, experiment.choices)


def test_what_is_free_is_what_the_system_or_the_caller_says() -> None:
    assert free_bytes() > 0
    with at_most(1e6), at_most(None), at_most(1e9):
        assert free_bytes() == 1e6
        assert short_of(1e6 + 1) == 1e6
        assert short_of(1e6) is None


@pytest.mark.parametrize("command", ["run", "compare", "memory", "why", "robust"])
def test_commands_that_simulate_take_a_limit_of_memory(command_line: CommandLine, command: str) -> None:
    ran = command_line(command, "figure5", "--max-memory", "1 kB")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "of memory are more than are free (0.001 MB)" in " ".join(ran.stderr.split())


@pytest.mark.parametrize("size", ["lots", "-1", "nan"])
def test_a_limit_that_is_no_size_is_refused(command_line: CommandLine, size: str) -> None:
    ran = command_line("run", "figure5", f"--max-memory={size}")
    assert ran.returncode == 2
    assert "max_memory: must be a size like 58 MB or 80 GiB" in ran.stderr


def test_files_written_by_commands_are_not_begun_where_a_run_is_refused(
    command_line: CommandLine, tmp_path: Path
) -> None:
    output = tmp_path / "timeline.csv"
    ran = command_line("timeline", "figure5", "-o", output, "--max-memory", "1 kB")
    assert ran.returncode == 2
    assert not list(tmp_path.iterdir())


def _plain() -> dict[str, object]:
    return {
        "pipeline": {"ranks": 8, "micro_batches": 8},
        "schedule": "1f1b",
        "costs": {"forward": 1.0, "backward": 2.0},
    }


def test_plans_and_maps_of_too_many_points_are_refused_before_there_is_any(command_line: CommandLine) -> None:
    many = "[" + ", ".join(map(str, range(1, 101))) + "]"
    free = [f"--set=plan.{key}={many}" for key in ("ranks", "tensor", "expert", "micro_batch_size")]
    ran = command_line("plan", "plan_deepseek_v2_lite", *free)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "candidates, more than 1000000" in " ".join(ran.stderr.split())
    options = "[" + ", ".join(map(str, range(2, 302))) + "]"
    schedule = f"[{{name: interleaved-1f1b, stages_per_rank: {options}, group: {options}}}]"
    ran = command_line("plan", "plan_deepseek_v2_lite", "--set", f"plan.schedules={schedule}")
    assert "plan.schedules: interleaved-1f1b: its lists make 90000 ways, more than 10000" in " ".join(
        ran.stderr.split()
    )
    ran = command_line("regimes", "figure5", "--x", "costs.transfer=0..2:9999", "--y", "costs.forward=1..2:9999")
    assert "make 99980001 points, more than 1000000" in ran.stderr
    ran = command_line("regimes", "figure5", "--x", "costs.transfer=0..2:1000000000", "--y", "ranks=4,8")
    assert "must be up to 10000 points" in ran.stderr
    ran = command_line("compare", "figure5", "nan", "--by", "memory")
    assert "activations: must be 0 or more, got nan" in ran.stderr
