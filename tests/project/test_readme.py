"""The README does what it says: its Python runs, its commands run, its configuration loads, its table is current."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.pages import blocks_of, commands

if TYPE_CHECKING:
    from tests.conftest import CommandLine

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    return blocks_of(README.read_text(encoding="utf-8"), language)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102


@pytest.mark.parametrize("command", [command for block in blocks("") for command in commands(block)])
@pytest.mark.slow
def test_commands_run(command_line: CommandLine, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks("yaml"):
        (tmp_path / block.partition("\n")[0].removeprefix("# ")).write_text(block)
    done = command_line(*shlex.split(command)[1:])
    assert done.returncode == 0, done.stderr
    for file in re.findall(r"(?<=-o )\S+|(?<=--plot )\S+", command):
        assert (tmp_path / file).stat().st_size > 0


def test_the_table_is_what_the_demo_prints(command_line: CommandLine) -> None:
    shown = next(block for block in blocks("") if block.startswith("16 × 120"))
    printed = command_line("compare", "deepseek_v3").stdout
    assert [line.split() for line in shown.splitlines() if line] == [
        line.split() for line in printed.splitlines() if line.strip()
    ]


def test_files_that_it_names_are_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (README.parent / link).exists()] == []
