"""What is filled in whenever the site is built: the command-line page, and the schedules in the navigation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

PAGE = "cli.md"
HERE = Path(__file__).parent
SCHEDULES = "schedules/index.md"
COLUMNS = "100"
_ROLE = re.compile(r":(?:func|meth|class|mod|attr|data):<code>~?([^<]*)</code>")


def on_config(config: Any) -> Any:  # noqa: ANN401 - mkdocs' own types
    """Put a page for each schedule below their index, those that are not drawn in a section of their own."""
    said = yaml.safe_load((HERE / "schedules.yaml").read_text(encoding="utf-8"))
    drawn = [f"schedules/{name}.md" for name in sorted(said["schedules"])]
    others = sorted({f"schedules/{path.name}" for path in (HERE / "schedules").glob("*.md")} - {SCHEDULES, *drawn})
    pages = [SCHEDULES, *drawn, {"Not drawn here": others}]
    config.nav = [{title: pages if what == SCHEDULES else what for title, what in one.items()} for one in config.nav]
    return config


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:  # noqa: ANN401 - mkdocs' own types
    """Append every command's ``--help`` to the command-line page, and give the schedules' tables the whole width."""
    if page.file.src_path == SCHEDULES:
        page.meta["hide"] = ["toc"]
    if page.file.src_path != PAGE:
        return markdown
    return markdown + "".join(f"\n## {command}\n\n```text\n{_help(command)}```\n" for command in _commands())


def on_page_content(html: str, **_: Any) -> str:  # noqa: ANN401 - mkdocs' own types
    """Leave of a docstring's role, as Sphinx knows it, the name alone."""
    return _ROLE.sub(lambda role: f"<code>{role[1].rpartition('.')[2]}</code>", html)


def _commands() -> list[str]:
    listed = _help().partition("Commands:\n")[2].splitlines()
    return [line.split()[0] for line in listed if line.startswith("  ") and not line.startswith("   ")]


def _help(*command: str) -> str:
    return subprocess.run(  # noqa: S603 - the program itself
        [sys.executable, "-m", "dualpipe_sim", *command, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": COLUMNS, "TERMINAL_WIDTH": COLUMNS},
    ).stdout
