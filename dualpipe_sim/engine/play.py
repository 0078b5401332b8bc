"""Which engine plays a graph."""

from __future__ import annotations

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
    from dualpipe_sim.engine import load

    return load.settled(graph, partial(play, engine=engine))


def play(graph: TaskGraph, engine: Engine = "auto") -> Timeline:
    """Play a graph on the named engine; ``auto`` takes the longest path, which is the same answer far faster.

    Where links or SMs are shared there is no longest path to take, and ``auto`` is SimPy.

    Raises:
        DeadlockError: an order in which ranks wait for each other in a circle.
        UserError: the longest-path engine, where links or SMs are shared.

    """
    graph = settled(graph, engine)
    if engine == "longest-path" and not graph.fixed_durations:
        raise UserError(
            "engine: longest-path cannot share links (contention: fair) or SMs (on demand); take simpy or auto"
        )
    if engine == "simpy" or not graph.fixed_durations:
        from dualpipe_sim.engine import discrete_event

        return discrete_event.play(graph)
    from dualpipe_sim.engine import longest_path

    return longest_path.play(graph)
