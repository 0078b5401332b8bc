"""Predict every recorded run of torch's own runtime from each other one of its model, and fill the page's tables.

    python validation/predict_torch.py

A run is calibrated alone (``calibrate --runtime torch``), and its costs predict all runs of its model whose ops it
holds: itself, the same schedule at the other size, and other schedules. Nothing else is fitted. The same runs are
predicted once more with no recording at all, from the model's shapes and the GPU. Writes
``validation/torch_runs/predicted.json`` and the tables of ``docs/validation_torch.md``.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, permutations
from math import log
from pathlib import Path
from statistics import mean, median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dualpipe_sim import simulate
from dualpipe_sim.calibration import calibrate, write_costs
from dualpipe_sim.errors import ScheduleError

FOLDER = Path(__file__).resolve().parent / "torch_runs"
PAGE = FOLDER.parent.parent / "docs" / "validation_torch.md"
TORCH = {"name": "torch", "version": "2.11"}
CLOSE = 0.01
"""Times that differ by less than this are as good as the same: such runs are not put in an order."""


@dataclass(frozen=True)
class Run:
    """A recorded run."""

    name: str
    about: dict[str, Any]

    @property
    def model(self) -> str:
        """Return the model's name."""
        return str(self.about["model"])

    @property
    def measured_s(self) -> float:
        """Return the step in the middle."""
        return float(median(self.about["step_s"]))

    @property
    def peak_bytes(self) -> list[int]:
        """Return each rank's most bytes over what it held before the step."""
        return [peak - rest for peak, rest in zip(self.about["peak_bytes"], self.about["at_rest_bytes"], strict=True)]

    @property
    def setting(self) -> dict[str, Any]:
        """Return the configuration without costs."""
        return {
            "pipeline": {"ranks": 2, "micro_batches": self.about["micro_batches"], "runtime": TORCH},
            "schedule": {"name": self.about["schedule"], **self.about.get("options", {})},
        }

    @property
    def from_shapes(self) -> dict[str, Any]:
        """Return the configuration of the same run that knows only the model, the GPU and the software."""
        sizes = self.about["sizes"]
        head = sizes["hidden"] // sizes["heads"]
        return {
            "model": {
                "name": self.model,
                "layers": sizes["layers"],
                "hidden": sizes["hidden"],
                "vocabulary": sizes["vocabulary"],
                "activation": "swiglu",
                "ffn": sizes["ffn"],
                "attention": {
                    "heads": sizes["heads"],
                    "kv_heads": sizes["kv_heads"],
                    "qk_head": head,
                    "v_head": head,
                },
            },
            "gpu": "h100",
            "stack": "torch-eager",
            "parallel": {"pipeline": 2, "data": 1},
            "training": {
                "sequence_length": sizes["tokens"],
                "micro_batch_size": 1,
                "global_batch": self.about["micro_batches"],
                "precision": "bf16",
                "recompute": "none",
            },
            "pipeline": {"runtime": TORCH, "layout": "even"},
            "schedule": self.setting["schedule"],
        }


