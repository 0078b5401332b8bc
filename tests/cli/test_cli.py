"""The command line, run as users run it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, get_args

import pytest

from dualpipe_sim import build, format_order
from dualpipe_sim.order.placement import PlacementName

CommandLine: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"

RUN_KEYS = {
    "schedule",
    "ranks",
    "micro_batches",
    "makespan_s",
    "bubble_ratio",
    "bubble_ratio_by_rank",
    "span_bubble_ratio",
    "micro_batches_per_s",
    "idle_s_by_cause",
    "peak_in_flight_by_rank",
    "peak_activations_by_rank",
    "theory",
    "error",
}


def test_run_prints_every_key_as_json(command_line: CommandLine) -> None:
    done = command_line("run", "figure5", "--json")
    run = json.loads(done.stdout)
    assert set(run) >= RUN_KEYS
    assert (run["makespan_s"], run["error"]) == (66.0, None)
    assert [sum(rank) for rank in zip(*run["idle_s_by_cause"].values(), strict=True)] == [6.0] * 8


def test_compare_sorts_by_throughput_and_puts_refusals_last(command_line: CommandLine) -> None:
    setting = "compare=[chimera, gpipe, dualpipe, {name: chimera, micro_batches: 24}]"
    runs = json.loads(command_line("compare", "figure5", "--set", setting, "--json").stdout)["runs"]
    assert [run["schedule"] for run in runs] == ["dualpipe", "chimera", "gpipe", "chimera"]
    assert all(set(run) >= RUN_KEYS for run in runs)
    assert [run["error"] is None for run in runs] == [True, True, True, False]
    assert "16 micro-batches or 24 micro-batches" in runs[-1]["error"]


def test_tables_fit_a_terminal_of_80_columns(command_line: CommandLine) -> None:
    for command in ("run", "compare"):
        done = command_line(command, "deepseek_v3")
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert "dualpipe" in done.stdout
        assert max(map(len, lines)) <= 80
        assert "…" not in done.stdout


def test_schedule_prints_the_order_and_nothing_else(command_line: CommandLine) -> None:
    done = command_line(
        "schedule", "interleaved-1f1b", "--ranks", "4", "--micro-batches", "8", "-O", "stages_per_rank=3"
    )
    assert done.stdout == format_order(build("interleaved-1f1b", 4, 8, stages_per_rank=3))
    assert done.stderr == ""


def test_schedules_lists_the_registry_with_sources(command_line: CommandLine) -> None:
    listed = command_line("schedules").stdout
    assert "dualpipe" in listed
    assert "arxiv.org/abs/2412.19437" in "".join(listed.split())


def test_a_timeline_is_a_csv_of_every_op_and_transfer(command_line: CommandLine, tmp_path: Path) -> None:
    """Two ranks, one micro-batch, unit costs, a transfer of one second: worked out by hand."""
    file = tmp_path / "timeline.csv"
    settings = ("pipeline.ranks=2", "pipeline.micro_batches=1", "schedule=1f1b", "costs.transfer=1")
    done = command_line("timeline", "figure5", "-o", file, *(word for one in settings for word in ("--set", one)))
    assert done.returncode == 0, done.stderr
    with file.open(newline="") as lines:
        rows = list(csv.reader(lines))
    assert rows == [
        ["rank", "lane", "task", "start_s", "end_s"],
        ["0", "compute", "0F0", "0.0", "1.0"],
        ["0", "compute", "0B0", "6.0", "8.0"],
        ["0", "send", "0SEND_F0", "1.0", "2.0"],
        ["0", "recv", "0RECV_B0", "5.0", "6.0"],
        ["1", "compute", "1F0", "2.0", "3.0"],
        ["1", "compute", "1B0", "3.0", "5.0"],
        ["1", "send", "1SEND_B0", "5.0", "6.0"],
        ["1", "recv", "1RECV_F0", "1.0", "2.0"],
    ]


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_gantt_writes_the_format_its_name_says(command_line: CommandLine, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"chart.{suffix}"
    done = command_line("gantt", "figure5", "-o", file)
    assert done.returncode == 0, done.stderr
    begins = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix]
    assert file.read_bytes().startswith(begins)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "no_such_file.yaml"), "no_such_file.yaml: cannot be read"),
        (("run", "figure5", "--set", "costs.forward=-1"), "costs.forward: must be a time"),
        (("run", "figure5", "--set", "pipeline.micro_batches=10"), "needs an even number of ranks"),
        (("gantt", "figure5", "-o", "chart.bmp"), "chart.bmp"),
        (("timeline", "figure5", "-o", "no/such/folder.csv"), "cannot be written"),
        (("compare", "figure5", "--plot", "no/such/folder.png"), "cannot be written"),
        (("schedule", "dualpipe", "--ranks", "8", "--micro-batches", "10"), "the nearest that work: 16 micro-batches"),
        (("schedule", "dualpip", "--ranks", "8", "--micro-batches", "20"), "did you mean 'dualpipe'?"),
        (("schedule", "chimera", "--ranks", "4", "--micro-batches", "8", "-O", "pipes=2"), "unknown option 'pipes'"),
        (("schedule", "gpipe", "--ranks", "0", "--micro-batches", "8"), "ranks must be a whole number from 1"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    command_line: CommandLine, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = command_line(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


def test_help_names_every_command(command_line: CommandLine) -> None:
    done = command_line("--help")
    assert done.returncode == 0
    for command in ("run", "compare", "gantt", "schedule", "schedules", "timeline"):
        assert f"\n  {command} " in done.stdout


def test_a_reader_that_stops_early_is_no_error() -> None:
    program = f"{sys.executable} -c 'from dualpipe_sim.cli import main; main()'"
    command = f"{program} schedule gpipe --ranks 64 --micro-batches 2000"
    done = subprocess.run(["bash", "-c", f"{command} | head -c 10"], capture_output=True, text=True, check=True)  # noqa: S607
    assert done.stdout == "0F0,0F1,0F"
    assert done.stderr == ""


def test_what_schedule_prints_passes_check(command_line: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(command_line("schedule", "dualpipe", "--ranks", "4", "--micro-batches", "8").stdout)
    done = command_line("check", file, "--placement", "bidirectional", "--micro-batches", "8")
    assert (done.returncode, done.stderr) == (0, "")


def test_check_names_the_rank_and_the_op(command_line: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("0F0,0F1,0B0,0B1\n1F0,1B0,1F1\n")
    done = command_line("check", file)
    assert done.returncode == 2
    assert done.stderr == f"{file}: rank 1: 1B1 never runs, nor do 1I1 and 1W1\n"


def test_check_of_no_file_is_one_line(command_line: CommandLine) -> None:
    done = command_line("check", "no_such.csv")
    assert (done.returncode, done.stderr) == (
        2,
        "dualpipe-sim: no_such.csv: cannot be read: No such file or directory\n",
    )


def test_check_takes_every_placement_that_a_file_may_have() -> None:
    from dualpipe_sim.cli.orders import PlacementChoice

    assert {choice.value for choice in PlacementChoice} == set(get_args(PlacementName))
