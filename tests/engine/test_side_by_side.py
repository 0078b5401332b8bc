"""Graphs that are played side by side: each timeline is that of the graph by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dualpipe_sim import DeadlockError, build, parse_order
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine.play import play
from dualpipe_sim.engine.side_by_side import play_all
from dualpipe_sim.graph.lowering import lower


def test_graphs_of_several_wirings_come_back_in_their_order_to_the_last_bit() -> None:
    costs = [UniformCosts(1.0 + one / 7, 1.0, 0.9, transfer_s=one / 3) for one in range(6)]
    graphs = [lower(build(name, 4, 8), one) for one in costs for name in ("1f1b", "zb-h1")]
    played = play_all(graphs)
    assert [one.graph for one in played] == graphs
    for graph, one in zip(graphs, played, strict=True):
        alone = play(graph)
        np.testing.assert_array_equal(one.start_s, alone.start_s)
        np.testing.assert_array_equal(one.end_s, alone.end_s)


def test_an_engine_that_is_asked_for_plays() -> None:
    graphs = [lower(build("1f1b", 2, 4), UniformCosts(1.0, 1.0, 1.0))] * 2
    assert [one.engine for one in play_all(graphs, "simpy")] == ["simpy", "simpy"]
    assert play_all([]) == []


def test_an_order_that_deadlocks_is_said() -> None:
    order = replace(parse_order("0F0,0B0\n1B0,1F0\n"), name="mine")
    with pytest.raises(DeadlockError):
        play_all([lower(order, UniformCosts(1.0, 1.0, 1.0))])
