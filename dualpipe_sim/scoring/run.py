"""Predicts measured runs and compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from dualpipe_sim.base.plain_data import digest
from dualpipe_sim.batch.points import Progress
from dualpipe_sim.batch.runner import evaluate_all
from dualpipe_sim.errors import UserError
from dualpipe_sim.importers.published import of_row
from dualpipe_sim.scoring.board import Board
from dualpipe_sim.scoring.predict import Prediction, predicted
from dualpipe_sim.scoring.rows import MeasuredRow, class_of, counts, gpu_of, measured_bytes, measured_step_s, read_rows


def score(
    runs: str | Path | Sequence[MeasuredRow],
    *,
    source: str = "runs",
    workers: int = 1,
    progress: Progress | None = None,
) -> Board:
    """Predict each of some measured runs, and say how far that is from what was measured.

    >>> score([{"id": "a", "framework": "Megatron-LM", "model": {"layers": 2}}]).predictions[0].unsupported
    'runs: a: cluster: must be a mapping, got None'

    Args:
        runs: a YAML file with ``runs:``, or the rows themselves. What a row lacks makes it unsupported, and stops no
            other.
        source: what to call rows that are no file, in errors.
        workers: processes on this machine.
        progress: told of how many of how many runs is known.

    Raises:
        UserError: a file that cannot be read, or no rows.

    """
    rows = list(runs) if not isinstance(runs, (str, Path)) else read_rows(Path(runs))
    where = str(runs) if isinstance(runs, (str, Path)) else source
    stated = [_stated(row, where, place) for place, row in enumerate(rows)]
    # Runs that differ in what was measured alone are predicted once.
    places: dict[str, list[int]] = {}
    for place, (_, config) in enumerate(stated):
        if config is not None:
            places.setdefault(digest(config), []).append(place)
    points: list[dict[str, object]] = [{"config": stated[same[0]][1]} for same in places.values()]
    found = {place: one for place, (one, config) in enumerate(stated) if config is None}
    with closing(evaluate_all(points, predicted, workers=workers)) as evaluated:
        same = list(places.values())
        for point, row in evaluated:
            for place in same[point]:
                found[place] = _with(stated[place][0], row, where)
            if progress is not None:
                progress(len(found), len(rows))
    return Board(tuple(found[place] for place in range(len(rows))))


def _stated(row: MeasuredRow, source: str, place: int) -> tuple[Prediction, dict[str, Any] | None]:
    """Return what is known of a run without running it, and its configuration, or None where it cannot be stated."""
    name, kind = str(row.get("id", f"run {place}")), class_of(row)
    labels: dict[str, Any] = {key: str(row.get(key, "")) for key in ("source", "precision")} | {"gpu": gpu_of(row)}
    try:
        known: dict[str, Any] = {
            "measured_step_time_s": measured_step_s(row),
            "measured_memory_bytes": measured_bytes(row),
            "counts": counts(row),
        }
        imported = of_row(row, source)
    except UserError as error:
        return Prediction(name, kind, **labels, unsupported=str(error)), None
    stack = str(imported.config["stack"])
    return Prediction(name, kind, **labels, **known, stack=stack, assumed=imported.unread), imported.config


def _with(known: Prediction, row: Mapping[str, Any], source: str) -> Prediction:
    """Return a prediction with what a run of it found, or why there was none."""
    error = row.get("error")
    return replace(known, **row) if error is None else replace(known, unsupported=f"{source}: {known.id}: {error}")
