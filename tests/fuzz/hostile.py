"""Names as somebody who means harm gives them, and what no output may hold of one."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.dom import minidom

from dualpipe_sim.errors import visible

NAMES = (
    "</script><script>window.pwned=1</script>", "<img src=x onerror=window.pwned=1>", '"><svg onload="window.pwned=1">',
    "javascript:window.pwned=1", "<b>&amp;</b>", "--><!--", "]]>", "\x1b]0;t\x07", "\x1b[2J", "\x9b31m", "a\rb", "a\nb",
    "\x00", "\x7f", "\u202egnp", "\u2066", "\u200b", "\u2028", "\ufeff", "\ud800", "\udcff", "é", "模型", "🜁",
    "x" * 5_000,
    "=cmd|' /C calc'!A0", "+1", "-1+1", "@SUM(1)", "\t=1", "a;=1", "＝1", "a,b", 'a"b', "[/nope]", "[bold]x",
    "[link=http://e.example]x[/link]", ":boom:", "$x^$", r"$\frac{", "$", r"\input{x}", "%s%n", "{0}", "${x}", "`id`",
    "$(id)", "..", "../../x", "/etc/passwd", "'; import os #", '"""\nimport os\n"""', "a: b", "# a", "- a", "&a", "*a",
    "!!python/name:os.system", "", " ", "null", "1e999", "--help", "-o",
)  # fmt: skip


def check_printed(text: str) -> None:
    """Find no letter that acts on a terminal."""
    assert visible(text) == text, (
        f"acts on a terminal: {next(one for one in text.splitlines() if visible(one) != one)!r}"
    )


def check_written(file: Path) -> None:
    """Find nothing in a file that acts on who opens it, by what its name says that it is."""
    content = file.read_bytes()
    if file.suffix.lower() in (".png", ".pdf", ".parquet"):
        return
    text = content.decode()
    check_printed(text)
    by_suffix: dict[str, Callable[[str], object]] = {
        ".csv": _check_csv,
        ".svg": _check_svg,
        ".html": _check_html,
        ".json": json.loads,
        ".jsonl": _check_lines,
    }
    by_suffix.get(file.suffix.lower(), str)(text)


def _check_lines(text: str) -> None:
    for line in text.splitlines():
        json.loads(line)


def _check_csv(text: str) -> None:
    for row in csv.reader(text.splitlines(), strict=True):
        for cell in row:
            assert not re.match(r"\s*[=+@\-]", cell) or _is_number(cell), f"a formula: {cell!r}"


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _check_svg(text: str) -> None:
    for element in minidom.parseString(text).getElementsByTagName("*"):  # noqa: S318 - our own
        assert element.tagName not in ("script", "foreignObject", "a"), element.tagName
        assert not [name for name in element.attributes.keys() if name.startswith("on")]  # noqa: SIM118 - a NamedNodeMap


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        assert tag not in ("img", "iframe", "object", "embed", "base", "form", "b"), tag
        bad = [name for name, value in attrs if name.startswith("on") or (value or "").startswith("javascript:")]
        assert not bad, bad


def _check_html(text: str) -> None:
    tags = _Tags()
    tags.feed(text)
    assert tags.scripts == 2, f"{tags.scripts} scripts"  # what the page shows, and the page's own
