"""A map: which of the compared schedules is best at each point of a grid over two keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import numpy as np

from dualpipe_sim.batch.points import Progress, Row
from dualpipe_sim.batch.rows import RowFile
from dualpipe_sim.batch.runner import evaluate_all
from dualpipe_sim.batch.study import Study
from dualpipe_sim.config.axes import MOST_POINTS
from dualpipe_sim.config.load import in_full, read_config
from dualpipe_sim.errors import ConfigError, UserError
from dualpipe_sim.experiment import Choice, Experiment
from dualpipe_sim.robustness.axis import Axis, AxisGiven, axis_of
from dualpipe_sim.robustness.points import At, Judged, JudgeLines, Line, settle
from dualpipe_sim.robustness.regime_map import CLOSE, RegimeMap
from dualpipe_sim.simulation import to_compare
from dualpipe_sim.version import __version__

_LINES = 4  # that are judged together, at most
_SHARES = 2  # of the work that each process gets, at least


def regimes(  # noqa: PLR0913 - as the command has them
    config: str | Path | Mapping[str, object] | None,
    x: AxisGiven,
    y: AxisGiven,
    *,
    close: float = CLOSE,
    workers: int = 1,
    output: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    settings: Sequence[str] = (),
    **overrides: object,
) -> RegimeMap:
    """Return which of the schedules that a configuration compares is best at each point of a grid over two keys.

    >>> found = regimes("figure5", "costs.transfer=0..2:5", "micro_batches=16,32", compare=["1f1b", "zb-h1"])
    >>> found.winner(x=0, y=0), found.best.shape
    ('zb-h1', (2, 5))

    Args:
        config: as for :func:`~dualpipe_sim.compare`.
        x: one key and its values: ``costs.transfer=0 ms..5 ms`` for 33 of them evenly, ``…:9`` for 9, ``…:9:log`` for
            equal factors, ``ranks=4,8,16`` or ``{"ranks": [4, 8, 16]}`` for these. ``activations`` is no key, but the
            most activations that a rank may hold.
        y: the other one, likewise.
        close: by how much the best must be faster than the second, or it is too close to call.
        workers: processes on this machine.
        output: a ``.csv``, ``.jsonl`` or ``.parquet`` file that rows are appended to as they come.
        resume: whether to go on with an ``output`` that is there.
        progress: told how many of how many points are done.
        settings: texts such as ``engine=simpy``.
        overrides: as for :func:`~dualpipe_sim.compare`.

    Raises:
        ConfigError: an axis that cannot be, or no point that is a valid configuration.
        UserError: a file or workers that cannot be used.

    """
    axes = axis_of(x, "--x"), axis_of(y, "--y")
    if axes[0].key == axes[1].key:
        raise ConfigError(f"--y {axes[1].key}: is varied by --x already; take another key")
    if (many := len(axes[0].values) * len(axes[1].values)) > MOST_POINTS:
        raise ConfigError(f"--x, --y: make {many} points, more than {MOST_POINTS}; take fewer of either")
    data, source = read_config(config, in_full(to_compare(overrides)), settings)
    base = {key: value for key, value in data.items() if key != "sweep"}
    at = At({key: value for key, value in base.items() if key != "plugins"}, source, axes[0].key, axes[1].key)
    study = _Map(at, axes, base, workers)
    return study.filled(close, output, resume=resume, progress=progress)


class _Map:
    """A map while it is filled."""

    def __init__(self, at: At, axes: tuple[Axis, Axis], base: Mapping[str, object], workers: int) -> None:
        self._at, self._axes, self._workers = at, axes, workers
        first = self._first_valid()
        self._labels = tuple(_labels(first.choices))
        self._unitless = bool(getattr(first.cost_model, "unitless", False))
        x, y = axes
        points: list[dict[str, object]] = [{y.key: below, x.key: along} for below in y.values for along in x.values]
        keys = [*self._labels, "unfit", "error"]
        self._study = Study(points, JudgeLines(at), keys, [__version__, "regimes", base])

    def _first_valid(self) -> Experiment:
        """Return the experiment of a first point; where no point has one, raise the first point's mistake."""
        x, y = self._axes
        mistake: UserError | None = None
        for below in y.values:
            for along in x.values:
                try:
                    return self._at.experiment(along, below)
                except UserError as error:
                    mistake = mistake or error
        raise cast("UserError", mistake)

    def filled(self, close: float, output: str | Path | None, *, resume: bool, progress: Progress | None) -> RegimeMap:
        """Return the map, all of its points judged."""
        if resume and output is None:
            raise UserError("there is no output to resume; name its file")
        names = list(self._study.by_name)
        file = None if output is None else RowFile(output, self._study.columns)
        try:
            rows: dict[str, Row] = {} if file is None else file.open(names, resume=resume)
            if progress is not None:
                progress(len(rows), len(names))
            for place, row in self._judged([place for place, name in enumerate(names) if name not in rows]):
                rows[names[place]] = self._study.row(names[place], row)
                if file is not None:
                    file.append(rows[names[place]])
                if progress is not None:
                    progress(len(rows), len(names))
            ordered = [rows[name] for name in names]
            if file is not None:
                file.finish(ordered)
        finally:
            if file is not None:
                file.close()
        return self._map(ordered, close)

    def _judged(self, left: Sequence[int]) -> Iterator[tuple[int, Row]]:
        """Yield (place, row) of each point that is left, some lines at a time."""
        x, _ = self._axes
        of_lines: dict[int, list[int]] = {}
        for place in left:
            of_lines.setdefault(place // len(x), []).append(place)
        each = min(_LINES, -(-len(of_lines) // (_SHARES * self._workers))) or 1
        bands = [list(of_lines.items())[first : first + each] for first in range(0, len(of_lines), each)]
        judge = JudgeLines(self._at, self._settled() if left else ())
        points: list[dict[str, object]] = [{"lines": [self._line(*line) for line in band]} for band in bands]
        with closing(evaluate_all(points, judge, workers=self._workers)) as evaluated:
            for number, row in evaluated:
                places = [place for _, of_line in bands[number] for place in of_line]
                found = row.get("points") or [str(row["error"])] * len(places)
                for place, known in zip(places, cast("list[list[Judged] | str]", found), strict=True):
                    yield place, self._row(known)

    def _line(self, number: int, places: Sequence[int]) -> Line:
        x, y = self._axes
        along = [place % len(x) for place in places]
        return Line(
            [x.values[one] for one in along],
            [] if x.words else [float(x.numbers[one]) for one in along],
            y.values[number],
        )

    def _settled(self) -> tuple[tuple[int, ...] | None, ...]:
        """Return the layouts that are sought in the middle of the map, for all of its points."""
        x, y = self._axes
        try:
            return settle(self._at, x.values[len(x) // 2], y.values[len(y) // 2])
        except UserError:
            return ()

    def _row(self, known: list[Judged] | str) -> Row:
        if isinstance(known, str):
            return {"error": known}
        labelled = list(zip(self._labels, known, strict=True))
        return {
            **{label: one.seconds for label, one in labelled},
            "unfit": {label: one.unfit for label, one in labelled if one.unfit} or None,
        }

    def _map(self, rows: Sequence[Row], close: float) -> RegimeMap:
        x, y = self._axes
        shape = len(y), len(x), len(self._labels)
        seconds = np.array([[row[label] for label in self._labels] for row in rows], dtype=float).reshape(shape)
        unfit = np.array([_why(row, self._labels) for row in rows], dtype=object).reshape(shape)
        return RegimeMap(x, y, self._labels, seconds, unfit, close, unitless=self._unitless)


def _why(row: Row, labels: Sequence[str]) -> list[str]:
    unfit = cast("Mapping[str, Any]", row.get("unfit") or {})
    return [str(row.get("error") or unfit.get(label, "")) for label in labels]


def _labels(choices: Sequence[Choice]) -> Iterator[str]:
    """Yield a name of its own for each schedule: with its size, or a number, where others have the same."""
    names: list[str] = []
    for choice in choices:
        same = [one for one in choices if str(one) == str(choice)]
        name = str(choice) if len(same) == 1 else f"{choice}, {choice.ranks} × {choice.micro_batches}"
        name = f"{name} ({names.count(name) + 1})" if name in names else name
        names.append(name)
        yield name
