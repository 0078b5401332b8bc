"""Plain dataclasses as sections: pydantic reads them by their fields' names, types and units.

A field's key is its name without the unit: ``launch_s: float`` is read from ``launch: 35 us``. Dataclasses in it are
mappings in the mapping, and a unit on such a field is that of the numbers inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache, cached_property, partial, reduce
from math import isfinite
from operator import or_
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Tag,
    TypeAdapter,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic import Field as KeyInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from dualpipe_sim.base.records import key_of, unit_of
from dualpipe_sim.base.registry import Registry
from dualpipe_sim.base.units import BYTES, BYTES_PER_S, FLOP_PER_S, NUMBER, SECONDS, Measure, as_float, quantity
from dualpipe_sim.config.docstrings import attributes, summary
from dualpipe_sim.config.problems import first_problem
from dualpipe_sim.config.section import Section, or_object
from dualpipe_sim.config.values import checked, quantity_schema, whole
from dualpipe_sim.errors import UserError, quoted
from dualpipe_sim.model.attention import registry as attention_registry
from dualpipe_sim.model.attention.registry import Attention

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Built = TypeVar("Built", bound=DataclassInstance)
else:
    Built = TypeVar("Built")


class _Unit(NamedTuple):
    """How quantities of a unit are written.

    Attributes:
        measure: the units, and how large an amount may be.
        right: what a right value is, in words.
        example: one such value.
        base: the unit of a bare number.

    """

    measure: Measure
    right: str
    example: str
    base: str


KINDS: dict[object, tuple[Registry[Any], str]] = {Attention: (attention_registry.KINDS, attention_registry.USUAL)}
"""Types of fields of which there are several kinds: where they are, and the one that is meant where none is named."""

_UNITS = {
    "_flops_per_s": _Unit(FLOP_PER_S, "a rate", "989 TFLOPS", "FLOP/s"),
    "_bytes_per_s": _Unit(BYTES_PER_S, "a bandwidth", "160 GB/s", "B/s"),
    "_bytes": _Unit(BYTES, "a size", "80 GiB", "B"),
    "_s": _Unit(SECONDS, "a time", "5 us", "s"),
}
_FIELD = "field_"  # so that no field takes the name of something that pydantic's models have


class Record(Section):
    """The section that a dataclass makes."""

    no_mapping: ClassVar[str] = "needs a mapping of keys to values, not {}"
    filled: ClassVar[Callable[[Mapping[str, object]], object] | None] = None
    """What the dataclass itself fills in before its keys are read."""

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, data: object) -> object:
        return cls.filled(data) if cls.filled is not None and isinstance(data, Mapping) else data

    @classmethod
    def check_keys(cls, data: object) -> None:
        """Refuse what is no mapping, keys that there are not, and a lack of those that must be."""
        super().check_keys(data)
        for field in cls.model_fields.values():
            if field.is_required() and field.alias not in cast("Mapping[object, object]", data):
                raise PydanticCustomError("missing_key", "the key '{key}' is missing", {"key": field.alias})

    def values(self) -> dict[str, Any]:
        """Return what was given, by the dataclass's own names."""
        given = [name for name in self.model_fields_set if name.startswith(_FIELD)]
        return {name.removeprefix(_FIELD): getattr(self, name) for name in given}


def read(cls: type[Built], given: object, where: str) -> Built:
    """Return a dataclass read from a mapping of plain values.

    Args:
        cls: the dataclass.
        given: its values by key.
        where: what to call the mapping in errors, such as ``model``.

    Raises:
        UserError: what is wrong, and where in the mapping.

    """
    return cls(**read_values(section_of(cls), given, where))


def read_values(section: type[Record], given: object, where: str) -> dict[str, Any]:
    """Return what a mapping gives for a dataclass's fields, by their names; arguments as for :func:`read`."""
    try:
        return section.model_validate(given).values()
    except ValidationError as error:
        raise UserError(first_problem(error.errors(include_url=False), where)) from error


