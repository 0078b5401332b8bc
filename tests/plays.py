"""What tests share that play graphs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dualpipe_sim.engine import longest_path
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.graph.timeline import Timeline


def longest_path_twice(graph: TaskGraph) -> Timeline:
    """Play a graph as one that nobody played before, then by the turns noted down; both must be the same."""
    graph = replace(graph, wiring=replace(graph.wiring))  # the same of its own, which nobody knows
    first, _, third = (longest_path.play(graph) for _ in range(3))
    assert np.array_equal(first.start_s, third.start_s)
    assert np.array_equal(first.end_s, third.end_s)
    return first
