"""The arrays that columns are made of, and what several modules do with them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]


def distinct(values: IntArray) -> tuple[IntArray, IntArray]:
    """Return the few values that there are, ascending, and which of them each one is.

    >>> distinct(np.array([7, 3, 7]))
    (array([3, 7]), array([1, 0, 1]))
    """
    in_order = np.sort(values)  # (np.unique would load NumPy's masked arrays, a tenth of a cold start's time)
    found = in_order[np.append(True, in_order[1:] != in_order[:-1])[: len(in_order)]]
    return found, np.searchsorted(found, values)
