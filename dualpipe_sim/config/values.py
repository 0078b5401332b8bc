"""Values as a configuration writes them, each type with the one message that says what is right."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, cast, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from dualpipe_sim.base.units import BYTES, BYTES_PER_S, NUMBER, SECONDS, as_float, quantity
from dualpipe_sim.costs.compute import Compute
from dualpipe_sim.errors import ScheduleError, did_you_mean, either, quoted
from dualpipe_sim.model.pattern import MOST_LAYERS
from dualpipe_sim.order.placement import PlacementName
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.order.text import is_order
from dualpipe_sim.runtimes.registry import IDEAL, RuntimeInUse, runtimes
from dualpipe_sim.schedules.registry import schedules

_MOST, _MOST_INDEX = 10**9, 10**18
MOST_DRAWS = 10**6
"""Of a step: what 95 % of so many are faster than is known to a thousandth of their spread."""
_SEPARATORS = {"/", os.sep}  # of folders, in a path


class Transfer(BaseModel):
    """A stage boundary's tensor: its time, or its size."""

    model_config = ConfigDict(frozen=True)

    seconds: float | tuple[float, ...] | None = None
    size_bytes: float | tuple[float, ...] = 0.0


class ScheduleSection(BaseModel):
    """A schedule by name, with options and, in a comparison, its own sizes; or an order.

    An order is there as it is, or as its rows of text, or is in the file that it is named by.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    name: str
    ranks: int | None = None
    micro_batches: int | None = None
    options: dict[str, object] = {}
    order: Schedule | None = None
    rows: str | None = None
    placement: PlacementName | None = None
    barriers: int = 1


def _seconds(value: object) -> float:
    return quantity(value, SECONDS, "a time like 5 us or 18.5 ms")


def _bytes(value: object) -> float:
    return quantity(value, BYTES, "a size like 58 MB or 80 GiB")


def _bandwidth(value: object) -> float:
    number = quantity(value, BYTES_PER_S, "a bandwidth like 160 GB/s")
    if number == 0:
        raise ValueError(f"must be more than zero, like 160 GB/s, got {quoted(value)}")
    return number


def whole(value: int, most: int = _MOST) -> int:
    """Return a whole number that products of sizes have room for.

    Raises:
        ValueError: it is too large.

    """
    if abs(value) > most:
        raise ValueError(f"must be a whole number up to {most}, got {quoted(value)}")
    return value


def _whole(value: object, least: int, most: int = _MOST) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"must be a whole number, {least} or more, got {quoted(value)}")
    return whole(value, most)


def _count(value: object) -> int:
    return _whole(value, 1)


def _draws(value: object) -> int:
    return _whole(value, 1, MOST_DRAWS)


def _index(value: object) -> int:
    return _whole(value, 0, _MOST_INDEX)


def _cost(value: object) -> float | tuple[float, ...]:
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError("must be a time or a list of times, got an empty list")
        return tuple(map(_seconds, value))
    return _seconds(value)


def halved(value: object) -> float | tuple[float, ...]:
    """Return half of a time, or of each time of a list.

    Raises:
        ValueError: it is no time.

    """
    cost = _cost(value)
    return tuple(each / 2 for each in cost) if isinstance(cost, tuple) else cost / 2


def _transfer(value: object) -> Transfer:
    if isinstance(value, (list, tuple)) and value:
        in_bytes = [isinstance(one, str) and one.rstrip().endswith("B") for one in value]
        if any(in_bytes) and not all(in_bytes):
            raise ValueError(f"must be times only, or bytes only, got {quoted(value)}")
        amounts = tuple(map(_bytes if all(in_bytes) else _seconds, value))
        return Transfer(size_bytes=amounts) if all(in_bytes) else Transfer(seconds=amounts)
    if isinstance(value, str) and value.rstrip().endswith("B"):
        return Transfer(size_bytes=_bytes(value))
    return Transfer(seconds=quantity(value, SECONDS, "a time like 1.2 ms, or bytes like 58 MB"))


def _schedule(value: object) -> ScheduleSection:
    if isinstance(value, ScheduleSection):
        return value
    if isinstance(value, Schedule):
        return ScheduleSection(name=value.name, order=value)
    if isinstance(value, (str, Path)):
        return _schedule_in(value)
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        sizes = {key: _count_of(key, value[key]) for key in ("ranks", "micro_batches") if key in value}
        rest = {str(key): option for key, option in value.items() if key not in ("name", *sizes)}
        return ScheduleSection(
            name=value["name"], ranks=sizes.get("ranks"), micro_batches=sizes.get("micro_batches"), options=rest
        )
    if isinstance(value, Mapping) and isinstance(value.get("file"), (str, Path)):
        return ScheduleSection(name=str(value["file"]), placement=_placement(value), barriers=_barriers(value))
    raise ValueError(
        f"must be a schedule's name, a mapping with 'name' and its options, or one with 'file' and 'placement', "
        f"got {quoted(value)}"
    )


def _schedule_in(value: str | Path) -> ScheduleSection:
    """Return the schedule of a name, of an order's rows, or of a path of a file that holds them."""
    if isinstance(value, str) and is_order(value):
        return ScheduleSection(name="order", rows=value, placement="explicit")
    if isinstance(value, Path) or value.endswith(".csv") or not _SEPARATORS.isdisjoint(value):
        return ScheduleSection(name=str(value), placement="explicit")
    return ScheduleSection(name=value)


