"""What is wrong with data, in one line: the key and what would be right."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic_core import ErrorDetails

_WANTED = {"string_type": "text", "dict_type": "a mapping of keys"}


def first_problem(errors: Sequence[ErrorDetails]) -> str:
    """Return the first error as ``path: what is wrong``."""
    # A mistyped key makes another one missing: the typo is the cause, so it comes first.
    error = min(errors, key=lambda one: one["type"] == "missing")
    path = [part for part in error["loc"] if part != "[key]"]
    if path[:1] == ["costs"] and path[1:2] in (["uniform"], ["layers"], ["measured"]):
        del path[1]  # which kind of costs it is, no key of the file
    if error["type"] == "unknown_key":
        path.append(error["ctx"]["key"])
    message = _message(error)
    return f"{_format_path(path)}: {message}" if path else message


def _message(error: ErrorDetails) -> str:
    if error["type"] == "missing":
        return "is missing"
    if error["type"] == "literal_error":
        return f"must be {error['ctx']['expected']}, got {error['input']!r}"
    if error["type"] in _WANTED:
        return f"must be {_WANTED[error['type']]}, got {error['input']!r}"
    return error["msg"].removeprefix("Value error, ")


def _format_path(path: Sequence[int | str]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
