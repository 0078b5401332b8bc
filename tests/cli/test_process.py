"""What only a process of its own shows: that it is the program tested elsewhere, and how it ends with its reader."""

from __future__ import annotations

import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import CommandLine


@pytest.mark.parametrize("arguments", [("compare", "figure5"), ("run", "figure5", "--set", "pipeline.micro_batches=0")])
def test_a_process_says_what_the_command_line_says_here(
    command_line: CommandLine, process: CommandLine, arguments: tuple[str, ...]
) -> None:
    here, there = command_line(*arguments), process(*arguments)
    assert (there.returncode, there.stdout, there.stderr) == (here.returncode, here.stdout, here.stderr)


def test_a_reader_that_stops_early_is_no_error(program: list[str]) -> None:
    command = f"{shlex.join(program)} schedule gpipe --ranks 16 --micro-batches 2000"
    done = subprocess.run(["bash", "-c", f"{command} | head -c 10"], capture_output=True, text=True, check=True)  # noqa: S607
    assert done.stdout == "0F0,0F1,0F"
    assert done.stderr == ""
