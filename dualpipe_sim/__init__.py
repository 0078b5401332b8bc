"""Simulate pipeline-parallel training schedules: DualPipe, 1F1B, zero bubble, Chimera and the rest.

>>> from dualpipe_sim import simulate
>>> simulate("figure5").makespan_s
66.0
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualpipe_sim.base.lazy import lazy_names
from dualpipe_sim.version import __version__

if TYPE_CHECKING:
    from dualpipe_sim.base.plugins import allow_plugins
    from dualpipe_sim.errors import ConfigError, DeadlockError, ScheduleError, UserError
    from dualpipe_sim.graph.timeline import Timeline
    from dualpipe_sim.order.ops import Op, Pair
    from dualpipe_sim.order.schedule import Schedule
    from dualpipe_sim.order.text import format_order, parse_order
    from dualpipe_sim.result import Comparison, Result
    from dualpipe_sim.robustness import RegimeMap, Robust, regimes, robust
    from dualpipe_sim.runtimes.registry import runtime_program
    from dualpipe_sim.schedules.registry import build
    from dualpipe_sim.simulation import compare, simulate
    from dualpipe_sim.sweeps import SweepTable, sweep

__all__ = [
    "Comparison",
    "ConfigError",
    "DeadlockError",
    "Op",
    "Pair",
    "RegimeMap",
    "Result",
    "Robust",
    "Schedule",
    "ScheduleError",
    "SweepTable",
    "Timeline",
    "UserError",
    "__version__",
    "allow_plugins",
    "build",
    "compare",
    "format_order",
    "parse_order",
    "regimes",
    "robust",
    "runtime_program",
    "simulate",
    "sweep",
]

_HOME = {
    "Comparison": "result",
    "ConfigError": "errors",
    "DeadlockError": "errors",
    "Op": "order.ops",
    "Pair": "order.ops",
    "RegimeMap": "robustness.regime_map",
    "Result": "result",
    "Robust": "robustness.outcome",
    "Schedule": "order.schedule",
    "ScheduleError": "errors",
    "SweepTable": "sweeps.table",
    "Timeline": "graph.timeline",
    "UserError": "errors",
    "allow_plugins": "base.plugins",
    "build": "schedules.registry",
    "compare": "simulation",
    "format_order": "order.text",
    "parse_order": "order.text",
    "regimes": "robustness.grid",
    "robust": "robustness.play",
    "runtime_program": "runtimes.registry",
    "simulate": "simulation",
    "sweep": "sweeps.runs",
}
"""Where names live that are loaded when first asked for, so that a program starts at once, and can be stopped so."""

__getattr__, __dir__ = lazy_names(__name__, _HOME)
