"""Worker processes: they change nothing but the time, and die alone."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dualpipe_sim import UserError
from dualpipe_sim.batch.points import Evaluate, Point
from dualpipe_sim.batch.processes import DEATHS, Worker
from dualpipe_sim.batch.runner import evaluate_all
from dualpipe_sim.batch.study import Study, collect
from dualpipe_sim.batch.worker import LENGTH_BYTES
from dualpipe_sim.sweeps import sweep

EVALUATIONS = """
import os, signal, time
def square(point):
    time.sleep(point.get("sleeps", 0))
    print("not a row")
    if point["x"] == point.get("raises"):
        raise ZeroDivisionError("oh")
    once = point.get("dies once")
    dies_once = once and not os.path.exists(once) and not open(once, "w").close()
    if point["x"] == point.get("dies") or dies_once or os.path.exists(point.get("dies while", "")):
        os.kill(os.getpid(), signal.SIGKILL)
    return {"square": point["x"] ** 2, "process": os.getpid()}
"""


@pytest.fixture
def square(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """An evaluation that worker processes can import."""
    (tmp_path / "evaluations.py").write_text(EVALUATIONS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "evaluations", raising=False)
    import evaluations  # type: ignore[import-not-found]

    found: Evaluate = evaluations.square
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_one_points_failure_is_not_the_others(workers: int, square: Evaluate) -> None:
    """On one's own process a death is the death of all; on others it costs the point that causes it."""
    dies = 7 if workers > 1 else None
    points: list[dict[str, object]] = [{"x": x, "raises": 3, "dies": dies} for x in range(12)]
    rows = dict(evaluate_all(points, square, workers=workers))
    assert rows.pop(3) == {"error": "ZeroDivisionError: oh"}
    if workers > 1:
        assert rows.pop(7) == {"error": "its worker process died, perhaps for want of memory"}
    assert {x: row["square"] for x, row in rows.items()} == {x: x * x for x in rows}
    assert len(rows) == (10 if workers > 1 else 11)
    assert (os.getpid() in {row["process"] for row in rows.values()}) == (workers == 1)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_point_whose_worker_died_is_tried_again_on_resuming(square: Evaluate, tmp_path: Path, suffix: str) -> None:
    """Its memory may have been somebody else's; a point that fails by itself stays as it is."""
    deadly = tmp_path / "deadly"
    deadly.touch()
    points: list[Point] = [{"x": x, "dies while": ""} for x in range(3)] + [{"x": 3, "dies while": str(deadly)}]
    study = Study(
        [*points, {"x": 4, "dies while": "", "raises": 4}], square, ["square", "process", "error"], setting=None
    )
    rows = collect(study, workers=2, output=tmp_path / f"rows{suffix}")
    assert str(rows[3]["error"]).startswith("its worker process died")
    deadly.unlink()
    again = collect(study, workers=2, output=tmp_path / f"rows{suffix}", resume=True)
    assert (again[3]["square"], again[3]["error"]) == (9, None)
    assert again[:3] == rows[:3]  # by the same process: they were not run again
    assert again[4]["error"] == rows[4]["error"] == "ZeroDivisionError: oh"


def test_a_point_whose_worker_died_gets_another_worker(square: Evaluate, tmp_path: Path) -> None:
    """Whoever looks at the end sees no death: a walk of a search that is not there would change what it finds."""
    points: list[Point] = [{"x": x, "dies once": str(tmp_path / "died") if x == 1 else ""} for x in range(5)]
    rows = list(evaluate_all(points, square, workers=2))
    assert [row["square"] for _, row in sorted(rows)] == [0, 1, 4, 9, 16]
    assert (tmp_path / "died").exists()


def test_points_that_cannot_be_sent_cost_themselves_alone(square: Evaluate) -> None:
    points: list[dict[str, object]] = [{"x": x, "unsendable": x > 0 and (lambda: None)} for x in range(5)]
    rows = dict(evaluate_all([*points, {"x": 5}], square, workers=2))
    assert {place for place, row in rows.items() if "square" in row} == {0, 5}
    assert all("local object" in str(rows[place]["error"]) for place in range(1, 5))


def test_workers_change_nothing_but_the_time(unit_config: dict[str, object], tmp_path: Path) -> None:
    over = {"schedules": ["1f1b", "dualpipe", "zb-h1"], "ranks": [2, 4], "micro_batches": [4, 8, 12]}
    tables = [sweep(unit_config, over, workers=workers, output=tmp_path / f"{workers}.csv") for workers in (1, 2)]
    assert tables[0].rows == tables[1].rows
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()


@pytest.mark.slow
def test_scripts_need_no_guard_and_may_come_from_stdin(unit_config: dict[str, object]) -> None:
    script = f"from dualpipe_sim import sweep\nprint(len(sweep({unit_config}, {{'ranks': [2, 3]}}, workers=2)))\n"
    done = subprocess.run([sys.executable], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


def test_workers_that_cannot_evaluate_say_why(
    square: Evaluate, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "evaluations.py").write_text("raise RuntimeError('not here')")
    with pytest.raises(UserError, match="worker processes do not start, or are killed; what they say"):
        dict(evaluate_all([{"x": 1}, {"x": 2}], square, workers=2))
    assert "not here" in capfd.readouterr().err  # of both at once, so it may be in pieces


def test_a_long_point_does_not_outlive_its_sweep(square: Evaluate) -> None:
    before = set(psutil.Process().children())
    rows = evaluate_all([{"x": 0}, {"x": 1, "sleeps": 600}], square, workers=2)
    assert next(rows)[0] == 0
    workers = set(psutil.Process().children()) - before
    assert len(workers) == 2
    rows.close()
    assert not psutil.wait_procs(workers, timeout=60)[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_that_is_told_to_end_does_without_a_word(
    square: Evaluate, number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also by SIGINT, which Python would print a traceback for."""
    before = set(psutil.Process().children())
    rows = evaluate_all([{"x": x, "sleeps": 0.2} for x in range(4)], square, workers=2)
    first = next(rows)
    for process in set(psutil.Process().children()) - before:
        process.send_signal(number)
    assert [row["square"] for _, row in sorted([first, *rows])] == [0, 1, 4, 9]
    assert not capfd.readouterr().err.replace("not a row\n", "")


@pytest.mark.parametrize("sent", [0, 3, 8, 20])
def test_a_worker_whose_parent_dies_while_it_sends_ends_without_a_word(
    sent: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """What it has of a message is none."""
    content = pickle.dumps({"x": list(range(100))})
    message = len(content).to_bytes(LENGTH_BYTES, "big") + content
    command = [sys.executable, "-c", "from dualpipe_sim.batch.worker import main; main()"]
    done = subprocess.run(command, input=message[:sent], check=False, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (0, b"")
    assert not capfd.readouterr().err


@pytest.mark.parametrize("answered", [False, True])
def test_a_worker_that_was_ended_is_a_dead_one_to_whoever_asks_it(square: Evaluate, answered: bool) -> None:
    """Its pipes may be closed by another thread at any time; what files say of that is no answer."""
    worker = Worker(square)
    if answered:
        assert worker.row({"x": 3})["square"] == 9
    worker.end()
    with pytest.raises(DEATHS):
        worker.row({"x": 3})
