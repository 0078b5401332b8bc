"""What tests share that play graphs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dualpipe_sim.engine import longest_path
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import R
from dualpipe_sim.schedules.registry import build


def asked_by(schedule: str) -> dict[str, object]:
    """Return what costs by layer must have for a schedule: recomputation where it runs forwards again."""
    return {"training.recompute": "full"} if build(schedule, 4, 8).of_kinds(R).any() else {}


def longest_path_twice(graph: TaskGraph) -> Timeline:
    """Play a graph as one that nobody played before, then by the turns noted down; both must be the same."""
    graph = replace(graph, wiring=replace(graph.wiring))  # the same of its own, which nobody knows
    first, _, third = (longest_path.play(graph) for _ in range(3))
    assert np.array_equal(first.start_s, third.start_s)
    assert np.array_equal(first.end_s, third.end_s)
    return first
