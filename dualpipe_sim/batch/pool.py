"""Many tasks on a pool of workers, whatever the pool is."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import TypeAlias

from dualpipe_sim.batch.points import Evaluate, Point, Row, attempt

Task: TypeAlias = tuple[int, Point]


def as_they_end(
    pool: Executor, todo: deque[Task], evaluate: Evaluate, window: int
) -> Iterator[tuple[Task, Future[Row]]]:
    """Submit tasks, at most ``window`` at once, and yield each with its future when it is over."""
    over: SimpleQueue[Future[Row]] = SimpleQueue()
    under_way: dict[Future[Row], Task] = {}
    while todo or under_way:
        while todo and len(under_way) < window:
            future = pool.submit(attempt, evaluate, todo[0][1])
            under_way[future] = todo.popleft()
            future.add_done_callback(over.put)
        ended = over.get()
        yield under_way.pop(ended), ended
