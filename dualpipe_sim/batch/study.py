"""A study: points to evaluate, and the table that they become, row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dualpipe_sim.base.plain_data import digest
from dualpipe_sim.base.plugins import LOADED
from dualpipe_sim.base.show import brief
from dualpipe_sim.batch.points import POINT, Evaluate, Point, Progress, Row
from dualpipe_sim.batch.rows import RowFile
from dualpipe_sim.batch.runner import evaluate_all
from dualpipe_sim.errors import UserError


@dataclass(frozen=True)
class Study:
    """What is evaluated, and where.

    Attributes:
        points: values by key, in the order of the table's rows.
        evaluate: makes a row of a point.
        keys: the keys of such a row; ``error`` is one of them.
        setting: all else that a row depends on, plain data or dataclasses: where it changes, rows cannot be resumed.

    """

    points: Sequence[Point]
    evaluate: Evaluate
    keys: Sequence[str]
    setting: object

    __repr__ = brief

    @cached_property
    def by_name(self) -> Mapping[str, Point]:
        """The points by their names: digests of the point, the setting and the plugins, the same on every machine."""
        on = [self.setting, *sorted(content.decode(errors="replace") for content in LOADED.values())]
        # a letter first: no reader takes it for a number
        return {f"p{digest([*on, point])}": point for point in self.points}

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The keys of the table's rows: the points', the evaluation's and ``point``."""
        return tuple(dict.fromkeys([key for point in self.points for key in point] + [*self.keys, POINT]))

    def row(self, name: str, evaluated: Row) -> Row:
        """Return the table's row of a point: its values, what came out and, last, its name."""
        return {**dict.fromkeys(self.columns), **self.by_name[name], **evaluated, POINT: name}


def collect(
    study: Study,
    *,
    workers: int = 1,
    dask: str | None = None,
    output: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> list[Row]:
    """Evaluate a study's points and return their rows in the points' order; none is lost, none done twice.

    Args:
        study: what to evaluate.
        workers: processes on this machine.
        dask: address of a Dask scheduler whose workers evaluate instead.
        output: a ``.csv``, ``.jsonl`` or ``.parquet`` file for the rows, each appended when it is there.
        resume: whether to go on with an ``output`` that is there.
        progress: told about each row.

    Raises:
        UserError: a file or workers that cannot be used.

    """
    if resume and output is None:
        raise UserError("there is no output to resume; name its file")
    file = None if output is None else RowFile(output, study.columns)
    try:
        rows = {} if file is None else file.open(study.by_name, resume=resume)
        left = [name for name in study.by_name if name not in rows]
        points = [study.by_name[name] for name in left]
        with closing(evaluate_all(points, study.evaluate, workers=workers, dask=dask)) as evaluated:
            _report(progress, rows, study)
            for place, row in evaluated:
                rows[left[place]] = study.row(left[place], row)
                if file is not None:
                    file.append(rows[left[place]])
                _report(progress, rows, study)
        ordered = [rows[name] for name in study.by_name]
        if file is not None:
            file.finish(ordered)
    finally:
        if file is not None:
            file.close()
    return ordered


def _report(progress: Progress | None, rows: Mapping[str, Row], study: Study) -> None:
    if progress is not None:
        progress(len(rows), len(study.by_name))
