"""JSON Schema out of types and docstrings: a key of an answer is what an attribute of a class is and is said to be.

A key's ``x-unit`` is the unit of its numbers, which its name ends with.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from dualpipe_sim.config.docstrings import attributes, summary

Schema: TypeAlias = dict[str, Any]

_PLAIN = {float: "number", int: "integer", str: "string", bool: "boolean", type(None): "null"}
_UNITS = {
    "_per_s": "1/s",
    "_per_second_per_gpu": "1/s",
    "hours_per_trillion_tokens": "h",
    "_s": "s",
    "seconds": "s",
    "_bytes": "bytes",
}
"""The unit of keys by how they end; the first that fits."""


def keys(
    cls: type, *names: str, renamed: Mapping[str, str] | None = None, told: Mapping[Any, Schema] | None = None
) -> dict[str, Schema]:
    """Return the schemas of some keys that are attributes of a class: their types, and what its docstrings say.

    Args:
        cls: the class.
        names: keys that are called as the attributes are, fields or properties; all fields where nothing is named.
        renamed: the attribute of each key that is called otherwise.
        told: the schemas of classes that are told otherwise than by all of their fields.

    """
    chosen = {name: name for name in names} | dict(renamed or {}) or {name: name for name in _fields(cls)}
    said = {**attributes(cls), **_properties(cls)}
    types = _types(cls)
    return {key: _described(of_type(types[name], told or {}), said.get(name, ""), key) for key, name in chosen.items()}


def value(kind: object, meaning: str, unit: str = "") -> Schema:
    """Return the schema of a key that is no attribute of any class."""
    found = {**of_type(kind, {}), "description": meaning}
    return {**found, "x-unit": unit} if unit else found


def record(
    meaning: str, properties: Mapping[str, Schema], *, optional: Iterable[str] = (), others: Schema | None = None
) -> Schema:
    """Return the schema of a mapping.

    Args:
        meaning: what it is.
        properties: the schemas of its keys.
        optional: which of them may be missing.
        others: the schema of keys beside these; None where there are no others.

    """
    return {
        "type": "object",
        "description": meaning,
        "properties": dict(properties),
        "required": [key for key in properties if key not in set(optional)],
        "additionalProperties": False if others is None else others,
    }


def listed(items: Schema, meaning: str) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": items, "description": meaning}


def nullable(schema: Schema, meaning: str = "") -> Schema:
    """Return the schema of the same or null, with a meaning of its own."""
    found = {**schema, "description": meaning} if meaning else dict(schema)
    if isinstance(schema.get("type"), str):
        found["type"] = [schema["type"], "null"]
        found |= {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return found


def of_type(kind: object, told: Mapping[Any, Schema]) -> Schema:
    """Return the schema of a type; a class is a mapping of its fields.

    Raises:
        TypeError: a type that no JSON has.

    """
    origin, inside = get_origin(kind), get_args(kind)
    found: Schema
    if origin in (list, tuple, Sequence):
        found = {"type": "array", "items": of_type(inside[0], told)}
    elif origin in (dict, Mapping):
        found = {"type": "object", "additionalProperties": of_type(inside[1], told)}
    elif origin is Literal:
        found = {"type": "string", "enum": list(inside)}
    elif origin in (Union, UnionType):
        found = _either([of_type(one, told) for one in inside])
    elif kind in (object, Any):
        found = {}
    elif isinstance(kind, type):
        found = _of_class(kind, told)
    else:
        raise TypeError(f"{kind} is no type of JSON")
    return found


def _of_class(kind: type, told: Mapping[Any, Schema]) -> Schema:
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    return told[kind] if kind in told else record(summary(kind), keys(kind, told=told))


def _either(choices: list[Schema]) -> Schema:
    others = [one for one in choices if one.get("type") != "null"]
    found = others[0] if len(others) == 1 else {"anyOf": others}
    return nullable(found) if len(others) < len(choices) else found


def _described(schema: Schema, meaning: str, key: str) -> Schema:
    found = {**schema, "description": _said(meaning)} if meaning else dict(schema)
    amount, _, _ = key.partition("_by_")
    unit = next((unit for end, unit in _UNITS.items() if amount.endswith(end)), "")
    return {**found, "x-unit": unit} if unit else found


def _said(meaning: str) -> str:
    """Return what a docstring says of an attribute as it is said of a key: in JSON, None is null."""
    words = re.sub(r":\w+:`(?:~?[\w.]*\.)?(\w+)`", r"`\1`", re.sub(r"; see :\w+:`\w+`", "", meaning))
    words = re.sub(r"\bNone\b", "null", words)
    return words if words[1:2].isupper() else words[:1].lower() + words[1:]


def _fields(cls: type) -> Sequence[str]:
    return [one.name for one in fields(cls)] if is_dataclass(cls) else getattr(cls, "_fields")  # noqa: B009 - NamedTuple


def _properties(cls: type) -> dict[str, str]:
    """Return the first paragraph of what each property of a class says of itself."""
    found = inspect.getmembers(cls, lambda member: isinstance(member, property))
    texts = {name: (inspect.getdoc(one) or "").partition("\n\n")[0] for name, one in found}
    return {name: " ".join(text.replace("``", "`").split()).removesuffix(".") for name, text in texts.items()}


def _types(cls: type) -> dict[str, object]:
    """Return the types of a class's attributes, fields and properties."""
    found: dict[str, object] = get_type_hints(cls)
    for name, one in inspect.getmembers(cls, lambda member: isinstance(member, property)):
        hints = getattr(one.fget, "__annotations__", {})
        if "return" in hints:
            found[name] = get_type_hints(one.fget).get("return")
    return found
