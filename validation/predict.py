"""Predict each measured run from another one; write ``results/predicted.json`` and the tables of the docs.

    python validation/predict.py

A run is predicted from the one of the same schedule and layers with another number of micro-batches, by what
``dualpipe-sim calibrate`` makes of it. Nothing is fitted: ``async`` and ``rendezvous`` play the same costs. Peak memory
adds up what each kind of op kept and freed in that other run, in the predicted run's order.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections import defaultdict
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dualpipe_sim.analysis import metrics
from dualpipe_sim.calibration import calibrate
from dualpipe_sim.costs.measured import MeasuredCosts, OpTime
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import Kind
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import build
from dualpipe_sim.simulation import play

RESULTS = Path(__file__).resolve().parent / "results"
PAGE = RESULTS.parent.parent / "docs" / "validation_runs.md"
WAYS = ("async", "rendezvous")
_MICRO_BATCH = re.compile(r"(\d+[FBIW])\d+")


class Run(NamedTuple):
    """A measured run: its summary and where its timeline is."""

    about: dict[str, Any]
    timeline: Path

    @property
    def schedule(self) -> Schedule:
        """Its order."""
        about = self.about
        return build(about["schedule"], about["ranks"], about["micro_batches"], **about.get("options", {}))

    @property
    def same(self) -> tuple[str, ...]:
        """What it shares with runs that only have other micro-batches."""
        return tuple(json.dumps(self.about.get(key)) for key in ("schedule", "options", "layers", "block", "width"))


def read_runs(folder: Path) -> list[Run]:
    """Return the runs in a folder, by name."""
    return [
        Run(json.loads(path.read_text(encoding="utf-8")), path.with_suffix(".csv"))
        for path in sorted(folder.glob("*.json"))
    ]


def source_of(run: Run, runs: list[Run]) -> Run | None:
    """Return the run that another is predicted from: as many micro-batches as possible, but not as many."""
    others = [one for one in runs if one.same == run.same and one is not run]
    return max(others, key=lambda one: int(one.about["micro_batches"]), default=None)


def costs_of(run: Run) -> MeasuredCosts:
    """Return what a run's ops and transfers took; its warm-up was left out when it was recorded."""
    measured = calibrate([run.timeline], warm_up=0, pipes=len(run.schedule.placement.pipes))
    stages = len(run.schedule.placement.pipes[0])
    return MeasuredCosts(
        source=run.about["name"],
        stages=stages,
        pipes=measured.pipes,
        ops={
            (Kind[kind], stage): OpTime(timed.time.median_s, timed.launch_s)
            for stage, kinds in measured.ops.items()
            for kind, timed in kinds.items()
        },
        pairs={key: OpTime(timed.time.median_s, timed.launch_s) for key, timed in measured.pairs.items()},
        transfer_s=measured.transfer.median_s if measured.transfer else 0.0,
    )


