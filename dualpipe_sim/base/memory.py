"""How much memory this process may still take, as far as the system says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from math import inf
from pathlib import Path

_ALLOWED: ContextVar[float] = ContextVar("_ALLOWED", default=inf)
_GROUPS = (
    ("memory.max", "memory.current", "inactive_file"),  # control groups, version 2
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),  # and 1
)


@contextmanager
def at_most(allowed_bytes: float | None) -> Iterator[None]:
    """Let what is asked inside say no more than this is free; None for as much as there is.

    >>> with at_most(8e9):
    ...     free_bytes() <= 8e9
    True
    """
    token = _ALLOWED.set(min(_ALLOWED.get(), inf if allowed_bytes is None else allowed_bytes))
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def free_bytes() -> float:
    """Return the bytes that this process may still take: what the machine has, its control group, and its own limit.

    Infinity where the system says nothing of it.
    """
    return min(_ALLOWED.get(), _of_machine(), *_of_groups(), _of_process())


_SURE = 64 * 2**20
"""Bytes that any machine on which this runs has left; for less nobody is asked."""


def short_of(needs_bytes: float) -> float | None:
    """Return the bytes that are free where these are more, None where there is room for them."""
    if needs_bytes <= min(_ALLOWED.get(), _SURE):
        return None
    free = free_bytes()
    return free if needs_bytes > free else None


def _of_machine() -> float:
    with suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next((line for line in lines if line.startswith("MemAvailable:")), None)
        if free is not None:
            return float(free.split()[1]) * 1024
    with suppress(AttributeError, ValueError, OSError):  # elsewhere all that there is; Windows does not say
        return float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
    return inf


def _of_groups() -> Iterator[float]:
    """Yield what each control group that this process is in leaves it; pages that only cache files can go."""
    yield inf
    for folder in _group_folders():
        for limit, used, cached in _GROUPS:
            with suppress(OSError, ValueError):
                most = float((folder / limit).read_text(encoding="ascii"))  # or the word max
                stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
                yield max(0.0, most - float((folder / used).read_text(encoding="ascii")) + float(stat.get(cached, 0)))


def _group_folders() -> Iterator[Path]:
    root = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                own = root / controllers / path.lstrip("/")
                yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(root))


def _of_process() -> float:
    """Return what the process's limit on its address space leaves."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        most, _ = resource.getrlimit(resource.RLIMIT_AS)
        if most != resource.RLIM_INFINITY:
            return max(0.0, float(most - _address_space_bytes()))
    return inf


def limit_to(more_bytes: int) -> None:
    """Limit this process's address space to so much more than it has, where the system can say and do that."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        most = _address_space_bytes() + more_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _address_space_bytes() -> int:
    import resource

    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
