"""Worker processes on this machine, and what to do when one of them dies.

Each is a program of its own that talks by its pipes, not a child of `multiprocessing`: so a death is the death of one
known point, a worker ends with its parent whatever ends that, and scripts need no guard around what starts workers.
A point whose worker died gets another one when all others are done: it may have died for somebody else's memory.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from subprocess import PIPE, Popen
from typing import IO, Any, cast

from dualpipe_sim.batch.points import Evaluate, Point, Row, Rows, is_lost, lost
from dualpipe_sim.batch.pool import as_they_end
from dualpipe_sim.batch.worker import LENGTH_BYTES
from dualpipe_sim.errors import UserError

# (SIGINT ends a worker without a word, from its first moment on, as other signals do)
_PROGRAM = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); sys.path[:] = sys.argv[1:]; "
    "from dualpipe_sim.batch.worker import main; main()"
)
DEATHS = (EOFError, OSError, pickle.UnpicklingError)
"""What asking a worker raises that died, or was ended meanwhile."""


def on_processes(points: Sequence[Point], evaluate: Evaluate, workers: int) -> Rows:
    """Yield (place, row) of each point; only one whose worker died twice is lost.

    Raises:
        UserError: worker processes do not start.

    """
    crew = _Crew(evaluate, workers)
    threads = ThreadPoolExecutor(workers)
    suspects = []
    try:
        crew.check()
        for task, future in as_they_end(threads, deque(enumerate(points)), crew.row, 2 * workers):
            row = future.result()
            if is_lost(row):
                suspects.append(task)
            else:
                yield task[0], row
        for task, future in as_they_end(threads, deque(suspects), crew.row, 2 * workers):
            yield task[0], future.result()
    finally:
        crew.dismiss()  # a thread that waits for a long point sees its worker's end
        threads.shutdown(cancel_futures=True)
        crew.dismiss()  # a worker that a thread was just replacing


class _Crew:
    """Workers for one evaluation, of which as many threads can ask rows."""

    def __init__(self, evaluate: Evaluate, workers: int) -> None:
        self._evaluate = evaluate
        self._workers = [Worker(evaluate) for _ in range(workers)]
        self._dismissed = False
        self._free: SimpleQueue[Worker] = SimpleQueue()
        for worker in self._workers:
            self._free.put(worker)

    def check(self) -> None:
        """Wait until all workers are ready, or raise a UserError."""
        try:
            for worker in self._workers:
                worker.wait_ready()
        except DEATHS as error:
            raise UserError("worker processes do not start, or are killed; what they say stands above") from error

    def row(self, point: Point) -> Row:
        """Return a point's row from a free worker; where it dies, another takes its place."""
        worker = self._free.get()
        try:
            return worker.row(point)
        except DEATHS:
            if not self._dismissed:
                worker.end()
                worker = Worker(self._evaluate)
                self._workers.append(worker)
            return lost("its worker process")
        finally:
            self._free.put(worker)  # whatever went wrong: another thread may wait for it

    def dismiss(self) -> None:
        """End all workers, whatever they do."""
        self._dismissed = True
        for worker in self._workers:
            worker.end()


_APART: Any = (
    {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    if sys.platform == "win32"
    else {"start_new_session": True}
)
"""Keeps a worker away from the terminal, so that Ctrl-C is answered by the parent alone."""


class Worker:
    """A worker process, which makes rows of points one after the other; see ``worker.py``."""

    def __init__(self, evaluate: Evaluate) -> None:
        command = [sys.executable, "-c", _PROGRAM, *sys.path]
        self._process = Popen(command, stdin=PIPE, stdout=PIPE, **_APART)  # noqa: S603 - our own
        self._ready = False
        with suppress(OSError):  # it may be dead already; whoever waits for it will see
            self._send(evaluate)

    def wait_ready(self) -> None:
        """Wait until it has its evaluation; raise one of ``DEATHS`` if it dies of it."""
        if not self._ready:
            self._receive()
            self._ready = True

    def row(self, point: Point) -> Row:
        """Return a point's row; raise one of ``DEATHS`` if it dies of it."""
        self.wait_ready()
        self._send(point)
        row: Row = self._receive()
        return row

    def end(self) -> None:
        """End it at once and let go of it."""
        self._process.kill()
        with suppress(OSError), self._process:  # closes its pipes and waits
            pass

    def _send(self, message: object) -> None:
        pipe = cast("IO[bytes]", self._process.stdin)
        content = pickle.dumps(message)
        with _open_pipe():
            pipe.write(len(content).to_bytes(LENGTH_BYTES, "big") + content)
            pipe.flush()

    def _receive(self) -> Any:  # noqa: ANN401 - rows, and None for the evaluation
        with _open_pipe():
            return pickle.load(cast("IO[bytes]", self._process.stdout))  # noqa: S301 - from our own worker


@contextmanager
def _open_pipe() -> Iterator[None]:
    """Say of a pipe that another thread closed meanwhile, as it ended the worker, what is said of a death."""
    try:
        yield
    except ValueError as error:  # (which is what files raise that are closed, or are being closed)
        raise EOFError from error
