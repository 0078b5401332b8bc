"""Seconds and bytes of a task and a transfer, never what runs after what: one cost model a file.

Imports ``model``, ``hardware`` and, of ``order``, only the names of ops and placements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualpipe_sim.base.lazy import lazy_names

if TYPE_CHECKING:
    from dualpipe_sim.costs.layers import LayerCosts as LayerCosts
    from dualpipe_sim.costs.measured import MeasuredCosts as MeasuredCosts
    from dualpipe_sim.costs.phases import Flow as Flow
    from dualpipe_sim.costs.phases import Phase as Phase
    from dualpipe_sim.costs.profile import LayerTime as LayerTime
    from dualpipe_sim.costs.profile import ProfileCosts as ProfileCosts
    from dualpipe_sim.costs.registry import cost_model as cost_model
    from dualpipe_sim.costs.registry import cost_models as cost_models
    from dualpipe_sim.costs.registry import register as register
    from dualpipe_sim.costs.uniform import UniformCosts as UniformCosts

_HOME = {
    "Flow": "phases",
    "LayerCosts": "layers",
    "LayerTime": "profile",
    "MeasuredCosts": "measured",
    "Phase": "phases",
    "ProfileCosts": "profile",
    "UniformCosts": "uniform",
    "cost_model": "registry",
    "cost_models": "registry",
    "register": "registry",
}

__all__ = list(_HOME)

__getattr__, __dir__ = lazy_names(__name__, _HOME)