def _schedules(value: object) -> object:
    """Return the schedules that a word for many of them stands for; a list stays as it is."""
    return list(schedules()) if value == "all" else value


def _runtime(value: object) -> RuntimeInUse | None:
    """Return a runtime by its name, perhaps with options; None for the ideal one."""
    if isinstance(value, RuntimeInUse) or value == IDEAL:
        return value if isinstance(value, RuntimeInUse) else None
    named = {"name": value} if isinstance(value, str) else value
    if not isinstance(named, Mapping) or not isinstance(named.get("name"), str):
        raise ValueError(f"must be a runtime's name, or a mapping with 'name' and its options, got {quoted(value)}")
    name, known = named["name"], [IDEAL, *sorted(runtimes())]
    if name not in known:
        raise ValueError(f"must be {either(known)}, got {quoted(name)}{did_you_mean(name, known)}")
    options = {str(key): option for key, option in named.items() if key != "name"}
    if name != IDEAL:
        try:
            return runtimes()[name].with_options(options)
        except ScheduleError as error:
            raise ValueError(str(error)) from error
    if options:
        raise ValueError(f"'{IDEAL}' has no options, got {quoted(next(iter(options)))}")
    return None


def _placement(section: Mapping[object, object]) -> PlacementName:
    for key in section:
        if key not in ("file", "placement", "barriers"):
            raise ValueError(
                "an order from a file has its own sizes and no options but 'placement' and 'barriers', got "
                f"{quoted(key)}"
            )
    placement = section.get("placement", "explicit")
    if placement not in get_args(PlacementName):
        raise ValueError(f"placement must be {', '.join(get_args(PlacementName))}, got {quoted(placement)}")
    return cast("PlacementName", placement)


def _barriers(section: Mapping[object, object]) -> int:
    barriers = section.get("barriers", 1)
    if type(barriers) is not int or barriers not in (1, 2):
        raise ValueError(f"barriers must be 1 or 2, got {quoted(barriers)}")
    return barriers


def _count_of(key: str, value: object) -> int:
    try:
        return _count(value)
    except ValueError as error:
        raise ValueError(f"{key} {error}") from error


def _layout(value: object) -> str | tuple[int, ...]:
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and value:
        counts = tuple(map(_index, value))
        if sum(counts) > MOST_LAYERS:
            raise ValueError(f"must hold up to {MOST_LAYERS} layers, got {quoted(value)}")
        return counts
    raise ValueError(
        "must be 'even', 'balanced', a list with the number of layers of each stage, or a Megatron layout string, "
        f"got {quoted(value)}"
    )


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, got {quoted(value)}")
    return value


def _skew(value: object) -> float:
    return _number(value, 1.0, "a number from 1 (even routing) up, like 1.12")


def _number(value: object, least: float, right: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= as_float(value) < inf:
        raise ValueError(f"must be {right}, got {quoted(value)}")
    return NUMBER.taken(float(value), right, value)


def _fraction(value: object) -> float:
    return _number(value, 0.0, "a number from 0 up, like 0.02")


def _factor(value: object) -> float:
    number = _number(value, 0.0, "a factor like 1.1")
    if number == 0:
        raise ValueError(f"must be a factor above 0, like 1.1, got {quoted(value)}")
    return number


def _weights(value: object) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(f"must be a list with a factor for each micro-batch, like [2, 0.5, 0.5], got {quoted(value)}")
    return tuple(map(_factor, value))


def _shares(value: object) -> tuple[float, ...]:
    what = "must be a list of shares of a micro-batch's time that sum to 1, like [0.4, 0.3, 0.2, 0.1]"
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(f"{what}, got {quoted(value)}")
    shares = tuple(map(_factor, value))
    if abs(sum(shares) - 1) > _ROUNDED:
        raise ValueError(f"{what}, got a sum of {sum(shares):g}")
    return shares


_ROUNDED = 1e-6
"""Shares that were rounded, as thirds are, may miss their sum by so much."""


def _kernels(value: object) -> Compute:
    """Read the time of a phase's kernels; without parts it does not depend on the number of SMs."""
    parts = ("gemm", "attention", "other")
    if not isinstance(value, Mapping):
        return Compute(0.0, 0.0, _seconds(value), 0.0)
    strange = [key for key in value if key not in parts]
    if strange:
        raise ValueError(f"must be a time, or times of {', '.join(parts)}, got the key {quoted(strange[0])}")
    gemm_s, attention_s, other_s = (_seconds(value.get(part, 0.0)) for part in parts)
    return Compute(gemm_s, attention_s, other_s, 0.0)


@dataclass(frozen=True, eq=False)
class _Told:
    """What editors are told of a value; each key that holds one gets its own copy, to which pydantic adds."""

    schema: Mapping[str, object]

    def __get_pydantic_json_schema__(self, core: object, handler: object) -> dict[str, object]:
        return dict(self.schema)


@dataclass(frozen=True)
class OrWords:
    """Tells editors of words that stand for some values."""

    words: tuple[object, ...]

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, object]:
        return {"anyOf": [{"enum": list(self.words)}, handler(core)]}