def record(cls: type) -> Any:  # noqa: ANN401 - a type
    """Return the type of a key that holds a dataclass, for a pydantic model."""
    return Annotated[Any, _Later(partial(_record, cls, ""))]


def preset_record(cls: type, name: str) -> Any:  # noqa: ANN401 - a type
    """Return the type of a key that holds a dataclass with a name, for a pydantic model; presets are already read.

    Args:
        cls: the dataclass.
        name: its name where none is given.

    """

    def named(value: object) -> object:
        if not isinstance(value, Mapping):
            raise ValueError(f"must be a preset's name, or a mapping of keys, got {quoted(value)}")
        return {"name": name, **value}

    return Annotated[record(cls), BeforeValidator(named), or_object(cls)]


class _Later:
    """What a key holds, found out when a value or the JSON Schema asks for it: most configurations have no such key.

    Args:
        type_of: gives the type.

    """

    def __init__(self, type_of: Callable[[], Any]) -> None:
        self._type_of = type_of

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self._type_of())

    def _read(self, value: object) -> object:
        return self._adapter.validate_python(value)

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._read)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(self._adapter.core_schema)


@cache
def section_of(cls: type, unit: str = "", without: frozenset[str] = frozenset(), kind: str = "") -> type[Record]:
    """Return the section whose keys are a dataclass's fields.

    Args:
        cls: the dataclass.
        unit: the unit of fields whose own names have none.
        without: fields that are no keys.
        kind: the kind that it is of several, which the key ``kind`` names.

    Raises:
        UserError: a field of a type that cannot be written in a configuration.

    """
    said = attributes(cls)
    types = types_of(cls)
    keys = {
        f"{_FIELD}{field.name}": (
            _read_as(types[field.name], unit_of(field.name) or unit, f"{cls.__qualname__}.{field.name}"),
            _key_info(field, said.get(field.name)),
        )
        for field in fields(cls)
        if field.init and field.name not in without
    }
    if kind:
        keys = {"kind": (Literal[kind], KeyInfo(kind, description="which kind it is"))} | keys
    made: Any = create_model(
        f"{cls.__name__}{unit}", __base__=Record, __module__=cls.__module__, __doc__=summary(cls), **cast("Any", keys)
    )
    made.filled = getattr(cls, "filled", None)
    return cast("type[Record]", made)


def types_of(cls: type) -> dict[str, Any]:
    """Return the types of a dataclass's fields by name.

    Raises:
        UserError: one that is not known at run time.

    """
    try:
        return get_type_hints(cls)
    except (NameError, TypeError, AttributeError) as error:
        raise UserError(f"{cls.__qualname__}: the types of its fields are not known: {error}") from error


def _key_info(field: Field[Any], said: str | None) -> Any:  # noqa: ANN401 - pydantic says Any too
    key = key_of(field.name)
    if field.default_factory is dict:
        return KeyInfo({}, alias=key, description=said)
    if field.default_factory is not MISSING:
        return KeyInfo(default_factory=field.default_factory, alias=key, description=said)
    default = ... if field.default is MISSING else field.default
    return KeyInfo(default, alias=key, description=said)


def _read_as(hint: Any, unit: str, name: str) -> Any:  # noqa: ANN401, PLR0911 - types, which have none; one return each
    """Return how pydantic reads a field's type."""
    origin, args = get_origin(hint), get_args(hint)
    if hint in KINDS:
        return Annotated[Any, _OneOfKinds(*KINDS[hint])]
    if origin is Annotated:
        return _read_as(args[0], unit, name)
    if is_dataclass(hint):
        return _record(cast("type", hint), unit)
    if origin is Literal:
        return checked(hint, partial(_one_of, args), {"enum": list(args)})
    if origin in (Union, UnionType):
        return _read_union(args, unit, name)
    if origin in _CONTAINERS:
        inner = tuple(arg if arg is ... else _read_as(arg, unit, name) for arg in args)
        return _CONTAINERS[origin][inner]
    if hint is float and unit:
        written = _UNITS[unit]
        return checked(float, partial(_quantity, written), quantity_schema(written.base, written.example))
    if hint in _PLAIN:
        return checked(hint, *_PLAIN[hint])
    if hint in (Any, object):
        return Any
    raise UserError(f"{name}: a configuration cannot hold a {hint}")


