"""What only a process of its own shows: that it is the program tested elsewhere, and how it ends with its reader."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
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


@pytest.mark.parametrize("command", ["run figure5", "schedules"])  # printed by one library and by another
def test_a_full_disk_that_it_prints_to_is_a_line(program: list[str], command: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*program, *command.split()], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "dualpipe-sim: cannot print: No space left on device\n")


def test_what_is_printed_never_gets_into_a_file_where_stdout_is_closed(program: list[str], tmp_path: Path) -> None:
    """The next file to be opened has the number of what is closed."""
    plugin = tmp_path / "prints.py"
    plugin.write_text(
        "import os\nfrom dualpipe_sim import analysis\n"
        "@analysis.register('loud')\ndef loud(result):\n    return os.write(1, b'printed') + os.write(2, b'printed')\n"
    )
    sweep = ["--plugin", str(plugin), "sweep", "figure5", "--over", "pipeline.micro_batches=16,20", "-o"]
    tables = [tmp_path / "closed.csv", tmp_path / "open.csv"]
    command = shlex.join([*program, *sweep, str(tables[0])])
    subprocess.run(["bash", "-c", f"{command} <&- >&- 2>&-"], check=True)  # noqa: S607
    subprocess.run([*program, *sweep, str(tables[1])], check=True, capture_output=True)
    assert tables[0].read_bytes() == tables[1].read_bytes()


def test_a_reader_that_stops_early_is_no_error(program: list[str]) -> None:
    command = f"{shlex.join(program)} schedule gpipe --ranks 16 --micro-batches 2000"
    done = subprocess.run(["bash", "-c", f"{command} | head -c 10"], capture_output=True, text=True, check=True)  # noqa: S607
    assert done.stdout == "0F0,0F1,0F"
    assert done.stderr == ""
