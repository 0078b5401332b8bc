"""The true optimum: the shortest makespan of any order on a placement, found and proved by CP-SAT. For small cases.

Each op is an interval with a start that the solver chooses. An op starts after what it needs, ops of a rank do not
overlap, and what is in flight stays within the limit; the makespan is to be least. CP-SAT counts in whole numbers, so
times must be multiples of a common tick. Overlapped pairs are left out: each op runs alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import gcd
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.base.show import brief
from dualpipe_sim.errors import UserError
from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.dependencies import producers
from dualpipe_sim.order.op_times import OpTimes
from dualpipe_sim.order.ops import B, F, I, Kind, Op, W
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.order.schedule import Schedule

if TYPE_CHECKING:
    from ortools.sat.python.cp_model import CpModel, CpSolver, IntVar

_TICKS = 1_000_000
"""Most ticks that an op may last: times are whole multiples of one tick, exactly."""


@dataclass(frozen=True)
class Optimum:
    """What the solver found.

    Attributes:
        makespan_s: seconds of the best order found.
        bound_s: seconds that no order is below, as far as the solver could prove; ``makespan_s`` where it is optimal.
        schedule: the best order.

    """

    makespan_s: float
    bound_s: float
    schedule: Schedule

    __repr__ = brief

    @property
    def proved(self) -> bool:
        """Whether no order is faster."""
        return self.makespan_s == self.bound_s


def optimum(  # noqa: PLR0913 - what bounds an order, each by its name
    placement: Placement,
    micro_batches_of_pipe: tuple[int, ...],
    times: OpTimes,
    *,
    split: bool = True,
    memory_limit: float | None = None,
    within_s: float = 30.0,
    patience_s: float | None = None,
    layers_of_stage: Sequence[int] | None = None,
    known: Schedule | None = None,
) -> Optimum:
    """Return the shortest makespan of any order without overlapped pairs, and such an order.

    Args:
        placement: where the stages are.
        micro_batches_of_pipe: micro-batches that enter each pipe.
        times: seconds of ops and of a transfer between two ranks, whole multiples of a common tick.
        split: whether I and W are ops of their own; else the backward is whole.
        memory_limit: most activations that a rank may hold, in those of one micro-batch through a rank's share, each
            from the start of F to the end of W or B.
        within_s: seconds of search, as the solver counts them: by the work that it did, so that it finds the same
            again.
        patience_s: seconds of search by the clock, after which it ends as well; by default four times ``within_s``.
        layers_of_stage: how many layers each stage holds, where they are not as deep; for the limit.
        known: an order that the search begins from, of the same stages and micro-batches.

    Raises:
        UserError: ortools is not installed, times have no common tick, or nothing was found in time.

    """
    cp_model = _cp_sat()
    tick_s, ticks, hop = _in_ticks(times)
    problem = _Problem(cp_model.CpModel(), placement, micro_batches_of_pipe, ticks, hop, split)
    problem.post(None if memory_limit is None else _room(placement, memory_limit, layers_of_stage))
    if known is not None:
        problem.hint(known)
    solver = _new_solver(cp_model, within_s)
    solver.parameters.max_time_in_seconds = 4 * within_s if patience_s is None else patience_s
    if known is not None:  # several ways to search take turns, some of which change a part of what is known
        solver.parameters.num_workers, solver.parameters.interleave_search = 4, True
    status = solver.solve(problem.model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        why = "no order fits the memory limit" if status == cp_model.INFEASIBLE else f"nothing found in {within_s} s"
        raise UserError(f"optimum: {why}")
    return Optimum(solver.objective_value * tick_s, round(solver.best_objective_bound) * tick_s, problem.order(solver))


def _cp_sat() -> ModuleType:
    """Return CP-SAT."""
    try:
        from ortools.sat.python import cp_model
    except ImportError as error:
        raise UserError("the optimum needs CP-SAT; pip install 'dualpipe-sim[optimum]'") from error
    return cp_model


def _new_solver(cp_model: ModuleType, within_s: float) -> CpSolver:
    """Return a solver that finds the same again, and leaves signals to the program: else Ctrl-C would be nobody's."""
    solver: CpSolver = cp_model.CpSolver()
    solver.parameters.max_deterministic_time = within_s
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.catch_sigint_signal = False
    return solver


class _Room(NamedTuple):
    """What a rank may hold, in some unit: at most so much, of which a micro-batch takes so much in each stage."""

    most: int
    of_stage: Sequence[int]


