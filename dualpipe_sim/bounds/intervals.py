"""The constraint model of an order: when each op and each overlapped pair runs, in ticks.

Each op is an interval with a start that the solver chooses. An op starts after what it needs, tasks of a rank do not
overlap, and what is in flight stays within the room that there is; the makespan is to be least. A forward and a
backward that may run as a pair have a choice of their own: whether they do, and then start and end together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from dualpipe_sim.bounds.ticks import Ticks
from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.dependencies import producers
from dualpipe_sim.order.ops import B, F, I, Kind, Op, Pair, Task, W
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.order.schedule import Schedule

if TYPE_CHECKING:
    from ortools.sat.python.cp_model import BoolVarT, CpModel, CpSolver, IntervalVar, IntVar, LinearExpr

_Op = tuple[int, int, int]
"""Kind, stage, micro-batch."""


class Room(NamedTuple):
    """What a rank may hold, in some unit: at most so much, of which a micro-batch takes so much in each stage."""

    most: int
    of_stage: Sequence[int]


class Intervals:
    """The constraint model: an interval for each op that runs alone and for each pair; ranks run one at a time."""

    def __init__(
        self,
        model: CpModel,
        placement: Placement,
        micro_batches_of_pipe: tuple[int, ...],
        ticks: Ticks,
        split: bool,
    ) -> None:
        self.model = model
        self._placement = placement
        self._micro_batches = micro_batches_of_pipe
        self._hop = ticks.hop
        self._kinds = (F, I, W) if split else (F, B)
        self._ticks = ticks.of_kind
        # All ops and transfers one after the other: no shortest order takes longer.
        rounds = max(micro_batches_of_pipe)
        self._horizon = rounds * sum(sum(self._ticks[kind]) + self._hop * placement.stages for kind in self._kinds)
        self._start: dict[_Op, IntVar] = {
            (kind, stage, micro_batch): model.new_int_var(0, self._horizon, f"{stage}{Kind(kind)}{micro_batch}")
            for stage in range(placement.stages)
            for micro_batch in range(micro_batches_of_pipe[placement.pipe_of_stage[stage]])
            for kind in self._kinds
        }
        self._lasts: dict[_Op, LinearExpr | int] = {op: self._ticks[op[0]][op[1]] for op in self._start}
        self._alone: dict[_Op, BoolVarT] = {}  # of ops that may be in a pair
        self._paired: dict[tuple[_Op, _Op], BoolVarT] = {}
        self._of_pair = ticks.of_pair or []
        if ticks.of_pair is not None:
            self._pair_up()

    def _pair_up(self) -> None:
        """Let every forward and every backward that may run as a pair do so, where that is shorter than both alone.

        Of a pipe's micro-batches, which come one after the other, the backward of a pair is that of an earlier one.
        """
        rank_of, pipe_of = self._placement.rank_of_stage, self._placement.pipe_of_stage
        forwards = [op for op in self._start if op[0] == F]
        for forward, (_, other, micro_batch) in product(forwards, repeat=2):
            stage, lasts = forward[1], self._of_pair[forward[1]][other]
            shorter = 0 <= lasts < self._ticks[F][stage] + self._ticks[B][other]
            earlier = pipe_of[stage] != pipe_of[other] or micro_batch < forward[2]
            if rank_of[stage] == rank_of[other] and shorter and earlier:
                self._paired[forward, (B, other, micro_batch)] = self.model.new_bool_var("")
        pairs_of: dict[_Op, list[tuple[BoolVarT, int]]] = {}
        for (forward, backward), chosen in self._paired.items():
            lasts = self._of_pair[forward[1]][backward[1]]
            for op in (forward, *self._halves(backward)):
                pairs_of.setdefault(op, []).append((chosen, lasts))
                self.model.add(self._start[op] == self._start[forward]).only_enforce_if(chosen)
        for op, pairs in pairs_of.items():
            alone = self._alone[op] = self.model.new_bool_var("")
            self.model.add_exactly_one(alone, *(chosen for chosen, _ in pairs))
            self._lasts[op] = self._ticks[op[0]][op[1]] * alone + sum(lasts * chosen for chosen, lasts in pairs)

    def _halves(self, backward: _Op) -> list[_Op]:
        """Return a full backward as the ops that the problem has of it: itself, or I and W."""
        return [(kind, *backward[1:]) for kind in self._kinds if kind != F]

    def _end(self, op: _Op) -> LinearExpr | int:
        return self._start[op] + self._lasts[op]

    def post(self, room: Room | None) -> None:
        """Post all constraints and the objective."""
        for (kind, stage, micro_batch), start in self._start.items():
            for needed, hop in self._needs((kind, stage, micro_batch)):
                after = self.model.add(start >= self._end(needed) + hop)
                if kind == W and (kind, stage, micro_batch) in self._alone:  # in a pair it runs beside its I
                    after.only_enforce_if(self._alone[kind, stage, micro_batch])
            if (kind, stage, micro_batch + 1) in self._start and not (kind == W and self._paired):
                # Micro-batches are alike, so that some shortest order runs those of a stage one after the other: name
                # them by that. (A W in a pair has the name of its I, which may not be the oldest.)
                self.model.add(self._start[kind, stage, micro_batch + 1] >= self._end((kind, stage, micro_batch)))
        for rank in range(self._placement.ranks):
            self.model.add_no_overlap([*map(self._interval, self._ops_of(rank)), *self._pair_intervals(rank)])
            if room is not None:
                self._within(room, rank)
        makespan = self.model.new_int_var(0, self._horizon, "makespan")
        for op in self._start:
            self.model.add(makespan >= self._end(op))
        self.model.minimize(makespan)

    def _interval(self, op: _Op) -> IntervalVar:
        """Return when an op runs, alone."""
        start, lasts = self._start[op], self._ticks[op[0]][op[1]]
        if op not in self._alone:
            return self.model.new_fixed_size_interval_var(start, lasts, "")
        return self.model.new_optional_fixed_size_interval_var(start, lasts, self._alone[op], "")

    def _pair_intervals(self, rank: int) -> Iterator[IntervalVar]:
        """Yield when pairs of a rank run."""
        for (forward, backward), chosen in self._paired.items():
            if self._placement.rank_of_stage[forward[1]] == rank:
                lasts = self._of_pair[forward[1]][backward[1]]
                yield self.model.new_optional_fixed_size_interval_var(self._start[forward], lasts, chosen, "")

    def hint(self, known: Schedule) -> None:
        """Begin from an order: each task as early as it lets it start."""
        end: dict[_Op, int] = {}
        lines = [[one for task in line for one in self._as_known(task)] for line in known.order]
        place, free = [0] * len(lines), [0] * len(lines)
        moved, chosen = True, set()
        while moved:
            moved = False
            for rank, line in enumerate(lines):
                while place[rank] < len(line) and (ready := self._ready(line[place[rank]], end)) is not None:
                    ops = line[place[rank]]
                    start = max(free[rank], ready)
                    lasts = self._ticks[ops[0][0]][ops[0][1]]
                    if len(ops) > 1:
                        chosen.add((ops[0], (B, *ops[1][1:])))
                        lasts = self._of_pair[ops[0][1]][ops[1][1]]
                    free[rank] = start + lasts
                    for op in ops:
                        self.model.add_hint(self._start[op], start)
                        end[op] = free[rank]
                    place[rank] += 1
                    moved = True
        for pair, variable in self._paired.items():
            self.model.add_hint(variable, pair in chosen)
        in_pairs = {op for forward, backward in chosen for op in (forward, *self._halves(backward))}
        for op, variable in self._alone.items():
            self.model.add_hint(variable, op not in in_pairs)

    def _as_known(self, task: Task) -> list[tuple[_Op, ...]]:
        """Return a task as those that the problem has of it.

        A backward may be whole in one and split in the other; what is no pair here runs one after the other.
        """
        if isinstance(task, Pair):
            forward, backward = task.forward[:3], task.backward[:3]
            if (forward, backward) in self._paired:
                return [(forward, *self._halves(backward))]
        as_here = {F: (F,), B: self._kinds[1:], I: self._kinds[1:2], W: self._kinds[2:]}
        return [((kind, *op[1:3]),) for op in task.ops for kind in as_here.get(op.kind, ())]

    def _ready(self, ops: tuple[_Op, ...], end: dict[_Op, int]) -> int | None:
        """Return when all that a task needs is there, or None if some of it did not run yet."""
        ready = 0
        for op in ops:
            for needed, hop in self._needs(op):
                if needed in ops:  # the I beside which a W runs
                    continue
                if needed not in end:
                    return None
                ready = max(ready, end[needed] + hop)
        return ready

    def _needs(self, op: _Op) -> Iterator[tuple[_Op, int]]:
        """Yield what an op needs, and the ticks that this is under way to it."""
        kind, stage, micro_batch = op
        rank_of = self._placement.rank_of_stage
        for either in producers(Op(Kind(kind), stage, micro_batch), self._placement):
            needed = next(one[:3] for one in either if one[:3] in self._start)
            yield needed, 0 if rank_of[needed[1]] == rank_of[stage] else self._hop

    def order(self, solver: CpSolver) -> Schedule:
        """Return the order that was found: each rank's tasks by their starts."""
        builder = OrderBuilder(self._placement, self._micro_batches)
        beside = {forward: backward for (forward, backward), one in self._paired.items() if solver.boolean_value(one)}
        in_pairs = {op for backward in beside.values() for op in self._halves(backward)}
        for rank in range(self._placement.ranks):
            line = builder.rank(rank)
            # Of ops that start together those of no length come first, each after its producers.
            for op in sorted(
                (op for op in self._ops_of(rank) if op not in in_pairs),
                key=lambda op: (solver.value(self._start[op]), self._ticks[op[0]][op[1]] > 0, op[0], op[1]),
            ):
                line.op(*op)
                if op in beside:
                    line.op(*beside[op])
                    line.overlap_last()
        return builder.schedule("optimum")

    def _ops_of(self, rank: int) -> list[_Op]:
        return [op for op in self._start if self._placement.rank_of_stage[op[1]] == rank]

    def _within(self, room: Room, rank: int) -> None:
        """Hold what is in flight on a rank within its room.

        A micro-batch is in flight at a stage from the start of its F to the end of its last op there.
        """
        spans, shares = [], []
        for kind, stage, micro_batch in self._ops_of(rank):
            if kind != F:
                continue
            last = self._kinds[-1]
            begin = self._start[kind, stage, micro_batch]
            end = self.model.new_int_var(0, self._horizon, "")
            self.model.add(end == self._end((last, stage, micro_batch)))
            size = self.model.new_int_var(0, self._horizon, "")
            spans.append(self.model.new_interval_var(begin, size, end, ""))
            shares.append(room.of_stage[stage])
        self.model.add_cumulative(spans, shares, room.most)
