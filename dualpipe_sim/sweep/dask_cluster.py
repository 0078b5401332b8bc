"""The workers of a Dask cluster (https://distributed.dask.org), which runs what a dead worker had again elsewhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from dualpipe_sim.errors import UserError
from dualpipe_sim.sweep.pool import as_they_end
from dualpipe_sim.sweep.runner import Evaluate, Point, Row, Rows

if TYPE_CHECKING:
    from distributed import Client

_WINDOW = 10_000  # points that the scheduler knows at once, many times the threads of any cluster
_CONNECT_S = 10


def on_dask(points: Sequence[Point], evaluate: Evaluate, address: str) -> Rows:
    """Yield (place, row) of each point, evaluated by the workers of the scheduler at ``address``.

    Raises:
        UserError: no such scheduler, workers without this version of the package, or a connection that is lost.

    """
    with _client(address) as client:
        _check_versions(client)
        pool = client.get_executor(pure=False)  # type: ignore[no-untyped-call]
        for (place, _), future in as_they_end(pool, deque(enumerate(points)), evaluate, _WINDOW):
            yield place, _row(future.result, address)


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
    """Refuse workers whose rows would be made by other code, or by none; later ones are on their own."""
    name = "dualpipe_sim"
    versions = cast("dict[str, Any]", client.get_versions(packages=[name]))
    here = versions["client"]["packages"][name]
    for worker, installed in versions["workers"].items():
        there = installed["packages"].get(name)
        if there != here:
            said = f"has dualpipe-sim {there}" if there else "has no dualpipe-sim"
            raise UserError(f"Dask worker {worker} {said}; install {here}, the version here, on every worker")


def _row(result: Callable[[], Row], address: str) -> Row:
    from distributed import KilledWorker

    try:
        return result()
    except KilledWorker as error:
        return {"error": f"{error.allowed_failures + 1} Dask workers died of it, perhaps for want of memory"}
    except CancelledError as error:
        raise UserError(f"the connection to the Dask scheduler at {address} is lost") from error
    except ImportError as error:
        raise UserError(f"a Dask worker cannot import what it needs: {error}; install dualpipe-sim there") from error
