"""Worker processes that answer one question after another, watched by a clock, for a server of one thread.

A process can be ended in the middle of whatever a link made it do, and its memory is limited; the server itself builds
nothing. Questions of the same answer go to the same worker, which still has what it found for those before.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from threading import Thread

from dualpipe_sim.base.memory import limit_to
from dualpipe_sim.batch.points import Evaluate, Point, Row
from dualpipe_sim.batch.processes import DEATHS, Worker
from dualpipe_sim.batch.runner import with_plugins
from dualpipe_sim.engine.by_node import be_ready
from dualpipe_sim.serving.limits import MEMORY_BYTES

_GRACE_S = 0.5
"""How long a worker may go on with what nobody waits for: a new one takes longer to be ready."""


@dataclass(frozen=True)
class _InLimits:
    """An evaluation whose process has so much memory and no more."""

    evaluate: Evaluate

    def __call__(self, point: Point) -> Row:
        _begin()
        row = self.evaluate(point)
        _expect_more()
        return row


@cache
def _begin() -> None:
    limit_to(MEMORY_BYTES)
    _seldom_look_for_garbage()


@cache
def _expect_more() -> None:
    """Get ready for many questions like the first, while whoever asked that looks at the answer."""
    Thread(target=be_ready, daemon=True).start()


def _seldom_look_for_garbage() -> None:
    """Let Python look through all objects rarely: that takes as long as an answer, and what is kept is no garbage."""
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _MOST_MIDDLE)


_MOST_MIDDLE = 1_000
"""Collections of middle-aged objects between two of all."""


class TooLong(Exception):  # noqa: N818 - no error of the program
    """An answer that took more than its time."""


class Lost(Exception):  # noqa: N818 - no error of the program
    """A worker that died of a question."""


class Workers:
    """As many worker processes as questions are answered at once.

    Args:
        evaluate: what answers a question; picklable.
        count: how many.

    Attributes:
        count: the same.

    """

    def __init__(self, evaluate: Evaluate, count: int = 2) -> None:
        self.count = count
        self._evaluate = with_plugins(_InLimits(evaluate))
        self._workers = {Worker(self._evaluate) for _ in range(count)}
        self._free = asyncio.LifoQueue[Worker]()  # the last one that answered is the warmest
        for worker in self._workers:
            self._free.put_nowait(worker)
        self._threads = ThreadPoolExecutor(count)
        self._under_way: set[asyncio.Task[Row]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Asked]:
        """Give a worker, once one is free, for several questions."""
        asked = Asked(self, await self._free.get())
        try:
            yield asked
        finally:
            leaving = asyncio.ensure_future(self._free_again(asked))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def _free_again(self, asked: Asked) -> None:
        """Let the next one have a worker; where nobody waits for its answer any more, it has little time to end."""
        if asked.task is not None and not asked.task.done():
            await asyncio.wait({asked.task}, timeout=_GRACE_S)
            if not asked.task.done():
                asked.worker.end()
                await asyncio.wait({asked.task})
        self._free.put_nowait(asked.worker)

    async def answer(self, asked: Asked, point: Point, limit_s: float) -> Row:
        """Return a worker's answer; where it takes too long, or dies, another one takes its place."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._threads, asked.worker.row, point)
        try:
            return await asyncio.wait_for(asyncio.shield(future), limit_s)
        except (asyncio.TimeoutError, *DEATHS) as error:
            self._workers.discard(asked.worker)
            asked.worker.end()
            with suppress(*DEATHS):
                await future
            if not self._closed:
                asked.worker = Worker(self._evaluate)
                self._workers.add(asked.worker)
            raise (TooLong if isinstance(error, asyncio.TimeoutError) else Lost) from error

    def keep(self, task: asyncio.Task[Row]) -> None:
        """Hold a task until it is over, whoever goes meanwhile."""
        self._under_way.add(task)
        task.add_done_callback(self._let_go)

    def _let_go(self, task: asyncio.Task[Row]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be there to take it

    async def close(self) -> None:
        """End all workers, whatever they do, and wait for what they leave."""
        self._closed = True
        for worker in self._workers:
            worker.end()
        await asyncio.gather(*self._under_way, *self._leaving, return_exceptions=True)
        self._threads.shutdown()


class Asked:
    """A worker that is asked several questions.

    Attributes:
        worker: the process.
        task: its last question.

    """

    def __init__(self, workers: Workers, worker: Worker) -> None:
        self._workers, self.worker = workers, worker
        self.task: asyncio.Task[Row] | None = None

    async def __call__(self, point: Point, limit_s: float) -> Row:
        """Return the answer to a question.

        Raises:
            TooLong: it took more than its seconds.
            Lost: the worker died of it.

        """
        self.task = asyncio.ensure_future(self._workers.answer(self, point, limit_s))
        self._workers.keep(self.task)
        return await asyncio.shield(self.task)
