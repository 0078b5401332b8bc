"""The table of a sweep, for notebooks and programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dualpipe_sim.base.plain_data import data_frame, plain_data
from dualpipe_sim.base.show import SHOWN_ROWS, Table, Tabular, line
from dualpipe_sim.base.units import number_of
from dualpipe_sim.batch.points import POINT, Row
from dualpipe_sim.errors import UserError, did_you_mean, quoted

if TYPE_CHECKING:
    from dualpipe_sim.base.plain_data import DataFrame
    from dualpipe_sim.result import Result


@dataclass(frozen=True, eq=False)
class SweepTable(Tabular, Sequence[Row]):
    """Rows, one a point: the values of the axes, the keys of a run, and the point's name.

    >>> from dualpipe_sim import sweep
    >>> table = sweep("figure5", {"schedules": ["1f1b", "dualpipe"], "micro_batches": [16, 32]})
    >>> len(table), [row["makespan_s"] for row in table.where(schedule="dualpipe")]
    (4, [54.0, 102.0])
    """

    rows: tuple[Row, ...]

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        """Return one row by its place."""
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """The keys of a row."""
        return tuple(self.rows[0]) if self.rows else ()

    def where(self, **values: object) -> SweepTable:
        """Return the rows with these values: ``where(schedule="dualpipe")``, ``where(**{"pipeline.ranks": 8})``.

        Raises:
            UserError: no such column.

        """
        for column in values:
            if column not in self.columns:
                hint = did_you_mean(column, self.columns) or f" (it has {', '.join(self.columns)})"
                raise UserError(f"the table has no column {column}{hint}")
        wanted = plain_data(values)
        return SweepTable(tuple(row for row in self.rows if plain_data({key: row[key] for key in values}) == wanted))

    def to_dict(self) -> dict[str, object]:
        """Return all rows, ready for JSON."""
        return {"rows": plain_data(self.rows)}

    def to_pandas(self) -> DataFrame:
        """Return the table as a pandas DataFrame.

        Raises:
            UserError: pandas is not installed.

        """
        return data_frame(self.rows, self.columns)

    def summary(self) -> tuple[tuple[str, ...], list[list[str]]]:
        """Return headings and rows as text: what varies, schedule and size, then, where it ran, the main numbers."""
        from dualpipe_sim.analysis.registry import metrics
        from dualpipe_sim.result import KEYS, summaries_of

        runs = [_run(row) for row in self.rows]
        headings, numbers = summaries_of(runs)
        said = {*KEYS, *metrics(), "pipeline.ranks", "pipeline.micro_batches", POINT}
        axes = [column for column in self.columns if column not in said]
        words = [
            [*(str(row[axis]) for axis in axes), run.caption, run.size if run.ranks else "–"]
            for row, run in zip(self.rows, runs, strict=True)
        ]
        return (*_short(axes), "schedule", "size", *headings), [
            [*ours, *its] for ours, its in zip(words, numbers, strict=True)
        ]

    def to_table(self) -> Table:
        """Return the first rows of :meth:`summary`, or why there is none, as the table that this shows itself as."""
        shown = SweepTable(self.rows[:SHOWN_ROWS])
        headings, texts = shown.summary()
        rows = [
            text if row["error"] is None else [*text, str(row["error"])] for text, row in zip(texts, shown, strict=True)
        ]
        words = headings[: headings.index("size") + 1]
        return Table(headings, rows, words, of=len(self))

    def __repr__(self) -> str:
        failed = sum(row.get("error") is not None for row in self.rows)
        return line(
            self,
            number_of(len(self), "row"),
            number_of(len(self.columns), "column"),
            f"{failed:,} failed" if failed else "",
        )


def _short(keys: list[str]) -> list[str]:
    """Return the last words of dotted keys where they differ."""
    last = [key.rpartition(".")[2] for key in keys]
    return last if len(set(last)) == len(keys) else keys


def read_table(path: str | Path) -> SweepTable:
    """Return the table of a sweep from its file, finished or not.

    >>> from dualpipe_sim import sweep
    >>> table = sweep("figure5", {"micro_batches": [16, 32]}, output="table.csv")
    >>> read_table("table.csv").rows == table.rows
    True

    Raises:
        UserError: a file that cannot be read, or is no such table.

    """
    from dualpipe_sim.batch.rows import read_rows

    rows = read_rows(path)
    kinds = _kinds()
    for place, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            raise UserError(f"{path}: row {place} has other columns than the first")
        wrong = next((key for key, kind in kinds.items() if not _fits(row.get(key), kind)), None)
        if wrong is None and row.get("error") is None and row.get("micro_batches") == 0:
            wrong = "micro_batches"
        if wrong is not None:
            raise UserError(f"{path}: row {place}: {wrong}: cannot be {quoted(row[wrong])}")
    return SweepTable(tuple(rows))


def _fits(value: object, kind: tuple[type, ...]) -> bool:
    """Whether a value is of some types, and one that can be told: no number beyond all floats."""
    return isinstance(value, kind) and not (isinstance(value, (int, float)) and abs(value) >= _BEYOND)


_BEYOND = 1e300


def _kinds() -> dict[str, tuple[type, ...]]:
    """Return of which types a key's value in a row may be, None of each, by what a run has there."""
    from dualpipe_sim.result import KEYS, Result

    types = {"int": (int,), "float": (int, float), "str": (str,), "list": (list,), "dict": (dict,), "Mapping": (dict,)}
    said = {one.name: str(one.type).partition("[")[0].partition(" ")[0] for one in fields(Result) if one.name in KEYS}
    return {key: (*types.get(name, (dict,)), type(None)) for key, name in said.items()}


_OF_EACH = ("schedule", "ranks", "micro_batches", "options", "error")


def _run(row: Row) -> Result:
    from dualpipe_sim.analysis.registry import metrics
    from dualpipe_sim.result import KEYS, Result

    missing = next((key for key in _OF_EACH if key not in row), None)
    if missing is not None:
        raise UserError(f"rows of sweeps have {missing!r}; these are of something else")
    known = {key: row[key] for key in KEYS if key in row} | {"options": row["options"] or {}}
    known["metrics"] = {name: row[name] for name in metrics() if name in row}
    return Result(**cast("dict[str, Any]", known))
