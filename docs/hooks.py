"""What is filled in whenever the site is built: commands, notebooks as pages, the gallery, and the navigation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
sys.path.append(str(HERE))  # where mkdocs does not look

import make_gallery  # noqa: E402 - found only now
from make_reports import REPORTS, name_of, site_pages  # noqa: E402 - found only now

PAGE = "cli.md"
SCHEDULES = "schedules/index.md"
REPLAYED = "reports.md"
GALLERY = "gallery"
COLUMNS = "100"
_ROLE = re.compile(r":(?:func|meth|class|mod|attr|data):<code>~?([^<]*)</code>")


def on_config(config: Any) -> Any:  # noqa: ANN401 - mkdocs' own types
    """Put a page for each schedule, and for each replayed report, below their index."""
    said = yaml.safe_load((HERE / "schedules.yaml").read_text(encoding="utf-8"))
    drawn = [f"schedules/{name}.md" for name in sorted(said["schedules"])]
    others = sorted({f"schedules/{path.name}" for path in (HERE / "schedules").glob("*.md")} - {SCHEDULES, *drawn})
    below = {
        SCHEDULES: [SCHEDULES, *drawn, {"Not drawn here": others}],
        REPLAYED: [REPLAYED, *({name_of(report): f"reports/{report}.md"} for report in REPORTS)],
    }
    config.nav = [{title: below.get(str(what), what) for title, what in one.items()} for one in config.nav]
    return config


def on_files(files: Any, *, config: Any) -> Any:  # noqa: ANN401 - mkdocs' own types
    """Add the notebooks that replay reports as pages, with their pictures, the gallery, and the page on security."""
    from mkdocs.structure.files import File  # there only where a site is built

    gallery = ((f"{GALLERY}/{name}", text) for name, text in make_gallery.files().items())
    security = (HERE.parent / "SECURITY.md").read_text(encoding="utf-8")
    for path, content in (*site_pages(), *gallery, ("security.md", security)):
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:  # noqa: ANN401 - mkdocs' own types
    """Append every command's ``--help`` to its page, and let links to notebooks and to the gallery find theirs."""
    folder, _, name = page.file.src_path.rpartition("/")
    if page.file.src_path == SCHEDULES:
        page.meta["hide"] = ["toc"]
        return _with_gallery(markdown, "All of them, live and side by side", "")
    if folder == "schedules" and name.removesuffix(".md") in make_gallery.names():
        return _with_gallery(markdown, "Look at it live", f"#schedule={name.removesuffix('.md')}")
    if page.file.src_path == REPLAYED:
        return re.sub(r"\]\(\.\./examples/report_(\w+)\.ipynb\)", r"](reports/\1.md)", markdown)
    if page.file.src_path != PAGE:
        return markdown
    return markdown + "".join(f"\n## {command}\n\n```text\n{_help(command)}```\n" for command in _commands())


def _with_gallery(markdown: str, words: str, what: str) -> str:
    """Return a page about schedules with a link to the gallery below its title."""
    title, _, rest = markdown.partition("\n")
    link = f"[{words}: step through it, zoom, see what waits for what](../{GALLERY}/index.html{what})"
    return f"{title}\n\n{link}\n{rest}"


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
