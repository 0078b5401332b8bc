"""A program: try what each extra is for, in the environment that runs it; print what came of each, as JSON.

An empty text stands for what works; else it is the line in which the program refused.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

from dualpipe_sim import UserError, compare, sweep

AXES = {"pipeline.micro_batches": [16, 20]}
COMMAND = [sys.executable, "-I", "-m", "dualpipe_sim"]


def distributed() -> None:
    """Sweep on a Dask scheduler."""
    address = "tcp://127.0.0.1:8786"
    if find_spec("distributed"):
        from distributed import LocalCluster

        cluster = LocalCluster(n_workers=1, processes=False, dashboard_address=None)  # type: ignore[no-untyped-call]
        address = cluster.scheduler_address
    assert len(sweep("figure5", over=AXES, dask=address).rows) == 2


def parquet() -> None:
    """Keep rows of a sweep as Parquet."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "rows.parquet"
        sweep("figure5", over=AXES, output=file)
        assert file.read_bytes()[:4] == b"PAR1"


def optimum() -> None:
    """Prove that no order of two micro-batches on two ranks ends before (2 + 1) · (F + B)."""
    from dualpipe_sim.bounds.optimum import optimum
    from dualpipe_sim.order.op_times import OpTimes
    from dualpipe_sim.order.placement import linear

    times = OpTimes.uniform(linear(2), forward=1.0, backward_input=1.0, backward_weight=1.0)
    assert optimum(linear(2), (2,), times, split=False).makespan_s == 9.0


def explore() -> None:
    """Serve a page."""
    command = [*COMMAND, "explore", "figure5", "--port", "0", "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        url = served.stdout.readline().strip()
        if url:
            with urlopen(url) as page:  # noqa: S310 - our own
                assert b"figure5" in page.read()
            served.send_signal(signal.SIGINT)
        said = served.communicate()[1]
    refuse(said if not url else "")


def mcp() -> None:
    """Answer a client, until it closes the input."""
    greeting = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
    }  # fmt: skip
    done = subprocess.run(
        [*COMMAND, "mcp"], input=json.dumps(greeting) + "\n", capture_output=True, text=True, check=False
    )
    refuse(done.stderr)
    assert json.loads(done.stdout)["result"]["serverInfo"]["name"] == "dualpipe-sim"


def widget() -> None:
    """Make a widget of two runs."""
    compare("figure5").widget()


def notebook() -> None:
    """Make a data frame of some runs."""
    assert len(compare("figure5").to_pandas()) > 0


def refuse(said: str) -> None:
    """Raise what a command said on stderr as if it had been called here."""
    if said:
        raise UserError(said.removeprefix("dualpipe-sim: ").rstrip("\n"))


def came_of(extra: str) -> str:
    """Return in which line what an extra is for was refused, or nothing."""
    try:
        globals()[extra]()
    except UserError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    sys.stdout.write(json.dumps({extra: came_of(extra) for extra in sys.argv[1:]}))
