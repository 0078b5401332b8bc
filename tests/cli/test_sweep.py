"""The command sweep: what it prints, and what it leaves behind however it ends."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dualpipe_sim.result import Result
from dualpipe_sim.sweeps import read_table

if TYPE_CHECKING:
    from tests.conftest import CommandLine


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
