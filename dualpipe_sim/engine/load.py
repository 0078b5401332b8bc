"""Lengths that depend on load: how busy each GPU was before an op, and what messages stand beside it.

A length follows from the timeline and the timeline from the lengths. What counts lies mostly before an op: one pass of
the longest path finds that. What stands beside an op, and links that are shared, are found by turns: play with the
lengths of the last turn, see what each op finds before and beside it, take its length from that, until no length
changes any more. The engine that plays does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.costs.load import Load
from dualpipe_sim.engine.longest_path import warm_durations_s
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.graph.timeline import Timeline

_TURNS = 60
_SAME = 1e-12
"""Lengths that differ by less than this share are the same."""


def settled(graph: TaskGraph, play: Callable[[TaskGraph], Timeline]) -> TaskGraph:
    """Return a graph whose lengths are those under its own load, which it then no longer depends on.

    Args:
        graph: what is played; its durations are those on idle GPUs.
        play: plays a graph whose durations are what they are.

    """
    if graph.load is None:
        return graph
    cold, load = replace(graph, load=None), graph.load
    computing = compute_phases(cold)
    now = replace(cold, duration_s=warm_durations_s(cold, load))
    for _ in range(_TURNS):
        factor = factor_of(play(now), load)
        duration_s = cold.duration_s.copy()
        duration_s[computing] *= factor
        change = np.abs(duration_s - now.duration_s)
        now = replace(cold, duration_s=duration_s)
        if np.all(change <= _SAME * duration_s):
            break
    return now


def compute_phases(graph: TaskGraph) -> IntArray:
    """Return the phases whose lengths depend on load: all on compute lanes, rank by rank in the order they run."""
    return np.flatnonzero(graph.on(Lane.COMPUTE))


def factor_of(timeline: Timeline, load: Load) -> FloatArray:
    """Return how much longer each of :func:`compute_phases` takes than on an idle GPU."""
    return (1 + load.beta * busy_before(timeline, load.tau_s)) * (1 + load.gamma * beside_messages(timeline))


def busy_before(timeline: Timeline, tau_s: float) -> FloatArray:
    """Return how busy its GPU was before each of :func:`compute_phases`: 0 idle, 1 busy all the time.

    What happened t seconds ago counts exp(-t / tau). A step begins on idle GPUs.
    """
    graph = timeline.graph
    phases = compute_phases(graph)
    start_s, end_s, rank = timeline.start_s[phases], timeline.end_s[phases], graph.rank[phases]
    first = np.searchsorted(rank, np.arange(timeline.ranks + 1))
    since_s = np.append(0.0, end_s[:-1])
    since_s[first[:-1][first[:-1] < len(phases)]] = 0.0
    fades = np.exp(-np.maximum(start_s - since_s, 0.0) / tau_s).tolist()
    kept = np.exp(-(end_s - start_s) / tau_s).tolist()
    busy = np.empty(len(phases))
    for begin, end in zip(first[:-1].tolist(), first[1:].tolist(), strict=True):
        now = 0.0
        for place in range(begin, end):
            busy[place] = now = now * fades[place]
            now = 1 - (1 - now) * kept[place]
    return busy


def beside_messages(timeline: Timeline) -> FloatArray:
    """Return the share of each of :func:`compute_phases` in which a message is on its rank's communication stream."""
    graph = timeline.graph
    phases = compute_phases(graph)
    share = np.zeros(len(phases))
    if graph.sides is None or not len(graph.transfers):
        return share
    rank_of_phase = graph.rank[phases]
    rank, begin_s, end_s = _on_stream(timeline, graph.sides)
    for one in range(timeline.ranks):
        own, here = rank == one, np.flatnonzero(rank_of_phase == one)
        if own.any() and len(here):
            start_s, until_s = timeline.start_s[phases[here]], timeline.end_s[phases[here]]
            covered_s = _covered_s(begin_s[own], end_s[own], np.stack([start_s, until_s]))
            length_s = until_s - start_s
            share[here] = np.divide(covered_s[1] - covered_s[0], length_s, out=np.zeros(len(here)), where=length_s > 0)
    return share


def _on_stream(timeline: Timeline, sides: tuple[IntArray, IntArray]) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return rank, begin and end of each message on each of its two ranks: it is there before the other side is."""
    graph, schedule = timeline.graph, timeline.graph.schedule
    transfers, first = graph.transfers, graph.first_transfer
    ranks, begins = [], []
    for row, side in zip((transfers.producer, transfers.consumer), sides, strict=True):
        ranks.append(schedule.rank[row])
        begins.append(there_s(timeline, side))
    return np.concatenate(ranks), np.concatenate(begins), np.tile(timeline.end_s[first:], 2)


def there_s(timeline: Timeline, side: IntArray) -> FloatArray:
    """Return from when each transfer is on the stream of one of its sides, shape ``(transfers,)``."""
    before, message = side
    moment_s = np.zeros(len(timeline.graph.transfers))
    np.maximum.at(moment_s, message - timeline.graph.first_transfer, timeline.end_s[before])
    return moment_s


def _covered_s(begin_s: FloatArray, end_s: FloatArray, at_s: FloatArray) -> FloatArray:
    """Return for how long at least one of some intervals was there until each moment, shape as ``at_s``."""
    order = np.argsort(begin_s, kind="stable")
    begin_s, end_s = begin_s[order], end_s[order]
    until_s = np.maximum.accumulate(end_s)
    # what an interval adds is what lies beyond all before it
    begin_s = np.maximum(begin_s, np.append(-np.inf, until_s[:-1]))
    end_s = np.maximum(end_s, begin_s)
    moments_s = np.stack([begin_s, end_s], axis=1).ravel()
    sums_s = np.repeat(np.append(0.0, np.cumsum(end_s - begin_s)), 2)[1:-1]
    covered_s: FloatArray = np.interp(at_s, moments_s, sums_s)
    return covered_s
