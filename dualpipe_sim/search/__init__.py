"""Searches: which stage holds which layers, where it lies, and what runs after what, for the shortest step.

Imports ``simulation`` and below: what is found is played as any order is, beside all registered schedules.
"""

from dualpipe_sim.search.found import Found
from dualpipe_sim.search.run import search

__all__ = ["Found", "search"]
