"""Options of schedules: their types are those that a generator's parameters are annotated with.

An option is a word, a number, true or false, one of a few words (``Literal``), none of these (``| None``), or a
sequence of one of them: of any number (``tuple[int, ...]``), or of a fixed one (``tuple[int, int]``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.op_times import OpTimes

_NAMES: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    str: "a word",
    bool: "true or false",
    OpTimes: "an OpTimes",
}
_PLURALS: dict[object, str] = {int: "whole numbers", float: "numbers", str: "words", bool: "true or false"}
_SEQUENCES = (tuple, list, Sequence)


def options_of(name: str, generate: Callable[..., object], sizes: Sequence[str]) -> dict[str, inspect.Parameter]:
    """Return the options of a generator by name, each with its type; ``sizes`` are parameters that are none.

    Raises:
        ScheduleError: a parameter without a type, of a type that is not known where the generator stands or that no
            configuration can hold, or one that stands for any number of them.

    """
    parameters = inspect.signature(generate).parameters
    for key, one in parameters.items():
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            stars = "*" if one.kind == one.VAR_POSITIONAL else "**"
            raise ScheduleError(f"schedule '{name}': {stars}{key} says nothing of its options; name each one")
        if key not in sizes and one.annotation is one.empty:
            raise ScheduleError(
                f"schedule '{name}': option {key} needs a type, like {key}: int; without one no YAML can be read for it"
            )
    annotations = {key: one.annotation for key, one in parameters.items() if key not in sizes}
    try:
        # Those of the options only: what else stands there may be known to type checkers alone.
        types = _types_of(annotations, getattr(inspect.unwrap(generate), "__globals__", {}))
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        raise ScheduleError(f"schedule '{name}': the type of an option is not known: {error}") from error
    options = {key: one.replace(annotation=types[key]) for key, one in parameters.items() if key not in sizes}
    for key, one in options.items():
        if not _can_be_written(one.annotation):
            written = inspect.formatannotation(one.annotation)
            raise ScheduleError(
                f"schedule '{name}': option {key} is a {written}, which no configuration can hold; let it be an int, "
                "float, bool, str, one of a few words (Literal), or a tuple of one of these"
            )
    return options


def _types_of(annotations: Mapping[str, object], names: dict[str, object]) -> dict[str, Any]:
    """Return the types that annotations, which may be text, stand for where these names are known."""

    def annotated() -> None:
        """Be what get_type_hints reads."""

    annotated.__annotations__ = dict(annotations)
    return get_type_hints(annotated, names)


def taken_by(function: Callable[..., object], options: Mapping[str, object]) -> dict[str, Any]:
    """Return those of the options that a function takes."""
    parameters = inspect.signature(function).parameters if options else ()
    return {name: value for name, value in options.items() if name in parameters}


def fitted(expected: object, value: object) -> object:
    """Return a value as an option of this type takes it: a sequence as a tuple or list, anything else as it is.

    Raises:
        ValueError: it does not fit.

    """
    for choice in _choices(expected):
        item = _item_of(choice)
        if item is not None:
            if isinstance(value, (list, tuple)) and _length_of(choice) in (None, len(value)):
                values = [fitted(item, one) for one in value]
                return values if get_origin(choice) is list else tuple(values)
        elif _is(value, choice):
            return value
    raise ValueError(value)


MOST = 10**9
"""Numbers of options are this large at most, so that products of a few of them are sizes."""


def is_in_range(number: float) -> bool:
    """Return whether a number is one that schedules compute with."""
    return -MOST <= number <= MOST


def parse(expected: object, text: str) -> object:
    """Read an option's value from text: ``4``, ``0.5``, ``true``, a word, or ``1,2,3``.

    Raises:
        ValueError: it is no such value.

    """
    for choice in _choices(expected):
        try:
            return _parse_one(choice, text)
        except ValueError:
            continue
    raise ValueError(text)


def describe(expected: object) -> str:
    """Return what values an option of this type takes, in words that follow "must be"."""
    return " or ".join(_words(choice) for choice in _choices(expected) if choice is not type(None))


def _parse_one(choice: object, text: str) -> object:
    item = _item_of(choice)
    if item is not None:
        return fitted(choice, [parse(item, part.strip()) for part in text.split(",")])
    if choice is bool and text in ("true", "false"):
        return text == "true"
    if choice in (int, float, str):
        return fitted(choice, choice(text))
    if isinstance(choice, str) and text == choice:
        return text
    raise ValueError(text)


def _choices(expected: object) -> Iterator[object]:
    """Yield what a type lets choose from: types, sequences and words."""
    if get_origin(expected) is Literal:
        yield from get_args(expected)
    elif get_origin(expected) in (Union, UnionType):
        for part in get_args(expected):
            yield from _choices(part)
    else:
        yield expected


def _can_be_written(expected: object) -> bool:
    """Whether a configuration or a command line can hold a value of this type."""
    return all(
        choice in _PLURALS
        or isinstance(choice, (str, int, float))
        or choice is NoneType
        or ((item := _item_of(choice)) is not None and _can_be_written(item))
        for choice in _choices(expected)
    )


def _item_of(choice: object) -> object:
    """Return the type of a sequence's items, or None where a type is no sequence of items of one type."""
    items = {one for one in get_args(choice) if one is not ...}
    return items.pop() if get_origin(choice) in _SEQUENCES and len(items) == 1 else None


def _length_of(choice: object) -> int | None:
    """Return how many items a sequence must have, or None where it may have any number."""
    items = get_args(choice)
    return len(items) if get_origin(choice) is tuple and ... not in items else None


def _is(value: object, choice: object) -> bool:
    if not isinstance(choice, type):
        return bool(value == choice)
    if isinstance(value, bool):
        return choice in (bool, object)
    if isinstance(value, (int, float)) and not is_in_range(value):
        return False
    return isinstance(value, (int, float) if choice is float else choice)


def _words(choice: object) -> str:
    item = _item_of(choice)
    if item is None:
        return _NAMES.get(
            choice, f"'{choice}'" if isinstance(choice, str) else f"a {getattr(choice, '__name__', choice)}"
        )
    inner = [_PLURALS.get(one, f"'{one}'") for one in _choices(item)]
    length = _length_of(choice)
    return f"a list of {'' if length is None else f'{length} '}{' or '.join(inner)}"
