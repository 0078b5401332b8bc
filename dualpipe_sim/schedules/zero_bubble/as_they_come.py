"""An order of F and I for any limit from 1 up: whatever has arrived runs, backwards first, as memory allows.

Other orders are written down and then timed; this one is found by playing. Events are (time, rank): at its time, a rank
looks at what has arrived and takes one op, or comes back when the next input arrives. W are played too, as they take
time and free memory, but only F and I are handed on.
"""

from __future__ import annotations

import heapq

from dualpipe_sim.schedules.zero_bubble.problem import NOT_YET, ROUNDING, F, I, Lines, Problem, W
from dualpipe_sim.schedules.zero_bubble.weights import Writer


def as_they_come(problem: Problem) -> Lines:
    """Return the order in which a rank takes a backward that has arrived, else a forward, the deeper stage's first.

    It cannot deadlock. A first stage's forward leaves room for one of a second stage, so the oldest micro-batch that
    is under way can always go on.
    """
    end_s = [NOT_YET] * (3 * problem.of_kind)
    writers = [Writer(problem, end_s) for _ in range(problem.ranks)]
    queues = [_Queue(problem, rank, end_s) for rank in range(problem.ranks)]
    events = [(0.0, rank) for rank in range(problem.ranks)]
    while events:
        now_s, rank = heapq.heappop(events)
        writer, queue = writers[rank], queues[rank]
        if now_s < writer.clock_s - ROUNDING:
            continue  # still busy; it has an event of its own for when it is done
        arrivals = queue.arrivals()
        code = next((code for arrival_s, code in arrivals if arrival_s <= now_s + ROUNDING), None)
        if code is None:
            # Nothing is here: come back when each of what is on its way arrives. What is not made yet wakes the rank.
            for arrival_s, _ in arrivals:
                heapq.heappush(events, (arrival_s, rank))
            continue
        writer.make_room(code)
        writer.fill_gap(now_s, now_s)
        writer.run(code)
        queue.take(code)
        heapq.heappush(events, (writer.clock_s, rank))
        told = problem.tells[code // problem.micro_batches]
        if told >= 0:
            heapq.heappush(events, (max(now_s, writers[told].clock_s), told))
    return [[code for code in writer.order if problem.kind(code) != W] for writer in writers]


class _Queue:
    """The next F and I of each of a rank's stages, backwards first and deeper stages first.

    Micro-batches of a (kind, stage) run in order, so each has one next op; dictionaries keep the order of preference.
    """

    def __init__(self, problem: Problem, rank: int, end_s: list[float]) -> None:
        self._problem = problem
        self._end_s = end_s
        stages = [stage for stage, holder in enumerate(problem.rank_of_stage) if holder == rank][::-1]
        self._next = {(kind, stage): problem.code(kind, stage, 0) for kind in (I, F) for stage in stages}
        self._in_flight = 0.0

    def arrivals(self) -> list[tuple[float, int]]:
        """Return (when its input arrives, op) of the next ops for which there is room, once inputs are on their way."""
        problem, there = self._problem, []
        for (kind, stage), code in self._next.items():
            if code >= problem.code(kind, stage + 1, 0) or (kind == F and not self._has_room(stage)):
                continue
            producer = problem.waits_for[code]
            if producer < 0:
                there.append((0.0, code))
            elif self._end_s[producer] >= 0:
                there.append((self._end_s[producer] + problem.delay_s[code], code))
        return there

    def take(self, code: int) -> None:
        """Go on to the next micro-batch of an op's kind and stage."""
        kind, stage = divmod(code // self._problem.micro_batches, self._problem.stages)
        self._next[kind, stage] += 1
        self._in_flight += self._problem.share if kind == F else -self._problem.share

    def _has_room(self, stage: int) -> bool:
        """Whether one more forward fits once all W are done, and behind a first stage's one more of the second."""
        more = 2 if stage < self._problem.ranks < self._problem.stages else 1
        return self._in_flight + more * self._problem.share <= self._problem.limit + ROUNDING
