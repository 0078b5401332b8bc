"""Work for worker processes that hangs or dies, in a module that imports little."""

from __future__ import annotations

import os
import time


def do(point: dict[str, object]) -> dict[str, object]:
    """Return the point, or never."""
    if point["does"] == "sleep":
        time.sleep(3600)
    if point["does"] == "die":
        os._exit(1)
    return point
