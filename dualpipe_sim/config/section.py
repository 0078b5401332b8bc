"""A mapping of known keys, as pydantic reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidatorFunctionWrapHandler, WrapValidator, model_validator
from pydantic_core import PydanticCustomError

from dualpipe_sim.errors import did_you_mean, quoted


class Section(BaseModel):
    """A mapping of known keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    no_mapping: ClassVar[str] = "must be a mapping of keys, got {}"

    @classmethod
    def keys(cls) -> list[str]:
        """Return the keys that there are."""
        return [field.alias or name for name, field in cls.model_fields.items()]

    @classmethod
    def check_keys(cls, data: object) -> None:
        """Refuse what is no mapping, and keys that there are not.

        Raises:
            ValueError: what is wrong; where it stands is known to the caller.

        """
        if not isinstance(data, Mapping):
            raise ValueError(cls.no_mapping.format(quoted(data)))
        known = cls.keys()
        for key in data:
            if key not in known:
                name = key if isinstance(key, str) else quoted(key)
                hint = did_you_mean(name, known) or f" (known: {', '.join(known)})"
                raise PydanticCustomError("unknown_key", "unknown key{hint}", {"key": name, "hint": hint})

    @model_validator(mode="before")
    @classmethod
    def _checked(cls, data: object) -> object:
        cls.check_keys(data)
        return data


def one_of(*ways: Sequence[str]) -> Callable[[dict[str, Any]], None]:
    """Return what tells editors that a section needs the keys of one of some ways, beside all others that it needs."""

    def tell(schema: dict[str, Any]) -> None:
        several = set(chain(*ways))
        schema["required"] = [key for key in schema["required"] if key not in several]
        schema.setdefault("allOf", []).append({"anyOf": [{"required": list(way)} for way in ways]})

    return tell


def or_object(which: type | Callable[[object], bool]) -> WrapValidator:
    """Return what lets a key hold an object beside the plain data of files.

    Args:
        which: the object's class, or whether a value is such an object.

    """

    def read(value: object, from_data: ValidatorFunctionWrapHandler) -> object:
        is_one = isinstance(value, which) if isinstance(which, type) else which(value)
        return value if is_one else from_data(value)

    return WrapValidator(read)
