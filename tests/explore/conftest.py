"""A server of the live page to ask, with worker processes of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from dualpipe_sim.explore.link import Start

if TYPE_CHECKING:
    from starlette.testclient import TestClient

HOST = "localhost:8765"


@pytest.fixture(scope="session")
def start() -> Start:
    return Start.of("figure5")


@pytest.fixture(scope="module")
def client(start: Start) -> Iterator[TestClient]:
    from starlette.testclient import TestClient

    from dualpipe_sim.explore.server import app

    with TestClient(app(start, frozenset({HOST})), base_url=f"http://{HOST}") as opened:
        yield opened
