"""What is trained, and its sizes; no seconds. Imports ``order.placement`` and ``base``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualpipe_sim.base.lazy import lazy_names

if TYPE_CHECKING:
    from dualpipe_sim.model.architecture import Model as Model
    from dualpipe_sim.model.job import Job as Job
    from dualpipe_sim.model.recipe import Recipe as Recipe
    from dualpipe_sim.model.recipe import Recompute as Recompute

_HOME = {
    "Job": "job",
    "Model": "architecture",
    "Recipe": "recipe",
    "Recompute": "recipe",
}

__all__ = list(_HOME)

__getattr__, __dir__ = lazy_names(__name__, _HOME)
