"""What an adaptive schedule is asked for, and what an order for it takes.

Inside this package an op is one number, its *code*: ``(kind x stages + stage) x micro-batches + micro-batch`` with the
kinds F, I and W as 0, 1 and 2. So codes count through all F, stage by stage, then all I, then all W, and what is known
of each op is a list by code. With 2 stages and 3 micro-batches::

    code  0   1   2   3   4   5   6   7   8   9   10  11  12  13  14  15  16  17
    op    0F0 0F1 0F2 1F0 1F1 1F2 0I0 0I1 0I2 1I0 1I1 1I2 0W0 0W1 0W2 1W0 1W1 1W2

``code // micro_batches`` is the op's *(kind, stage)*, also one number; ``code // of_kind`` its kind; ``code + of_kind``
the W of an I. A *line* is one rank's ops in the order they run; *lines* are those of all ranks.

These are plain lists and not arrays, since searches read them one op at a time, millions of times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np

from dualpipe_sim.order import ops
from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.op_times import OpTimes
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.order.schedule import Schedule

Lines: TypeAlias = list[list[int]]
F, I, W = range(3)
LETTERS = (ops.F, ops.I, ops.W)
NOTHING = -1
NOT_YET = -1.0
ROUNDING = 1e-9
_DIGITS = 9  # so that orders which differ by rounding errors only are equally good


class Score(NamedTuple):
    """How good an order is, least first."""

    longest_span_s: float
    makespan_s: float


class Trial(NamedTuple):
    """An order with its times: when each op ends, by code, and how good that is."""

    lines: Lines
    end_s: list[float]
    score: Score


@dataclass(frozen=True)
class Problem:
    """Stages on ranks, how long their ops take and how much they may hold.

    Attributes:
        placement: where the stages of the one pipe are; all hold the same share of the model.
        micro_batches: micro-batches of the step.
        times: seconds of each stage's ops; of the order of 1, so that errors of 1e-9 do not count.
        limit: most activations on a rank, in those of a whole rank's share of the model for one micro-batch.
        deferred: the part of an activation that stays from the end of I to the end of W.

    """

    placement: Placement
    micro_batches: int
    times: OpTimes
    limit: float
    deferred: float

    @property
    def ranks(self) -> int:
        """Number of pipeline ranks."""
        return self.placement.ranks

    @cached_property
    def stages(self) -> int:
        """Number of stages."""
        return self.placement.stages

    @cached_property
    def of_kind(self) -> int:
        """Number of ops of one kind; also what the code of a W has more than that of its I."""
        return self.stages * self.micro_batches

    @property
    def share(self) -> float:
        """What a forward of one stage adds to a rank's activations."""
        return self.ranks / self.stages

    @cached_property
    def rank_of_stage(self) -> list[int]:
        """Rank of each stage."""
        return list(self.placement.pipes[0])

    @cached_property
    def stage_s(self) -> list[list[float]]:
        """Seconds of each stage's ops, by kind: ``stage_s[kind][stage]``."""
        times = self.times
        return [times.forward_s.tolist(), times.backward_input_s.tolist(), times.backward_weight_s.tolist()]

    @cached_property
    def duration_s(self) -> list[float]:
        """Seconds of each op, by code."""
        return self._by_code([second for seconds in self.stage_s for second in seconds])

    @cached_property
    def hop_s(self) -> list[float]:
        """Seconds from each stage to the next, the same on the way back."""
        return [0.0 if before == after else self.times.transfer_s for before, after in pairwise(self.rank_of_stage)]

    @cached_property
    def waits_for(self) -> list[int]:
        """The op whose output each op waits for, by code, or NOTHING.

        One is enough: F waits for F of the stage before, I for I of the stage after (on the last stage for its own F),
        W for its own I. That an I also needs its own F follows, since the I of the stage after needs that as well.
        With 2 stages and 3 micro-batches, code by code: nothing for 0F, 0 to 2 for 1F, 9 to 11 for 0I, 3 to 5 for 1I,
        6 to 11 for W.
        """
        batch, first, last = self.micro_batches, self.of_kind - self.micro_batches, 2 * self.of_kind
        forwards = [*[NOTHING] * batch, *range(first)]
        inputs = [*range(self.of_kind + batch, last), *range(first, self.of_kind)]
        return [*forwards, *inputs, *range(self.of_kind, last)]

    @cached_property
    def feeds(self) -> list[int]:
        """The F or I that waits for the output of each F and I, by code, or NOTHING: ``waits_for`` turned round."""
        fed = [NOTHING] * (2 * self.of_kind)
        for code, producer in enumerate(self.waits_for[: 2 * self.of_kind]):
            if producer != NOTHING:
                fed[producer] = code
        return fed

    @cached_property
    def delay_s(self) -> list[float]:
        """Seconds that what an op waits for is under way, by code.

        By stage, an F has the hop before its stage, an I the hop after it, and a W none.
        """
        return self._by_code([0.0, *self.hop_s, *self.hop_s, 0.0, *[0.0] * self.stages])

    @cached_property
    def tells(self) -> list[int]:
        """The other rank that waits for an op of (kind, stage), by kind x stages + stage, or NOTHING.

        An F's output goes to the rank of the stage after, an I's to that of the stage before. Who is told wakes up.
        """
        return [*self._after, NOTHING, NOTHING, *self._before, *[NOTHING] * self.stages]

    @cached_property
    def asks(self) -> list[int]:
        """The other rank that an F or I of (kind, stage) waits for, by kind x stages + stage, or NOTHING.

        It is ``tells`` the other way round, for walks from the end of a line to its beginning.
        """
        return [NOTHING, *self._before, *self._after, NOTHING]

    @cached_property
    def first_start_s(self) -> list[float]:
        """When each rank can start its first op: once the first micro-batch has come down the ranks before it."""
        seconds = [0.0]
        for forward_s, hop_s in zip(self.stage_s[F][: self.ranks - 1], self.hop_s, strict=False):
            seconds.append(seconds[-1] + forward_s + hop_s)
        return seconds

    @cached_property
    def busy_s(self) -> list[float]:
        """Seconds of all ops of each rank."""
        seconds = [0.0] * self.ranks
        for of_kind in self.stage_s:
            for stage, second in enumerate(of_kind):
                seconds[self.rank_of_stage[stage]] += second * self.micro_batches
        return seconds

    def code(self, kind: int, stage: int, micro_batch: int) -> int:
        """Return the number of an op."""
        return (kind * self.stages + stage) * self.micro_batches + micro_batch

    def kind(self, code: int) -> int:
        """Return the kind of an op."""
        return code // self.of_kind

    def rank(self, code: int) -> int:
        """Return the rank that an op runs on."""
        return self.rank_of_stage[code // self.micro_batches % self.stages]

    @cached_property
    def activations(self) -> tuple[float, float, float]:
        """What an F, an I and a W add to their rank's activations, counted as the papers do; together nothing."""
        return self.share, self.share * (self.deferred - 1), -self.share * self.deferred

    def fits(self, line: list[int]) -> bool:
        """Whether a rank that runs this line never holds more than the limit."""
        # What an op brings is there from its start, what it frees until its end: the sums after ops are all there is.
        change = np.array(self.activations)[np.array(line) // self.of_kind]
        return bool(change.cumsum().max() <= self.limit + ROUNDING)

    def schedule(self, lines: Lines) -> Schedule:
        """Return lines as a schedule."""
        order = OrderBuilder(self.placement, (self.micro_batches,))
        for rank, line in enumerate(lines):
            writer = order.rank(rank)
            for code in line:
                kind, rest = divmod(code, self.of_kind)
                writer.op(LETTERS[kind], *divmod(rest, self.micro_batches))
        return order.schedule()

    def lines(self, schedule: Schedule) -> Lines:
        """Return a schedule of F, I and W as lines."""
        kind = np.searchsorted(LETTERS, schedule.kind)
        codes = (kind * self.stages + schedule.stage) * self.micro_batches + schedule.micro_batch
        return [codes[schedule.rank == rank].tolist() for rank in range(self.ranks)]

    def score(self, lines: Lines, end_s: Sequence[float]) -> Score:
        """Return how good an order is, given when its ops end."""
        ends = [end_s[line[-1]] for line in lines]
        spans = [end - end_s[line[0]] + self.duration_s[line[0]] for end, line in zip(ends, lines, strict=True)]
        return Score(round(max(spans), _DIGITS), round(max(ends), _DIGITS))

    @property
    def _after(self) -> list[int]:
        """Of each stage but the last, the rank of the stage after it, or NOTHING where that is the same rank."""
        return [NOTHING if after == rank else after for rank, after in pairwise(self.rank_of_stage)]

    @property
    def _before(self) -> list[int]:
        """Of each stage but the first, the rank of the stage before it, or NOTHING where that is the same rank."""
        return [NOTHING if before == rank else before for before, rank in pairwise(self.rank_of_stage)]

    def _by_code(self, by_stage: list[float]) -> list[float]:
        """Return what ops of each (kind, stage) have, as what each op has: once for every micro-batch."""
        return [second for second in by_stage for _ in range(self.micro_batches)]


def play(problem: Problem, lines: Lines) -> Trial | None:
    """Return an order with its times, each op as early as it can, or None where ranks wait for each other.

    This is the engines' work in little. A rank runs on until an op's input is not there yet, and sleeps; an op whose
    output another rank waits for wakes that rank. ``awake`` may hold a rank several times, and a rank that still cannot
    go on just goes back to sleep. When nobody is awake, all lines are done or ranks wait for each other.
    """
    waits_for, delay_s, duration_s, tells = problem.waits_for, problem.delay_s, problem.duration_s, problem.tells
    batch = problem.micro_batches
    end_s = [NOT_YET] * len(waits_for)
    done, clock_s = [0] * problem.ranks, [0.0] * problem.ranks  # how far each rank has come in its line, and when
    awake = list(range(problem.ranks))
    while awake:
        rank = awake.pop()
        line, now_s = lines[rank], clock_s[rank]
        for index in range(done[rank], len(line)):
            code = line[index]
            if waits_for[code] >= 0:
                made_s = end_s[waits_for[code]]
                if made_s < 0:
                    break
                now_s = max(now_s, made_s + delay_s[code])
            now_s += duration_s[code]
            end_s[code] = now_s
            done[rank] = index + 1
            if tells[code // batch] >= 0:
                awake.append(tells[code // batch])
        clock_s[rank] = now_s
    if any(count < len(line) for count, line in zip(done, lines, strict=True)):
        return None
    return Trial(lines, end_s, problem.score(lines, end_s))