def _read_union(args: tuple[Any, ...], unit: str, name: str) -> Any:  # noqa: ANN401 - types
    """Read ``X | None``, and ``X | tuple[X, ...]`` by whether it is a list."""
    choices = [arg for arg in args if arg is not NoneType]
    if len({_tag(choice) for choice in choices}) < len(choices):
        raise UserError(f"{name}: a configuration cannot tell {' from '.join(map(str, choices))}")
    read_as = [_read_as(choice, unit, name) for choice in choices]
    one: Any = read_as[0]
    if len(choices) > 1:
        tagged = [Annotated[read, Tag(_tag(choice))] for read, choice in zip(read_as, choices, strict=True)]
        one = Annotated[reduce(or_, tagged), Discriminator(_list_or_one)]
    return one | None if NoneType in args else one


def _tag(hint: object) -> str:
    return "[list]" if get_origin(hint) in _LISTS else "[one]"


def _list_or_one(value: object) -> str:
    return "[list]" if isinstance(value, (list, tuple)) else "[one]"


def _record(cls: type, unit: str) -> Any:  # noqa: ANN401 - a type
    return Annotated[section_of(cls, unit), AfterValidator(partial(_of_section, cls)), or_object(cls)]


class _OneOfKinds:
    """A mapping whose key ``kind`` says which dataclass of a registry it is, as far as it is known when it is read.

    Args:
        registry: the dataclasses by kind.
        usual: the kind of a mapping that names none.

    """

    def __init__(self, registry: Registry[Any], usual: str) -> None:
        self._registry, self._usual = registry, usual

    def _read(self, value: object) -> object:
        if not isinstance(value, Mapping):
            if isinstance(value, tuple(self._registry.all().values())):
                return value
            raise ValueError(Record.no_mapping.format(quoted(value)))
        name = value.get("kind", self._usual)
        cls = self._registry.get(name if isinstance(name, str) else quoted(name))
        return _of_section(cls, section_of(cls, kind=cast("str", name)).model_validate(value))

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._read)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        sections = [section_of(cls, kind=name) for name, cls in sorted(self._registry.all().items())]
        union: Any = reduce(or_, cast("Any", sections))
        told = handler(TypeAdapter(union).core_schema)
        return {"oneOf": told.pop("anyOf"), **told}


def _of_section(cls: type, section: Record) -> object:
    return cls(**section.values())


def _quantity(unit: _Unit, value: object) -> float:
    return quantity(value, unit.measure, f"{unit.right} like {unit.example}")


def _one_of(choices: tuple[object, ...], value: object) -> object:
    if value not in choices:
        raise ValueError(f"must be one of {', '.join(map(repr, choices))}, not {quoted(value)}")
    return value


def _number(value: object) -> float:
    number = as_float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    if number is None or not isfinite(number):
        raise ValueError(f"must be a number, not {quoted(value)}")
    return NUMBER.taken(number, "a number", value)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be a whole number, not {quoted(value)}")
    return whole(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {quoted(value)}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {quoted(value)}")
    return value


_PLAIN: dict[object, tuple[Callable[[Any], object], dict[str, object]]] = {
    float: (_number, {"type": "number"}),
    int: (_whole, {"type": "integer"}),
    bool: (_flag, {"type": "boolean"}),
    str: (_text, {"type": "string"}),
}
_LISTS = (tuple, list, Sequence)
_CONTAINERS: dict[object, Any] = {tuple: tuple, list: list, Sequence: list, dict: dict, Mapping: dict}
