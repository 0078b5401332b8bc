"""Names that act on a terminal, or on what draws on it, are words, wherever they come from."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dualpipe_sim.errors import UserError, visible

if TYPE_CHECKING:
    from tests.conftest import CommandLine

TITLE = "\x1b]0;owned\x07"
MINE = "pipeline: {ranks: 2, micro_batches: 4}\nschedule: 1f1b\ncosts: {forward: 1, backward: 2}\n"


@pytest.mark.parametrize(
    "words",
    [
        ("run", f"x{TITLE}.yaml"),
        ("run", "figure5", "--set", f"{TITLE}=1"),
        ("run", "figure5", f"--{TITLE}"),
        ("compare", "figure5", "--format", TITLE),
        (f"run{TITLE}",),
        ("gantt", "figure5", "-o", f"{TITLE}.svgz"),
        ("gantt", "figure5", "-o", "a.svg", "--ranks", TITLE),
        ("schedule", TITLE, "--ranks", "2", "--micro-batches", "2"),
        ("check", f"{TITLE}.csv"),
        ("--plugin", f"{TITLE}.py", "run", "figure5"),
        ("run", "\udcff\u202e.yaml"),
        ("run", "titled.yaml"),
    ],
)
def test_what_is_quoted_of_a_mistake_acts_on_no_terminal(
    command_line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("titled.yaml").write_text(MINE.replace("1f1b", '"\\e]0;owned\\a"'))
    done = command_line(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert visible(done.stderr) == done.stderr
    assert r"\x1b]0;owned\x07" in done.stderr or r"\udcff\u202e" in done.stderr


def test_a_result_of_such_names_shows_them(command_line: CommandLine, tmp_path: Path) -> None:
    """A name that ends a line, one that looks like Rich's markup, one that clears the screen."""
    file = tmp_path / "mine.yaml"
    file.write_text(f'{MINE}sweep: {{grid: {{cluster.name: ["[/nope]", "[bold]x", "a\\nb", "\\e[2J"]}}}}\n')
    done = command_line("sweep", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split("  ")[0] for line in done.stdout.splitlines()[2:6]] == ["[/nope]", "[bold]x", "a b", r"\x1b[2J"]


def test_a_name_is_no_line_of_its_own(command_line: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "order.csv\n0 errors"
    file.write_text("0F0,0B0\n")
    assert command_line("check", file).stdout == f"{tmp_path}/order.csv 0 errors: nothing is wrong\n"


def warns() -> dict[str, object]:
    warnings.warn(TITLE, stacklevel=1)
    return {}


def test_a_warning_shows_them_too(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dualpipe_sim.schedules.registry.schedules", warns)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert command_line("schedules").stderr == "dualpipe-sim: \\x1b]0;owned\\x07\n"


def test_a_message_is_no_longer_than_anybody_reads() -> None:
    said = str(UserError(f"case.yaml: the name {'x' * 10**6} is too long; take a shorter one"))
    assert len(said) < 2_000
    assert said.startswith("case.yaml: the name xxx")
    assert said.endswith("xxx is too long; take a shorter one")


def test_a_shell_is_offered_no_such_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dualpipe_sim.cli.complete import config_names

    monkeypatch.chdir(tmp_path)
    for name in (f"mine{TITLE}.yaml", "mine.yaml"):
        Path(name).touch()
    assert config_names("mi") == ["mine.yaml"]
