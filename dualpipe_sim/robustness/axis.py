"""An axis of a map: values of one key, listed or from one to another, and where they stand on a chart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.base.plain_data import digest
from dualpipe_sim.base.show import line
from dualpipe_sim.base.units import UNITS, format_number
from dualpipe_sim.config.axes import with_axes
from dualpipe_sim.config.keys import all_keys
from dualpipe_sim.config.short import full_key
from dualpipe_sim.config.yaml_text import parse_yaml
from dualpipe_sim.errors import ConfigError, did_you_mean, plain, quoted

AxisGiven: TypeAlias = str | Mapping[str, object]
"""``costs.transfer=0 ms..5 ms``, ``ranks=4,8,16``, or a mapping of one such key to a range or to values."""

ACTIVATIONS = "activations"
"""The axis that is no key: most activations that a rank may hold; a schedule that holds more does not fit."""

USUAL_POINTS = 33
MOST_OF_AXIS = 10_000
"""Points of a range."""
_FARTHEST = 1e30
"""Beyond all that a key may be, in any unit."""
_RANGE = re.compile(r"(.+?)\s*\.\.\s*([^:]+?)(?:\s*:\s*(\d+))?(?:\s*:\s*(log))?")
_END = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*)")
_LIKE = "costs.transfer=0 ms..5 ms, ranks=4..16, cluster.infiniband.bandwidth=10 GB/s..400 GB/s:33:log or ranks=4,8,16"


@dataclass(frozen=True, eq=False)
class Axis:
    """Values of one key, in the order in which they stand along the axis.

    >>> from dualpipe_sim.robustness.axis import axis_of
    >>> axis_of("costs.transfer=0 ms..5 ms:3", "--x").values
    ('0 ms', '2.5 ms', '5 ms')
    >>> axis_of("ranks=4..8", "--x").values
    (4, 5, 6, 7, 8)

    Attributes:
        key: dotted, or ``activations``.
        values: as a configuration takes them.
        numbers: the same as numbers in base units, shape ``(values,)``; places from 0 where they are words.
        unit: of the values as they are written; empty where they have none.
        log: whether equal factors are equally far apart.
        whole: whether there is nothing between two values: whole numbers, or words.

    """

    key: str
    values: tuple[object, ...]
    numbers: FloatArray
    unit: str = ""
    log: bool = False
    whole: bool = False

    def __repr__(self) -> str:
        return line(self, self.key, f"{len(self)} values from {plain(self.values[0])} to {plain(self.values[-1])}")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def words(self) -> bool:
        """Whether the values are words, which no number stands for."""
        return any(_number(value) is None for value in self.values)

    @property
    def name(self) -> str:
        """The last word of the key, for sentences and charts."""
        return self.key.rpartition(".")[2]

    def at(self, place: float) -> str:
        """Return the value at a place between two, such as 1.5, as it would be written."""
        if self.words or (self.whole and place == round(place)):
            return plain(self.values[round(place)])
        number = self.number_at(place)
        return f"{format_number(number / UNITS.get(self.unit, 1.0))} {self.unit}".rstrip()

    def number_at(self, place: float) -> float:
        """Return the number at a place between two."""
        places, numbers = np.arange(len(self)), self.numbers
        if self.log:
            return float(np.exp(np.interp(place, places, np.log(numbers))))
        return float(np.interp(place, places, numbers))


def axis_of(given: AxisGiven, option: str) -> Axis:
    """Read an axis.

    Args:
        given: what a user says.
        option: what it is called in messages.

    Raises:
        ConfigError: no such axis, in one line.

    """
    if isinstance(given, str):
        key, equals, text = given.partition("=")
        if not equals or not key or not text.strip():
            raise ConfigError(f"{option} {given}: must be a key and values, like {_LIKE}")
        values: object = text.strip() if ".." in text else parse_yaml(f"[{text}]", f"{option} {key}")
    elif len(given) == 1:
        key, values = next((str(key), values) for key, values in given.items())
    else:
        raise ConfigError(f"{option}: must be one key with its values, like {_LIKE}, got {quoted(given)}")
    full = full_key(key.strip())
    if full in {"schedule", "schedules", "compare"}:
        raise ConfigError(f"{option} {key}: schedules are what a map compares; vary another key")
    if isinstance(values, str):
        return _ranged(full, values, f"{option} {key}")
    (factor,) = with_axes((), {full: values})
    once = {digest(point): point[full] for point in factor}
    return _listed(full, tuple(once.values()))


def _listed(key: str, values: tuple[object, ...]) -> Axis:
    numbers = [_number(value) for value in values]
    known = [number for number in numbers if number is not None]
    if len(known) < len(values):
        return Axis(key, values, np.arange(len(values), dtype=float), whole=True)
    order = np.argsort(known, kind="stable")
    values = tuple(values[place] for place in order)
    return Axis(key, values, np.array(known)[order], _unit_of(values[-1]), whole=_is_whole(key))


def _ranged(key: str, text: str, said: str) -> Axis:
    match = _RANGE.fullmatch(text)
    ends = [_END.fullmatch(end.strip()) for end in match.groups()[:2]] if match else []
    if match is None or len(ends) != 2 or ends[0] is None or ends[1] is None:
        raise ConfigError(f"{said}={text}: must be a range like 0 ms..5 ms, 4..16 or 1..2:33, or values, like 4,8,16")
    first, last, unit = float(ends[0][1]), float(ends[1][1]), ends[1][2]
    other = ends[0][2] or unit
    for one in (unit, other):
        if one and one not in UNITS:
            raise ConfigError(f"{said}={text}: there is no unit {quoted(one)}{did_you_mean(one, UNITS)}")
    first *= UNITS.get(other, 1.0) / UNITS.get(unit, 1.0)
    points, log, whole = int((match[3] or f"{USUAL_POINTS}")[:9]), match[4] is not None, _is_whole(key)
    if max(abs(first), abs(last)) > _FARTHEST or points > MOST_OF_AXIS:
        raise ConfigError(f"{said}={quoted(text)}: must be up to {MOST_OF_AXIS} points, none beyond {_FARTHEST:g}")
    if not first < last or points < 2 or (log and first <= 0):
        above = "from more than 0, " if log else ""
        raise ConfigError(f"{said}={text}: must go up, {above}and have two points at least")
    amounts = np.geomspace(first, last, points) if log else np.linspace(first, last, points)
    if whole:  # evenly, so that multiples stay multiples
        step = max(1, -(-round(last - first) // (points - 1)))
        amounts = np.unique(np.round(amounts)) if log else np.arange(round(first), round(last) + 1, step, dtype=float)
    values = tuple(_value(amount, unit, whole=whole) for amount in amounts.tolist())
    return Axis(key, values, amounts * UNITS.get(unit, 1.0), unit, log, whole)


def _value(amount: float, unit: str, *, whole: bool) -> object:
    if whole and not unit:
        return round(amount)
    return f"{amount:.12g} {unit}" if unit else float(f"{amount:.12g}")


def _number(value: object) -> float | None:
    """Return a value as a number in base units; None for words."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float(value)
    match = _END.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or (match[2] and match[2] not in UNITS):
        return None
    return float(match[1]) * UNITS.get(match[2], 1.0)


def _unit_of(value: object) -> str:
    match = _END.fullmatch(value.strip()) if isinstance(value, str) else None
    return "" if match is None else match[2]


def _is_whole(key: str) -> bool:
    """Return whether a key takes whole numbers only."""
    return any(one.whole for one in all_keys() if re.sub(r"\[\w+\]", "", one.path) == key)
