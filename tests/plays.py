"""What tests share that play graphs."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np

from dualpipe_sim.engine import by_node, longest_path
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import R
from dualpipe_sim.schedules.registry import build


def asked_by(schedule: str) -> dict[str, object]:
    """Return what costs by layer must have for a schedule: recomputation where it runs forwards again."""
    return {"training.recompute": "full"} if build(schedule, 4, 8).of_kinds(R).any() else {}


def longest_path_each_way(graph: TaskGraph) -> Timeline:
    """Play a graph as one that nobody played before, by the turns noted down, and compiled; all must be the same."""
    graph = replace(graph, wiring=replace(graph.wiring))  # the same of its own, which nobody knows
    first, _, third = (longest_path.play(graph) for _ in range(3))
    with mock.patch.object(by_node, "WORTH_NODES", 0):
        compiled = longest_path.play(graph)
    for other in (third, compiled):
        assert np.array_equal(first.start_s, other.start_s)
        assert np.array_equal(first.end_s, other.end_s)
    return first
