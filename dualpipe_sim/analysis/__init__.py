"""What a timeline says; every function takes one. Imports ``graph``, ``costs``, ``model``, ``order``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualpipe_sim.base.lazy import lazy_names

if TYPE_CHECKING:
    from dualpipe_sim.analysis.memory import Memory as Memory
    from dualpipe_sim.analysis.registry import register as register

_HOME = {
    "Memory": "memory",
    "register": "registry",
}

__all__ = list(_HOME)

__getattr__, __dir__ = lazy_names(__name__, _HOME)
