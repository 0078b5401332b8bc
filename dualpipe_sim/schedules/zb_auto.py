"""The automatic zero-bubble scheduler. Qi et al., ICLR 2024, https://arxiv.org/abs/2401.10241, section 3.1."""

import math
from collections.abc import Iterator
from typing import Literal

from dualpipe_sim.base.units import number_of
from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.op_times import OpTimes
from dualpipe_sim.order.placement import Placement, linear, v_shape
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules import v_half, v_min
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import Size
from dualpipe_sim.schedules.zb_h1 import zb_h1
from dualpipe_sim.schedules.zb_h2 import zb_h2
from dualpipe_sim.schedules.zb_v import zb_v
from dualpipe_sim.schedules.zero_bubble.as_they_come import as_they_come
from dualpipe_sim.schedules.zero_bubble.building_block import squeezed
from dualpipe_sim.schedules.zero_bubble.critical import improve
from dualpipe_sim.schedules.zero_bubble.in_turn import linear_orders, v_orders
from dualpipe_sim.schedules.zero_bubble.problem import Lines, Problem, Score, Trial, W, play
from dualpipe_sim.schedules.zero_bubble.weights import better_weights, place_weights

_MOST_PROMISING = 3  # orders of F and I
_MOST_TRIES = 200  # moves along the critical path, fewer where an order has more ops
_MOST_PLAYED_OPS = 300_000


def place(ranks: int, placement: Literal["linear", "v"] = "linear") -> Placement:
    """Return where the stages are: one a rank, or two in a V."""
    return linear(ranks) if placement == "linear" else v_shape(ranks)


@register(
    "zb-auto",
    placement=place,
    tries={"placement": ("linear", "v")},
    # (a whole activation until W, as results count)
    within=lambda limit: {"memory_limit": limit, "weight_gradient_inputs": 1.0},
    size=lambda ranks, micro_batches, placement: Size(ranks * (2 if placement == "v" else 1), micro_batches, 3),
)
def zb_auto(
    ranks: int,
    micro_batches: int,
    times: OpTimes | None = None,
    placement: Literal["linear", "v"] = "linear",
    memory_limit: float | None = None,
    weight_gradient_inputs: float = 0.43,
) -> Schedule:
    """Zero bubble for given times and memory. Qi et al., ICLR 2024, https://arxiv.org/abs/2401.10241, section 3.1.

    For an order of F and I the paper's question is where the W go. It judges what one may delay by the longest bubble
    so far; here the rest of the order is known, so an op behind a gap may start late as long as no rank ends later than
    an aim allows. Best is the order whose longest span of a rank is shortest, the paper's measure; that is never longer
    than in those of ZB-H1, ZB-H2 and ZB-V that fit.

    Recipe, of the search:

    1. Write down orders of F and I: the paper's handcrafted ones, and others with more and with less warm-up, as far as
       memory allows, then forwards and backwards in turn.
    2. In each, let a W fill a gap at least as long as itself, and a shorter one where no rank ends later for it than an
       aim allows; at once where memory is full; else at the end.
    3. Lower the aim step by step, of the three best orders.
    4. Shorten the best order's critical path, move by move.

    Args:
        ranks: pipeline ranks.
        micro_batches: micro-batches of the step.
        times: seconds of F, I and W of each stage and of a transfer; all of a rank's ops of one kind take 1 by default.
        placement: one stage a rank, or two in a V.
        memory_limit: most activations on a rank, in those of one micro-batch through a rank's share of the model; as
            many as ranks by default, which is what 1F1B holds.
        weight_gradient_inputs: the part of an activation that stays from I to W: in a transformer 32h / (34h + 5as) for
            width h, a heads and sequence length s, which is 0.43 for all but the smallest of the paper's models.

    Raises:
        ScheduleError: a limit below 1 activation, a part that is none, or times of other stages.

    """
    where = place(ranks, placement)
    times = times or OpTimes.uniform(where)
    limit = float(ranks if memory_limit is None else memory_limit)
    _check(where, times, limit, weight_gradient_inputs)
    problem = Problem(where, micro_batches, times.in_longest_ops(), limit, weight_gradient_inputs)
    handcrafted = [problem.lines(order(ranks, micro_batches)) for order in _HANDCRAFTED[placement]]
    best = min([*_fitting(problem, handcrafted), *_found(problem, handcrafted)], key=_score)
    tries = min(_MOST_TRIES, _MOST_PLAYED_OPS // len(best.end_s))
    return problem.schedule(improve(problem, best, tries).lines)


_HANDCRAFTED = {"linear": (zb_h1, zb_h2), "v": (zb_v,)}


def _check(placement: Placement, times: OpTimes, limit: float, weight_gradient_inputs: float) -> None:
    if not (math.isfinite(limit) and limit >= 1):
        raise ScheduleError(
            "zb-auto: memory_limit must be 1 or more (one micro-batch through one rank's share of the model), "
            f"got {limit:g}"
        )
    if not 0 <= weight_gradient_inputs <= 1:
        raise ScheduleError(
            f"zb-auto: weight_gradient_inputs must be a part from 0 to 1, got {weight_gradient_inputs:g}"
        )
    if times.stages != placement.stages:
        raise ScheduleError(f"zb-auto: times must have {number_of(placement.stages, 'stage')}, got {times.stages}")


def _fitting(problem: Problem, orders: list[Lines]) -> Iterator[Trial]:
    """Yield the handcrafted orders that fit, as they are."""
    for lines in orders:
        trial = play(problem, lines) if all(map(problem.fits, lines)) else None
        if trial is not None:
            yield trial


def _found(problem: Problem, handcrafted: list[Lines]) -> Iterator[Trial]:
    """Yield the most promising orders of F and I with their W where they cost least."""
    tried: list[tuple[Lines, Trial]] = []
    for lines in _orders(problem, handcrafted):
        trial = None if any(lines == other for other, _ in tried) else place_weights(problem, lines)
        if trial is not None:
            tried.append((lines, trial))
    for lines, trial in sorted(tried, key=lambda one: _score(one[1]))[:_MOST_PROMISING]:
        yield better_weights(problem, lines, trial)


def _orders(problem: Problem, handcrafted: list[Lines]) -> Iterator[Lines]:
    """Yield orders of F and I."""
    yield as_they_come(problem)
    for lines in handcrafted:
        yield [[code for code in line if problem.kind(code) != W] for line in lines]
    if problem.stages == problem.ranks:
        yield from linear_orders(problem)
        return
    yield from v_orders(problem)
    if problem.limit < problem.ranks:
        for slots_of in (v_half.slots, v_min.slots):
            yield squeezed(problem, slots_of)[0]


def _score(trial: Trial) -> Score:
    return trial.score
