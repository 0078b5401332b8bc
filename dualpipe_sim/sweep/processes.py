"""Worker processes on this machine, and what to do when one of them dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from dualpipe_sim.errors import UserError
from dualpipe_sim.sweep.pool import as_they_end
from dualpipe_sim.sweep.runner import Evaluate, Point, Row, Rows, attempt

_DIED = "its worker process died, perhaps for want of memory"


def on_processes(points: Sequence[Point], evaluate: Evaluate, workers: int) -> Rows:
    """Yield (place, row) of each point; a worker's death costs only the point that causes it.

    Raises:
        UserError: worker processes do not start.

    """
    todo = deque(enumerate(points))
    while todo:
        suspects = []
        with _pool(workers) as pool:
            for task, future in as_they_end(pool, todo, evaluate, window=2 * workers + 2):
                try:
                    yield task[0], future.result()
                except BrokenProcessPool:
                    suspects.append(task)
        for place, point in suspects:
            yield place, _alone(evaluate, point)


def _alone(evaluate: Evaluate, point: Point) -> Row:
    """Evaluate a point that may have killed its worker on a worker of its own."""
    with _pool(1) as pool:
        try:
            return pool.submit(attempt, evaluate, point).result()
        except BrokenProcessPool:
            return {"error": _DIED}


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Give a pool of started processes; where it is left by an error, such as Ctrl-C, they end at once."""
    others = set(multiprocessing.active_children())
    # spawn works everywhere; fork does not go with threads, which a progress bar or a notebook has
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin)
    try:
        _check_started(pool, workers)
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    pool.shutdown()


def _check_started(pool: ProcessPoolExecutor, workers: int) -> None:
    try:
        for started in [pool.submit(os.getpid) for _ in range(workers)]:
            started.result()
    except BrokenProcessPool as error:
        raise UserError(
            "worker processes do not start; a script that uses them must do so below `if __name__ == '__main__':`"
        ) from error


def _begin() -> None:
    """Leave Ctrl-C to the parent, and do not outlive it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
