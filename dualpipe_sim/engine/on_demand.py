"""SMs shared on demand: compute has all of them while no all-to-all runs on its rank.

A compute phase has two durations: ``alone_s`` with all SMs, and the longer ``beside_s`` with those that an all-to-all
leaves. While it runs, the all-to-all lane of its rank turns on and off, and the phase goes on at the speed of the
moment. What counts is the part of it that is left: a phase that would take 3 s alone and 4 s beside an all-to-all, and
runs 1 s alone, has 2/3 left; if an all-to-all then runs for the rest, that takes 2/3 x 4 s.

Where no SMs are kept free for it, an all-to-all that comes while a kernel runs gets some only when that kernel ends,
since no block of another starts while blocks of the first still wait. It holds its lane from when it comes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import simpy

from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.graph.task_graph import TaskGraph

_ROUNDING = 1e-9
"""Of a kernel: what is done of a phase is summed up."""


class _Work:
    """A compute phase in progress: ``left`` of it, 1 to 0, was left at ``since_s``; all of it takes ``whole_s``."""

    __slots__ = ("alone_s", "beside_s", "done", "due", "kernels", "left", "node", "since_s", "whole_s")

    def __init__(self, node: int, done: simpy.Event, alone_s: float, beside_s: float, kernels: int) -> None:
        self.node, self.done, self.alone_s, self.beside_s = node, done, alone_s, beside_s
        self.kernels = kernels
        self.left = 1.0
        self.whole_s = self.since_s = 0.0
        self.due: simpy.Event | None = None


class OnDemandSms:
    """The SMs of all ranks in one run.

    Args:
        env: the run's clock.
        graph: phases with ``alone_s`` gain SMs; their ``duration_s`` is what they last beside an all-to-all.
        otherwise: gives the event of any other node.

    """

    def __init__(self, env: simpy.Environment, graph: TaskGraph, otherwise: Callable[[int], simpy.Event]) -> None:
        self._env, self._otherwise = env, otherwise
        self._phases = graph.first_transfer
        self._rank, self._lane = graph.rank.tolist(), graph.lane.tolist()
        self._beside_s = graph.duration_s.tolist()
        self._alone_s = _alone_s(graph)
        self._kernels = np.array([phase.kernels for phase in graph.phases], dtype=int)[graph.phase].tolist()
        self._exchanging = [False] * graph.schedule.ranks
        self._computing: dict[int, _Work] = {}

    def lasts(self, node: int) -> simpy.Event:
        """Start a node; the event fires, with the node as its value, when it is done."""
        if node >= self._phases:
            return self._otherwise(node)
        rank = self._rank[node]
        if self._lane[node] == Lane.ALLTOALL:
            return self._exchange(node, rank)
        if self._alone_s[node] == self._beside_s[node] and not self._kernels[node]:
            return self._otherwise(node)
        done = simpy.Event(self._env)
        work = _Work(node, done, self._alone_s[node], self._beside_s[node], self._kernels[node])
        self._computing[rank] = work
        self._change(work, rank)
        return work.done

    def _exchange(self, node: int, rank: int) -> simpy.Event:
        """Start an all-to-all, behind the kernel that runs where it has to; compute is slower until it ends."""
        wait_s = self._kernel_s(rank)
        if not wait_s:
            return self._run(node, rank)
        ended, done = simpy.Timeout(self._env, wait_s), simpy.Event(self._env)

        def finish(_: simpy.Event) -> None:
            done.succeed(node)

        ended.callbacks.append(lambda _: self._run(node, rank).callbacks.append(finish))
        return done

    def _run(self, node: int, rank: int) -> simpy.Event:
        """Run an all-to-all; compute of its rank is slower until it ends."""
        self._turn(rank, True)
        exchange = self._otherwise(node)
        # This stands before the lane's own callback, so an all-to-all that follows at once turns it on again after it.
        exchange.callbacks.append(lambda _: self._turn(rank, False))
        return exchange

    def _kernel_s(self, rank: int) -> float:
        """Return how long the kernel that a rank computes goes on, with no all-to-all beside it; 0 where none does."""
        work = self._computing.get(rank)
        if work is None or not (work.kernels and work.whole_s):
            return 0.0
        # One that comes as a kernel ends finds the next one there: that was issued behind it on the same stream.
        done = work.kernels * (1 - work.left + (self._env.now - work.since_s) / work.whole_s)
        return (math.floor(done + _ROUNDING) + 1 - done) * work.alone_s / work.kernels

    def _turn(self, rank: int, exchanging: bool) -> None:
        """Turn a rank's all-to-all on or off, and change the speed of what it computes."""
        self._exchanging[rank] = exchanging
        if rank in self._computing:
            self._change(self._computing[rank], rank)

    def _change(self, work: _Work, rank: int) -> None:
        """Count what is done at the old speed, and set the end by the new one."""
        now_s = self._env.now
        if work.due is not None:
            work.left = max(0.0, work.left - (now_s - work.since_s) / work.whole_s)
            work.due.callbacks.clear()  # SimPy cannot take an event back, so the old end fires and nobody listens
        work.since_s = now_s
        work.whole_s = work.beside_s if self._exchanging[rank] else work.alone_s
        work.due = simpy.Timeout(self._env, work.left * work.whole_s)
        work.due.callbacks.append(lambda _: self._finish(rank))

    def _finish(self, rank: int) -> None:
        work = self._computing.pop(rank)
        work.done.succeed(work.node)


def _alone_s(graph: TaskGraph) -> list[float]:
    """Seconds of each phase with all SMs, one for each phase of the graph.

    The templates say how much shorter a phase is alone; a node whose duration was scaled (jitter, a slow rank) gains
    as large a part.
    """
    gain = [
        1.0 if phase.alone_s is None or not phase.duration_s else phase.alone_s / phase.duration_s
        for phase in graph.phases
    ]
    alone_s: list[float] = (np.array(gain)[graph.phase] * graph.duration_s[: graph.first_transfer]).tolist()
    return alone_s
