"""One thing that is wrong with an order, in words: it names the rank, the cell in its row, and the op."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

Rule: TypeAlias = Literal[
    "junk", "range", "placement", "wrong-rank", "double", "missing", "backward", "before", "cycle", "losses", "messages"
]
"""What can be wrong.

- ``junk``: a cell that is no task.
- ``range``: a stage or micro-batch that does not exist.
- ``placement``: stages that do not fit the placement.
- ``wrong-rank``: an op on a rank that does not hold its stage.
- ``double``: an op that runs twice.
- ``missing``: an op, a stage or a micro-batch that never runs.
- ``backward``: neither B alone nor I and W.
- ``before``: an op that stands before one of its own rank that it needs.
- ``cycle``: ranks that wait for each other.
- ``losses``: forwards of a last stage out of micro-batch order.
- ``messages``: sends and receives that do not fit the order they stand in, or each other.
"""


class Site(NamedTuple):
    """Where something stands: a rank, and the cell in its row."""

    rank: int
    cell: int

    def __str__(self) -> str:
        return f"rank {self.rank}, cell {self.cell}"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with an order.

    Attributes:
        rule: which rule is broken.
        what: what is wrong, in words.
        rank: the rank it is on, or None where it is on none.
        cell: the cell in that rank's row, from 0, or None where the op is not there.
        op: the op or the cell in its text form, or an empty string.

    """

    rule: Rule
    what: str
    rank: int | None = None
    cell: int | None = None
    op: str = ""

    def __str__(self) -> str:
        place = [f"{name} {value}" for name, value in (("rank", self.rank), ("cell", self.cell)) if value is not None]
        return f"{', '.join(place)}: {self.what}" if place else self.what
