"""What is wrong with data, in one line: the key and what would be right."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic_core import ErrorDetails

from dualpipe_sim.base.records import FieldError
from dualpipe_sim.errors import UserError, plain, quoted

_WANTED = {
    "string_type": "text",
    "dict_type": "a mapping of keys",
    "list_type": "a list",
    "tuple_type": "a list",
}
_MISSING = ("missing", "missing_key")


def first_problem(errors: Sequence[ErrorDetails], where: str = "") -> str:
    """Return the first error as ``path: what is wrong``.

    Args:
        errors: what pydantic found.
        where: what to call the whole of the data, if it is a part of a file.

    """
    # A mistyped key makes another one missing: the typo is the cause, so it comes first.
    error = min(errors, key=lambda one: one["type"] in _MISSING)
    refusal = error.get("ctx", {}).get("error")
    path = [*filter(None, [where]), *(part for part in error["loc"] if not _is_tag(part))]
    if error["type"] == "unknown_key":
        path.append(error["ctx"]["key"])
    if isinstance(refusal, FieldError):
        return f"{_format_path([*path, refusal.key])}: {refusal.what}"
    if isinstance(refusal, UserError):
        return str(refusal)  # it names its place
    message = _message(error)
    return f"{_format_path(path)}: {message}" if path else message


def _is_tag(part: int | str) -> bool:
    """Whether a part of a path says which of several types was read, and is no key of the file."""
    return isinstance(part, str) and part.startswith("[") and part.endswith("]")


def _message(error: ErrorDetails) -> str:
    if error["type"] == "missing":
        return "is missing"
    if error["type"] == "literal_error":
        return f"must be {error['ctx']['expected']}, got {quoted(error['input'])}"
    if error["type"] in _WANTED:
        return f"must be {_WANTED[error['type']]}, got {quoted(error['input'])}"
    return error["msg"].removeprefix("Value error, ")


def _format_path(path: Sequence[int | str]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{plain(part)}" for part in path).lstrip(".")
