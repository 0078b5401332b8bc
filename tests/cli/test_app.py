"""What holds of every command: its help, its version, and how it says what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dualpipe_sim import __version__

if TYPE_CHECKING:
    from tests.conftest import CommandLine


def test_help_names_every_command(command_line: CommandLine) -> None:
    done = command_line("--help")
    assert done.returncode == 0
    for command in ("run", "compare", "gantt", "schedule", "schedules", "timeline"):
        assert f"\n  {command} " in done.stdout


def test_the_version_is_the_packages(command_line: CommandLine) -> None:
    done = command_line("--version")
    assert (done.returncode, done.stdout) == (0, f"dualpipe-sim {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "no_such_file.yaml"), "no_such_file.yaml: cannot be read"),
        (("run", "figure5", "--set", "costs.forward=-1"), "costs.forward: must be a time"),
        (("run", "figure5", "--set", "pipeline.micro_batches=10"), "needs an even number of ranks"),
        (("gantt", "figure5", "-o", "chart.bmp"), "chart.bmp"),
        (("timeline", "figure5", "-o", "no/such/folder.csv"), "cannot be written"),
        (("compare", "figure5", "--plot", "no/such/folder.png"), "cannot be written"),
        (("schedule", "dualpipe", "--ranks", "8", "--micro-batches", "10"), "the nearest that works: 16 micro-batches"),
        (("schedule", "dualpip", "--ranks", "8", "--micro-batches", "20"), "did you mean 'dualpipe'?"),
        (("schedule", "chimera", "--ranks", "4", "--micro-batches", "8", "-O", "pipes=2"), "unknown option 'pipes'"),
        (("schedule", "gpipe", "--ranks", "0", "--micro-batches", "8"), "ranks must be a whole number from 1"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    command_line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command_line(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())
