"""The commands about orders: schedule, schedules, check."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from dualpipe_sim import build, format_order
from dualpipe_sim.order.placement import PlacementName

if TYPE_CHECKING:
    from tests.conftest import CommandLine


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


def test_check_takes_every_placement_that_a_file_may_have(command_line: CommandLine) -> None:
    (choices,) = re.findall(r"--placement [<[](.*)[]>]", command_line("check", "--help").stdout)
    assert set(choices.split("|")) == set(get_args(PlacementName))
