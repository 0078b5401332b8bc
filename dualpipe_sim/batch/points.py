"""A point, the row that it becomes, and what makes one of the other."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeAlias

from dualpipe_sim.errors import UserError

Point: TypeAlias = dict[str, object]
Row: TypeAlias = dict[str, object]
Evaluate: TypeAlias = Callable[[Point], Row]
Progress: TypeAlias = Callable[[int, int], None]
"""Told how many of how many points are done."""
_DIED = " died, perhaps for want of memory"
POINT = "point"
"""The last key of a row on disk: the name of its point."""
Rows: TypeAlias = Generator[tuple[int, Row], None, None]


def lost(what: str) -> Row:
    """Return the row of a point that ended what evaluated it: no fault of the point's own may be behind that."""
    return {"error": f"{what}{_DIED}"}


def is_lost(row: Row) -> bool:
    """Return whether a row says no more than that something died, so that it is worth another try."""
    return str(row.get("error", "")).endswith(_DIED)


def attempt(evaluate: Evaluate, point: Point) -> Row:
    """Return the row of a point, or of the reason why it has none: one point's failure is not the others'."""
    try:
        return evaluate(point)
    except UserError as error:
        return {"error": str(error)}
    except Exception as error:  # noqa: BLE001 - a night's sweep must outlive a bug that one point hits
        return {"error": f"{type(error).__name__}: {error}"}
