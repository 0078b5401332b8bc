"""A sweep on a Dask cluster: a real scheduler and worker processes on loopback, some of which are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dualpipe_sim import UserError, allow_plugins, sweep
from dualpipe_sim.batch import dask_cluster
from dualpipe_sim.batch.points import Evaluate, Row
from dualpipe_sim.batch.runner import evaluate_all
from dualpipe_sim.sweeps import read_table

if TYPE_CHECKING:
    from tests.conftest import WaitFor

pytest.importorskip("distributed", reason="Dask is not installed, so nothing here is tested: install the dev extra")

CONFIG: dict[str, object] = {
    "pipeline": {"ranks": 4, "micro_batches": 16},
    "schedule": "1f1b",
    "costs": {"forward": "1 s", "backward_input": "1 s", "backward_weight": "1 s"},
}
OVER = {"schedules": ["1f1b", "zb-h1", "dualpipe"], "costs.transfer": [f"{ms} ms" for ms in range(20)]}
EVALUATIONS = """
import os, time
def evaluate(point):
    time.sleep(0.02)
    if point.get("dies"):
        os.abort()
    return {"process": os.getpid()}
"""


class Cluster:
    """A scheduler and its workers, each a process of its own, which find modules in their folder."""

    def __init__(self, folder: Path, wait_for: WaitFor) -> None:
        self.folder = folder
        self.workers: list[subprocess.Popen[bytes]] = []
        contact = folder / "scheduler.json"
        self.scheduler = self._launch("scheduler", "--port", "0", "--scheduler-file", contact.name)
        wait_for(lambda: contact.exists() and contact.read_text().rstrip().endswith("}"))
        self.address: str = json.loads(contact.read_text())["address"]

    def start_workers(self, count: int) -> list[subprocess.Popen[bytes]]:
        from distributed import Client

        self.workers = [self._launch("worker", self.address, "--no-nanny", "--nthreads", "1") for _ in range(count)]
        with Client(self.address) as client:  # type: ignore[no-untyped-call]
            client.wait_for_workers(count, timeout=60)
        return self.workers

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()

    def _launch(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        code = f"from distributed.cli.dask_{program} import main; main()"
        command = [sys.executable, "-c", code, *arguments, "--host", "127.0.0.1", "--no-dashboard"]
        with (self.folder / f"{program}.log").open("ab") as log:
            return subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)


@pytest.fixture
def cluster(tmp_path: Path, wait_for: WaitFor) -> Iterator[Cluster]:
    folder = tmp_path / "cluster"
    folder.mkdir()
    cluster = Cluster(folder, wait_for)
    yield cluster
    cluster.stop()


@pytest.fixture
def evaluate(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """An evaluation that workers can import."""
    (cluster.folder / "evaluations_on_dask.py").write_text(EVALUATIONS)
    monkeypatch.syspath_prepend(cluster.folder)
    monkeypatch.delitem(sys.modules, "evaluations_on_dask", raising=False)
    import evaluations_on_dask  # type: ignore[import-not-found]

    found: Evaluate = evaluations_on_dask.evaluate
    return found


@pytest.mark.slow
def test_a_sweep_on_a_cluster_is_the_sweep_here_though_a_worker_is_killed_on_the_way(
    cluster: Cluster, tmp_path: Path
) -> None:
    victim, _survivor = cluster.start_workers(2)
    told: list[int] = []

    def kill_one(done: int, _total: int) -> None:
        told.append(done)
        if done == 10:
            victim.kill()

    there, here = tmp_path / "there.csv", tmp_path / "here.csv"
    table = sweep(CONFIG, OVER, dask=cluster.address, output=there, progress=kill_one)
    assert victim.wait(60) != 0
    assert told == list(range(61))
    assert table.rows == sweep(CONFIG, OVER, output=here).rows
    assert there.read_bytes() == here.read_bytes()


def test_a_row_that_dask_takes_for_an_error_is_fetched_again() -> None:
    """A worker may die between its row's arrival and Dask's next look, which then unpacks the row as an error."""
    taken_for_an_error: Future[Row] = Future()
    taken_for_an_error.set_exception(ValueError("too many values to unpack (expected 3)"))
    fetched: Future[Row] = Future()
    fetched.set_result({"made": 1})
    assert dask_cluster.row_of(taken_for_an_error, lambda: fetched, "tcp://nowhere:1") == {"made": 1}


@pytest.mark.slow
def test_what_a_killed_worker_had_is_done_by_the_other(cluster: Cluster, evaluate: Evaluate) -> None:
    """The victim dies with a point begun and, perhaps, with results not yet fetched."""
    victim, survivor = cluster.start_workers(2)
    places, processes = [], []
    killed_after = 0
    for place, row in evaluate_all([{"x": x} for x in range(60)], evaluate, dask=cluster.address):
        places.append(place)
        processes.append(row.get("process"))
        if not killed_after and len(places) >= 20 and len(set(processes)) == 2:
            victim.kill()
            killed_after = len(places)
    assert sorted(places) == list(range(60))
    assert set(processes[:killed_after]) == {victim.pid, survivor.pid}
    assert set(processes[killed_after + 10 :]) <= {survivor.pid}


@pytest.mark.slow
@pytest.mark.thorough
def test_a_local_cluster_whose_workers_are_killed_again_and_again_counts_each_point_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its nannies start others in their place; a point may have had several before it is a row."""
    from distributed import LocalCluster

    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "100")
    deaths = 0

    def kill_one(done: int, _total: int) -> None:
        nonlocal deaths
        if done % 12 == 6:
            alive = [nanny.pid for nanny in local.workers.values() if nanny.pid]
            os.kill(alive[0], signal.SIGKILL)
            deaths += 1

    there, here = tmp_path / "there.jsonl", tmp_path / "here.jsonl"
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local:  # type: ignore[no-untyped-call]
        sweep(CONFIG, OVER, dask=local.scheduler_address, output=there, progress=kill_one)
    assert deaths == 5
    sweep(CONFIG, OVER, output=here)
    assert there.read_bytes() == here.read_bytes()


