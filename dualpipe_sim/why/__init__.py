"""Why a run takes as long as it does: its critical path, what its step depends on, its bubble as a sum.

Imports ``simulation`` and below: it plays one order again and again, each time with one cost changed.
"""

from dualpipe_sim.why.bubble import Bubble, bubble_of
from dualpipe_sim.why.outcome import Why
from dualpipe_sim.why.run import why, why_run
from dualpipe_sim.why.sensitivity import Sensitivity

__all__ = ["Bubble", "Sensitivity", "Why", "bubble_of", "why", "why_run"]
