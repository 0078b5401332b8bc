"""Why an order cannot be played: the ranks that wait for each other in a circle, in words.

A *circle* here is a list of nodes, each of which waits for the next one, and the last one for the first. A node waits
for another either in its rank's order (its turn comes after that one) or for that one's tensor. The message leaves the
first kind out: it says for each rank which task the others wait for and which task of the rank waits, and for what.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dualpipe_sim.base.arrays import BoolArray
from dualpipe_sim.errors import DeadlockError
from dualpipe_sim.graph.task_graph import TaskGraph


def explain(graph: TaskGraph, done: BoolArray) -> DeadlockError:
    """Return the error that spells out a circle of waits.

    Args:
        graph: what was played.
        done: which nodes ended, shape ``(nodes,)``; at least one did not.

    """
    circle = _circle(graph, done)
    if graph.rendezvous:
        behind = ", which waits for ".join(_in_words(graph, node) for node in circle)
        return DeadlockError(f"{graph.schedule.name}: the program deadlocks: {behind}, which waits for the first")
    links = list(_links(graph, circle))
    which = "this" if len(links) == 1 else "one of these"
    return DeadlockError(f"{graph.schedule.name}: the order deadlocks: {'; '.join(links)}; {which} must change")


def _in_words(graph: TaskGraph, node: int) -> str:
    """Return a task, or a message with its two ranks."""
    if node < graph.first_transfer:
        return f"{graph.label(node)} of rank {graph.rank[node]}"
    transfer = node - graph.first_transfer
    ends = graph.transfers.producer[transfer], graph.transfers.consumer[transfer]
    source, target = (int(graph.schedule.rank[end]) for end in ends)
    return f"{graph.label(node)} from rank {source} to rank {target}"


def _circle(graph: TaskGraph, done: BoolArray) -> list[int]:
    """Follow unfinished predecessors from an unfinished node until one comes round again.

    The first nodes may only lead to the circle and not be on it; they are cut off.
    """
    node = int(np.flatnonzero(~done)[0])
    path: dict[int, None] = {}  # a set that keeps its order
    while node not in path:
        path[node] = None
        node = _blocker(graph, done, node)
    walked = list(path)
    return walked[walked.index(node) :]


def _blocker(graph: TaskGraph, done: BoolArray, node: int) -> int:
    """Return what an unfinished node waits for: the node before it on its lane, or else one of its edges."""
    previous = int(graph.previous_on_lane[node])
    if previous >= 0 and not done[previous]:
        return previous
    begin, end = graph.predecessor_start[node : node + 2]
    waits_for = graph.edges[0][begin:end]
    return int(waits_for[~done[waits_for]][0])


def _links(graph: TaskGraph, circle: list[int]) -> Iterator[str]:
    """Say each rank's part: from what another waits for, back through its order to what itself waits.

    The circle is cut behind each node that waits for a tensor. A piece between two cuts is one rank's: its first node
    would make what the piece before it waits for, and its last one waits for the next piece.
    """
    waited_for = circle[1:] + circle[:1]
    waits = [at for at, (node, other) in enumerate(zip(circle, waited_for, strict=True)) if _waits(graph, node, other)]
    around = circle + circle  # so that the piece across the end of the list is a slice too
    for before, at in zip(waits, [*waits[1:], waits[0] + len(circle)], strict=True):
        part = [node for node in around[before + 1 : at + 1] if node < graph.first_transfer]
        yield _link(graph, part[0], part[-1], around[(at + 1) % len(circle)])


def _waits(graph: TaskGraph, node: int, waits_for: int) -> bool:
    """Whether a node waits for a tensor or at a barrier, not for its turn.

    What stands later in its rank's order cannot be its turn: then a rank needs an output of its own that comes after.
    """
    if waits_for >= graph.first_transfer:
        return True
    if node >= graph.first_transfer:
        return False
    here, there = graph.task[node], graph.task[waits_for]
    return waits_for == node or there > here or graph.rank[waits_for] != graph.rank[node]


def _link(graph: TaskGraph, needed: int, waiting: int, waits_for: int) -> str:
    """Say one rank's part in words.

    Args:
        graph: what was played.
        needed: phase that another rank waits for.
        waiting: phase of the same rank that waits, the same one or one before it.
        waits_for: node that it waits for.

    """
    schedule = graph.schedule
    last, first = (schedule.task(int(graph.task[node])) for node in (needed, waiting))
    rank = schedule.rank_of_task[graph.task[waiting]]
    if waits_for < graph.first_transfer:
        what = "itself" if waits_for == waiting else str(schedule.task(int(graph.task[waits_for])))
    else:
        what = str(schedule.op(int(graph.transfers.producer[waits_for - graph.first_transfer])))
    if first == last:
        return f"rank {rank} runs {first}, which waits for {what}"
    return f"rank {rank} runs {last} after {first}, which waits for {what}"