def read_runs(model: str | None = None) -> list[Run]:
    """Return the recorded runs, or those of one model."""
    paths = sorted(path for path in FOLDER.glob("*-m*.json"))
    runs = [Run(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in paths]
    return [run for run in runs if model in (None, run.model)]


def predictions(runs: list[Run], sources: list[Run] | None = None) -> Iterator[dict[str, Any]]:
    """Yield what each source's costs say of each run of its model that has no other ops than they."""
    with tempfile.TemporaryDirectory() as folder:
        for source in runs if sources is None else sources:
            costs = costs_of(source, Path(folder) / "costs.yaml")
            for run in runs:
                if run.model != source.model:
                    continue
                try:
                    result = simulate(run.setting | {"costs": costs})
                except ScheduleError:  # it has no split backward
                    continue
                yield {
                    "from": source.name,
                    "run": run.name,
                    "measured_s": run.measured_s,
                    "predicted_s": result.makespan_s,
                    "peak_bytes": run.peak_bytes,
                    "predicted_peak_bytes": result.peak_memory_bytes_by_rank,
                }


def costs_of(run: Run, file: Path) -> dict[str, Any]:
    """Return the section ``costs:`` of a run calibrated alone, which is written to a file."""
    files = [FOLDER / f"{run.name}.csv", FOLDER / f"{run.name}.memory.csv"]
    measured = calibrate(files, warm_up=0, runtime="torch", runtime_options={"version": TORCH["version"]})
    write_costs(measured, file)
    return {"kind": "measured", "file": str(file)}


def limited_by_hosts(runs: list[Run]) -> set[str]:
    """Return the names of runs of which, by their own costs, hosts that issue ops in no time would save over 1 %."""
    found = set()
    with tempfile.TemporaryDirectory() as folder:
        for run in runs:
            costs = costs_of(run, Path(folder) / "costs.yaml")
            with_host, without = (simulate(run.setting | {"costs": costs | {"host": on}}) for on in (True, False))
            if (without.makespan_s or 0.0) < (1 - CLOSE) * (with_host.makespan_s or 0.0):
                found.add(run.name)
    return found


def error_of(row: dict[str, Any]) -> float:
    """Return how far a prediction is from what was measured, as a share of that."""
    return float(row["predicted_s"] / row["measured_s"] - 1)


def outside(row: dict[str, Any], run: Run) -> float:
    """Return how far a prediction is outside of the measured steps, as a share of the nearest."""
    least_s, most_s = min(run.about["step_s"]), max(run.about["step_s"])
    predicted_s = float(row["predicted_s"])
    return max(0.0, predicted_s / most_s - 1, 1 - predicted_s / least_s)


def kind_of(row: dict[str, Any], runs: dict[str, Run]) -> str:
    """Return whether a run was predicted from itself, from its schedule at another size, or from another schedule."""
    if row["from"] == row["run"]:
        return "itself"
    same = runs[row["from"]].about["schedule"] == runs[row["run"]].about["schedule"]
    return "same schedule, other size" if same else "other schedules"


def wrong_orders(rows: list[dict[str, Any]], runs: dict[str, Run]) -> tuple[int, int]:
    """Return how many pairs of runs of a size that differ are predicted from one, and how many the wrong way round."""
    pairs = wrong = 0
    for source in {row["from"] for row in rows}:
        own = [row for row in rows if row["from"] == source]
        for a, b in combinations(own, 2):
            same_size = runs[a["run"]].about["micro_batches"] == runs[b["run"]].about["micro_batches"]
            if same_size and abs(a["measured_s"] / b["measured_s"] - 1) >= CLOSE:
                pairs += 1
                wrong += (a["measured_s"] < b["measured_s"]) != (a["predicted_s"] < b["predicted_s"])
    return pairs, wrong


def summary_table(rows: list[dict[str, Any]], runs: dict[str, Run]) -> str:
    """Return errors by model and by what was predicted: median and worst."""
    head = ("model", "predicted from", "predictions", "median", "worst", "worst outside of the measured steps")
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for model in dict.fromkeys(run.model for run in runs.values()):
        own = [row for row in rows if runs[row["run"]].model == model]
        for kind in ("itself", "same schedule, other size", "other schedules"):
            of_kind = [row for row in own if kind_of(row, runs) == kind]
            errors = [abs(error_of(row)) for row in of_kind]
            beyond = max(outside(row, runs[row["run"]]) for row in of_kind)
            numbers = f"{len(errors)} | {median(errors):.1%} | {max(errors):.1%} | {beyond:.1%}"
            lines.append(f"| {model} | {kind} | {numbers} |")
    return "\n".join(lines).replace("%", " %")


def from_shapes(runs: dict[str, Run]) -> list[dict[str, Any]]:
    """Return what shapes alone say of each run; not of experts in a loop of Python, which no stack has."""
    return [
        {
            "from": "shapes",
            "run": run.name,
            "measured_s": run.measured_s,
            "predicted_s": simulate(run.from_shapes).makespan_s,
        }
        for run in runs.values()
        if not run.about["sizes"].get("experts")
    ]


def shapes_table(runs: dict[str, Run]) -> str:
    """Return how far off steps predicted from shapes are, by model, and then each."""
    head = ("model", "runs", "median", "worst", "pairs that differ by over 1 %", "in the wrong order")
    summary = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    lines = ["| run | step, ms | from shapes | error |", "| --- | --- | --- | --- |"]
    rows = from_shapes(runs)
    for model in dict.fromkeys(runs[row["run"]].model for row in rows):
        own = [row for row in rows if runs[row["run"]].model == model]
        errors = [abs(error_of(row)) for row in own]
        pairs, wrong = wrong_orders(own, runs)
        summary.append(f"| {model} | {len(own)} | {median(errors):.1%} | {max(errors):.1%} | {pairs} | {wrong} |")
    for row in rows:
        seconds = f"{1e3 * row['measured_s']:.0f} | {1e3 * row['predicted_s']:.0f}"
        lines.append(f"| {row['run']} | {seconds} | {error_of(row):+.1%} |")
    return "\n".join((*summary, "", *lines)).replace("%", " %").replace("over 1  %", "over 1 %")


def beyond_hosts(rows: list[dict[str, Any]]) -> list[float]:
    """Return what is left of each prediction's error without one factor for its source and one for its run."""
    errors = {(row["from"], row["run"]): log(row["predicted_s"] / row["measured_s"]) for row in rows}
    factors: list[dict[str, float]] = [{}, {}]
    for turn in range(100):  # each factor in turn is the mean of what the others leave
        own, other = turn % 2, 1 - turn % 2
        left: dict[str, list[float]] = {}
        for names, error in errors.items():
            left.setdefault(names[own], []).append(error - factors[other].get(names[other], 0.0))
        factors[own] = {name: mean(values) for name, values in left.items()}
    return [abs(error - factors[0][source] - factors[1][run]) for (source, run), error in errors.items()]


def again_table(again: dict[str, dict[str, list[list[float]]]]) -> str:
    """Return how far runs are from the same runs a few minutes apart, whose middle step stands for a prediction."""
    head = ("host", "model", "runs", "times each", "median", "worst", "worst outside of the measured steps")
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for host, names in again.items():
        for model in dict.fromkeys(name.partition("-")[0] for name in names):
            own = [times for name, times in names.items() if name.startswith(f"{model}-")]
            errors, beyond = [], []
            for one, other in (pair for times in own for pair in permutations(times, 2)):
                errors.append(abs(median(one) / median(other) - 1))
                beyond.append(max(0.0, median(one) / max(other) - 1, 1 - median(one) / min(other)))
            numbers = f"{median(errors):.1%} | {max(errors):.1%} | {max(beyond):.1%}".replace("%", " %")
            lines.append(f"| {host} | {model} | {len(own)} | {len(own[0])} | {numbers} |")
    return "\n".join(lines)


def order_table(rows: list[dict[str, Any]], runs: dict[str, Run]) -> str:
    """Return how many pairs of schedules come out in the wrong order, by model."""
    lines = ["| model | pairs that differ by over 1 % | in the wrong order |", "| --- | --- | --- |"]
    for model in dict.fromkeys(run.model for run in runs.values()):
        pairs, wrong = wrong_orders([row for row in rows if runs[row["run"]].model == model], runs)
        lines.append(f"| {model} | {pairs} | {wrong} ({wrong / pairs:.1%}) |".replace("%", " %"))
    return "\n".join(lines)


def error_table(rows: list[dict[str, Any]], runs: dict[str, Run], model: str) -> str:
    """Return every prediction of a model's runs: a row a run, a column a source."""
    own = [run for run in runs.values() if run.model == model]
    short = [run.name.removeprefix(f"{model}-") for run in own]
    lines = [f"| run | step, ms | {' | '.join(f'from {name}' for name in short)} |", "| --- " * (len(own) + 2) + "|"]
    errors = {(row["run"], row["from"]): f"{error_of(row):+.1%}".replace("%", " %") for row in rows}
    for run, name in zip(own, short, strict=True):
        steps = run.about["step_s"]
        measured = f"{1e3 * run.measured_s:.0f} ({1e3 * min(steps):.0f}–{1e3 * max(steps):.0f})"
        cells = [errors.get((run.name, source.name), "–") for source in own]
        lines.append(f"| {name} | {measured} | {' | '.join(cells)} |")
    return "\n".join(lines)


def memory_table(rows: list[dict[str, Any]], runs: dict[str, Run]) -> str:
    """Return how far predicted peaks are off by model, median and worst of all ranks."""
    lines = ["| model | peaks | median | worst |", "| --- | --- | --- | --- |"]
    for model in dict.fromkeys(run.model for run in runs.values()):
        errors = [
            abs(said / was - 1)
            for row in rows
            if runs[row["run"]].model == model and row["predicted_peak_bytes"] is not None
            for said, was in zip(row["predicted_peak_bytes"], row["peak_bytes"], strict=True)
        ]
        lines.append(f"| {model} | {len(errors)} | {median(errors):.1%} | {max(errors):.1%} |".replace("%", " %"))
    return "\n".join(lines)


def filled(page: str, rows: list[dict[str, Any]], runs: dict[str, Run]) -> str:
    """Return the page with each table between its marks renewed."""
    tables = {
        "summary": summary_table(rows, runs),
        "again": again_table(json.loads((FOLDER / "again.json").read_text(encoding="utf-8"))),
        "shapes": shapes_table(runs),
        "order": order_table(rows, runs),
        "memory": memory_table(rows, runs),
        **{model: error_table(rows, runs, model) for model in dict.fromkeys(run.model for run in runs.values())},
    }
    for name, table in tables.items():
        marks = re.compile(rf"(<!-- {name} -->\n\n).*?(\n\n<!-- end -->)", re.DOTALL)
        page = marks.sub(lambda found, table=table: found[1] + table + found[2], page)
    return page


def main() -> None:
    """Write the predictions, and fill the page's tables between their marks."""
    runs = {run.name: run for run in read_runs()}
    rows = list(predictions(list(runs.values())))
    (FOLDER / "predicted.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), rows, runs), encoding="utf-8")


if __name__ == "__main__":
    main()
