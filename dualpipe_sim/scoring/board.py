"""The board: errors by class, source, GPU and precision, the worst runs with their parts, and what they point to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, log
from statistics import median
from typing import NamedTuple

from dualpipe_sim.base.show import Table, line
from dualpipe_sim.base.units import format_percent, format_seconds, number_of
from dualpipe_sim.scoring.predict import Prediction
from dualpipe_sim.scoring.rows import CLASSES


class Errors(NamedTuple):
    """Errors of some runs.

    >>> Errors.of([0.1, -0.02, 0.04])
    Errors(rows=3, median=0.04, p90=0.1, bias=0.04)

    Attributes:
        rows: how many were measured and predicted.
        median: of the errors without their signs; None without any.
        p90: nine of ten are no larger (nearest rank).
        bias: median with signs.

    """

    rows: int
    median: float | None
    p90: float | None
    bias: float | None

    @classmethod
    def of(cls, errors: Iterable[float]) -> Errors:
        """Return what sums up errors."""
        signed = sorted(errors)
        if not signed:
            return cls(0, None, None, None)
        sizes = sorted(map(abs, signed))
        return cls(len(signed), median(sizes), sizes[ceil(0.9 * len(sizes)) - 1], median(signed))


class Pointer(NamedTuple):
    """What a systematic error points to.

    Attributes:
        part: the part of steps that it lies in.
        factor: what that part would have to be multiplied with.
        before: median error as it is.
        after: median error if it were.
        constant: the keys that set that part.

    """

    part: str
    factor: float
    before: float
    after: float
    constant: str


_CONSTANTS = {
    "compute": "gpu.gemm, gpu.attention and gpu.other",
    "recompute": "training.recompute, and gpu.gemm and gpu.attention",
    "exposed all-to-all": "cluster.infiniband, cluster.nvlink and cluster.alltoall",
    "tensor parallelism": "cluster.nvlink",
    "uneven stages": "pipeline.layout",
    "bubble": "pipeline.runtime and pipeline.layout",
    "end of step": "cluster.infiniband, gpu.hbm and training.gradient_reduction",
}
_FEWEST = 5
"""Runs that an error must be of to be called systematic."""
_FACTORS = [2 ** (step / 20) for step in range(-40, 41)]


@dataclass(frozen=True)
class Board:
    """Runs, each predicted.

    >>> one = Prediction("a", "dense", step_time_s=1.1, measured_step_time_s=1.0)
    >>> board = Board((one, Prediction("b", "moe", unsupported="parallel.dp: must be a whole number")))
    >>> board, board.stated
    (<Board 2 runs, 1 stated>, 1)

    Attributes:
        predictions: in the order of the rows.

    """

    predictions: tuple[Prediction, ...]

    def __repr__(self) -> str:
        return line(self, number_of(len(self.predictions), "run"), f"{self.stated} stated")

    @property
    def stated(self) -> int:
        """How many are predicted."""
        return len(_stated(self.predictions))

    @property
    def classes(self) -> dict[str, list[Prediction]]:
        """The runs of each class; dense ones hold those of Megatron's kind."""
        found: dict[str, list[Prediction]] = {name: [] for name in CLASSES}
        for one in self.predictions:
            found[one.kind].append(one)
        found["dense"] = [one for one in self.predictions if one.kind != "moe"]
        return found

    @property
    def sources(self) -> dict[str, list[Prediction]]:
        """The runs of each source."""
        return self._by(lambda one: one.source)

    @property
    def gpus(self) -> dict[str, list[Prediction]]:
        """The runs on each GPU."""
        return self._by(lambda one: one.gpu)

    @property
    def precisions(self) -> dict[str, list[Prediction]]:
        """The runs in each precision."""
        return self._by(lambda one: one.precision)

    def _by(self, label: Callable[[Prediction], str]) -> dict[str, list[Prediction]]:
        found: dict[str, list[Prediction]] = {}
        for one in self.predictions:
            found.setdefault(label(one), []).append(one)
        return found

    @property
    def memory(self) -> Errors:
        """Errors of peak memory, of all runs."""
        return Errors.of(one.memory_error for one in self.predictions if one.memory_error is not None)

    def worst(self, number: int = 10) -> list[Prediction]:
        """Return the runs that are furthest off."""
        measured = [one for one in self.predictions if one.error is not None and one.counts]
        return sorted(measured, key=lambda one: -_size(one))[:number]

    def pointers(self) -> list[Pointer]:
        """Return which one part, if it took so many times as long, would halve the median error; the best one first."""
        rows = [one for one in self.predictions if one.error is not None and one.counts and one.parts_s]
        return sorted(_pointers(rows), key=lambda one: one.after)[:1] if len(rows) >= _FEWEST else []

    def to_dict(self) -> dict[str, object]:
        """Return everything, ready for JSON."""
        return {
            "rows": len(self.predictions),
            "stated": self.stated,
            "predictions": [one.to_dict() for one in self.predictions],
            "classes": {name: _summed_up(rows) for name, rows in self.classes.items()},
            "sources": {name: _summed_up(rows) for name, rows in self.sources.items() if name},
            "gpus": {name: _summed_up(rows) for name, rows in self.gpus.items() if name},
            "precisions": {name: _summed_up(rows) for name, rows in self.precisions.items() if name},
            "memory": self.memory._asdict(),
            "points_to": [one._asdict() for one in self.pointers()],
        }

    def group_tables(self) -> list[Table]:
        """Return the tables of errors by class and source, and where they differ by GPU and precision."""
        headings = ("rows", "stated", "median", "p90", "bias")
        several = {"GPU": self.gpus, "precision": self.precisions}
        groups = {"class": self.classes, "source": self.sources}
        groups |= {what: dict(sorted(by.items())) for what, by in several.items() if len(by) > 1}
        return [
            Table((what, *headings), [(name or "–", *_cells(rows)) for name, rows in by.items() if rows], [what])
            for what, by in groups.items()
            if any(by)
        ]

    def to_tables(self, worst: int = 10) -> list[Table]:
        """Return the tables of groups and of the worst runs."""
        tables = self.group_tables()
        furthest = [
            (
                one.id,
                format_seconds(one.measured_step_time_s),
                format_seconds(one.step_time_s),
                signed(one.error),
                _parts(one),
            )
            for one in self.worst(worst)
        ]
        if furthest:
            head = ("furthest off", "measured", "predicted", "error", "predicted parts")
            tables.append(Table(head, furthest, ["furthest off", "predicted parts"], notes=self.remarks()))
        return tables

    def remarks(self) -> list[str]:
        """Return in words how far off peak memory is, and what a systematic error of steps points to."""
        return [one for one in (self._memory_in_words(), *map(_in_words, self.pointers())) if one]

    def _memory_in_words(self) -> str:
        found = self.memory
        if found.median is None or found.p90 is None:
            return ""
        runs = number_of(found.rows, "run")
        return (
            f"peak memory of {runs}: {format_percent(found.median)} off at the median, {format_percent(found.p90)} p90"
        )


