"""Orders searched for the best cuts of a plan: same stages, ranks, micro-batches and memory, another order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf
from typing import cast

from dualpipe_sim.base.compiled import COMPILES
from dualpipe_sim.base.units import format_percent, format_seconds
from dualpipe_sim.batch.points import Row
from dualpipe_sim.errors import UserError
from dualpipe_sim.plan.judge import Judge
from dualpipe_sim.plan.space import Candidate

_MOVES = 3000 if COMPILES else 60  # of each walk
_ATTEMPTS = 4  # at a limit on activations that fits
_ROUNDING = 1e-6
_LEAST = 0.25  # activations that the next attempt holds less


@dataclass(frozen=True)
class Tried:
    """What came of searching orders for a cut.

    Attributes:
        schedule: the fastest registered schedule on that cut, with its options.
        step_time_s: seconds of its step.
        searched: the fastest order found that fits, as ``searched`` with its options; None where none does.
        searched_step_time_s: seconds of its step.
        remark: why there is none.

    """

    schedule: str
    step_time_s: float
    searched: str | None = None
    searched_step_time_s: float | None = None
    remark: str = ""

    @property
    def faster(self) -> bool:
        """Whether the order found is faster."""
        return self.searched_step_time_s is not None and self.searched_step_time_s < self.step_time_s * (1 - _ROUNDING)

    def told(self) -> str:
        """Return it in a sentence."""
        if self.searched_step_time_s is None:
            return f"{self.schedule}: {self.remark}"
        change = self.searched_step_time_s / self.step_time_s - 1
        how = f"takes {format_percent(abs(change))} {'less' if change < 0 else 'more'}"
        if abs(change) <= _ROUNDING:
            how = "takes as long"
        return f"{self.schedule}, {format_seconds(self.step_time_s)}: {self.searched} {how}"


def cuts_of(ranked: Sequence[Candidate], judge: Judge, most: int) -> list[Candidate]:
    """Return the best candidate of each of the first few cuts: those that differ in more than the order."""
    best: dict[object, Candidate] = {}
    for candidate in ranked:
        if len(best) == most:
            break
        if candidate.ranks > 1 and candidate.schedule != "searched":
            best.setdefault((candidate.setting, _depth(candidate, judge)), candidate)
    return list(best.values())


def search_orders(
    best: Candidate,
    judge: Judge,
    run: Callable[[list[Candidate]], list[Row]],
    gpu_bytes: int,
    held: float,
    micro_batches: int,
) -> tuple[Candidate | None, Row | None, str]:
    """Return the fastest order for a cut that fits, as a candidate with its row; or why there is none.

    Stages in even numbers go round and round or there and back; backwards are split or whole. At most so many
    activations are held as fit beside the state, or as the cut's best schedule holds, and fewer where a run says that
    these need more than a GPU has.

    Args:
        best: a candidate of the cut.
        judge: what is known without running.
        run: returns the rows of candidates.
        gpu_bytes: memory of a GPU.
        held: most activations that a rank holds with the candidate's own order.
        micro_batches: of a step, more than which are never held.

    """
    depth = _depth(best, judge)
    shapes = ("loop", "v") if depth % 2 == 0 else ("loop",)
    todo = [(shape, split, inf) for shape in shapes for split in (True, False)]
    found: list[tuple[float, Candidate, Row]] = []
    remark = "no searched order fits"
    for _ in range(_ATTEMPTS):
        asked = []
        for shape, split, most in todo:
            options: dict[str, object] = {"stages_per_rank": depth, "shape": shape, "split": split}
            candidate = replace(best, schedule="searched", options=options)
            try:
                room, one_bytes = judge.room(candidate)
            except UserError as error:
                return None, None, str(error)
            limit = ceil(100 * min(max(room, held), micro_batches, most) - _ROUNDING) / 100
            if limit >= 1:
                options |= {"activations": limit, "moves": _MOVES}
                asked.append((candidate, one_bytes))
        todo = []
        for (candidate, one_bytes), row in zip(asked, run([candidate for candidate, _ in asked]), strict=True):
            limit = cast("float", candidate.options["activations"])
            if row.get("error") is not None:
                remark = str(row["error"])
            elif cast("int", row["peak_memory_bytes"]) <= gpu_bytes:
                found.append((cast("float", row["step_time_s"]), candidate, row))
            else:
                excess = (cast("int", row["peak_memory_bytes"]) - gpu_bytes) / one_bytes
                less = limit - max(excess, _LEAST)
                todo.append((str(candidate.options["shape"]), bool(candidate.options["split"]), less))
    if not found:
        return None, None, remark
    _, candidate, row = min(found, key=lambda one: one[0])
    return candidate, row, ""


def _depth(candidate: Candidate, judge: Judge) -> int:
    """Return how many stages of a pipe a rank has."""
    return len(judge.placement(candidate).pipes[0]) // candidate.ranks
