"""Points into rows: on this process, on worker processes or on a Dask cluster, whatever is evaluated.

An evaluation that fails is a row with its reason, and so is one that takes its process down with it.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dualpipe_sim.base.plugins import LOADED, allow_plugins, are_plugins_allowed, run_plugin
from dualpipe_sim.batch.points import Evaluate, Point, Row, Rows, attempt
from dualpipe_sim.errors import UserError


def evaluate_all(points: Sequence[Point], evaluate: Evaluate, *, workers: int = 1, dask: str | None = None) -> Rows:
    """Yield (place of the point, its row) as rows come.

    Args:
        points: what to evaluate.
        evaluate: makes a row of a point; where it raises, the row is the reason, ``{"error": …}``. On processes and
            on Dask it must be picklable, and its module importable there.
        workers: processes on this machine; 1 evaluates right here.
        dask: address of a Dask scheduler, whose workers evaluate instead.

    Raises:
        UserError: workers that cannot be started, reached or used.

    """
    if dask is not None:
        evaluate = with_plugins(evaluate, allowed=are_plugins_allowed())
        if workers != 1:
            raise UserError(f"give --workers or --dask, not both (workers={workers}, dask={dask})")
        from dualpipe_sim.batch.dask_cluster import on_dask

        return on_dask(points, evaluate, dask)
    if workers < 1:
        raise UserError(f"workers must be 1 or more, got {workers}")
    if workers == 1 or len(points) <= 1:
        return ((place, attempt(evaluate, point)) for place, point in enumerate(points))
    from dualpipe_sim.batch.processes import on_processes

    return on_processes(points, with_plugins(evaluate, allowed=are_plugins_allowed()), min(workers, len(points)))


@dataclass(frozen=True)
class _WithPlugins:
    """An evaluation on another process, which runs the user's files first.

    Attributes:
        plugins: those files, each with what it held: another machine may not have them, or have others.
        pickled: the evaluation, which may hold what only they define.
        allowed: whether configurations that are read there may run others.

    """

    plugins: tuple[tuple[Path, bytes], ...]
    pickled: bytes
    allowed: bool

    def __call__(self, point: Point) -> Row:
        """Return the row of a point."""
        with allow_plugins() if self.allowed else nullcontext():
            return _unpacked(self)(point)


@lru_cache(maxsize=1)  # a worker has one evaluation at a time, and many points
def _unpacked(packed: _WithPlugins) -> Evaluate:
    for file, content in packed.plugins:
        run_plugin(file, content)
    evaluate: Evaluate = pickle.loads(packed.pickled)  # noqa: S301 - our own
    return evaluate


def with_plugins(evaluate: Evaluate, *, allowed: bool = False) -> Evaluate:
    """Return an evaluation that runs the user's files first, on whatever process it is.

    Args:
        evaluate: what it evaluates.
        allowed: whether the user allows configurations to run others; nobody asks strangers who send some.

    """
    plugins = tuple(LOADED.items())
    return _WithPlugins(plugins, pickle.dumps(evaluate), allowed) if plugins or allowed else evaluate