def _stated(rows: Sequence[Prediction]) -> list[Prediction]:
    return [one for one in rows if one.unsupported is None]


def _size(one: Prediction) -> float:
    """Return how far off a run is, twice as long as far as half."""
    return abs(log(1 + (one.error or 0.0)))


def errors_of(rows: Iterable[Prediction]) -> Errors:
    """Return the errors of some runs: of those that were measured, are predicted and count."""
    return Errors.of(one.error for one in rows if one.error is not None and one.counts)


def _summed_up(rows: Sequence[Prediction]) -> dict[str, object]:
    return {"rows": len(rows), "stated": len(_stated(rows))} | {
        key: value for key, value in errors_of(rows)._asdict().items() if key != "rows"
    }


def _cells(rows: Sequence[Prediction]) -> tuple[str, ...]:
    found = errors_of(rows)
    sizes = ("–" if one is None else format_percent(one) for one in (found.median, found.p90))
    return f"{len(rows)}", f"{len(_stated(rows))}", *sizes, signed(found.bias)


def signed(error: float | None) -> str:
    """Return an error as tables write it, or a dash for None: ``+8.3%``."""
    return "–" if error is None else f"{error:+.1%}"


def _parts(one: Prediction) -> str:
    parts = {name: seconds / (one.step_time_s or 1.0) for name, seconds in (one.parts_s or {}).items()}
    largest = sorted(parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {share:.0%}" for name, share in largest if share >= 0.01)


def _pointers(rows: Sequence[Prediction]) -> Iterator[Pointer]:
    before = Errors.of(one.error or 0.0 for one in rows).median or 0.0
    for part, constant in _CONSTANTS.items():
        by_factor = {factor: _with_part(rows, part, factor) for factor in _FACTORS}
        factor = min(by_factor, key=by_factor.__getitem__)
        if by_factor[factor] < before / 2:
            yield Pointer(part, factor, before, by_factor[factor], constant)


def _with_part(rows: Sequence[Prediction], part: str, factor: float) -> float:
    """Return the median error if a part of every step took so many times as long."""
    found = Errors.of(
        ((one.step_time_s or 0.0) + (factor - 1) * (one.parts_s or {}).get(part, 0.0))
        / (one.measured_step_time_s or 1.0)
        - 1
        for one in rows
    )
    return found.median or 0.0


def _in_words(one: Pointer) -> str:
    return (
        f"if {one.part} took {one.factor:.2f} times as long, the median error would be {format_percent(one.after)}, "
        f"not {format_percent(one.before)}: see {one.constant}"
    )
