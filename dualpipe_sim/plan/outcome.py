"""What a plan found: the ranking, why the others are not in it, and what is known of each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import cast

from dualpipe_sim.experiment import Experiment
from dualpipe_sim.plan.space import Candidate
from dualpipe_sim.sweep.runner import Row


@dataclass(frozen=True, eq=False)
class Plan:
    """The outcome of a search.

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

    """

    experiment: Experiment
    candidates: tuple[Candidate, ...]
    rows: tuple[Row, ...]
    ranking: tuple[int, ...]
    leanest: int | None
    gpus: int
    gpu_bytes: int

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
            f"nothing fits: the least that any candidate needs is {needs / 1e9:.1f} GB on rank {row['fullest_rank']}, "
            f"{(needs - self.gpu_bytes) / 1e9:.1f} GB more than a GPU has; closest is {describe(candidate)}"
        )

    def to_dict(self) -> dict[str, object]:
        """Return the ranking, the reasons and, where none fits, the closest, ready for JSON."""
        return {
            "gpus": self.gpus,
            "candidates": len(self.candidates),
            "runs": self.runs,
            "certain": self.certain,
            "ruled_out": self.reasons,
            "ranking": self.ranked,
            "closest": None if self.leanest is None else self.rows[self.leanest],
        }


_MAY_BE_FASTER = (None, "work", "bound")


def describe(candidate: Candidate) -> str:
    """Return a candidate in a line: schedule, ranks, expert parallelism, layout, micro-batch and recipe."""
    recomputed = "+".join(candidate.recompute) or "nothing"
    return (
        f"{candidate.label} on {candidate.ranks} ranks, EP {candidate.expert}, {layout_text(candidate)} layout, "
        f"micro-batch of {candidate.micro_batch_size}, {candidate.precision}, {recomputed} recomputed, "
        f"{candidate.communication_sms} SMs"
    )


def layout_text(candidate: Candidate) -> str:
    """Return a layout in short."""
    layout = candidate.layout
    return layout if isinstance(layout, str) else "-".join(map(str, layout))
