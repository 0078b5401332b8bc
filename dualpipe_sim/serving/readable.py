"""Which files may be read for a stranger."""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import cache
from pathlib import Path

from dualpipe_sim.config.load import packaged_configs


def is_readable(path: Path, files: Collection[str] = (), folder: Path | None = None) -> bool:
    """Return whether a path, wherever links on it lead, is the package's own, one of some files, or in a folder.

    >>> is_readable(packaged_configs()["figure5"]), is_readable(Path("/etc/passwd"))
    (True, False)

    Args:
        path: what is about to be read.
        files: real paths of files that may be read, too.
        folder: a folder whose files may; None for none.

    """
    try:
        real = os.path.realpath(path)
    except (OSError, ValueError):
        return False
    folders = _own_places() | ({os.path.realpath(folder)} if folder is not None else set())
    return real in files or any(real == one or real.startswith(one + os.sep) for one in folders)


@cache
def _own_places() -> frozenset[str]:
    """Return the package's folder, and its configurations, which a checkout has beside it."""
    package = Path(__file__).parent.parent
    return frozenset(map(os.path.realpath, (package, *packaged_configs().values())))
