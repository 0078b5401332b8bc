"""What a plan found: the ranking, why the others are not in it, and what is known of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, cast

from dualpipe_sim.base.plain_data import data_frame, plain_data
from dualpipe_sim.base.show import Table, Tabular, line
from dualpipe_sim.base.units import format_number, format_percent, format_seconds, in_gb, number_of
from dualpipe_sim.batch.points import Row
from dualpipe_sim.errors import UserError
from dualpipe_sim.experiment import Experiment
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.model.recipe import Recompute
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.plan.run import RunCandidate
from dualpipe_sim.plan.searched import Tried
from dualpipe_sim.plan.space import Candidate

if TYPE_CHECKING:
    from dualpipe_sim.base.plain_data import DataFrame


@dataclass(frozen=True, eq=False)
class Plan(Tabular):
    """The outcome of a search.

    >>> from dualpipe_sim.plan import plan
    >>> found = plan("plan_deepseek_v2_lite", settings=["plan={schedules: [1f1b, dualpipe], ranks: [2, 4]}"], confirm=0)
    >>> [(row["schedule"], row["ranks"]) for row in found.ranked], found.reasons
    ([('dualpipe', 4), ('1f1b', 2), ('1f1b', 4)], {'state': 1})

    Attributes:
        experiment: what it started from.
        candidates: all candidates.
        rows: what is known of each, in their order: its fields, ``reason`` and ``detail`` of why it is ruled out, the
            least its step can take (``bound_s``) and that of any order on its placement (``any_order_s``), and, where
            it was run, the keys of a run.
        ranking: places of the best ones; first those confirmed with contention, the fastest first.
        leanest: where none fits, the place of the one that needs the least memory.
        gpus: GPUs.
        gpu_bytes: memory of a GPU.
        searched: what came of the orders that were searched, by cut.
        interrupted: whether that was told to end before it was through.

    """

    experiment: Experiment
    candidates: tuple[Candidate, ...]
    rows: tuple[Row, ...]
    ranking: tuple[int, ...]
    leanest: int | None
    gpus: int
    gpu_bytes: int
    searched: tuple[Tried, ...] = ()
    interrupted: bool = False

    @property
    def ranked(self) -> list[Row]:
        """The rows of the ranking, the best first."""
        return [self.rows[place] for place in self.ranking]

    @property
    def fitting(self) -> list[Row]:
        """The rows of all that were run and fit."""
        return [row for row in self.rows if row["step_time_s"] is not None and row["reason"] is None]

    @property
    def reasons(self) -> dict[str, int]:
        """How many are ruled out, by reason, the most frequent first."""
        return dict(Counter(str(row["reason"]) for row in self.rows if row["reason"] is not None).most_common())

    @property
    def runs(self) -> int:
        """How many candidates were run."""
        return sum(row["step_time_s"] is not None for row in self.rows)

    @property
    def certain(self) -> bool:
        """Whether no other candidate can be faster with contention than the first one is."""
        if not self.ranking or self.ranked[0]["confirmed_step_time_s"] is None:
            return False
        best_s = cast("float", self.ranked[0]["confirmed_step_time_s"])
        others = [row for row in self.rows if row["confirmed_step_time_s"] is None and row["reason"] in _MAY_BE_FASTER]
        return all(cast("float", row["step_time_s"] or row["bound_s"]) >= best_s for row in others)

    def closest(self) -> str:
        """Return in a sentence what the least memory is that any candidate needs, and which one that is."""
        if self.leanest is None:
            return ""
        row, candidate = self.rows[self.leanest], self.candidates[self.leanest]
        needs = cast("float", row["peak_memory_bytes"])
        return (
            f"nothing fits: the least that any candidate needs is {in_gb(needs, '')} GB on rank {row['fullest_rank']}, "
            f"{in_gb(needs - self.gpu_bytes, '')} GB more than a GPU has; closest is {describe(candidate)}"
        )

    def order(self) -> Schedule:
        """Return the order of the first.

        Raises:
            UserError: nothing fits.

        """
        if not self.ranking:
            raise UserError("there is no order: nothing fits")
        result = RunCandidate(self.experiment).result(self.candidates[self.ranking[0]])
        return cast("Timeline", result.timeline).graph.schedule

    def searches(self) -> list[str]:
        """Return in sentences what searching orders brought."""
        said = [f"searched: {one.told()}" for one in self.searched]
        if self.searched and not any(one.faster for one in self.searched):
            said.append("no searched order is faster than the schedules on its cut")
        if self.interrupted:
            said.append("interrupted while orders were searched: none is confirmed")
        return said

    def confirmation(self) -> str:
        """Return in a sentence what is known of the ranking with links shared."""
        confirmed = sum(row["confirmed_step_time_s"] is not None for row in self.ranked)
        if not confirmed:
            return "none is confirmed with links shared"
        surely = "surely the fastest" if self.certain else "another may be faster"
        return f"{confirmed} confirmed with links shared (*), where the first is {surely} of all candidates"

    def to_table(self) -> Table:
        """Return the ranking, and below it why the others are not in it, as the table that a plan shows itself as.

        What all in the ranking have in common stands above it.
        """
        shared, rows = self._ranking_in_words() if self.ranking else ("", [])
        title = number_of(self.gpus, "GPU") + (f"; all: {shared}" if shared else "")
        headings = ("", "plan", *HEADINGS) if rows else ()
        found = self.confirmation() if rows else self.closest()
        counts = [f"{count:>7} {reason}: {REASONS[reason]}" for reason, count in self.reasons.items()]
        notes = [
            found,
            *self.searches(),
            f"{number_of(len(self.rows), 'candidate')}, {self.runs} run; ruled out:",
            *counts,
        ]
        return Table(headings, [[f"{place}", *row] for place, row in enumerate(rows, 1)], ("plan",), title, notes)

    def __repr__(self) -> str:
        first = f"first: {describe(self.candidates[self.ranking[0]])}" if self.ranking else "nothing fits"
        return line(
            self,
            f"of {number_of(self.gpus, 'GPU')}",
            number_of(len(self.rows), "candidate"),
            f"{self.runs:,} run",
            first,
        )

    def _ranking_in_words(self) -> tuple[str, list[list[str]]]:
        said = [dict(_words(self.candidates[place])) for place in self.ranking]
        shared = [key for key in said[0] if len({one[key] for one in said}) == 1 and len(said) > 1]
        rest = [key for key in said[0] if key not in shared]
        rows = [
            [", ".join(one[key] for key in rest), *_numbers(row)] for one, row in zip(said, self.ranked, strict=True)
        ]
        return _joined(said[0][key] for key in shared), rows

    def to_dict(self) -> dict[str, object]:
        """Return the ranking, the reasons and, where none fits, the closest, ready for JSON."""
        return {
            "gpus": self.gpus,
            "candidates": len(self.candidates),
            "runs": self.runs,
            "certain": self.certain,
            "ruled_out": self.reasons,
            "ranking": plain_data(self.ranked),
            "closest": None if self.leanest is None else plain_data(self.rows[self.leanest]),
            **({"searched": plain_data([asdict(one) for one in self.searched])} if self.searched else {}),
        }

    def to_pandas(self) -> DataFrame:
        """Return all candidates' rows as a pandas DataFrame: first the ranking, the best first, then the others.

        Raises:
            UserError: pandas is not installed.

        """
        others = [row for place, row in enumerate(self.rows) if place not in self.ranking]
        return data_frame([*self.ranked, *others], self.rows[0])


_MAY_BE_FASTER = (None, "work", "bound")


HEADINGS = ("step", "gap", "tok/s/GPU", "MFU", "bubble", "exposed", "GB")
"""What a plan's table shows of each: the step, where it is confirmed the confirmed one, marked by ``*``; at most how
much faster any order on its placement could be; tokens a second and GPU, model FLOPs over the BF16 peak and the bubble
ratio; seconds of exposed communication, mean over ranks; the fullest rank's peak memory."""

