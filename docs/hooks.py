"""Fill the command-line page with what the program itself says, whenever the site is built."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

PAGE = "cli.md"
COLUMNS = "100"
_ROLE = re.compile(r":(?:func|meth|class|mod|attr|data):<code>~?([^<]*)</code>")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:  # noqa: ANN401 - mkdocs' own types
    """Append every command's ``--help`` to the command-line page."""
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
