"""What a sweep varies: factors, each a choice of values by dotted key; a sweep's points are their product."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, product
from math import isfinite, prod
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator

from dualpipe_sim.base.plain_data import digest
from dualpipe_sim.config.short import full_key
from dualpipe_sim.config.yaml_text import parse_yaml
from dualpipe_sim.errors import ConfigError, did_you_mean, plain, quoted

Point: TypeAlias = dict[str, object]
"""Values by dotted key, which replace those of a configuration."""
Factor: TypeAlias = tuple[Point, ...]
"""Parts of points that stand in for each other: one axis, a few that go together, or whole points."""

MOST_POINTS = 10**6
"""Of a sweep; each is there as a row, some kB, until the table is written."""

_SECTIONS = ("schedules", "grid", "zip", "list")


def factors_of(section: object) -> tuple[Factor, ...]:
    """Return what the ``sweep:`` section of a configuration varies, slowest first: schedules, grid, zip, list.

    Raises:
        ValueError: what is wrong, and where in the section.

    """
    if section is None:
        return ()
    if not isinstance(section, Mapping):
        raise ValueError(f"must be a mapping of {', '.join(_SECTIONS)}, got {quoted(section)}")
    for key in section:
        if key not in _SECTIONS:
            hint = did_you_mean(plain(key), _SECTIONS) or f" (known: {', '.join(_SECTIONS)})"
            raise ValueError(f"{plain(key)}: unknown key{hint}")
    schedules = {"schedule": section["schedules"]} if "schedules" in section else {}
    return (
        *_grid(schedules, "schedules"),
        *_grid(section.get("grid", {}), "grid"),
        *(_zipped(together) for together in _several(section.get("zip", []))),
        *_listed(section.get("list", [])),
    )


Factors = Annotated[Any, BeforeValidator(factors_of)]


def with_axes(factors: Sequence[Factor], over: Mapping[str, object]) -> tuple[Factor, ...]:
    """Return factors with more axes behind them; an axis of the same key in a grid gives way.

    Args:
        factors: what the configuration varies.
        over: values by dotted key, or by short ones such as ``ranks``; ``schedules`` are those of ``schedule``.

    Raises:
        ConfigError: no list of values.

    """
    try:
        added = _grid({_axis(key): values for key, values in over.items()}, "over")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    replaced = {tuple(factor[0]) for factor in added}
    return (*(factor for factor in factors if tuple(factor[0]) not in replaced), *added)


def points_of(factors: Sequence[Factor]) -> list[Point]:
    """Return the product of factors, the last one varying fastest, each point once.

    Raises:
        ConfigError: two factors vary the same key, or there are too many points.

    """
    if (many := prod(map(len, factors))) > MOST_POINTS:
        said = " x ".join(f"{len(factor)} ({plain(next(iter(factor[0])))})" for factor in factors)
        raise ConfigError(f"sweep: {said} make {many} points, more than {MOST_POINTS}; vary fewer values")
    seen: set[str] = set()
    for factor in factors:
        keys = set(chain(*factor))
        if both := sorted(keys & seen):
            raise ConfigError(f"sweep: {both[0]} is varied twice; let one of grid, zip, list and --over vary it")
        seen |= keys
    points = ({key: value for part in parts for key, value in part.items()} for parts in product(*factors))
    try:
        return list({digest(point): point for point in points}.values())
    except RecursionError as error:
        raise ConfigError("sweep: a value is nested too deeply, perhaps in itself") from error


def parse_over(text: str) -> tuple[str, object]:
    """Read ``pipeline.micro_batches=16,32,64``, the values in YAML."""
    key, equals, values = text.partition("=")
    if not equals or not key or not values.strip():
        raise ConfigError(f"--over {text}: must be key=value,value,…, like pipeline.micro_batches=16,32,64")
    return key, parse_yaml(f"[{values}]", f"--over {key}")


def _axis(key: str) -> str:
    return "schedule" if key == "schedules" else full_key(key)


def _grid(axes: object, where: str) -> Iterable[Factor]:
    if not isinstance(axes, Mapping):
        raise ValueError(f"{where}: must be a mapping of dotted keys to lists of values, got {quoted(axes)}")
    return [
        tuple({str(key): value} for value in _values(values, f"{where}: {plain(key)}")) for key, values in axes.items()
    ]


def _several(zips: object) -> Sequence[object]:
    return zips if isinstance(zips, (list, tuple)) else [zips]


def _zipped(together: object) -> Factor:
    if not isinstance(together, Mapping) or not together:
        raise ValueError(f"zip: must be a mapping of dotted keys to lists of values, got {quoted(together)}")
    axes = {str(key): _values(values, f"zip: {plain(key)}") for key, values in together.items()}
    lengths = {len(values) for values in axes.values()}
    if len(lengths) > 1:
        said = ", ".join(f"{plain(key)} has {len(values)}" for key, values in axes.items())
        raise ValueError(f"zip: lists that go together must be equally long; {said}")
    return tuple(dict(zip(axes, values, strict=True)) for values in zip(*axes.values(), strict=True))


def _listed(points: object) -> Iterable[Factor]:
    if not isinstance(points, (list, tuple)):
        raise ValueError(f"list: must be a list of mappings of dotted keys to values, got {quoted(points)}")
    for position, point in enumerate(points):
        if not isinstance(point, Mapping) or not point:
            raise ValueError(f"list[{position}]: must be a mapping of dotted keys to values, got {quoted(point)}")
        for key, value in point.items():
            _check_value(value, f"list[{position}]: {plain(key)}")
    return [tuple({str(key): value for key, value in point.items()} for point in points)] if points else []


def _values(values: object, where: str) -> list[object]:
    plain = values.tolist() if hasattr(values, "tolist") else values  # numpy and pandas
    if not isinstance(plain, Iterable) or isinstance(plain, (str, bytes, Mapping)):
        raise ValueError(f"{where}: must be a list of values, got {quoted(values)}")
    listed = list(plain)
    if not listed:
        raise ValueError(f"{where}: must have at least one value, got none")
    for value in listed:
        _check_value(value, where)
    return listed


def _check_value(value: object, where: str) -> None:
    if isinstance(value, float) and not isfinite(value):
        raise ValueError(f"{where}: {value} is no value that a table can hold")
