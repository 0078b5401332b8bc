"""Say what a fit to published runs would gain; nothing of it is in the package.

    python validation/fit.py RUNS.yaml... [--workers N]

Runs are predicted as ``dualpipe-sim score`` does (by default all of ``validation/published``), and their steps taken
apart by cause. A few factors, each on one part of every step, are then fitted so that the mean error is least: compute
by family of GPUs, collectives of tensor parallelism, exposed all-to-alls, the end of a step, the bubble. How good the
fit is where it was made says little. So each source is also predicted by factors that were fitted to all others: what
is left of the gain there is what other runs would have of it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.base.show import Table, wrapped
from dualpipe_sim.base.units import format_percent, number_of
from dualpipe_sim.config.yaml_text import read_yaml
from dualpipe_sim.scoring import Board, Errors, Prediction, score
from dualpipe_sim.scoring.rows import read_rows

PUBLISHED = Path(__file__).resolve().parent / "published"
PROVENANCE = PUBLISHED / "provenance.yaml"
FAMILIES = {"a100": "A100", "h100": "Hopper", "h200": "Hopper", "h800": "Hopper", "b200": "Blackwell",
            "b300": "Blackwell", "gb200": "Blackwell", "gb300": "Blackwell"}  # fmt: skip
"""Families of GPUs by the first word of their names."""

COMPUTE = ("compute", "recompute", "uneven stages")
"""Parts of a step in which GPUs compute; what the busiest rank is busy beyond the mean is nearly all of it compute."""

ALONE = ("tensor parallelism", "exposed all-to-all", "end of step", "bubble")
"""Parts that have a factor each, whatever the GPU."""

FACTORS = (*(f"compute, {family}" for family in dict.fromkeys(FAMILIES.values())), *ALONE)
OTHER = "compute, other GPUs"
"""What no factor is fitted to: compute on a GPU of another family, which stays as it is predicted."""

_MOST = 2.0
_STEPS = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005)
"""How far a factor's logarithm is moved at a time: coarse to fine."""

NOTHING = "Nothing of it is in the package: no factor is applied to any prediction."


@dataclass(frozen=True)
class Steps:
    """Measured steps, taken apart as they were predicted.

    Attributes:
        parts_s: predicted seconds by factor, one row a run; the last column is what no factor is on.
        measured_s: measured seconds of each step.
        sources: where each was published.
        kinds: the class of each.

    """

    parts_s: FloatArray
    measured_s: FloatArray
    sources: tuple[str, ...]
    kinds: tuple[str, ...]

    @classmethod
    def of(cls, predictions: Iterable[Prediction]) -> Steps:
        """Return the steps that are measured, predicted and count."""
        runs = [one for one in predictions if one.error is not None and one.counts and one.parts_s]
        return cls(
            np.array([parts_of(one) for one in runs]).reshape(len(runs), len(FACTORS) + 1),
            np.array([one.measured_step_time_s for one in runs], dtype=np.float64),
            tuple(one.source for one in runs),
            tuple(one.kind for one in runs),
        )

    def where(self, wanted: Sequence[bool]) -> Steps:
        """Return some of them."""
        kept = np.array(wanted, dtype=bool)
        names = [
            tuple(one for one, keep in zip(all_names, wanted, strict=True) if keep)
            for all_names in (self.sources, self.kinds)
        ]
        return Steps(self.parts_s[kept], self.measured_s[kept], *names)

    def errors(self, factors: Mapping[str, float]) -> list[float]:
        """Return the errors if each part took so many times as long: predicted over measured, less one."""
        by_column = np.array([*(factors.get(name, 1.0) for name in FACTORS), 1.0])
        return (self.parts_s @ by_column / self.measured_s - 1).tolist()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Fit:
    """What a fit would gain.

    Attributes:
        factors: by part of a step, fitted to all runs.
        before: errors by class as predictions are; ``all`` has every run once.
        fitted: the same with the factors, on the runs that they were fitted to.
        left_out: the same, each source with factors fitted to all others.
        sources: sources.

    """

    factors: dict[str, float]
    before: dict[str, Errors]
    fitted: dict[str, Errors]
    left_out: dict[str, Errors]
    sources: int

    @property
    def ratio(self) -> float:
        """The median error of sources left out over that of the runs that were fitted to."""
        return (self.left_out["all"].median or 0.0) / (self.fitted["all"].median or 1.0)

    @property
    def verdict(self) -> str:
        """In a sentence, how much of the gain is left where a source was not fitted to."""
        if self.sources < 2:
            return "All runs are of one source: none can be left out, so that nothing is known of other runs."
        before, fitted, left = ((one["all"].median or 0.0) * 100 for one in (self.before, self.fitted, self.left_out))
        return (
            f"Runs of a source that is left out are {left:.1f} % off at the median, {self.ratio:.2f} times the "
            f"{fitted:.1f} % of those fitted to; unfitted all are {before:.1f} % off."
        )


def parts_of(one: Prediction) -> list[float]:
    """Return the seconds of a prediction by factor, and last those that no factor is on."""
    own = f"compute, {FAMILIES.get(one.gpu.partition('-')[0], 'other GPUs')}"
    seconds = dict.fromkeys((*FACTORS, OTHER), 0.0)
    for part, part_s in (one.parts_s or {}).items():
        seconds[own if part in COMPUTE else part if part in ALONE else OTHER] += part_s
    return list(seconds.values())


