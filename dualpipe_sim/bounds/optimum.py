"""The true optimum: the shortest makespan of any order on a placement, found and proved by CP-SAT. For small cases.

:mod:`dualpipe_sim.bounds.intervals` has what is asked of the solver. It counts in whole numbers, so times must be
multiples of a common tick. Where it is said how long overlapped pairs last, ranks may run ops as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.base.show import brief
from dualpipe_sim.bounds.intervals import Intervals, Room
from dualpipe_sim.bounds.tasks import task_time
from dualpipe_sim.bounds.ticks import in_ticks
from dualpipe_sim.costs.asked import phases_of
from dualpipe_sim.costs.phases import StageCosts
from dualpipe_sim.errors import UserError
from dualpipe_sim.order.op_times import OpTimes
from dualpipe_sim.order.ops import B, F
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.order.schedule import Schedule

if TYPE_CHECKING:
    from ortools.sat.python.cp_model import CpSolver

_TICKS = 1_000_000
"""Most ticks that a sum of layers' work is counted in."""


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
    pair_s: FloatArray | None = None,
    memory_limit: float | None = None,
    within_s: float = 30.0,
    patience_s: float | None = None,
    layers_of_stage: Sequence[int] | None = None,
    known: Schedule | None = None,
) -> Optimum:
    """Return the shortest makespan of any order, and such an order; with overlapped pairs where they have a time.

    Two ranks of one stage each, two micro-batches, F = 1, B = 2: with pairs of 2 instead of 3, one of them saves 1.

    >>> from dualpipe_sim.order.placement import linear
    >>> times = OpTimes.uniform(linear(2), forward=1.0, backward_input=1.0, backward_weight=1.0)
    >>> optimum(linear(2), (2,), times, split=False).makespan_s
    9.0
    >>> optimum(linear(2), (2,), times, split=False, pair_s=np.full((2, 2), 2.0)).makespan_s
    8.0

    Args:
        placement: where the stages are.
        micro_batches_of_pipe: micro-batches that enter each pipe.
        times: seconds of ops and of a transfer between two ranks, whole multiples of a common tick.
        split: whether I and W are ops of their own; else the backward is whole.
        pair_s: seconds of an overlapped pair of each stage's F and each stage's B, shape ``(stages, stages)``, as of
            :func:`pair_seconds`; both outputs are there when it ends. None for no pairs.
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
    ticks = in_ticks(times, pair_s)
    problem = Intervals(cp_model.CpModel(), placement, micro_batches_of_pipe, ticks, split)
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
    tick_s = ticks.tick_s
    return Optimum(solver.objective_value * tick_s, round(solver.best_objective_bound) * tick_s, problem.order(solver))


def pair_seconds(costs: StageCosts, placement: Placement) -> FloatArray:
    """Return the seconds of a pair of each stage's F and each stage's B, shape ``(stages, stages)``.

    It is infinite where the two stages are on different ranks. Where costs have one half's output ready before the pair
    ends, an order with that pair is no slower than its optimum here says.
    """
    seconds = np.full((placement.stages, placement.stages), np.inf)
    for rank in range(placement.ranks):
        for forward, backward in product(placement.stages_of_rank(rank), repeat=2):
            phases = phases_of(costs, [((F, forward), (B, backward))])[0]
            seconds[forward, backward] = task_time(phases).whole_s
    return seconds


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


def _room(placement: Placement, limit: float, layers_of_stage: Sequence[int] | None) -> Room:
    """Return what a rank may hold in layers, or in parts that all pipes' depths divide where all stages are as deep."""
    depth = placement.pipe_depth
    model, of_stage = int(np.lcm.reduce(depth)), layers_of_stage
    if of_stage is None:
        of_stage = [model // int(one) for one in depth]
    else:
        model = sum(of_stage) // len(placement.pipes)
    # (a little more than the limit, so that one which is whole but for rounding counts in full)
    return Room(int(limit * model / placement.ranks + 1e-9), of_stage)


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
