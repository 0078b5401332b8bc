"""One schedule a file; a file here registers itself and is then known everywhere. Imports ``order`` and ``base``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualpipe_sim.base.lazy import lazy_names

if TYPE_CHECKING:
    from dualpipe_sim.schedules.registry import ScheduleSpec as ScheduleSpec
    from dualpipe_sim.schedules.registry import build as build
    from dualpipe_sim.schedules.registry import register as register
    from dualpipe_sim.schedules.registry import schedules as schedules
    from dualpipe_sim.schedules.registry import spec as spec

_HOME = {
    "ScheduleSpec": "registry",
    "build": "registry",
    "register": "registry",
    "schedules": "registry",
    "spec": "registry",
}

__all__ = list(_HOME)

__getattr__, __dir__ = lazy_names(__name__, _HOME)
