"""Predict every pair of layers that ``run_sharing.py`` ran from its phases alone, and fill the tables of a page.

    python validation/predict_sharing.py

A pair's phases are put into the order of an overlapped pair, and played as ``overlap: {sharing: none}`` is: compute
takes its time alone over the share of SMs that channels leave while an all-to-all runs, which starts when a kernel ends
and then takes ``alltoall_beside`` times its time alone. Compute's times alone are those of each phase over and over,
those of the pair's compute without all-to-alls, or the latter at the pair's clock, since GPUs at their power limit run
slower the longer they run: all longer by as much as ``mlp F`` was, beside which there is no all-to-all. That the host
comes to the first kernel later than to the first all-to-all is taken as it was.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal, TypeAlias, get_args

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.costs.op_phases import LayerBackward, LayerForward, slot_phases
from dualpipe_sim.costs.parts import Overlap, Part
from dualpipe_sim.costs.phases import Phase
from dualpipe_sim.engine.play import play
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.order.ops import F, Kind, TaskShape
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.schedules.registry import build

RESULTS = Path(__file__).resolve().parent / "results" / "sharing.json"
PAGE = RESULTS.parent.parent.parent / "docs" / "validation_sharing.md"

SMS = 132
USUAL_CHANNELS = 32
"""What NCCL takes of its own accord: an all-to-all of as many channels is as fast, one of fewer is slower."""

KERNELS = {"attn": 4, "mlp": 3}
"""GEMMs of a phase, as ``run_sharing.py`` issues them."""

EXCHANGES = ("combine I", "dispatch F", "dispatch I", "combine F")

Base: TypeAlias = Literal["over and over", "its compute", "its compute at its clock"]
BASES: tuple[Base, ...] = get_args(Base)
"""What a pair is predicted from."""


@dataclass(frozen=True)
class Pair:
    """Costs of an op that is a pair: what the host does before its first kernel, then the pair."""

    pair: tuple[Phase, ...]
    transfer_s: float | None = 0.0
    transfer_bytes: float = 0.0

    def on(self, placement: Placement) -> Pair:  # noqa: ARG002 - the same at every stage
        """Return the costs of a stage."""
        return self

    def phases(self, task: TaskShape) -> tuple[Phase, ...]:
        """Return the pair for a forward; a backward takes no time."""
        return self.pair if task[0][0] == F else (Phase(Lane.COMPUTE, 0.0, task[0][0]),)


def middle(row: dict[str, Any], runs: str) -> dict[str, tuple[float, float]]:
    """Return when each phase began and ended, in the middle of all runs of a pair."""
    spans: dict[str, list[tuple[float, float]]] = {}
    for run in row[runs]:
        for name, start_s, end_s in run:
            spans.setdefault(name, []).append((start_s, end_s))
    return {name: (median(one for one, _ in both), median(end for _, end in both)) for name, both in spans.items()}


def alone_s(row: dict[str, Any], base: Base) -> dict[str, float]:
    """Return the seconds of each phase alone."""
    alone = {name: median(seconds) for name, seconds in row["alone_s"].items()}
    if base == "over and over":
        return alone
    compute = {name: end_s - start_s for name, (start_s, end_s) in middle(row, "compute_only").items()}
    slower = 1.0 if base == "its compute" else lasts_s(middle(row, "phases")["mlp F"]) / compute["mlp F"]
    return alone | {name: seconds * slower for name, seconds in compute.items()}


def predicted(row: dict[str, Any], base: Base) -> dict[str, tuple[float, float]]:
    """Return when each phase of a pair begins and ends by the model."""
    sms = SMS - (row["channels"] or USUAL_CHANNELS)
    alone = alone_s(row, base)

    def part(name: str) -> Part:
        block, work = name.split()
        if name in EXCHANGES:
            beside_s = alone[name] * Overlap().alltoall_beside
            return Part(Lane.ALLTOALL, block, Kind[work], alone[name], beside_s)
        return Part(Lane.COMPUTE, block, Kind[work], alone[name], alone[name] * SMS / sms, kernels=KERNELS[block])

    forward = LayerForward(*map(part, ("attn F", "dispatch F", "mlp F", "combine F")))
    backward = LayerBackward(*map(part, ("combine I", "mlp I", "mlp W", "dispatch I", "attn I", "attn W")))
    slot = slot_phases(forward, backward, on_demand=True)
    ran = middle(row, "phases")
    late_s = ran["attn F"][0] - ran["combine I"][0]
    late = Phase(Lane.COMPUTE, late_s, F, "host")
    shifted = [phase._replace(half=0, after=tuple(place + 1 for place in phase.after)) for phase in slot]
    timeline = play(lower(build("gpipe", 1, 1), Pair((late, *shifted))))
    names = [f"{phase.name} {Kind(phase.kind)}" for phase in slot]
    starts, ends = (seconds[1 : len(slot) + 1].tolist() for seconds in (timeline.start_s, timeline.end_s))
    return dict(zip(names, zip(starts, ends, strict=True), strict=True))


def lasts_s(*spans: tuple[float, float]) -> float:
    """Return the time from the first start to the last end."""
    return max(end_s for _, end_s in spans) - min(start_s for start_s, _ in spans)


def pair_table(rows: list[dict[str, Any]]) -> str:
    """Return the pairs' lengths, measured and predicted."""
    head = ("layer", "channels", "measured, ms", *(f"from {base}" for base in BASES))
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for row in rows:
        measured_s = lasts_s(*middle(row, "phases").values())
        said = [lasts_s(*predicted(row, base).values()) for base in BASES]
        errors = [f"{1e3 * one:.2f} ({one / measured_s - 1:+.1%})".replace("%", " %") for one in said]
        lines.append(f"| {row['layer']} | {channels_of(row)} | {1e3 * measured_s:.2f} | {' | '.join(errors)} |")
    return "\n".join(lines)


