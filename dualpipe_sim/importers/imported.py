"""What an importer gives: a configuration as plain data, and what of its source is not in it."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

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
