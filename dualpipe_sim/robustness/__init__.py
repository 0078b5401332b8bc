"""Robust choice: which schedule is best under what may happen in a step, and which where on a map of two keys.

Imports ``simulation`` and below: it plays schedules as a comparison does, many at a time, through ``batch``.
"""

from dualpipe_sim.robustness.grid import regimes
from dualpipe_sim.robustness.outcome import Robust, Standing
from dualpipe_sim.robustness.play import robust
from dualpipe_sim.robustness.regime_map import RegimeMap

__all__ = ["RegimeMap", "Robust", "Standing", "regimes", "robust"]