def channels_of(row: dict[str, Any]) -> str:
    """Return the channels of a row's communicator."""
    return str(row["channels"] or "NCCL's own")


def exchange_table(rows: list[dict[str, Any]]) -> str:
    """Return how long each all-to-all of a pair takes, measured and predicted."""
    lines = ["| layer | channels | all-to-all | alone | in the pair | predicted |", "| --- " * 6 + "|"]
    for row in rows:
        ran, said = middle(row, "phases"), predicted(row, "its compute at its clock")
        for name in EXCHANGES:
            own_s = median(row["alone_s"][name])
            times = (f"{1e3 * one:.2f}, × {one / own_s:.1f}" for one in (lasts_s(ran[name]), lasts_s(said[name])))
            lines.append(f"| {row['layer']} | {channels_of(row)} | {name} | {1e3 * own_s:.2f} | {' | '.join(times)} |")
    return "\n".join(lines)


def beside_table(rows: list[dict[str, Any]]) -> str:
    """Return what a GEMM and an all-to-all take beside each other, over and over."""
    head = ("channels", "GEMM", "alone, ms", "beside", "all-to-all alone, ms", "beside")
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for row in rows:
        gemm, exchange = median(row["gemm_alone_s"]), median(row["alltoall_alone_s"])
        both = (median(row[f"{name}_beside"]["s"]) for name in ("gemm", "alltoall"))
        ratios = [f"× {one / own:.2f}" for one, own in zip(both, (gemm, exchange), strict=True)]
        shape = " × ".join(f"{size:,}" for size in row["gemm"])
        cells = (channels_of(row), shape, f"{1e3 * gemm:.2f}", ratios[0], f"{1e3 * exchange:.2f}")
        lines.append(f"| {' | '.join(cells)} | {ratios[1]} |")
    return "\n".join(lines)


def size_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table of all-to-alls by size."""
    yield "| bytes a GPU hands in | µs | GB/s to the other GPU |"
    yield "| --- | --- | --- |"
    for row in rows:
        seconds = median(row["s"])
        yield f"| {row['bytes']:,} | {1e6 * seconds:.0f} | {row['bytes'] / 2 / seconds / 1e9:.1f} |"


def filled(page: str, found: dict[str, Any]) -> str:
    """Return the page with each table between its marks renewed."""
    tables = {
        "pairs": pair_table(found["pairs"]),
        "exchanges": exchange_table(found["pairs"]),
        "beside": beside_table(found["beside"]),
        "sizes": "\n".join(size_table(found["alltoall"])),
    }
    for name, table in tables.items():
        marks = re.compile(rf"(<!-- {name} -->\n\n).*?(\n\n<!-- end -->)", re.DOTALL)
        page = marks.sub(lambda found, table=table: found[1] + table + found[2], page)
    return page


def main() -> None:
    """Fill the page's tables between their marks."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
