"""What the notebooks ``report_*.ipynb`` share: numbers that papers print, and tables of them beside simulated ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualpipe_sim.base.show import Table
from dualpipe_sim.config.yaml_text import read_yaml

NUMBERS = Path(__file__).parent / "data" / "published.yaml"


def published(report: str) -> Any:
    """Return what a report prints, as ``data/published.yaml`` has it with its tables and figures."""
    return read_yaml(NUMBERS)[report]


@dataclass(frozen=True)
class Beside:
    """Published numbers beside simulated ones; shows itself as a table where a cell ends in it.

    >>> Beside({"step, s": (19.926, 18.028)})
    | what | published | simulated | difference |
    |---|--:|--:|--:|
    | step, s | 19.926 | 18.028 | -9.5% |

    Attributes:
        rows: of each name the published and the simulated number.
        decimals: of both; None for as many as the published one has.

    """

    rows: Mapping[str, tuple[float, float]]
    decimals: int | None = None

    def difference(self, what: str) -> float:
        """Return simulated over published, less one."""
        printed, simulated = self.rows[what]
        return simulated / printed - 1

    @property
    def worst(self) -> float:
        """The largest difference, whatever its sign."""
        return max(abs(self.difference(what)) for what in self.rows)

    def __repr__(self) -> str:
        return self._table().written("markdown").rstrip()

    def _repr_markdown_(self) -> str:
        return repr(self)

    def _table(self) -> Table:
        headings = ["what", "published", "simulated", "difference"]
        return Table(headings, [self._cells(what) for what in self.rows], words=["what"])

    def _cells(self, what: str) -> list[str]:
        """Return a row's texts; numbers that are alike as they are printed do not differ."""
        printed, simulated = self.rows[what]
        decimals = len(f"{printed:.10g}".partition(".")[2]) if self.decimals is None else self.decimals
        said = [f"{number:,.{decimals}f}" for number in (printed, simulated)]
        return [what, *said, "none" if said[0] == said[1] else f"{self.difference(what):+.1%}"]
