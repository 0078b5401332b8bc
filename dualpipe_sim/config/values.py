"""Values as a configuration writes them, each type with the one message that says what is right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, cast, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

from dualpipe_sim.costs.compute import Compute
from dualpipe_sim.order.placement import PlacementName
from dualpipe_sim.units import BYTES, BYTES_PER_S, SECONDS, quantity


class Transfer(BaseModel):
    """A stage boundary's tensor: its time, or its size."""

    model_config = ConfigDict(frozen=True)

    seconds: float | None = None
    size_bytes: float = 0.0


class ScheduleSection(BaseModel):
    """A schedule by name, with options and, in a comparison, its own sizes; or an order in a file."""

    model_config = ConfigDict(frozen=True)

    name: str
    placement: PlacementName | None = None
    ranks: int | None = None
    micro_batches: int | None = None
    options: dict[str, object] = {}


def _seconds(value: object) -> float:
    return quantity(value, SECONDS, "a time like 5 us or 18.5 ms")


def _bytes(value: object) -> float:
    return quantity(value, BYTES, "a size like 58 MB or 80 GiB")


def _bandwidth(value: object) -> float:
    number = quantity(value, BYTES_PER_S, "a bandwidth like 160 GB/s")
    if number == 0:
        raise ValueError(f"must be more than zero, like 160 GB/s, got {value!r}")
    return number


def _whole(value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"must be a whole number, {least} or more, got {value!r}")
    return value


def _count(value: object) -> int:
    return _whole(value, 1)


def _index(value: object) -> int:
    return _whole(value, 0)


def _cost(value: object) -> float | tuple[float, ...]:
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError("must be a time or a list of times, got an empty list")
        return tuple(map(_seconds, value))
    return _seconds(value)


def _transfer(value: object) -> Transfer:
    text = str(value).strip()
    if isinstance(value, str) and text.endswith("B"):
        return Transfer(size_bytes=_bytes(value))
    return Transfer(seconds=quantity(value, SECONDS, "a time like 1.2 ms, or bytes like 58 MB"))


def _schedule(value: object) -> ScheduleSection:
    if isinstance(value, ScheduleSection):
        return value
    if isinstance(value, str):
        return ScheduleSection(name=value)
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        sizes = {key: _count_of(key, value[key]) for key in ("ranks", "micro_batches") if key in value}
        rest = {str(key): option for key, option in value.items() if key not in ("name", *sizes)}
        return ScheduleSection(
            name=value["name"], ranks=sizes.get("ranks"), micro_batches=sizes.get("micro_batches"), options=rest
        )
    if isinstance(value, Mapping) and isinstance(value.get("file"), str):
        return ScheduleSection(name=value["file"], placement=_placement(value))
    raise ValueError(
        f"must be a schedule's name, a mapping with 'name' and its options, or one with 'file' and 'placement', "
        f"got {value!r}"
    )


def _placement(section: Mapping[object, object]) -> PlacementName:
    for key in section:
        if key not in ("file", "placement"):
            raise ValueError(f"an order from a file has its own sizes and no options but 'placement', got '{key}'")
    placement = section.get("placement", "explicit")
    if placement not in get_args(PlacementName):
        raise ValueError(f"placement must be {', '.join(get_args(PlacementName))}, got {placement!r}")
    return cast("PlacementName", placement)


def _count_of(key: str, value: object) -> int:
    try:
        return _count(value)
    except ValueError as error:
        raise ValueError(f"{key} {error}") from error


def _layout(value: object) -> str | tuple[int, ...]:
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and value:
        return tuple(map(_index, value))
    raise ValueError(
        "must be 'even', 'balanced', a list with the number of layers of each stage, or a Megatron layout string, "
        f"got {value!r}"
    )


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, got {value!r}")
    return value


def _skew(value: object) -> float:
    return _number(value, 1.0, "a number from 1 (even routing) up, like 1.12")


def _number(value: object, least: float, right: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < inf:
        raise ValueError(f"must be {right}, got {value!r}")
    return float(value)


def _fraction(value: object) -> float:
    return _number(value, 0.0, "a number from 0 up, like 0.02")


def _factor(value: object) -> float:
    number = _number(value, 0.0, "a factor like 1.1")
    if number == 0:
        raise ValueError(f"must be a factor above 0, like 1.1, got {value!r}")
    return number


def _preset(value: object) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a preset's name, or a mapping of keys, got {value!r}")
    return {str(key): inner for key, inner in value.items()}


def _kernels(value: object) -> Compute:
    """Read the time of a phase's kernels; without parts it does not depend on the number of SMs."""
    parts = ("gemm", "attention", "other")
    if not isinstance(value, Mapping):
        return Compute(0.0, 0.0, _seconds(value), 0.0)
    strange = [key for key in value if key not in parts]
    if strange:
        raise ValueError(f"must be a time, or times of {', '.join(parts)}, got the key {strange[0]!r}")
    gemm_s, attention_s, other_s = (_seconds(value.get(part, 0.0)) for part in parts)
    return Compute(gemm_s, attention_s, other_s, 0.0)


_QUANTITY = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}]}
_COUNT = {"type": "integer", "minimum": 1}
_OBJECT = {"type": "object"}


def _value(python: Any, check: Callable[[Any], object], schema: dict[str, Any]) -> Any:  # noqa: ANN401 - a type
    """Return the type of a value: how it is checked here, and what editors are told of it."""
    return Annotated[python, BeforeValidator(check), WithJsonSchema(schema)]


if TYPE_CHECKING:
    Seconds: TypeAlias = float
    Bandwidth: TypeAlias = float
    Skew: TypeAlias = float
    Fraction: TypeAlias = float
    Factor: TypeAlias = float
    Count: TypeAlias = int
    Index: TypeAlias = int
    Flag: TypeAlias = bool
    CostTime: TypeAlias = float | tuple[float, ...]
    TransferCost: TypeAlias = Transfer
    ScheduleChoice: TypeAlias = ScheduleSection
    Layout: TypeAlias = str | tuple[int, ...]
    Preset: TypeAlias = dict[str, object]
    Kernels: TypeAlias = Compute
else:
    Seconds = _value(float, _seconds, _QUANTITY)
    Bandwidth = _value(float, _bandwidth, _QUANTITY)
    Skew = _value(float, _skew, {"type": "number", "minimum": 1})
    Fraction = _value(float, _fraction, {"type": "number", "minimum": 0})
    Factor = _value(float, _factor, {"type": "number", "exclusiveMinimum": 0})
    Count = _value(int, _count, _COUNT)
    Index = _value(int, _index, {"type": "integer", "minimum": 0})
    Flag = _value(bool, _flag, {"type": "boolean"})
    CostTime = _value(
        Any, _cost, {"anyOf": [*_QUANTITY["anyOf"], {"type": "array", "items": _QUANTITY, "minItems": 1}]}
    )
    TransferCost = _value(Transfer, _transfer, _QUANTITY)
    ScheduleChoice = _value(
        ScheduleSection,
        _schedule,
        {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
                {"type": "object", "required": ["file"], "properties": {"file": {"type": "string"}}},
            ]
        },
    )
    Layout = _value(Any, _layout, {"anyOf": [{"type": "string"}, {"type": "array", "items": _COUNT}]})
    Preset = _value(dict[str, object], _preset, {"anyOf": [{"type": "string"}, _OBJECT]})
    Kernels = _value(Any, _kernels, {"anyOf": [*_QUANTITY["anyOf"], _OBJECT]})