def checked(python: Any, check: Callable[[Any], object], schema: Mapping[str, object]) -> Any:  # noqa: ANN401 - types
    """Return the type of a value: how it is checked here, and what editors are told of it."""
    return Annotated[python, BeforeValidator(check), _Told(schema)]


def quantity_schema(unit: str, example: str) -> dict[str, Any]:
    """Return what editors are told of a number with a unit; ``unit`` is that of a bare number."""
    numbers = [{"type": "number", "minimum": 0}, {"type": "string"}]
    return {"anyOf": numbers, "examples": [example], "x-unit": unit}


_SECONDS = quantity_schema("s", "5 us")
_QUANTITY = {"anyOf": _SECONDS["anyOf"]}
_IN_SECONDS = {"x-unit": "s"}
_COUNT = {"type": "integer", "minimum": 1}
_OBJECT = {"type": "object"}


if TYPE_CHECKING:
    Seconds: TypeAlias = float
    Size: TypeAlias = float
    Bandwidth: TypeAlias = float
    Skew: TypeAlias = float
    Fraction: TypeAlias = float
    Factor: TypeAlias = float
    Count: TypeAlias = int
    Draws: TypeAlias = int
    Index: TypeAlias = int
    Flag: TypeAlias = bool
    CostTime: TypeAlias = float | tuple[float, ...]
    TransferCost: TypeAlias = Transfer
    Weights: TypeAlias = tuple[float, ...]
    Shares: TypeAlias = tuple[float, ...]
    ScheduleChoice: TypeAlias = ScheduleSection
    ScheduleChoices: TypeAlias = tuple[ScheduleSection, ...]
    Layout: TypeAlias = str | tuple[int, ...]
    RuntimeChoice: TypeAlias = RuntimeInUse | None
    Kernels: TypeAlias = Compute
else:
    Seconds = checked(float, _seconds, _SECONDS)
    Size = checked(float, _bytes, quantity_schema("B", "80 GiB"))
    Bandwidth = checked(float, _bandwidth, quantity_schema("B/s", "160 GB/s"))
    Skew = checked(float, _skew, {"type": "number", "minimum": 1})
    Fraction = checked(float, _fraction, {"type": "number", "minimum": 0})
    Factor = checked(float, _factor, {"type": "number", "exclusiveMinimum": 0})
    Count = checked(int, _count, _COUNT)
    Draws = checked(int, _draws, {"type": "integer", "minimum": 1, "maximum": MOST_DRAWS})
    Index = checked(int, _index, {"type": "integer", "minimum": 0})
    Flag = checked(bool, _flag, {"type": "boolean"})
    CostTime = checked(
        Any,
        _cost,
        {"anyOf": [*_QUANTITY["anyOf"], {"type": "array", "items": _QUANTITY, "minItems": 1}], **_IN_SECONDS},
    )
    TransferCost = checked(
        Transfer,
        _transfer,
        {"anyOf": [*_QUANTITY["anyOf"], {"type": "array", "items": _QUANTITY, "minItems": 1}], **_IN_SECONDS},
    )
    Weights = checked(
        Any, _weights, {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}, "minItems": 1}
    )
    Shares = checked(Any, _shares, {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}, "minItems": 1})
    ScheduleChoice = checked(
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
    ScheduleChoices = Annotated[tuple[ScheduleChoice, ...], BeforeValidator(_schedules), OrWords(("all",))]
    Layout = checked(Any, _layout, {"anyOf": [{"type": "string"}, {"type": "array", "items": _COUNT}]})
    RuntimeChoice = checked(
        Any,
        _runtime,
        {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
            ]
        },
    )
    Kernels = checked(Any, _kernels, {"anyOf": [*_QUANTITY["anyOf"], _OBJECT], **_IN_SECONDS})
