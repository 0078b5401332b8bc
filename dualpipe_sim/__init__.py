"""Simulate pipeline-parallel training schedules: DualPipe, 1F1B, zero bubble, Chimera and the rest."""

from dualpipe_sim.registry import build
from dualpipe_sim.text import format_order, parse_order

__version__ = "0.1.0"
__all__ = ["build", "format_order", "parse_order"]
