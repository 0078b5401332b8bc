"""The longest path node after node, compiled: for a process that plays much.

What numpy does in turns of all lanes (:mod:`dualpipe_sim.engine.longest_path`) is a loop over nodes where numba
compiles it: the same sums and maxima of the same numbers, so the same answer to the last bit, several times as soon.
But loading numba takes longer than most programs play, so that waits until a process has played as much.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import inf
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.base.compiled import COMPILES, compiled
from dualpipe_sim.graph.task_graph import Issue, Lanes, TaskGraph
from dualpipe_sim.graph.wiring import NO_NODE, Wiring

WORTH_NODES = 3_000_000
"""Nodes that a process plays before it loads numba: about a second's work."""


class _Rows(NamedTuple):
    """What each node that is played waits for.

    Attributes:
        node: the nodes, lane after lane in the order that they run.
        begins: the place in ``node`` where each lane begins, and, last, how many there are.
        first: where each node's predecessors begin in ``source``, and, last, how many there are.
        source: the nodes that are waited for.
        through: the transfer that comes from there; ``nodes``, which stands for none, where none does.

    """

    node: IntArray
    begins: IntArray
    first: IntArray
    source: IntArray
    through: IntArray


_ROWS: WeakKeyDictionary[Wiring, _Rows] = WeakKeyDictionary()
_PLAYED = [0]
"""Nodes that this process has played."""


def is_worth_it(graph: TaskGraph) -> bool:
    """Return whether a graph that is about to be played is to be played by compiled functions."""
    _PLAYED[0] += graph.nodes
    return COMPILES and _PLAYED[0] > WORTH_NODES


def be_ready() -> None:
    """Load what is compiled now, in a process that is going to play much."""
    if COMPILES:
        none, times = np.zeros(0, dtype=np.int64), np.zeros(1)
        _compiled()(
            _Rows(none, np.zeros(1, dtype=np.int64), none, none, none), times, Issue(times, times), times, times, none
        )
        _PLAYED[0] = WORTH_NODES


def times_s(graph: TaskGraph, lanes: Lanes) -> tuple[FloatArray, FloatArray]:
    """Return start and end of each node that runs on a lane, infinite where a circle is in the way.

    Args:
        graph: what is played.
        lanes: which lane of which rank each of its first nodes runs on.

    """
    rows = _ROWS.get(graph.wiring)
    if rows is None:
        rows = _ROWS[graph.wiring] = _rows(graph, lanes)
    lasts_s = np.append(graph.duration_s, 0.0)
    issue = graph.issue or Issue(*np.zeros((2, graph.nodes)))
    start_s, end_s = np.full((2, len(rows.node)), inf)
    _compiled()(rows, lasts_s, issue, start_s, end_s, rows.begins[:-1].copy())
    return start_s, end_s


def _rows(graph: TaskGraph, lanes: Lanes) -> _Rows:
    node, begins = lanes.in_order()
    first, played = graph.predecessor_start[: len(node) + 1], len(node)
    source = graph.edges[0, : first[-1]]
    crosses = source >= played
    sender = np.append(graph.sender, NO_NODE)[np.where(crosses, source - played, -1)]
    return _Rows(
        node,
        np.append(np.flatnonzero(begins), played),
        first,
        np.where(crosses, sender, source),
        np.where(crosses, source, graph.nodes),
    )


@cache
def _compiled() -> Callable[..., None]:
    return compiled(_play)


def _play(rows: _Rows, lasts_s: FloatArray, issue: Issue, start_s: FloatArray, end_s: FloatArray, at: IntArray) -> None:
    """Fill in starts and ends, lane after lane, each as far as all that it waits for has ended, until none goes on.

    Args:
        rows: what waits for what.
        lasts_s: seconds of each node, and, last, 0.
        issue: when the host begins to issue each node, and when it has.
        start_s: the answer, infinite so far.
        end_s: likewise.
        at: the place in ``rows.node`` that each lane has come to.

    """
    goes_on = True
    while goes_on:
        goes_on = False
        for lane in range(len(at)):
            ready_s = 0.0 if at[lane] == rows.begins[lane] else end_s[rows.node[at[lane] - 1]]
            while at[lane] < rows.begins[lane + 1]:
                one = rows.node[at[lane]]
                for edge in range(rows.first[one], rows.first[one + 1]):
                    ready_s = max(ready_s, end_s[rows.source[edge]] + lasts_s[rows.through[edge]])
                if ready_s == inf:
                    break
                start_s[one] = max(ready_s, issue.begin_s[one])
                end_s[one] = ready_s = max(start_s[one] + lasts_s[one], issue.end_s[one])
                at[lane] += 1
                goes_on = True
