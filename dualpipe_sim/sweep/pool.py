"""Many tasks on a pool of workers, whatever the pool is."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from queue import SimpleQueue
from typing import TypeAlias

from dualpipe_sim.sweep.runner import Evaluate, Point, Row, attempt

Task: TypeAlias = tuple[int, Point]


def as_they_end(
    pool: Executor, todo: deque[Task], evaluate: Evaluate, window: int
) -> Iterator[tuple[Task, Future[Row]]]:
    """Submit tasks, at most ``window`` at once, and yield each with its future when it is over.

    A pool that breaks gets no more of them: those under way come back with the reason, the rest stay in ``todo``.
    """
    over: SimpleQueue[Future[Row]] = SimpleQueue()
    under_way: dict[Future[Row], Task] = {}
    broken = False
    while under_way or (todo and not broken):
        while todo and len(under_way) < window and not broken:
            try:
                future = pool.submit(attempt, evaluate, todo[0][1])
            except BrokenExecutor:
                broken = True
                continue
            under_way[future] = todo.popleft()
            future.add_done_callback(over.put)
        if under_way:
            ended = over.get()
            yield under_way.pop(ended), ended
