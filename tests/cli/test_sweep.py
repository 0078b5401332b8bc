"""The command sweep: what it prints, and what it leaves behind however it ends."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from dualpipe_sim.config.axes import parse_over
from dualpipe_sim.result import Result
from dualpipe_sim.sweeps import read_table, sweep

if TYPE_CHECKING:
    from tests.conftest import CommandLine, WaitFor


def test_it_prints_a_table_that_fits_a_terminal(command_line: CommandLine) -> None:
    axes = ("--over", "pipeline.micro_batches=20,17", "--over", "costs.transfer=0,1 s")
    done = command_line("sweep", "figure5", *axes)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[:7] for line in lines if " 8 × 20 " in line] == [
        ["0", "dualpipe", "8", "×", "20", "66", "s"],
        ["1", "s", "dualpipe", "8", "×", "20", "94"],
    ]
    assert max(len(line) for line in lines if "needs" not in line) <= 80
    assert "0, dualpipe, 8 × 17: dualpipe needs an even number of ranks" in done.stdout


def test_it_writes_a_file_and_says_what_failed(command_line: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "table.jsonl"
    axes = ("--over", "schedules=1f1b,dualpipe", "--over", "pipeline.ranks=2,3", "--set", "pipeline.micro_batches=4")
    done = command_line("sweep", "figure5", *axes, "-o", file, "--workers", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{file}: 4 rows, 1 of them with an error, such as: dualpipe needs an even number")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(row["schedule"], row["ranks"], row["error"] is None) for row in rows] == [
        ("1f1b", 2, True),
        ("1f1b", 3, True),
        ("dualpipe", 2, True),
        ("dualpipe", 3, False),
    ]
    assert set(rows[0]) >= set(Result("", 0, 0).to_dict())


def test_a_mistake_is_one_line_and_exit_code_2(command_line: CommandLine) -> None:
    done = command_line("sweep", "figure5", "--over", "pipeline.rank=2,4")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("figure5.yaml: pipeline.rank: unknown key; did you mean 'ranks'?\n")
    assert done.stderr.count("\n") == 1


AXES = ("noise.jitter=0.1", "noise.runs=" + ",".join(map(str, range(100, 112))))
ENDLESS = 10**9
"""Runs of one point more, which no sweep sees the end of."""


def ended(process: psutil.Process) -> bool:
    """Whether a process is no more, though its new parent may not have looked yet."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def heed_sigint() -> None:
    """Let a child be interrupted even where this process was started in the background, which ignores SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def end_of(process: subprocess.Popen[str]) -> str:
    """Return what a process says on stderr until its end; of one that does not end, say where it hangs, and end it."""
    try:
        return process.communicate(timeout=60)[1]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # PYTHONFAULTHANDLER: it prints where its threads are
        pytest.fail(f"it does not end:\n{process.communicate(timeout=60)[1]}")


@pytest.mark.parametrize(
    ("ended_by", "output", "log"),
    [(signal.SIGKILL, "table.parquet", "table.parquet.jsonl"), (signal.SIGINT, "table.csv", "table.csv")],
)
@pytest.mark.slow
def test_a_sweep_that_is_ended_midway_leaves_rows_and_no_process_behind(
    program: list[str], wait_for: WaitFor, tmp_path: Path, ended_by: signal.Signals, output: str, log: str
) -> None:
    file, rows = tmp_path / output, tmp_path / log
    axes = ("--over", AXES[0], "--over", f"{AXES[1]},{ENDLESS}")
    command = [*program, "sweep", "figure5", *axes, "-o", str(file), "--workers", "2"]
    env = {**os.environ, "PYTHONFAULTHANDLER": "1"}
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        preexec_fn=heed_sigint,  # noqa: PLW1509 - no threads here
    )
    wait_for(lambda: process.poll() is not None or (rows.exists() and rows.read_bytes().count(b"\n") >= 5))
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(ended_by)
    said = end_of(process)
    wait_for(lambda: all(map(ended, workers)))
    if ended_by == signal.SIGINT:
        assert process.returncode == 130
        assert said == f"dualpipe-sim: interrupted; {file} keeps the rows so far; --resume goes on\n"
    kept = len(read_table(rows))
    assert 4 <= kept <= 12
    seen: list[int] = []
    over = dict(map(parse_over, AXES))
    table = sweep("figure5", over, output=file, resume=True, progress=lambda done, _total: seen.append(done))
    assert seen == list(range(kept, 13))
    assert len(table) == 12
    assert {row["error"] for row in table} == {None}


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_loses_no_row(
    command_line: CommandLine, process: CommandLine, tmp_path: Path
) -> None:
    file = tmp_path / "table.csv"
    arguments = ("sweep", "figure5", "--over", "pipeline.micro_batches=20,22,24,26", "-o", file)
    limit = 3000  # bytes that a file may have, some two rows

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = process(*arguments, preexec_fn=limit_files)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"dualpipe-sim: {file}: cannot be written: File too large\n"
    assert 0 < len(read_table(file)) < 4
    assert command_line(*arguments, "--resume").stdout == f"{file}: 4 rows\n"
