"""What frozen dataclasses of quantities share: keys without units, and numbers that must be positive."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from dualpipe_sim.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

UNITS = ("_bytes_per_s", "_flops_per_s", "_bytes", "_s")


class FieldError(UserError):
    """A field that must not be what it is; where the record stands, whoever reads it may know better.

    Args:
        where: what records of this class are usually called, such as ``gpu.gemm``.
        key: the field's key.
        what: what is wrong with it.

    """

    def __init__(self, where: str, key: str, what: str) -> None:
        super().__init__(where, key, what)
        self.key = key
        self.what = what

    def __str__(self) -> str:
        return "{}.{}: {}".format(*self.args)


def unit_of(field: str) -> str:
    """Return the unit that a field's name ends with, one of :data:`UNITS`, or an empty string."""
    return next((unit for unit in UNITS if field.endswith(unit)), "")


def key_of(field: str) -> str:
    """Return a field's key in a mapping: its name without the unit, since a value there has its own."""
    return field.removesuffix(unit_of(field))


def need_positive(thing: DataclassInstance, where: str, *, zero: tuple[str, ...] = ()) -> None:
    """Refuse numbers that are not positive; the fields named in ``zero`` may also be 0.

    Raises:
        FieldError: the first such field.

    """
    for field in fields(thing):
        value = getattr(thing, field.name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        if not (value > 0 or (value == 0 and field.name in zero)):
            least = "0 or more" if field.name in zero else "more than 0"
            raise FieldError(where, key_of(field.name), f"must be {least}, not {value}")
