"""Plans: of all ways to cut and schedule a model on given GPUs, the fastest that fits, and why not the others.

Imports ``simulation`` and below: it runs candidates by ``batch``, and leaves out those that ``bounds`` rule out.
"""

from dualpipe_sim.plan.outcome import Plan
from dualpipe_sim.plan.search import plan

__all__ = ["Plan", "plan"]
