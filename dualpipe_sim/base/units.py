"""Quantities as people read and write them: ``5 us``, ``160 GB/s``, ``80 GiB``; a bare number is in SI base units.

And how numbers and names are said to them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from dualpipe_sim.errors import quoted

_NUMBER = re.compile(
    r"\s*([+-]?(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?\.?(?:inf|nan))\s*(.*?)\s*", re.IGNORECASE
)


class Measure(NamedTuple):
    """What amounts of a kind are written in, and how far the program computes with them.

    What it computes are sums of products of a few such amounts and of counts, which so stay far from the largest and
    from the smallest number that a float holds.

    Attributes:
        factors: factor of each unit's name, the one without a prefix first.
        least: the smallest amount; what is less is none.
        most: the largest amount.

    """

    factors: Mapping[str, float]
    least: float
    most: float

    def taken(self, amount: float, right: str, value: object) -> float:
        """Return an amount as it is computed with; one below the smallest, as rounding leaves it, is none.

        Args:
            amount: how much.
            right: what a right value looks like, for the message.
            value: how it was written.

        Raises:
            ValueError: it is more than the largest.

        """
        if abs(amount) > self.most:
            most = f"{self.most:g} {next(iter(self.factors))}".rstrip()
            raise ValueError(f"must be {right}, up to {most}, got {quoted(value)}")
        return amount if abs(amount) >= self.least else 0.0


SECONDS = Measure(
    {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0}, 1e-15, 1e12
)
BYTES = Measure(
    {
        "B": 1.0,
        **{f"{prefix}B": 10.0 ** (3 * power) for power, prefix in enumerate(("k", "M", "G", "T", "P"), 1)},
        "KB": 1e3,
        **{f"{prefix}iB": 2.0 ** (10 * power) for power, prefix in enumerate(("K", "M", "G", "T", "P"), 1)},
    },
    1e-3,
    1e18,  # of which 64 bits count each
)
BYTES_PER_S = Measure(
    {
        **{f"{unit}/s": size for unit, size in BYTES.factors.items()},
        **{f"{prefix}b/s": 10.0 ** (3 * power) / 8 for power, prefix in enumerate(("k", "M", "G", "T"), 1)},
        **{f"{prefix}bit/s": 10.0 ** (3 * power) / 8 for power, prefix in enumerate(("k", "M", "G", "T"), 1)},
    },
    1e-3,
    1e24,
)
FLOP_PER_S = Measure(
    {f"{prefix}FLOPS": 10.0 ** (3 * power) for power, prefix in enumerate(("", "k", "M", "G", "T", "P"))}, 1.0, 1e27
)
NUMBER = Measure({"": 1.0}, 1e-12, 1e12)
"""Numbers without a unit: factors, shares, deviations."""
UNITS = {unit: size for one in (SECONDS, BYTES, BYTES_PER_S, FLOP_PER_S) for unit, size in one.factors.items()}
"""The factor of every unit that a configuration knows."""


def quantity(value: object, units: Measure, example: str) -> float:
    """Read a number with a unit, or a bare number in the base unit.

    Args:
        value: what the YAML holds.
        units: what it is written in, and how large it may be.
        example: what a right value looks like, for the message.

    Raises:
        ValueError: not such a quantity, or negative, infinite, not a number, or beyond what is computed with.

    """
    number = _number_in(value, units.factors)
    if number is None:
        raise ValueError(f"must be {example}, got {quoted(value)}")
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"must be {example}, finite and not negative, got {quoted(value)}")
    return units.taken(number, example, value)


def as_float(number: float) -> float:
    """Return a number as a float; infinity for a whole number beyond all floats."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _number_in(value: object, units: Mapping[str, float]) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return as_float(value)
    match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if not match or (match[2] and match[2] not in units):
        return None
    number = match[1].replace(".", "") if match[1][-1].isalpha() else match[1]  # YAML writes .inf and .nan
    return float(number) * units.get(match[2], 1.0)


GB = 1e9
"""Bytes of a gigabyte, as GPUs' memory is sold."""


class TimeUnit(NamedTuple):
    """A unit of time and how many seconds it has."""

    name: str
    seconds: float


TIME_UNITS = (TimeUnit("s", 1.0), TimeUnit("ms", 1e-3), TimeUnit("µs", 1e-6), TimeUnit("ns", 1e-9))


NO_UNIT = TimeUnit("", 1.0)


