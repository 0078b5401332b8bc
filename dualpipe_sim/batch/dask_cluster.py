"""The workers of a Dask cluster (https://distributed.dask.org), which runs what a dead worker had again elsewhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from dualpipe_sim.batch.points import Evaluate, Point, Row, Rows, attempt, lost
from dualpipe_sim.batch.pool import as_they_end
from dualpipe_sim.errors import UserError

if TYPE_CHECKING:
    from distributed import Client

_WINDOW = 10_000  # points that the scheduler knows at once, many times the threads of any cluster
_CONNECT_S = 10


def on_dask(points: Sequence[Point], evaluate: Evaluate, address: str) -> Rows:
    """Yield (place, row) of each point, evaluated by the workers of the scheduler at ``address``.

    Raises:
        UserError: no such scheduler, workers without this version of the package, or a connection that is lost.

    """
    suspects = []
    with _client(address) as client:
        _check_versions(client)
        pool = client.get_executor(pure=False)  # type: ignore[no-untyped-call]
        for task, future in as_they_end(pool, deque(enumerate(points)), evaluate, _WINDOW):
            again = partial(pool.submit, attempt, evaluate, task[1])
            row = row_of(future, again, address)
            if row is None:
                suspects.append(task)
            else:
                yield task[0], row
        # Workers hold a few points at once, so some of these only stood beside the one that killed them.
        for place, point in suspects:
            again = partial(pool.submit, attempt, evaluate, point)
            row = row_of(again(), again, address) if len(suspects) > 1 else None
            yield place, row or lost("the Dask workers that had it")


@contextmanager
def _client(address: str) -> Iterator[Client]:
    try:
        from distributed import Client
    except ImportError as error:
        raise UserError("Dask is not installed here; pip install 'dualpipe-sim[distributed]'") from error
    try:
        client = Client(address, timeout=_CONNECT_S)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise UserError(f"no Dask scheduler answers at {address}; is it like tcp://host:8786? ({error})") from error
    try:
        yield client
    finally:
        client.close()  # type: ignore[no-untyped-call]


def _check_versions(client: Client) -> None:
    """Refuse a cluster whose rows would be made by other code, or by none; later workers are on their own.

    The scheduler needs the package too: Dask unpickles there what workers are to run.
    """
    name = "dualpipe_sim"
    versions = cast("dict[str, Any]", client.get_versions(packages=[name]))
    here = versions["client"]["packages"][name]
    workers = {f"worker {address}": installed for address, installed in versions["workers"].items()}
    for which, installed in {"scheduler": versions["scheduler"], **workers}.items():
        there = installed["packages"].get(name)
        if there != here:
            said = f"has dualpipe-sim {there}" if there else "has no dualpipe-sim"
            raise UserError(f"the Dask {which} {said}; install {here}, the version here, on all of the cluster")


def row_of(future: Future[Row], again: Callable[[], Future[Row]], address: str) -> Row | None:
    """Return what came of a point; None where Dask gave it up because the workers that had it died."""
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker:
        return None
    except (TypeError, ValueError):
        # No error of the point's, which would be a row: a worker died between its row's arrival and Dask's look at the
        # point's state, and Dask took the row apart as if it were an error.
        return row_of(again(), again, address)
    except CancelledError as error:
        raise UserError(f"the connection to the Dask scheduler at {address} is lost") from error
    except ImportError as error:
        raise UserError(f"a Dask worker cannot import what it needs: {error}; install dualpipe-sim there") from error