def read_memory(run: Run) -> list[list[tuple[str, int, int]]]:
    """Return (what ran, bytes before it, most bytes while it ran) of each rank, in order."""
    ranks: list[list[tuple[str, int, int]]] = [[] for _ in range(run.about["ranks"])]
    with run.timeline.with_suffix(".memory.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            what = "".join(_MICRO_BATCH.sub(r"\1", row["task"]))
            ranks[int(row["rank"])].append((what, int(row["before_bytes"]), int(row["peak_bytes"])))
    return ranks


def predicted_activation_bytes(run: Run, source: Run) -> list[float]:
    """Return each rank's most bytes over what it holds at rest, from what ops added in another run."""
    peaks = []
    for mine, other in zip(read_memory(run), read_memory(source), strict=True):
        added, within = defaultdict(list), defaultdict(list)
        for (what, before, most), (_, later, _) in pairwise(other):
            added[what].append(later - before)
            within[what].append(most - before)
        now, peak = 0.0, 0.0
        for what, _, _ in mine:
            peak = max(peak, now + float(np.mean(within[what] or 0.0)))
            now += float(np.mean(added[what] or 0.0))
        peaks.append(peak)
    return peaks


def activation_bytes(run: Run) -> list[int]:
    """Return each rank's most bytes over what it holds at rest, as measured."""
    return [peak - rest for peak, rest in zip(run.about["peak_bytes"], run.about["at_rest_bytes"], strict=True)]


def measured_idle_s(run: Run) -> list[float]:
    """Return each rank's idle seconds in a step: the median over steps."""
    steps = [defaultdict(list) for _ in run.about["step_s"]]
    seen: defaultdict[tuple[str, str], int] = defaultdict(int)
    with run.timeline.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["lane"] == "compute":
                key = row["rank"], row["task"]
                steps[seen[key]][int(row["rank"])].append(float(row["end_s"]) - float(row["start_s"]))
                seen[key] += 1
    idle = [
        [length_s - sum(step[rank]) for rank in sorted(step)]
        for step, length_s in zip(steps, run.about["step_s"], strict=True)
    ]
    return [float(value) for value in np.median(idle, axis=0)]


def replayed_s(run: Run, costs: MeasuredCosts) -> dict[str, float]:
    """Return the errors of a run's first step, played with every op's and transfer's own measured length, each way.

    What is left is the mechanism's error alone: who waits for whom.
    """
    lengths_s: dict[str, float] = {}
    with run.timeline.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            lengths_s.setdefault(row["task"], float(row["end_s"]) - float(row["start_s"]))
    errors = {}
    for way in WAYS:
        graph = lower(run.schedule, costs, rendezvous=way == "rendezvous")
        own_s = np.zeros(graph.nodes)  # an op's first phase is its launch, which a measured length leaves out
        last_phase = np.append(graph.first_phase_of_task[1:], graph.first_transfer) - 1
        own_s[last_phase] = [lengths_s[str(graph.schedule.task(task))] for task in range(len(last_phase))]
        own_s[graph.first_transfer :] = [lengths_s[graph.send_label(number)] for number in range(len(graph.transfers))]
        errors[way] = play(replace(graph, duration_s=own_s)).makespan_s / run.about["step_s"][0] - 1
    return errors


def predicted(run: Run, source: Run) -> dict[str, Any]:
    """Return a run's numbers beside what another one's costs say."""
    costs = costs_of(source)
    schedule = run.schedule
    steps = np.array(run.about["step_s"])
    timelines: dict[str, Timeline] = {way: play(lower(schedule, costs, rendezvous=way == "rendezvous")) for way in WAYS}
    return {
        "name": run.about["name"],
        "costs_from": source.about["name"],
        "measured_s": float(np.median(steps)),
        "least_s": float(steps.min()),
        "most_s": float(steps.max()),
        "transfer_s": costs.transfer_s,
        "idle_s": measured_idle_s(run),
        **{f"{way}_s": timeline.makespan_s for way, timeline in timelines.items()},
        **{f"{way}_idle_s": metrics.idle_s(timeline).tolist() for way, timeline in timelines.items()},
        "replayed_error": replayed_s(run, costs),
        "activation_bytes": activation_bytes(run),
        "predicted_activation_bytes": predicted_activation_bytes(run, source),
        "peak_in_flight": metrics.peak_in_flight_by_rank(timelines["async"]).tolist(),
    }


def predict_all() -> dict[str, list[dict[str, Any]]]:
    """Return the predictions of all folders of runs, each from its folder or that of the dense runs."""
    runs = {folder.name: read_runs(folder) for folder in sorted(RESULTS.iterdir()) if folder.is_dir()}
    everything: dict[str, list[dict[str, Any]]] = {}
    for name, own in runs.items():
        pairs = [(run, source_of(run, own if name != "memory" else runs["dense"])) for run in own]
        everything[name] = [predicted(run, source) for run, source in pairs if source is not None]
    return everything


def time_table(rows: list[dict[str, Any]]) -> str:
    """Return a folder's runs as a Markdown table: times in ms, errors of both ways, idle time by rank."""
    head = ("run", "step (least–most), ms", "costs from", *WAYS, *(f"{way}, replayed" for way in WAYS))
    head = (*head, "idle by rank, ms", *(f"{way} idle" for way in WAYS), "in flight")
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for row in rows:
        step_s = row["measured_s"]
        errors = [row[f"{way}_s"] / step_s - 1 for way in WAYS] + [row["replayed_error"][way] for way in WAYS]
        idle = [row[key] for key in ("idle_s", *(f"{way}_idle_s" for way in WAYS))]
        cells = [
            row["name"],
            f"{1e3 * step_s:.1f} ({1e3 * row['least_s']:.1f}–{1e3 * row['most_s']:.1f})",
            row["costs_from"],
            *(f"{100 * error:+.1f} %" for error in errors[:2]),
            *(f"{100 * error:+.2f} %" for error in errors[2:]),
            *(", ".join(f"{1e3 * idle_s:.0f}" for idle_s in ranks) for ranks in idle),
            ", ".join(map(str, row["peak_in_flight"])),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def memory_table(rows: list[dict[str, Any]]) -> str:
    """Return a folder's runs as a Markdown table: peak activations by rank in GiB."""
    lines = ["| run | measured, GiB by rank | predicted | worst error |", "| --- | --- | --- | --- |"]
    for row in rows:
        both = row["activation_bytes"], row["predicted_activation_bytes"]
        worst = max((said / was - 1 for was, said in zip(*both, strict=True)), key=abs)
        gib = [", ".join(f"{value / 2**30:.2f}" for value in values) for values in both]
        lines.append(f"| {row['name']} | {gib[0]} | {gib[1]} | {100 * worst:+.1f} % |")
    return "\n".join(lines)


def order_of_schedules(rows: list[dict[str, Any]]) -> tuple[int, dict[str, int]]:
    """Return how many pairs of schedules at one size there are, and how many each way puts the wrong way round."""
    sizes = defaultdict(list)
    for row in rows:
        sizes[row["name"].split("-m")[-1]].append(row)
    pairs = [pair for group in sizes.values() for pair in combinations(group, 2)]
    wrong = {
        way: sum((a["measured_s"] < b["measured_s"]) != (a[f"{way}_s"] < b[f"{way}_s"]) for a, b in pairs)
        for way in WAYS
    }
    return len(pairs), wrong


def main() -> None:
    """Write the predictions, and fill the page's tables between their marks."""
    everything = predict_all()
    (RESULTS / "predicted.json").write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(filled(page, everything), encoding="utf-8")


def filled(page: str, everything: dict[str, list[dict[str, Any]]]) -> str:
    """Return the page with each table between its marks renewed."""
    for name, rows in everything.items():
        for kind, table in (("times", time_table(rows)), ("memory", memory_table(rows))):
            marks = re.compile(rf"(<!-- {name} {kind} -->\n\n).*?(\n\n<!-- end -->)", re.DOTALL)
            page = marks.sub(lambda found, table=table: found[1] + table + found[2], page)
    return page


if __name__ == "__main__":
    main()
