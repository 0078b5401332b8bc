"""Why an order cannot be played: the ranks that wait for each other in a circle, in words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dualpipe_sim.errors import DeadlockError
from dualpipe_sim.graph import TaskGraph


def explain(graph: TaskGraph, done: NDArray[np.bool_]) -> DeadlockError:
    """Return the error that spells out a circle of waits.

    Args:
        graph: what was played.
        done: which nodes ended, shape ``(nodes,)``; at least one did not.

    """
    circle = _circle(graph, done)
    waits = [_wait(graph, node, next_) for node, next_ in zip(circle, circle[1:] + circle[:1], strict=True)]
    return DeadlockError(f"{graph.schedule.name}: the order deadlocks: {', '.join(dict.fromkeys(filter(None, waits)))}")


def _circle(graph: TaskGraph, done: NDArray[np.bool_]) -> list[int]:
    """Follow unfinished predecessors from an unfinished node until one comes round again."""
    node = int(np.flatnonzero(~done)[0])
    path: dict[int, None] = {}
    while node not in path:
        path[node] = None
        node = _blocker(graph, done, node)
    walked = list(path)
    return walked[walked.index(node) :]


def _blocker(graph: TaskGraph, done: NDArray[np.bool_], node: int) -> int:
    previous = int(graph.previous_on_lane[node])
    if previous >= 0 and not done[previous]:
        return previous
    begin, end = graph.predecessor_start[node : node + 2]
    return int(next(source for source in graph.edges[0][begin:end] if not done[source]))


def _wait(graph: TaskGraph, node: int, needs: int) -> str:
    """Say one step of the circle; a transfer says nothing, its consumer names its producer."""
    if node >= graph.first_transfer:
        return ""
    schedule = graph.schedule
    task, rank = int(graph.task[node]), int(schedule.rank_of_task[graph.task[node]])
    here = f"{schedule.task(task)} on rank {rank}"
    if needs < graph.first_transfer:
        needed = schedule.task(int(graph.task[needs]))
        if graph.previous_on_lane[node] == needs:
            return f"{here} comes after {needed}" if task != graph.task[needs] else ""
        return f"{here} waits for {needed}" if task != graph.task[needs] else f"{here} waits for itself"
    producer = int(graph.transfers.producer[needs - graph.first_transfer])
    return f"{here} waits for {schedule.op(producer)} from rank {schedule.rank[producer]}"
