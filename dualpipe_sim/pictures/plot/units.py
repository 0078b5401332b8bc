"""Times and amounts as charts write them."""

from __future__ import annotations

from typing import NamedTuple


class TimeUnit(NamedTuple):
    """A unit of time and how many seconds it has."""

    name: str
    seconds: float


TIME_UNITS = (TimeUnit("s", 1.0), TimeUnit("ms", 1e-3), TimeUnit("µs", 1e-6), TimeUnit("ns", 1e-9))


def fitting_unit(seconds: float) -> TimeUnit:
    """Return the largest unit in which a time is at least 1 (the second for no time at all)."""
    fitting = (unit for unit in TIME_UNITS if seconds >= unit.seconds)
    return next(fitting, TIME_UNITS[-1]) if seconds else TIME_UNITS[0]


def format_time(seconds: float) -> str:
    """Return a time in its fitting unit with four digits: ``66 s``, ``18.32 ms``."""
    unit = fitting_unit(seconds)
    amount = seconds / unit.seconds
    return f"{amount:,.0f} {unit.name}" if amount >= 1000 else f"{amount:.4g} {unit.name}"


def format_amount(amount: float) -> str:
    """Return a number with at most three digits: ``17``, ``8.25``."""
    return f"{amount:.3g}"


def format_bytes(amount: float) -> str:
    """Return bytes in gigabytes, as GPUs' memory is sold, with three digits: ``74.3 GB``."""
    return f"{amount / 1e9:.3g} GB"