@pytest.fixture
def one_death_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the scheduler give a task up when one worker has died of it; its default is four."""
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "0")


@pytest.mark.usefixtures("one_death_is_enough")
def test_a_point_that_kills_its_workers_is_a_row_with_the_reason(cluster: Cluster, evaluate: Evaluate) -> None:
    workers = cluster.start_workers(3)
    rows = dict(evaluate_all([{"dies": x == 3} for x in range(20)], evaluate, dask=cluster.address))
    assert rows.pop(3) == {"error": "the Dask workers that had it died, perhaps for want of memory"}
    assert 1 <= sum(worker.poll() is not None for worker in workers) <= 2
    assert len(rows) == 19
    assert all("process" in row for row in rows.values())


def test_a_lost_scheduler_ends_the_sweep_and_keeps_its_rows(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start_workers(1)
    output = tmp_path / "table.jsonl"

    def kill_scheduler(done: int, _total: int) -> None:
        if done == 10:
            cluster.scheduler.kill()

    with pytest.raises(UserError, match=r"^the connection to the Dask scheduler at tcp://.* is lost$"):
        sweep(CONFIG, OVER, dask=cluster.address, output=output, progress=kill_scheduler)
    kept = len(read_table(output))
    assert 10 <= kept < 60
    told: list[int] = []
    sweep(CONFIG, OVER, output=output, resume=True, progress=lambda done, _total: told.append(done))
    assert told == list(range(kept, 61))


def test_workers_with_another_version_are_refused(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "dualpipe_sim-0.0.7.dist-info"
    other.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: dualpipe-sim\nVersion: 0.0.7\n")
    cluster.start_workers(1)
    with pytest.raises(UserError, match=r"^the Dask worker tcp://.* has dualpipe-sim 0.0.7; install .* all of the"):
        sweep(CONFIG, OVER, dask=cluster.address)


def test_no_scheduler_at_the_address() -> None:
    with pytest.raises(UserError, match=r"^no Dask scheduler answers at tcp:/127.0.0.1:1; is it like tcp://host:8786"):
        sweep(CONFIG, OVER, dask="tcp:/127.0.0.1:1")


def test_workers_run_the_plugins_that_a_configuration_names(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from dualpipe_sim import analysis, build, schedules\n"
        "@schedules.register('mine')\n"
        "def mine(ranks: int, micro_batches: int):\n"
        "    return build('gpipe', ranks, micro_batches)\n"
        "@analysis.register('doubled_s')\n"
        "def doubled_s(result):\n"
        "    return 2 * result.makespan_s\n"
    )
    config = {**CONFIG, "schedule": "mine", "plugins": [tmp_path / "mine.py"]}
    cluster.start_workers(1)
    with allow_plugins():
        table = sweep(config, {"micro_batches": [8, 16]}, dask=cluster.address)
    # by hand: a round of F, I and W of 1 s each for every micro-batch and the 3 of the fill
    assert [(row["makespan_s"], row["doubled_s"]) for row in table] == [(33.0, 66.0), (57.0, 114.0)]
