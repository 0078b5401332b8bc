"""Simulate pipeline-parallel training schedules: DualPipe, 1F1B, zero bubble, Chimera and the rest.

>>> from dualpipe_sim import simulate
>>> simulate("figure5").makespan_s
66.0
"""

from dualpipe_sim.errors import ConfigError, DeadlockError, ScheduleError, UserError
from dualpipe_sim.ops import Op, Pair
from dualpipe_sim.registry import build
from dualpipe_sim.result import Comparison, Result
from dualpipe_sim.schedule import Schedule
from dualpipe_sim.simulation import compare, simulate
from dualpipe_sim.sweep import SweepTable, sweep
from dualpipe_sim.text import format_order, parse_order
from dualpipe_sim.timeline import Timeline

__version__ = "0.1.0"
__all__ = [
    "Comparison",
    "ConfigError",
    "DeadlockError",
    "Op",
    "Pair",
    "Result",
    "Schedule",
    "ScheduleError",
    "SweepTable",
    "Timeline",
    "UserError",
    "build",
    "compare",
    "format_order",
    "parse_order",
    "simulate",
    "sweep",
]
