"""JSON of others, parsed within limits: of memory, nesting and digits; what is wrong with it is one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any

from dualpipe_sim.base.memory import short_of
from dualpipe_sim.errors import UserError, is_text, quoted

DEEPEST = 64
"""Levels of mappings and lists inside each other, of files that are walked through whole."""

_BEYOND = 10**250
_SMALL = 4 * 2**20
_BYTES_OF = {"{": 184, "[": 88, ",": 40, '"': 30}
"""Bytes that Python takes for what a mark stands for: a mapping, a list, one thing of it, half a text."""


def is_json(text: str) -> bool:
    """Return whether a text begins as a JSON object or array does."""
    return text.lstrip()[:1] in ("{", "[")


def parse_json(text: str, source: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Return what a JSON text holds.

    >>> parse_json('{"a": [1]}', "a.json")
    {'a': [1]}

    Args:
        text: the JSON.
        source: what to call it in errors.

    Raises:
        UserError: it is no JSON, or takes more memory than there is.

    """
    if len(text) > _SMALL and short_of(sum(text.count(mark) * size for mark, size in _BYTES_OF.items())) is not None:
        raise UserError(f"{source}: takes more memory than there is once it is read")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{source}: is no JSON: {error.msg}, {place}; perhaps it is cut off") from error
    except RecursionError as error:
        raise UserError(f"{source}: is no JSON: it is nested too deeply to be read") from error
    except ValueError as error:  # of numbers of thousands of digits
        raise UserError(f"{source}: is no JSON: it has a number of thousands of digits") from error
    except MemoryError as error:
        raise UserError(f"{source}: takes more memory than there is once it is read") from error


def parse_settings(text: str, source: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    r"""Return what a JSON text of settings holds; every part of it can be walked through, counted and written down.

    >>> parse_settings('{"name": "\\ud800"}', "a.json")
    Traceback (most recent call last):
        ...
    dualpipe_sim.errors.UserError: a.json: '\ud800' is no text: it holds half a character

    Raises:
        UserError: as for :func:`parse_json`, or it is nested too deeply, or holds half a character.

    """
    return checked_settings(parse_json(text, source), source)


def checked_settings(data: Any, source: str) -> Any:  # noqa: ANN401 - whatever a file holds
    """Return settings if every part of them can be walked through, counted and written down.

    Raises:
        UserError: they are nested too deeply, or hold half a character, or what is no number that a float holds.

    """
    level = [data]
    for _ in range(DEEPEST):
        inner = [one for each in level for one in _inside(each)]
        for one in inner:
            _check(one, source)
        level = [one for one in inner if isinstance(one, (Mapping, list))]
        if not level:
            return data
    raise UserError(f"{source}: is nested more than {DEEPEST} levels deep")


def _inside(data: object) -> list[object]:
    if isinstance(data, Mapping):
        return [*data.keys(), *data.values()]
    return data if isinstance(data, list) else []


def _check(value: object, source: str) -> None:
    """Refuse numbers that no float holds, and halves of characters, which JSON can say and no file can hold."""
    if isinstance(value, float) and not isfinite(value):
        raise UserError(f"{source}: {value} is no number")
    if isinstance(value, int) and abs(value) >= _BEYOND:
        raise UserError(f"{source}: a number has more than {len(str(_BEYOND)) - 1} digits")
    if isinstance(value, str) and not is_text(value):
        raise UserError(f"{source}: {quoted(value)} is no text: it holds half a character")
