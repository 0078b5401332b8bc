"""What an importer gives: a configuration as plain data, and what of its source is not in it."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from dualpipe_sim.model.pattern import MOST_LAYERS

Keys: TypeAlias = dict[str, Any]
"""Plain values by key, as a configuration has them."""


class Imported(NamedTuple):
    """What was read.

    Attributes:
        config: keys of a configuration; only ``model`` where the source describes a model alone.
        unread: a line for each setting that changes time or memory and is not in it.

    """

    config: Keys
    unread: tuple[str, ...] = ()


_LARGEST = 10**12


def is_of_a_run(key: str, number: float) -> bool:
    """Return whether a number is of a size that a run may have: it has no more layers, nor anything else, than that.

    >>> is_of_a_run("--num-layers", 61), is_of_a_run("--num-layers", 10**9), is_of_a_run("vocab_size", 10**9)
    (True, False, True)
    """
    return number <= (MOST_LAYERS if "layer" in key else _LARGEST)