REASONS = {
    "sizes": "cannot be at these sizes",
    "same": "the same layers on each stage as with another layout",
    "state": "weights, gradients and optimizer states alone do not fit",
    "activations": "does not fit with what its order surely holds",
    "work": "its busiest rank's work alone takes longer than those ranked",
    "bound": "its step surely takes longer than those ranked",
    "memory": "was run and does not fit",
    "failed": "was run and failed",
}


def describe(candidate: Candidate) -> str:
    """Return a candidate in a line: schedule, ranks, what is shared out, layout, micro-batch and recipe."""
    return _joined(text for _, text in _words(candidate))


def _joined(words: Iterable[str]) -> str:
    """Return words without those that say that nothing is shared out."""
    return ", ".join(word for word in words if word not in ("TP 1", "CP 1", "EP 1"))


def gap(row: Row) -> float:
    """Return at most which share of the step of a row any order on its placement could save."""
    return max(0.0, 1 - cast("float", row["any_order_s"]) / cast("float", row["step_time_s"]))


def _words(candidate: Candidate) -> list[tuple[str, str]]:
    layout = candidate.layout
    return [
        ("schedule", candidate.label),
        ("ranks", number_of(candidate.ranks, "rank")),
        ("tensor", f"TP {candidate.tensor}"),
        ("context", f"CP {candidate.context}"),
        ("expert", f"EP {candidate.expert}"),
        ("layout", layout if isinstance(layout, str) else "-".join(map(str, layout))),
        ("size", f"micro-batch {candidate.micro_batch_size}"),
        ("precision", candidate.precision),
        ("recompute", f"{_recomputed(candidate)} recomputed"),
        ("sms", f"{candidate.communication_sms} SMs"),
    ]


def _recomputed(candidate: Candidate) -> str:
    recompute = Recompute.of(candidate.recompute)
    words = {Recompute(): "small parts", Recompute(full=True): "whole layers"}
    return words.get(recompute) or "+".join(recompute.names) or "nothing"


def _numbers(row: Row) -> list[str]:
    confirmed = row["confirmed_step_time_s"]
    return [
        format_seconds(row["step_time_s"]) if confirmed is None else f"{format_seconds(confirmed)}*",
        format_percent(gap(row)),
        format_number(row["tokens_per_second_per_gpu"]),
        format_percent(row["mfu"]),
        format_percent(row["bubble_ratio"]),
        format_seconds(row["exposed_s"], 3),
        in_gb(cast("float", row["peak_memory_bytes"]), ""),
    ]
