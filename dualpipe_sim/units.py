"""Quantities as people write them: ``5 us``, ``160 GB/s``, ``80 GiB``; a bare number is in SI base units."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

_NUMBER = re.compile(
    r"\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?\.?(?:inf|nan))\s*(.*?)\s*", re.IGNORECASE
)

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0}
BYTES = {
    "B": 1.0,
    **{f"{prefix}B": 10.0 ** (3 * power) for power, prefix in enumerate(("k", "M", "G", "T", "P"), 1)},
    "KB": 1e3,
    **{f"{prefix}iB": 2.0 ** (10 * power) for power, prefix in enumerate(("K", "M", "G", "T", "P"), 1)},
}
BYTES_PER_S = {
    **{f"{unit}/s": size for unit, size in BYTES.items()},
    **{f"{prefix}b/s": 10.0 ** (3 * power) / 8 for power, prefix in enumerate(("k", "M", "G", "T"), 1)},
    **{f"{prefix}bit/s": 10.0 ** (3 * power) / 8 for power, prefix in enumerate(("k", "M", "G", "T"), 1)},
}
FLOP_PER_S = {f"{prefix}FLOPS": 10.0 ** (3 * power) for power, prefix in enumerate(("", "k", "M", "G", "T", "P"))}


def quantity(value: object, units: Mapping[str, float], example: str) -> float:
    """Read a number with a unit, or a bare number in the base unit.

    Args:
        value: what the YAML holds.
        units: factor of each unit's name.
        example: what a right value looks like, for the message.

    Raises:
        ValueError: not such a quantity, or negative, infinite or not a number.

    """
    number = _number_in(value, units)
    if number is None:
        raise ValueError(f"must be {example}, got {value!r}")
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"must be {example}, finite and not negative, got {value!r}")
    return number


def _number_in(value: object, units: Mapping[str, float]) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float(value)
    match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if not match or (match[2] and match[2] not in units):
        return None
    number = match[1].replace(".", "") if match[1][-1].isalpha() else match[1]  # YAML writes .inf and .nan
    return float(number) * units.get(match[2], 1.0)
