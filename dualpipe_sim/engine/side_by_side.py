"""Many graphs at once: those in which the same wait for the same are played side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dualpipe_sim.engine import longest_path
from dualpipe_sim.engine.play import Engine, play
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.graph.timeline import Timeline


def play_all(graphs: Sequence[TaskGraph], engine: Engine = "auto") -> list[Timeline]:
    """Return the timeline of each graph, as :func:`~dualpipe_sim.engine.play.play` would, to the last bit.

    Graphs of one wiring, which :mod:`dualpipe_sim.graph.wiring` keeps, differ in durations only, so that the longest
    path is found for all of them in one walk. Graphs that take another engine are played one by one.

    Raises:
        DeadlockError: an order in which ranks wait for each other in a circle.
        UserError: the longest-path engine, where links or SMs are shared.

    """
    alike: dict[int, list[int]] = {}
    played: dict[int, Timeline] = {}
    for place, graph in enumerate(graphs):
        if engine != "simpy" and graph.fixed_durations and graph.load is None and graph.issue is None:
            alike.setdefault(id(graph.wiring), []).append(place)
        else:
            played[place] = play(graph, engine)
    for places in alike.values():
        first = graphs[places[0]]
        timelines = longest_path.play_many(first, (graphs[place].duration_s for place in places))
        played |= {place: replace(one, graph=graphs[place]) for place, one in zip(places, timelines, strict=True)}
    return [played[place] for place in range(len(graphs))]
