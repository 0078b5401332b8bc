"""Where the backwards for the weights go in an order of F and I, once times are known.

A W has to wait for its own I only, and nothing waits for it but memory. So the order of F and I is kept, and W fill
what is left. :func:`place_weights` plays the order with a :class:`Writer` for each rank that decides when to run the
oldest W it has put off. Whether an op may start later for a W in front of it is a list of latest starts, which
:func:`latest_starts` finds backwards from an end that is aimed at; :func:`better_weights` tries ever earlier ends.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from dualpipe_sim.schedules.zero_bubble.problem import NOT_YET, ROUNDING, F, Lines, Problem, Trial

_AIMS = (1.0, 0.9, 0.75, 0.5, 0.25)


def better_weights(problem: Problem, lines: Lines, best: Trial) -> Trial:
    """Return the best order found that runs F and I as these lines do.

    Args:
        problem: times and limit.
        lines: F and I of each rank in the order they run.
        best: the same with no op waiting for a W. Its idle time, the longest span less the work of the busiest rank,
            is the first aim; smaller and smaller parts of it are the next ones.

    """
    for part in _AIMS:
        aim_s = part * (best.score.longest_span_s - max(problem.busy_s))
        trial = place_weights(problem, lines, latest_starts(problem, lines, aim_s))
        if trial is not None and trial.score < best.score:
            best = trial
    return best


def place_weights(problem: Problem, lines: Lines, latest_s: Sequence[float] = ()) -> Trial | None:
    """Return an order of F and I with each W where it costs least, or None where the limit forbids that.

    A W runs, the oldest first: before a forward that the memory limit would else refuse; in a gap that is long
    enough; in a shorter one if the op behind it may start that late; and when nothing else is left to do.

    Args:
        problem: times and limit.
        lines: F and I of each rank in the order they run.
        latest_s: how late each F and I may start without harm, by code; by default none may wait for a W.

    """
    # The same walk as in :func:`~dualpipe_sim.schedules.zero_bubble.problem.play`, with W put in between.
    end_s = [NOT_YET] * (3 * problem.of_kind)
    writers = [Writer(problem, end_s) for _ in lines]
    done = [0] * problem.ranks
    waits_for, delay_s, tells, batch = problem.waits_for, problem.delay_s, problem.tells, problem.micro_batches
    awake = list(range(problem.ranks))
    while awake:
        rank = awake.pop()
        writer, line = writers[rank], lines[rank]
        for index in range(done[rank], len(line)):
            code, arrival_s = line[index], 0.0
            if waits_for[code] >= 0:
                made_s = end_s[waits_for[code]]
                if made_s < 0:
                    break
                arrival_s = made_s + delay_s[code]
            if not writer.make_room(code):
                return None
            if writer.clock_s < arrival_s:
                writer.fill_gap(arrival_s, latest_s[code] if latest_s else arrival_s)
            writer.run(code)
            done[rank] = index + 1
            if tells[code // batch] >= 0:
                awake.append(tells[code // batch])
    if any(count < len(line) for count, line in zip(done, lines, strict=True)):
        return None
    for writer in writers:
        while writer.deferred:
            writer.run_weight()
    orders = [writer.order for writer in writers]
    return Trial(orders, end_s, problem.score(orders, end_s))


class Writer:
    """Writes one rank's order down: knows its clock, what it holds, and the W that it has put off."""

    def __init__(self, problem: Problem, end_s: list[float]) -> None:
        self.order: list[int] = []
        self.deferred: deque[int] = deque()
        self.clock_s = 0.0
        self._end_s = end_s
        self._duration_s = problem.duration_s
        self._of_kind = problem.of_kind
        self._adds = problem.activations
        self._live = 0.0
        self._room = problem.limit + ROUNDING - self._adds[F]

    def make_room(self, code: int) -> bool:
        """Run W until an op's activation fits; whether it does in the end."""
        while code < self._of_kind and self._live > self._room:
            if not self.deferred:
                return False
            self.run_weight()
        return True

    def fill_gap(self, arrival_s: float, latest_s: float) -> None:
        """Wait for what the next op needs; run W meanwhile, as long as that op can then start in time."""
        until_s = max(arrival_s, latest_s) + ROUNDING
        deferred, duration_s = self.deferred, self._duration_s
        while deferred and self.clock_s < arrival_s and self.clock_s + duration_s[deferred[0]] <= until_s:
            self.run_weight()
        self.clock_s = max(self.clock_s, arrival_s)

    def run_weight(self) -> None:
        """Run the oldest W."""
        self.run(self.deferred.popleft())

    def run(self, code: int) -> None:
        """Run an op."""
        self.clock_s += self._duration_s[code]
        self._end_s[code] = self.clock_s
        self._live += self._adds[code // self._of_kind]
        self.order.append(code)
        if self._of_kind <= code < 2 * self._of_kind:  # an I, which leaves a W to do
            self.deferred.append(code + self._of_kind)


def latest_starts(problem: Problem, lines: Lines, idle_s: float) -> list[float]:
    """Return how late each F and I may start if no rank is to idle longer than ``idle_s`` in its span, by code.

    Found backwards from the end of each rank's span, by the same walk as in ``play`` from the lines' ends: a rank goes
    back until the op that its output feeds has no latest start yet. Three things limit an op:

    - ``follow_s``: it must end before the latest start of the op behind it on its rank.
    - ``latest_s[fed] - delay_s[fed]``: its output must arrive before the latest start of the op that needs it.
    - ``work_s``: from its start on, its rank must have time for all of the line's ops from it on, each I with its W.
    """
    feeds, delay_s, duration_s, asks = problem.feeds, problem.delay_s, problem.duration_s, problem.asks
    batch, of_kind = problem.micro_batches, problem.of_kind
    latest_s = [math.nan] * (2 * of_kind)
    # The end of each rank's span: its first possible start, all its work, and as long as it may idle.
    follow_s = [start + busy + idle_s for start, busy in zip(problem.first_start_s, problem.busy_s, strict=True)]
    work_s = list(follow_s)
    left = [len(line) for line in lines]
    awake = list(range(problem.ranks))
    while awake:
        rank = awake.pop()
        line = lines[rank]
        while left[rank]:
            code = line[left[rank] - 1]
            fed = feeds[code]
            end_s = follow_s[rank]
            if fed >= 0:
                if math.isnan(latest_s[fed]):
                    break
                end_s = min(end_s, latest_s[fed] - delay_s[fed])
            work_s[rank] -= duration_s[code] + (duration_s[code + of_kind] if code >= of_kind else 0.0)
            latest_s[code] = follow_s[rank] = min(end_s - duration_s[code], work_s[rank])
            left[rank] -= 1
            if asks[code // batch] >= 0:
                awake.append(asks[code // batch])
    return latest_s
