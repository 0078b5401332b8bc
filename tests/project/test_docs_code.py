"""What the pages show can be done: their blocks run, page by page, from an empty folder.

A page's blocks run in their order: Python as it stands, YAML or a script that begins with the name of a file is written
there, and each line that begins with ``dualpipe-sim`` is run.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.pages import blocks, commands, script

if TYPE_CHECKING:
    from tests.conftest import CommandLine

DOCS = Path(__file__).parents[2] / "docs"
MADE = {"cli.md", "yaml.md", "api.md"}
"""Pages that a program writes, with tests of their own."""

NEEDS = {
    "rank*.json": "traces of a user's own run",
    "runs/dualpipe.timeline.csv": "a run of torch; see test_torch_run",
    "--dask tcp://scheduler": "a cluster of that name",
    "import ProfilerActivity": "torch, and a pipeline of the user's own",
    "import _PipelineScheduleRuntime": "torch, and a pipeline of the user's own",
    "dualpipe-sim explore": "a browser, and somebody to end it; see tests/explore",
    "found = plan(": "the time of the same search as by the command above it",
    "from hta.": "HolisticTraceAnalysis, which is no dependency",
}
"""What a block or line holds that cannot run here, and what it would take."""


def can_run(code: str) -> bool:
    return not any(part in code for part in NEEDS)


BLOCKS = {
    page.name: blocks(page.read_text(encoding="utf-8")) for page in sorted(DOCS.glob("*.md")) if page.name not in MADE
}


LONG = {"howto_import.md", "howto_pictures.md", "howto_plan.md", "howto_robust.md", "howto_search.md"}
"""Pages whose commands take long."""
PAGES = [
    pytest.param(name, marks=[pytest.mark.thorough] if name in LONG else []) for name, found in BLOCKS.items() if found
]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_runs(
    page: str, command_line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    for language, text in BLOCKS[page]:
        if language == "python" and can_run(text):
            exec(compile(text, page, "exec"), {})  # noqa: S102
        elif language in ("yaml", "bash") and (name := re.match(r"# (\S+\.(?:yaml|sh))\n", text)):
            Path(name[1]).write_text(text)
        elif language == "":
            for command in filter(can_run, commands(text)):
                run(command_line, command)


def run(command_line: CommandLine, command: str) -> None:
    """Run a command as a shell would, its output into a file where it says so."""
    words, _, into = command.partition(" > ")
    done = command_line(*shlex.split(words)[1:])
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    if into:
        Path(into.strip()).write_text(done.stdout)


def test_what_cannot_run_is_still_there() -> None:
    everything = "".join(text for found in BLOCKS.values() for _, text in found)
    assert [part for part in NEEDS if part not in everything] == []


def test_a_role_of_a_docstring_leaves_its_name() -> None:
    hooks = script(DOCS / "hooks.py")
    assert hooks.on_page_content(
        "<p>:func:<code>~a.b.play</code>, :class:<code>Experiment</code>, <code>x</code></p>"
    ) == ("<p><code>play</code>, <code>Experiment</code>, <code>x</code></p>")