def fitting_unit(seconds: float, *, unitless: bool = False) -> TimeUnit:
    """Return the largest unit in which a time is at least 1 (the second for no time at all), or none at all."""
    if unitless:
        return NO_UNIT
    fitting = (unit for unit in TIME_UNITS if seconds >= unit.seconds)
    return next(fitting, TIME_UNITS[-1]) if seconds else TIME_UNITS[0]


def format_seconds(seconds: object, digits: int = 4, *, unitless: bool = False) -> str:
    """Return a time with a fitting unit as tables write it, or a dash for None; below a picosecond it is none.

    >>> format_seconds(0.01832), format_seconds(-2e-6), format_seconds(None), format_seconds(66.0, unitless=True)
    ('18.32 ms', '-2 µs', '–', '66')
    """
    if not isinstance(seconds, (int, float)):
        return "–"
    if abs(seconds) < 1e-12:
        return "0" if unitless else "0 s"
    unit = fitting_unit(abs(seconds), unitless=unitless)
    return f"{seconds / unit.seconds:.{digits}g} {unit.name}".rstrip()


def format_time(seconds: float, *, unitless: bool = False) -> str:
    """Return a time as charts write it, from 1,000 up in whole units.

    >>> format_time(0.01832), format_time(12345.6)
    ('18.32 ms', '12,346 s')
    """
    unit = fitting_unit(seconds, unitless=unitless)
    amount = seconds / unit.seconds
    return (f"{amount:,.0f} {unit.name}" if amount >= 1000 else f"{amount:.4g} {unit.name}").rstrip()


def format_number(value: object) -> str:
    """Return a number with at most four digits, from 10,000 up whole, or a dash for None.

    >>> format_number(7.17512), format_number(21184.3), format_number(None)
    ('7.175', '21,184', '–')
    """
    if not isinstance(value, (int, float)):
        return "–"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"


def label_of(name: str, options: Mapping[str, object]) -> str:
    """Return a schedule's name with its options; words that are long enough stand for themselves.

    >>> label_of("hanayo", {"waves": 2}), label_of("chimera", {"concatenation": "direct"}), label_of("1f1b", {})
    ('hanayo (waves=2)', 'chimera (direct)', '1f1b')
    """
    said = ", ".join(
        value if isinstance(value, str) and len(value) > 1 else f"{key}={value}" for key, value in options.items()
    )
    return f"{name} ({said})" if said else name


def plural(noun: str) -> str:
    """Return the plural of a noun: ``ranks``, ``micro-batches``, ``boundaries``."""
    if noun.endswith("ary"):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("ch", "ss")) else f"{noun}s"


def number_of(number: int, noun: str) -> str:
    """Return how many there are of something: ``1 rank``, ``0 micro-batches``, ``1,024 ranks``."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def sizes(ranks: int, micro_batches: int) -> str:
    """Return the sizes of a schedule in words.

    >>> sizes(16, 120)
    '16 ranks × 120 micro-batches'
    """
    return f"{number_of(ranks, 'rank')} × {number_of(micro_batches, 'micro-batch')}"


def format_amount(amount: float) -> str:
    """Return a number with at most three digits, as charts write it: ``17``, ``8.25``."""
    return f"{amount:.3g}"


def format_percent(share: object) -> str:
    """Return a share of 1 in percent, or a dash for None: ``42.8%``."""
    return f"{share:.1%}" if isinstance(share, (int, float)) else "–"


def format_bytes(size_bytes: float) -> str:
    """Return bytes in gigabytes with three digits and the unit: ``74.3 GB``."""
    return f"{size_bytes / GB:.3g} GB"


def format_room(size_bytes: float) -> str:
    """Return bytes of a machine's memory as messages say them.

    >>> format_room(5.4e9), format_room(13_200_000), format_room(3e14)
    ('5.4 GB', '13.2 MB', '300,000.0 GB')
    """
    return f"{size_bytes / GB:,.1f} GB" if size_bytes >= GB / 10 else f"{size_bytes / 1e6:.3g} MB"


def in_gb(size_bytes: float, thousands: str = ",") -> str:
    """Return bytes as a number of gigabytes with one decimal: ``1,234.5``; ``thousands`` parts its digits."""
    return f"{size_bytes / GB:{thousands}.1f}"


def in_narrow_gb(size_bytes: float) -> str:
    """Return bytes as a number of gigabytes in four characters, for tables with many columns: ``62.4``, ``155``."""
    return f"{size_bytes / GB:.1f}" if size_bytes / GB < 99.95 else f"{size_bytes / GB:.0f}"
