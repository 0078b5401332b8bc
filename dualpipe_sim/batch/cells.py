r"""Values as cells of a CSV, which read back as they were, and which no spreadsheet computes.

A word is written as it is where it reads back as that word. All else is JSON: a number, a list, and a word that would
be taken for something else, such as ``"8"``. Spreadsheets take a word that begins with =, +, - or @ for a formula, and
may start a program by one: it is JSON, too, and begins with its quote. Numbers stay numbers.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable

from dualpipe_sim.base.plain_data import plain_data

_FORMULA = re.compile(r"(?:^|;)\s*[=+\-@＝＋－＠]")
"""Where a formula begins: also behind a semicolon, at which many countries' spreadsheets cut a line."""


def cell(value: object) -> str:
    """Return a value as a cell on one line.

    >>> [cell(value) for value in ("1f1b", "8", 8, -1.5, None, [1, 2], "=1+1", "@x")]
    ['1f1b', '"8"', '8', '-1.5', '', '[1, 2]', '"=1+1"', '"@x"']
    """
    if value is None:
        return ""
    if isinstance(value, str) and _is_word(value):
        return value
    return json.dumps(value, default=plain_data)


def _is_word(text: str) -> bool:
    return text == text.strip() and text.isprintable() and value_of(text) == text and not _FORMULA.search(text)


def value_of(text: str) -> object:
    """Return the value of a cell.

    >>> [value_of(text) for text in ("1f1b", '"8"', "8", "", '"=1+1"')]
    ['1f1b', '8', 8, None, '=1+1']
    """
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):  # such as "[[[[…"
        return text


def csv_line(values: Iterable[object]) -> str:
    r"""Return values as a line of a CSV.

    >>> csv_line(["a, b", 1.0, None, "c"])
    '"a, b",1.0,,c\n'
    """
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(map(cell, values))
    return line.getvalue()