def _room(placement: Placement, limit: float, layers_of_stage: Sequence[int] | None) -> _Room:
    """Return what a rank may hold in layers, or in parts that all pipes' depths divide where all stages are as deep."""
    depth = placement.pipe_depth
    model, of_stage = int(np.lcm.reduce(depth)), layers_of_stage
    if of_stage is None:
        of_stage = [model // int(one) for one in depth]
    else:
        model = sum(of_stage) // len(placement.pipes)
    # (a little more than the limit, so that one which is whole but for rounding counts in full)
    return _Room(int(limit * model / placement.ranks + 1e-9), of_stage)


def have_tick(times: OpTimes) -> bool:
    """Return whether all times are whole multiples of one tick."""
    try:
        _in_ticks(times)
    except UserError:
        return False
    return True


def _in_ticks(times: OpTimes) -> tuple[float, dict[int, list[int]], int]:
    """Return the tick in seconds, and ops by kind and a transfer in ticks.

    The shortest time, or a small whole part of it, is tried as the tick, then decimals of a second; then the tick is
    made as long as all times allow, since the solver is faster with small numbers. Stages of F = 1 s, I = 1.5 s, W =
    0.5 s have ticks of 0.5 s:

    >>> _in_ticks(OpTimes(np.array([1.0]), np.array([1.5]), np.array([0.5])))
    (0.5, {<Kind.F: 0>: [2], <Kind.I: 2>: [3], <Kind.W: 3>: [1]}, 0)

    Raises:
        UserError: all times are 0, or have no common tick.

    """
    by_kind: dict[int, FloatArray] = {F: times.forward_s, I: times.backward_input_s, W: times.backward_weight_s}
    seconds = np.concatenate([*by_kind.values(), [times.transfer_s]])
    some = seconds[seconds > 0]
    if not len(some):
        raise UserError("optimum: all ops take no time")
    of_shortest = [float(some.min()) / parts for parts in (1, 2, 3, 4, 5, 10, 100, 1000)]
    for tick_s in (*of_shortest, *(10.0**-digits for digits in range(10))):
        whole = np.rint(seconds / tick_s)
        if np.allclose(whole * tick_s, seconds, rtol=1e-12, atol=0) and whole.max() < _TICKS:
            common = gcd(*whole.astype(int).tolist())
            ticks = {kind: np.rint(of / tick_s / common).astype(int).tolist() for kind, of in by_kind.items()}
            return tick_s * common, ticks, int(whole[-1]) // common
    raise UserError("optimum: times must be whole multiples of one tick; round them")


class _Problem:
    """The constraint model: an interval for each op; ranks run one at a time."""

    def __init__(
        self,
        model: CpModel,
        placement: Placement,
        micro_batches_of_pipe: tuple[int, ...],
        ticks: dict[int, list[int]],
        hop: int,
        split: bool,
    ) -> None:
        self.model = model
        self._placement = placement
        self._micro_batches = micro_batches_of_pipe
        self._hop = hop
        self._kinds = (F, I, W) if split else (F, B)
        self._ticks = ticks | {B: [i + w for i, w in zip(ticks[I], ticks[W], strict=True)]}
        # All ops and transfers one after the other: no shortest order takes longer.
        rounds = max(micro_batches_of_pipe)
        self._horizon = rounds * sum(sum(self._ticks[kind]) + hop * placement.stages for kind in self._kinds)
        self._start: dict[tuple[int, int, int], IntVar] = {
            (kind, stage, micro_batch): model.new_int_var(0, self._horizon, f"{stage}{Kind(kind)}{micro_batch}")
            for stage in range(placement.stages)
            for micro_batch in range(micro_batches_of_pipe[placement.pipe_of_stage[stage]])
            for kind in self._kinds
        }

    def post(self, room: _Room | None) -> None:
        """Post all constraints and the objective."""
        for (kind, stage, micro_batch), start in self._start.items():
            for needed, hop in self._needs((kind, stage, micro_batch)):
                self.model.add(start >= self._start[needed] + self._ticks[needed[0]][needed[1]] + hop)
            if (kind, stage, micro_batch + 1) in self._start:
                # Micro-batches are alike, so that some shortest order runs those of a stage one after the other.
                self.model.add(self._start[kind, stage, micro_batch + 1] >= start + self._ticks[kind][stage])
        for rank in range(self._placement.ranks):
            ops = self._ops_of(rank)
            self.model.add_no_overlap(
                [self.model.new_fixed_size_interval_var(self._start[op], self._ticks[op[0]][op[1]], "") for op in ops]
            )
            if room is not None:
                self._within(room, rank)
        makespan = self.model.new_int_var(0, self._horizon, "makespan")
        for op, start in self._start.items():
            self.model.add(makespan >= start + self._ticks[op[0]][op[1]])
        self.model.minimize(makespan)

    def hint(self, known: Schedule) -> None:
        """Begin from an order: each op as early as it lets it start."""
        end: dict[tuple[int, ...], int] = {}
        lines = [[one for task in line for op in task.ops for one in self._as_known(op)] for line in known.order]
        place, free = [0] * len(lines), [0] * len(lines)
        moved = True
        while moved:
            moved = False
            for rank, line in enumerate(lines):
                while place[rank] < len(line) and (ready := self._ready(line[place[rank]], end)) is not None:
                    op = line[place[rank]]
                    start = max(free[rank], ready)
                    self.model.add_hint(self._start[op], start)
                    end[op] = free[rank] = start + self._ticks[op[0]][op[1]]
                    place[rank] += 1
                    moved = True

    def _as_known(self, op: Op) -> list[tuple[int, int, int]]:
        """Return an op as those that the problem has of it: a backward may be whole in one and split in the other."""
        kinds = (I, W) if op.kind == B and B not in self._kinds else (op.kind,)
        return [(kind, op.stage, op.micro_batch) for kind in kinds]

    def _ready(self, op: tuple[int, int, int], end: dict[tuple[int, ...], int]) -> int | None:
        """Return when all that an op needs is there, or None if some of it did not run yet."""
        ready = 0
        for needed, hop in self._needs(op):
            if needed not in end:
                return None
            ready = max(ready, end[needed] + hop)
        return ready

    def _needs(self, op: tuple[int, int, int]) -> Iterator[tuple[tuple[int, int, int], int]]:
        """Yield what an op needs, and the ticks that this is under way to it."""
        kind, stage, micro_batch = op
        rank_of = self._placement.rank_of_stage
        for either in producers(Op(Kind(kind), stage, micro_batch), self._placement):
            needed = next(one[:3] for one in either if one[:3] in self._start)
            yield needed, 0 if rank_of[needed[1]] == rank_of[stage] else self._hop

    def order(self, solver: CpSolver) -> Schedule:
        """Return the order that was found: each rank's ops by their starts."""
        builder = OrderBuilder(self._placement, self._micro_batches)
        for rank in range(self._placement.ranks):
            line = builder.rank(rank)
            # Of ops that start together those of no length come first, each after its producers.
            for kind, stage, micro_batch in sorted(
                self._ops_of(rank),
                key=lambda op: (solver.value(self._start[op]), self._ticks[op[0]][op[1]] > 0, op[0], op[1]),
            ):
                line.op(kind, stage, micro_batch)
        return builder.schedule("optimum")

    def _ops_of(self, rank: int) -> list[tuple[int, int, int]]:
        return [op for op in self._start if self._placement.rank_of_stage[op[1]] == rank]

    def _within(self, room: _Room, rank: int) -> None:
        """Hold what is in flight on a rank within its room.

        A micro-batch is in flight at a stage from the start of its F to the end of its last op there.
        """
        spans, shares = [], []
        for kind, stage, micro_batch in self._ops_of(rank):
            if kind != F:
                continue
            last = self._kinds[-1]
            begin = self._start[kind, stage, micro_batch]
            end = self._start[last, stage, micro_batch] + self._ticks[last][stage]
            size = self.model.new_int_var(0, self._horizon, "")
            spans.append(self.model.new_interval_var(begin, size, end, ""))
            shares.append(room.of_stage[stage])
        self.model.add_cumulative(spans, shares, room.most)


def best_balance_s(layer_s: Sequence[float], ranks: int, heads_s: Sequence[float], within_s: float = 10.0) -> float:
    """Return seconds that the busiest of some ranks is never below, however layers are shared out over them.

    Every layer goes to one rank, whether its neighbours do or not; some rank starts after each of the heads.

    >>> round(best_balance_s([4.0, 3.0, 3.0], 2, [0.0, 0.5]), 6)
    6.0

    Args:
        layer_s: seconds of each layer's work.
        ranks: how many share it.
        heads_s: seconds before which a rank cannot start, one for each.
        within_s: seconds of search, as the solver counts them.

    Raises:
        UserError: ortools is not installed.

    """
    cp_model = _cp_sat()
    tick_s = max(sum(layer_s) / ranks / _TICKS, 1e-300)
    sizes, counts = np.unique(np.floor(np.asarray(layer_s) / tick_s).astype(int), return_counts=True)
    model = cp_model.CpModel()
    busiest = model.new_int_var(0, int(sizes @ counts) + int(max(heads_s) / tick_s), "busiest")
    shares = [[model.new_int_var(0, count, "") for count in counts.tolist()] for _ in range(ranks)]
    for number, count in enumerate(counts.tolist()):
        model.add(sum(share[number] for share in shares) == count)
    for share, head_s in zip(shares, heads_s, strict=True):
        work = sum(size * number for size, number in zip(sizes.tolist(), share, strict=True))
        model.add(busiest >= work + int(head_s / tick_s))
    model.minimize(busiest)
    solver = _new_solver(cp_model, within_s)
    solver.solve(model)
    return float(solver.best_objective_bound) * tick_s
