"""An order found by simulated annealing. Kirkpatrick et al., Science 220 (1983), on turns as in list scheduling."""

from collections.abc import Iterator
from math import inf, isfinite
from operator import add, itemgetter, ne
from typing import Literal

import numpy as np

from dualpipe_sim.base.units import number_of
from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.op_times import OpTimes
from dualpipe_sim.order.ops import B, F
from dualpipe_sim.order.placement import Placement, linear, loop, v_shape, zigzag
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.annealing.known import as_answer, makespan_s
from dualpipe_sim.schedules.annealing.problem import FORWARD, Answer, Problem
from dualpipe_sim.schedules.interleaved_1f1b import accepts, interleaved_1f1b
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import of_loop
from dualpipe_sim.schedules.zb_auto import zb_auto

_HOTTEST = 2e-2  # of a rank's mean work
_ROUNDING = 1e-9


def place(ranks: int, stages_per_rank: int = 2, shape: Literal["loop", "v"] = "v") -> Placement:
    """Return where the stages are: round and round, or there and back."""
    if stages_per_rank < 1:
        raise ScheduleError(f"searched: stages_per_rank must be 1 or more, got {stages_per_rank}")
    if shape == "loop" or stages_per_rank == 1:
        return loop(ranks, stages_per_rank)
    if stages_per_rank % 2:
        raise ScheduleError(f"searched: stages in a V come in twos; take an even number, got {stages_per_rank}")
    return zigzag(ranks, stages_per_rank // 2)


@register(
    "searched",
    placement=place,
    tries={"stages_per_rank": (1, 2, 4), "shape": ("loop", "v")},
    within=lambda limit: {"activations": limit},
    size=of_loop(3),
)
def searched(  # noqa: PLR0913, PLR0917 - each is an option
    ranks: int,
    micro_batches: int,
    times: OpTimes | None = None,
    stages_per_rank: int = 2,
    shape: Literal["loop", "v"] = "v",
    activations: float | None = None,
    moves: int = 200,
    split: bool = True,
) -> Schedule:
    """Searched for given times and memory. Kirkpatrick et al., Science 220 (1983), https://doi.org/10.1126/science.220.4598.671.

    The command `search` looks for the stages and where they lie, too.

    Recipe, of the search:

    1. Give every stage a turn for its F, its I and its W, in micro-batches: forwards first, backwards first, or as
       `zb-auto` runs them where it has such stages, or, backwards whole, `interleaved-1f1b`, freely and strictly in
       turn.
    2. An order follows: every rank runs whatever is there, the earliest turn first, as far as memory lets it.
    3. Change some turns; take the new ones if the step is shorter, and now and then if it is longer, less often as the
       walk cools down.
    4. Of all walks, and of those two, keep the shortest step.

    Args:
        ranks: pipeline ranks.
        micro_batches: micro-batches of the step.
        times: seconds of F, I and W of each stage and of a transfer; all of a rank's ops of one kind take 1 by default.
        stages_per_rank: how many.
        shape: whether stages go round and round, or there and back.
        activations: most activations on a rank, in those of one micro-batch through a rank's share of the model; as
            many as ranks by default, which is what 1F1B holds.
        moves: how many changes each walk tries.
        split: whether W is an op of its own; else backwards are whole, as where their all-to-alls hide behind W.

    Raises:
        ScheduleError: a limit below 1 activation, stages that make no V, no moves, or times of other stages.

    """
    from dualpipe_sim.schedules.annealing.anneal import anneal, begun  # (numba takes a while to load)
    from dualpipe_sim.schedules.annealing.in_turn import play

    if moves < 1:
        raise ScheduleError(f"searched: moves must be 1 or more, got {moves}")
    if activations is not None and not (isfinite(activations) and activations >= 1):
        raise ScheduleError(
            "searched: activations must be 1 or more (one micro-batch through one rank's share of the model), "
            f"got {activations:g}"
        )
    limit = float(ranks) if activations is None else activations
    where = place(ranks, stages_per_rank, shape)
    times = times or OpTimes.uniform(where)
    if times.stages != where.stages:
        raise ScheduleError(f"searched: times must have {number_of(where.stages, 'stage')}, got {times.stages}")
    stage_s = zip(
        times.forward_s.tolist(), times.backward_input_s.tolist(), times.backward_weight_s.tolist(), strict=True
    )
    problem = Problem(ranks, micro_batches, tuple(stage_s), times.transfer_s, where.stages, limit, split)
    starts = [begun(problem, where.stages, zigzag=shape == "v", deep_first=first) for first in (False, True)]
    orders = list(_known(problem, times, where))
    starts += [as_answer(problem, starts[0].cuts, order) for order in orders]
    starts += [answer._replace(waits=True) for answer in starts[2:]]
    found = [(makespan_s(problem, starts[0].cuts, order), order) for order in orders]
    aim_s = _shortest_s(problem, starts[0])
    for number, start in enumerate(starts, start=1):
        if any(seconds <= aim_s for seconds, _ in found):
            break
        answer = anneal(problem, start, moves, _HOTTEST, (number, 12345), turns_only=True, aim_s=aim_s)
        order = play(problem, answer)
        if order is not None:
            found.append((order.makespan_s, problem.schedule(answer, order.lines)))
    if not found:
        raise ScheduleError("searched: no order was found that fits; allow more activations")
    return min(found, key=itemgetter(0))[1]


def _known(problem: Problem, times: OpTimes, where: Placement) -> Iterator[Schedule]:
    """Yield zero bubble's order where it has these stages; of whole backwards, interleaved 1F1B's where it fits."""
    ranks, micro_batches, limit = problem.ranks, problem.micro_batches, problem.most_activations or inf
    stages_per_rank = where.stages // ranks
    if problem.split and where == linear(ranks):
        yield zb_auto(ranks, micro_batches, times, "linear", limit, 1.0)
    elif problem.split and where == v_shape(ranks):
        yield zb_auto(ranks, micro_batches, times, "v", limit, 1.0)
    interleaves = stages_per_rank > 1 and where == loop(ranks, stages_per_rank)
    if not problem.split and interleaves and accepts(ranks, micro_batches) is True:
        order = interleaved_1f1b(ranks, micro_batches, stages_per_rank)
        if _most_held(order) <= limit * stages_per_rank + _ROUNDING:
            yield order


def _most_held(order: Schedule) -> int:
    """Return the most stages' activations that any rank holds."""
    change = order.of_kinds(F).astype(int) - order.of_kinds(B)
    return max(int(np.cumsum(change[order.rank == rank]).max()) for rank in range(order.ranks))


def _shortest_s(problem: Problem, answer: Answer) -> float:
    """Return seconds that no order is below: a rank's work, and the wait until there is a first input for it."""
    forward_s: list[float] = problem.until_s[FORWARD]
    work_s = problem.work_s(answer.cuts, answer.rank_of_stage)
    first = [answer.rank_of_stage.index(rank) for rank in range(problem.ranks)]
    hops = [sum(map(ne, answer.rank_of_stage[:stage], answer.rank_of_stage[1 : stage + 1])) for stage in first]
    waits_s = [forward_s[stage] + problem.hop_s * over for stage, over in zip(first, hops, strict=True)]
    longest_s: float = max(map(add, work_s, waits_s))
    return (1 + _ROUNDING) * longest_s
