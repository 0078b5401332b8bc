"""Which engine plays a graph."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal, TypeAlias

from dualpipe_sim.errors import UserError
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.graph.timeline import Timeline

Engine: TypeAlias = Literal["auto", "simpy", "longest-path"]


def settled(graph: TaskGraph, engine: Engine = "auto") -> TaskGraph:
    """Return a graph whose lengths are those under its own load; errors as for :func:`play`."""
    if graph.load is None:
        return graph
    from dualpipe_sim.engine import load, longest_path

    beside = graph.load.gamma and graph.sides is not None  # what stands beside an op counts
    if engine != "simpy" and not graph.shares_sms and not beside:
        warm = replace(graph, load=None, duration_s=longest_path.warm_durations_s(graph, graph.load))
        if not graph.shares_links or _uncrowded(warm) is not None:
            return warm
    return load.settled(graph, partial(play, engine=engine))


def play(graph: TaskGraph, engine: Engine = "auto") -> Timeline:
    """Play a graph on the named engine; ``auto`` takes the longest path, which is the same answer far faster.

    Where flows crowd links, or SMs are shared, there is no longest path to take, and ``auto`` is SimPy.

    Raises:
        DeadlockError: an order in which ranks wait for each other in a circle.
        UserError: the longest-path engine, where links or SMs are shared.

    """
    graph = settled(graph, engine)
    if engine == "longest-path" and not graph.fixed_durations:
        raise UserError(
            "engine: longest-path cannot share links (contention: fair) or SMs (on demand); take simpy or auto"
        )
    if engine == "auto" and graph.shares_links and not graph.shares_sms:
        alone = _uncrowded(graph)
        if alone is not None:
            return alone
    if engine == "simpy" or not graph.fixed_durations:
        from dualpipe_sim.engine import discrete_event

        return discrete_event.play(graph)
    from dualpipe_sim.engine import longest_path

    return longest_path.play(graph)


def _uncrowded(graph: TaskGraph) -> Timeline | None:
    """Return the timeline of a graph whose flows never crowd a link that they share, or None where they do."""
    from dualpipe_sim.engine import longest_path
    from dualpipe_sim.engine.flows import crowded

    timeline = longest_path.play(graph)
    return None if graph.shared is None or crowded(timeline, graph.shared) else timeline
