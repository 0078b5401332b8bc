"""Engines: they play a task graph and return its timeline. Imports ``graph``, ``hardware``; the only one with simpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualpipe_sim.base.lazy import lazy_names

if TYPE_CHECKING:
    from dualpipe_sim.engine.noise import Noise as Noise
    from dualpipe_sim.engine.noise import Spread as Spread
    from dualpipe_sim.engine.scenarios import Scenarios as Scenarios

_HOME = {
    "Noise": "noise",
    "Scenarios": "scenarios",
    "Spread": "noise",
}

__all__ = list(_HOME)

__getattr__, __dir__ = lazy_names(__name__, _HOME)
