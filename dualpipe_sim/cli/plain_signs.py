"""Output whose encoding lacks a sign that is written: what is nearest to it in ASCII stands there, or its number.

Windows gives programs its old code pages wherever their output is no console but a file or a pipe.
"""

from __future__ import annotations

import codecs
import io
import sys

_ASCII = {
    "×": "x", "−": "-", "–": "-", "─": "-", "·": ".", "…": "...", "→": "->", "≤": "<=", "≥": ">=", "±": "+-", "²": "^2",
    "µ": "u", "μ": "u", "δ": "delta", "＝": "=", "＋": "+", "－": "-", "＠": "@",
    "⌊": "floor(", "⌈": "ceil(", "⌋": ")", "⌉": ")",
}  # fmt: skip
_HANDLER = "dualpipe_sim.plain_signs"


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_ASCII.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in lacking), error.end


codecs.register_error(_HANDLER, _in_ascii)


def write_plain_signs() -> None:
    """Let stdout and stderr write every text, in whatever encoding they are."""
    for stream in (sys.stdout, sys.stderr):  # noqa: TID251 - nothing is written
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)
