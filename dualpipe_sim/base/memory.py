"""How much memory there is: what a file, or what is made of it, may take without bringing the machine down."""

from __future__ import annotations

import os
from contextlib import suppress
from math import inf
from pathlib import Path


def available_bytes() -> float:
    """Return how much more memory this process can take: by the system, its control group and its own limit.

    Infinity where none of them says so, as on Windows: what asks has a limit of its own, too.
    """
    return min(_free_bytes(), _left_in_group_bytes(), _left_by_limit_bytes())


def _free_bytes() -> float:
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024.0
    with suppress(AttributeError, OSError, ValueError):  # macOS says how much there is, and not how much is free
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return inf


def _left_in_group_bytes() -> float:
    """Return what a container may still take; ``max`` where it may take all."""
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):
        limit, used = (int((group / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
        return float(max(0, limit - used))
    return inf


def _left_by_limit_bytes() -> float:
    """Return what ``ulimit -v`` leaves."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            return float(max(0, limit - pages * resource.getpagesize()))
    return inf
