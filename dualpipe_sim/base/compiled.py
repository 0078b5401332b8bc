"""Functions that numba compiles where it is installed; else they run as they are, fifty times slower.

Such a function reads and writes numbers in flat rows by their index, which arrays and lists have in common: arrays are
what numba is fast with, lists what Python is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np

from dualpipe_sim.base.arrays import FloatArray, IntArray

_Function = TypeVar("_Function", bound=Callable[..., object])

Floats: TypeAlias = "FloatArray | list[float]"
Ints: TypeAlias = "IntArray | list[int]"

COMPILES = find_spec("numba") is not None
"""Whether functions are compiled."""

_OPTIONS: dict[str, Any] = {"cache": True, "_nrt": False}
"""Nobody counts who holds an array: that would take three times as long as what is done with its numbers."""


def compiled(function: _Function) -> _Function:
    """Return a function compiled at its first call, and kept on disk for the next process where that can be.

    It may make no arrays.
    """
    if not COMPILES:
        return function
    from numba import njit

    # numba compiles again if the file of a function changed, but not if that of one it calls did.
    function.__qualname__ += f"_{_sources(Path(function.__code__.co_filename).parent)}"
    try:
        return cast("_Function", njit(**_OPTIONS)(function))
    except RuntimeError:  # (there is nowhere to keep it)
        return cast("_Function", njit(**{**_OPTIONS, "cache": False})(function))


@cache
def _sources(folder: Path) -> str:
    """Return a digest of all modules of a folder."""
    return sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).hexdigest()[:12]


def floats(values: Iterable[float]) -> Floats:
    """Return a row of numbers for compiled functions."""
    return np.array(list(values), dtype=np.float64) if COMPILES else list(values)


def ints(values: Iterable[int]) -> Ints:
    """Return a row of whole numbers for compiled functions."""
    return np.array(list(values), dtype=np.int64) if COMPILES else list(values)