def fit(steps: Steps) -> dict[str, float]:
    """Return the factors, by part of a step, with which the mean error is least; 1 where nothing says otherwise.

    An error is the logarithm of predicted over measured, without its sign, so that twice as long is as far off as half.
    Factors are moved one at a time, and two together, as far as it helps: since errors have corners, moving one alone
    may stick where two would not. It has no chance in it.
    """
    measured_log = np.log(steps.measured_s)

    def off(logs: FloatArray) -> float:
        return float(np.abs(np.log(steps.parts_s @ np.append(np.exp(logs), 1.0)) - measured_log).mean())

    there = np.flatnonzero(steps.parts_s[:, :-1].any(axis=0))
    moves = list(_moves(there.tolist(), len(FACTORS)))
    logs = np.zeros(len(FACTORS))
    least = off(logs) if len(steps.measured_s) else 0.0
    for step in _STEPS:
        moved = True
        while moved:
            moved = False
            for move in moves:
                tried = np.clip(logs + step * move, -_MOST, _MOST)
                found = off(tried)
                if found < least - 1e-12:  # (what only rounding makes better would go on for ever)
                    logs, least, moved = tried, found, True
    return {name: exp(value) for name, value in zip(FACTORS, logs.tolist(), strict=True)}


def _moves(columns: Sequence[int], width: int) -> Iterable[FloatArray]:
    """Yield the directions in which factors are moved: each alone, then each two."""
    unit = np.eye(width)
    for place, one in enumerate(columns):
        yield from (unit[one], -unit[one])
        for other in columns[:place]:
            for sign in (1, -1):
                yield from (unit[one] + sign * unit[other], -unit[one] - sign * unit[other])


def left_out(steps: Steps) -> list[float]:
    """Return the errors of all steps, each with factors that were fitted to the other sources alone."""
    errors = np.zeros(len(steps.measured_s))
    for source in dict.fromkeys(steps.sources):
        own = [one == source for one in steps.sources]
        errors[own] = steps.where(own).errors(fit(steps.where([not one for one in own])))
    return errors.tolist()  # type: ignore[no-any-return]


def what_a_fit_gains(board: Board) -> Fit:
    """Return what a fit to a board's runs would gain."""
    steps = Steps.of(board.predictions)
    factors = fit(steps)
    return Fit(
        factors,
        by_class(steps, steps.errors({}), board),
        by_class(steps, steps.errors(factors), board),
        by_class(steps, left_out(steps), board),
        len(set(steps.sources)),
    )


def by_class(steps: Steps, errors: Sequence[float], board: Board) -> dict[str, Errors]:
    """Return errors of some steps by the classes of a board, and of ``all``."""
    of_class = {name: {one.kind for one in runs} for name, runs in board.classes.items()}
    found = {
        name: Errors.of(error for error, kind in zip(errors, steps.kinds, strict=True) if kind in kinds)
        for name, kinds in of_class.items()
    }
    return {**found, "all": Errors.of(errors)}


def rows(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the runs of some files; those that a constant of the package was set from do not count."""
    constants: Any = read_yaml(PROVENANCE)
    taken = {name for one in constants["constants"] for name in one["runs"]}
    found = [dict(run) for path in files for run in read_rows(path)]
    return [run | {"score": False} if {run.get("source"), run.get("id")} & taken else run for run in found]


def tables(found: Fit) -> list[Table]:
    """Return the factors, and errors by class."""
    factors = [(name, f"{factor:.2f}") for name, factor in found.factors.items()]
    errors = [
        (name, f"{before.rows}", *(_both(one[name]) for one in (found.before, found.fitted, found.left_out)))
        for name, before in found.before.items()
        if before.rows
    ]
    return [
        Table(("part of a step", "factor"), factors, ["part of a step"]),
        Table(("median / p90", "runs", "unfitted", "fitted to", "left out"), errors, ["median / p90"]),
    ]


def _both(errors: Errors) -> str:
    return f"{format_percent(errors.median)} / {format_percent(errors.p90)}"


def main() -> None:
    """Predict, fit, and print what that would gain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUNS.yaml", help="measured runs (docs/howto_score.md)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes on this machine")
    given = parser.parse_args()
    files = given.runs or [path for path in sorted(PUBLISHED.glob("*.yaml")) if path != PROVENANCE]
    board = score(rows(files), workers=given.workers)
    for one in board.predictions:
        if one.unsupported is not None:
            print(one.unsupported, file=sys.stderr)
    found = what_a_fit_gains(board)
    if not found.before["all"].rows:
        raise SystemExit("no run is measured, predicted and counts, so there is nothing to fit to")
    for table in tables(found):
        print(f"{table.text(100)}\n")
    counted = number_of(found.before["all"].rows, "run")
    said = f"{counted} of {number_of(found.sources, 'source')}. {found.verdict} {NOTHING}"
    print("\n".join(wrapped(said, 100)))


if __name__ == "__main__":
    main()
