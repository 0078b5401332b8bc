"""Exported orders run for real in PyTorch: gradients are right, the timeline holds, and the simulator agrees with it.

Only where torch is installed; `make test-all` installs it into an environment of its own.
"""

import csv
import importlib
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

from dualpipe_sim import build, parse_order
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.costs.phases import Phase
from dualpipe_sim.engine.play import play
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.order.ops import Kind, TaskShape
from dualpipe_sim.order.placement import Placement

pytest.importorskip("torch.distributed.pipelining", reason="torch is not installed; make test-all runs this")

EXAMPLES = Path(__file__).parents[2] / "examples"
RANKS, MICRO_BATCHES, STEPS = 2, 4, 5
NAMES = ("1f1b", "dualpipev", "dualpipe", "zb-h1")

pytestmark = pytest.mark.slow


def run(*arguments: str | Path, patch: str = "") -> subprocess.CompletedProcess[str]:
    """Run the example, with some of its parent process patched."""
    code = f"import sys, run_in_pytorch as example\n{patch}\nexample.main()"
    command = [sys.executable, "-c", code, *map(str, arguments), "--ranks", f"{RANKS}"]
    path = os.pathsep.join((str(EXAMPLES), os.environ.get("PYTHONPATH", "")))
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        [*command, "--micro-batches", f"{MICRO_BATCHES}"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=300,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return where the runs' files are and what the example said."""
    folder = tmp_path_factory.mktemp("runs")
    done = run(*NAMES, "--op-ms", "20", "--steps", f"{STEPS}", "--profile", "-o", folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def rows(folder: Path, name: str) -> list[tuple[int, str, str, float, float]]:
    with (folder / f"{name}.timeline.csv").open(newline="") as file:
        lines = csv.reader(file)
        assert next(lines) == ["rank", "lane", "task", "start_s", "end_s"]
        return [(int(rank), lane, task, float(start), float(end)) for rank, lane, task, start, end in lines]


def test_gradients_are_those_of_the_model_without_a_pipeline(runs: tuple[Path, str]) -> None:
    said = re.findall(r"^(\S+): [0-9.]+ s, gradients are off by (\S+) of the largest$", runs[1], re.MULTILINE)
    assert [name for name, _ in said] == list(NAMES)
    assert all(float(error) < 1e-12 for _, error in said)


@pytest.mark.parametrize("name", NAMES)
def test_what_ran_is_what_was_exported(runs: tuple[Path, str], name: str) -> None:
    schedule = build(name, RANKS, MICRO_BATCHES)
    folder, _ = runs
    exported = (folder / f"{name}.csv").read_text()
    assert parse_order(exported, schedule.placement) == schedule
    for rank, order in enumerate(schedule.order):
        ran = [row[2:] for row in rows(folder, name) if row[:2] == (rank, "compute")]
        assert [task for task, _, _ in ran] == STEPS * list(map(str, order))
        assert all(end <= start for (_, _, end), (_, start, _) in pairwise(ran))
        events = json.loads((folder / f"{name}.rank{rank}.json").read_text())["traceEvents"]
        ranges = [event["name"] for event in events if event.get("name", "").startswith("PP:")]
        assert ranges == STEPS * [f"PP:{cell}" for cell in exported.splitlines()[rank].split(",")]


@pytest.mark.parametrize("name", NAMES)
def test_transfers_lie_between_the_op_that_sends_and_the_op_that_needs_them(runs: tuple[Path, str], name: str) -> None:
    folder, _ = runs
    starts, ends, arrivals = defaultdict(list), defaultdict(list), defaultdict(list)
    for _, lane, task, start, end in rows(folder, name):
        for stage, kind, micro_batch in re.findall(r"(\d+)([FBI])(\d+)", task) if lane == "compute" else ():
            tensor = stage, "F" if kind == "F" else "B", micro_batch
            starts[tensor].append(start)
            ends[tensor].append(end)
        if lane == "recv":
            stage, direction, micro_batch = re.findall(r"(\d+)RECV_([FB])(\d+)", task)[0]
            arrivals[stage, direction, micro_batch].append((start, end))
    assert arrivals
    for (stage, direction, micro_batch), seen in arrivals.items():
        sender = f"{int(stage) + (-1 if direction == 'F' else 1)}"
        for left, there in seen:
            # of the steps, the one in which it happened
            assert any(
                made <= left <= there <= needed
                for made, needed in zip(
                    ends[sender, direction, micro_batch], starts[stage, direction, micro_batch], strict=True
                )
            )


def task_shape(task: str) -> TaskShape:
    """The kind and stage of each op that a task's text names."""
    return tuple((Kind[kind], int(stage)) for stage, kind in re.findall(r"(\d+)([FBIW])\d", task))


class Medians:
    """Costs of each stage and kind as measured in a run."""

    transfer_bytes = 0.0

    def __init__(self, rows: list[tuple[int, str, str, float, float]]) -> None:
        seconds: defaultdict[TaskShape | str, list[float]] = defaultdict(list)
        for _, lane, task, start, end in rows:
            seconds[task_shape(task) if lane == "compute" else lane].append(end - start)
        self.median_s = {shape: median(found) for shape, found in seconds.items()}
        self.transfer_s = self.median_s["recv"]

    def on(self, placement: Placement) -> "Medians":  # noqa: ARG002
        return self

    def phases(self, task: TaskShape) -> tuple[Phase, ...]:
        return (Phase(Lane.COMPUTE, self.median_s[task], task[0][0]),)


def makespans_s(folder: Path, name: str) -> list[float]:
    """Seconds of each step, from the first start of any rank to the last end."""
    steps: list[list[tuple[float, float]]] = [[] for _ in range(STEPS)]
    for rank in range(RANKS):
        ran = [row[3:] for row in rows(folder, name) if row[:2] == (rank, "compute")]
        for number, step in enumerate(steps):
            step.extend(ran[number * len(ran) // STEPS : (number + 1) * len(ran) // STEPS])
    return [max(end for _, end in step) - min(start for start, _ in step) for step in steps]


@pytest.mark.parametrize("name", NAMES)
def test_the_simulator_with_the_runs_own_medians_agrees_within_a_tenth(runs: tuple[Path, str], name: str) -> None:
    # the fastest step: whatever else the machine does only ever adds
    folder, _ = runs
    simulated = play(lower(build(name, RANKS, MICRO_BATCHES), Medians(rows(folder, name))))
    assert simulated.makespan_s == pytest.approx(min(makespans_s(folder, name)), rel=0.1)


def test_receives_in_the_wrong_order_train_on_wrong_tensors_and_the_check_says_so(tmp_path: Path) -> None:
    # torch takes this order without a word: what a rank receives is matched by order alone
    patch = (
        "lowered = example.format_program\n"
        "example.format_program = lambda order: ("
        "lowered(order).replace('1RECV_F0,1F0,1RECV_F1', '1RECV_F1,1RECV_F0,1F0'))"
    )
    done = run("1f1b", "--op-ms", "0", "-o", tmp_path, patch=patch)
    assert "1RECV_F1,1RECV_F0,1F0" in (tmp_path / "1f1b.csv").read_text()
    assert done.returncode == 1
    assert "1f1b: gradients differ from those without a pipeline by" in done.stderr


def test_unknown_schedules_are_said_in_a_line(tmp_path: Path) -> None:
    done = run("1f1c", "-o", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("run_in_pytorch.py: unknown schedule '1f1c'; did you mean '1f1b'?")


def test_stages_can_be_imported_for_models_of_ones_own() -> None:
    sys.path.insert(0, str(EXAMPLES))
    try:
        stages = importlib.import_module("pytorch_stages")
    finally:
        sys.path.remove(str(EXAMPLES))
    assert {"Stage", "Runtime"} <= set(vars(stages))
