"""Metrics of your own: functions of a result, shown in tables, sweeps and JSON by their names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import isfinite
from numbers import Integral, Real
from typing import Any, TypeAlias, TypeVar

from dualpipe_sim.base.plugins import in_code_of
from dualpipe_sim.base.registry import Registry
from dualpipe_sim.errors import UserError

Metric: TypeAlias = Callable[[Any], float | None]
"""``(result) -> number``, or None where it says nothing of this result."""

Registered = TypeVar("Registered", bound=Metric)

METRICS: Registry[Metric] = Registry("metric", "", "dualpipe_sim.metrics", UserError)


def register(name: str, *, replace: bool = False) -> Callable[[Registered], Registered]:
    """Add a metric, a function of a :class:`~dualpipe_sim.Result`, under a name.

    It is asked of every run that was not refused; what it returns is a column of tables and sweeps and a key of JSON.

    >>> from dualpipe_sim import simulate
    >>> @register("idle_s")
    ... def idle_s(result):
    ...     return sum(sum(seconds) for seconds in result.idle_s_by_cause.values())
    >>> simulate("figure5").metrics["idle_s"]
    48.0

    Args:
        name: what it is called, such as ``joules_per_token``.
        replace: whether it may take the place of another one.

    Raises:
        UserError: no function, no name, or one that is taken.

    """
    METRICS.need_name(name)

    def add(metric: Registered) -> Registered:
        _check(name, metric)
        METRICS.add(name, metric, metric, replace=replace)
        return metric

    return add


def metrics() -> Mapping[str, Metric]:
    """Return all registered metrics by name, in the order in which they were registered."""
    return METRICS.all()


def measure(result: object, reserved: Collection[str] = ()) -> dict[str, float | None]:
    """Return what every registered metric says of a result, by name.

    Raises:
        UserError: a metric that fails, that returns no number, or whose name is ``reserved`` for a run's own keys.

    """
    known = metrics()
    for name in known:
        if name in reserved:
            raise UserError(f"metric '{name}': every run has a key of this name already; take another one")
    return {name: _number(name, metric, result) for name, metric in known.items()}


def _number(name: str, metric: Metric, result: object) -> float | None:
    with in_code_of(metric, f"metric '{name}'"):
        number: object = metric(result)
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, Real) or not isfinite(number):
        raise UserError(f"metric '{name}' must return a finite number or None, got {number!r}")
    return int(number) if isinstance(number, Integral) else float(number)


def _check(name: object, metric: object) -> None:
    """Refuse what annotations would, for callers that nobody checks."""
    if not callable(metric):
        raise UserError(f"metric {name!r}: must be a function of a result, not {metric!r}")
    if not isinstance(name, str) or not name.isidentifier():
        raise UserError(f"metric {name!r}: a name is one word of letters, digits and _, such as joules_per_token")
