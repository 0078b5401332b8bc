"""Dataclasses built from plain mappings, such as a preset: one rule for keys, and errors that name the key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from dualpipe_sim.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Built = TypeVar("Built", bound=DataclassInstance)
else:
    Built = TypeVar("Built")

UNITS = ("_bytes_per_s", "_flops_per_s", "_bytes", "_s")


def key_of(field: str) -> str:
    """Return a field's key in a mapping: its name without the unit, since values there are in SI base units."""
    unit = next((unit for unit in UNITS if field.endswith(unit)), "")
    return field.removesuffix(unit)


def build(cls: type[Built], given: Mapping[str, object], where: str) -> Built:
    """Build a dataclass, and the dataclasses in it, from a mapping of plain values.

    Args:
        cls: the dataclass.
        given: its values; numbers are in SI base units.
        where: what to call the mapping in errors, such as ``model``.

    Raises:
        UserError: a key is unknown or missing, or a value has the wrong type.

    """
    if not isinstance(given, Mapping):
        raise UserError(f"{where}: needs a mapping of keys to values, not {given!r}")
    known = {key_of(field.name): field for field in fields(cls)}
    for key in given:
        if key not in known:
            raise UserError(f"{where}.{key}: unknown key{did_you_mean(str(key), known)}")
    types = get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, field in known.items():
        if key in given:
            values[field.name] = _value(types[field.name], given[key], f"{where}.{key}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise UserError(f"{where}: the key '{key}' is missing")
    return cls(**values)


def need_positive(thing: DataclassInstance, where: str, *, zero: tuple[str, ...] = ()) -> None:
    """Refuse numbers that are not positive; the fields named in ``zero`` may also be 0."""
    for field in fields(thing):
        value = getattr(thing, field.name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        if not (value > 0 or (value == 0 and field.name in zero)):
            least = "0 or more" if field.name in zero else "more than 0"
            raise UserError(f"{where}.{key_of(field.name)}: must be {least}, not {value}")


def _value(wanted: Any, value: object, where: str) -> object:  # noqa: ANN401 - a type annotation, which has no type
    choices = get_args(wanted)
    if get_origin(wanted) in (Union, UnionType):
        if value is None and NoneType in choices:
            return None
        (wanted,) = (choice for choice in choices if choice is not NoneType)
        choices = get_args(wanted)
    if get_origin(wanted) is Literal:
        if value not in choices:
            raise UserError(f"{where}: must be one of {', '.join(map(repr, choices))}, not {value!r}")
        return value
    if is_dataclass(wanted):
        return build(cast("type[DataclassInstance]", wanted), cast("Mapping[str, object]", value), where)
    if isinstance(value, bool) is not (wanted is bool) or not isinstance(
        value, (int, float) if wanted is float else wanted
    ):
        named = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[wanted]
        raise UserError(f"{where}: must be {named}, not {value!r}")
    return float(cast("float", value)) if wanted is float else value
