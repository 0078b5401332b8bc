"""A process that has loaded the program and starts it again and again as children of its own: imports take longest.

A child is the program as ``python -m dualpipe_sim`` runs it, but for what is loaded already. Requests are lines of JSON
on stdin, answers lines on stdout: ``{"start": …}`` gives the pid of a child that can be stopped, ``{"end": pid}`` its
exit status once it has one.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import Any

from dualpipe_sim import simulate
from dualpipe_sim.base.signals import stoppable

_WARM = (
    "dualpipe_sim.batch.study", "dualpipe_sim.config.load", "dualpipe_sim.export.hta", "dualpipe_sim.pictures.plot",
    "dualpipe_sim.pictures.report", "dualpipe_sim.plan", "dualpipe_sim.plan.why_first", "dualpipe_sim.robustness",
    "dualpipe_sim.search", "dualpipe_sim.simulation", "dualpipe_sim.sweeps.runs", "pyarrow.parquet",
)  # fmt: skip


def main() -> None:
    """Answer until nobody asks any more."""
    from dualpipe_sim.cli.app import COMMANDS

    for module in (*_WARM, *(f"dualpipe_sim.cli.{command}" for command in COMMANDS)):
        importlib.import_module(module)
    simulate("small").gantt()
    gc.freeze()  # children need no copy of what none of them lets go of
    for line in sys.stdin:
        asked = json.loads(line)
        if "end" in asked:
            said = os.waitstatus_to_exitcode(os.waitpid(asked["end"], 0)[1])
        else:
            said = _started(asked["start"])
        sys.stdout.write(f"{json.dumps(said)}\n")
        sys.stdout.flush()


def _started(job: dict[str, Any]) -> int:
    """Return the pid of a child that can be stopped."""
    ready, says_ready = os.pipe()
    pid = os.fork()
    if pid:
        os.close(says_ready)
        os.read(ready, 1)
        os.close(ready)
        return pid
    status: Any = 1
    try:
        os.close(ready)
        _run(job, says_ready)
    except SystemExit as end:
        status = end.code
    except BaseException:  # noqa: BLE001 - as Python does it
        sys.excepthook(*sys.exc_info())
    # What Python does at its end, but for taking all apart that is loaded.
    atexit._run_exitfuncs()
    with suppress(OSError):
        sys.stdout.flush()
    os._exit(status or 0)


def _run(job: dict[str, Any], says_ready: int) -> None:
    """Be the program, in its folder and with its files."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(job["folder"])
    for descriptor, name in enumerate((os.devnull, job["stdout"], job["stderr"])):
        os.dup2(os.open(name, os.O_RDWR if descriptor == 0 else os.O_WRONLY | os.O_CREAT, 0o666), descriptor)
    if job["most_bytes"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["most_bytes"], resource.RLIM_INFINITY))
    sys.argv = ["dualpipe-sim", *job["words"]]
    with stoppable("dualpipe-sim"):  # as the program's first line does
        os.write(says_ready, b".")
        os.close(says_ready)
        from dualpipe_sim.__main__ import main as program

        program()


if __name__ == "__main__":
    main()
