"""Bounds that know memory: never above the true optimum within a limit, and above those that do not where it binds."""

from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any, cast

import numpy as np
import pytest

from dualpipe_sim.bounds.limited import MemoryLimit
from dualpipe_sim.bounds.makespan import placement_bound_s
from dualpipe_sim.bounds.optimum import Optimum, optimum, pair_seconds
from dualpipe_sim.bounds.room import Way, idle_bound_s
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.errors import UserError
from dualpipe_sim.order.op_times import OpTimes
from dualpipe_sim.order.placement import Placement, linear, loop, opposed, v_shape
from dualpipe_sim.schedules.annealing.problem import Problem
from dualpipe_sim.search.bound import within_room_s

ROUNDING = 1 + 1e-9
CASES = 100


def limited(placement: Placement, limit: float) -> MemoryLimit:
    return MemoryLimit(placement.activations_of_stage, np.full(placement.ranks, limit), from_start=True)


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in (2, 3))])
def test_it_is_never_above_the_optimum_within_the_limit(seed: int) -> None:
    random = Random(seed)  # noqa: S311 - draws cases, keeps no secret
    above = 0
    for _ in range(CASES // 4):
        placement = random.choice([linear(2), linear(3), v_shape(2), loop(2, 2), opposed(2)])
        of_pipe = (random.randint(2, 4 if placement.stages < 4 else 3),) * len(placement.pipes)
        forward, into, weight = (2.0 * random.randint(1, 4) for _ in range(3))
        limit, split = random.choice([1.0, 1.5, 2.0, 2.5]), random.random() < 0.6
        pair_s = random.choice([None, 0.75 * (forward + into + weight)])
        costs = UniformCosts(forward, into, weight, overlapped=pair_s, transfer_s=float(random.randint(0, 2)))
        laid = costs.on(placement)
        times = OpTimes(laid.stage_s[0], laid.stage_s[2], laid.stage_s[3], cast("float", costs.transfer_s))
        pairs = None if pair_s is None else pair_seconds(laid, placement)
        found = best(placement, of_pipe, times, split=split, pair_s=pairs, memory_limit=limit)
        if found is None:
            continue
        bound_s = placement_bound_s(placement, of_pipe, laid, limit=limited(placement, limit))
        assert bound_s <= found.makespan_s * ROUNDING, (placement, of_pipe, costs, limit, split)
        surely = replace(limited(placement, limit), from_start=False)  # allows more
        assert placement_bound_s(placement, of_pipe, laid, limit=surely) <= bound_s * ROUNDING
        above += bound_s > placement_bound_s(placement, of_pipe, laid) * ROUNDING
    assert above > CASES // 16  # so that the claim is about something


@pytest.mark.parametrize("seed", range(4))
def test_that_of_a_search_is_never_above_the_optimum_of_any_placement(seed: int) -> None:
    random = Random(seed)  # noqa: S311 - draws cases, keeps no secret
    above = 0
    for _ in range(CASES // 4):
        ranks, layers = random.choice([(2, 4), (2, 5), (3, 5)])
        micro_batches, split, limit = random.randint(2, 4), random.random() < 0.6, random.choice([1.0, 1.5, 2.0, 3.0])
        layer_s = [
            (random.randint(1, 5) * 1.0, random.randint(1, 5) * 1.0, random.randint(1, 5) * 1.0) for _ in range(layers)
        ]
        layer_s[-1] = (layer_s[-1][0] + random.choice([0.0, 6.0]), *layer_s[-1][1:])
        problem = Problem(ranks, micro_batches, tuple(layer_s), 0.0, layers, limit, split)
        cuts = [0, *sorted(random.sample(range(1, layers), random.randint(ranks, layers) - 1)), layers]
        stages = [end - begin for begin, end in pairwise(cuts)]
        rank_of = [*range(ranks), *(random.randrange(ranks) for _ in stages[ranks:])]
        random.shuffle(rank_of)
        seconds = np.array([[sum(of[does] for of in layer_s[a:b]) for a, b in pairwise(cuts)] for does in range(3)])
        placement, times = Placement(ranks, (tuple(rank_of),)), OpTimes(*seconds)
        found = best(placement, (micro_batches,), times, split=split, memory_limit=limit, layers_of_stage=stages)
        if found is None:
            continue
        bounds_s = within_room_s(problem, limit)
        assert max(bounds_s.values()) <= found.makespan_s * ROUNDING, (problem, rank_of, stages)
        above += max(bounds_s.values()) > sum(map(sum, layer_s)) * micro_batches / ranks * 1.05
    assert above > CASES // 16


def best(*asked: Any, **limits: Any) -> Optimum | None:  # noqa: ANN401 - what optimum takes
    """The optimum, or the best order found in little time; None where nothing was found, or nothing fits."""
    try:
        return optimum(*asked, **limits, within_s=0.2, patience_s=60)
    except UserError:
        return None


@pytest.mark.parametrize(
    ("placement", "micro_batches", "limit", "without_s", "bound_s", "shortest_s"),
    [
        # 1F1B's placement with room for fewer micro-batches than there are ranks; the optima are CP-SAT's.
        (linear(4), 6, 1.0, 21, 54, 54),
        (linear(4), 6, 2.0, 21, 28, 31),
        (linear(4), 6, 3.0, 21, 22, 24),
        (linear(4), 6, 4.0, 21, 21, 21),
        # A V with V-Half's room and V-Min's, in halves of a rank: https://arxiv.org/abs/2405.15362, table 1.
        (v_shape(4), 6, 3.0, 19.5, 20.5, 20.5),
        (v_shape(4), 6, 2.0, 19.5, 21.5, 23.5),
        (v_shape(4), 8, 2.0, 25.5, 27.5, 29.5),
        (v_shape(3), 6, 2.0, 19, 20, 20.5),
    ],
)
def test_where_room_is_short_it_is_nearer_to_the_optimum(
    placement: Placement, micro_batches: int, limit: float, without_s: float, bound_s: float, shortest_s: float
) -> None:
    laid = UniformCosts(1.0, 1.0, 1.0).on(placement)
    assert placement_bound_s(placement, (micro_batches,), laid) == without_s
    found_s = placement_bound_s(placement, (micro_batches,), laid, limit=limited(placement, limit))
    assert found_s == pytest.approx(bound_s)
    assert without_s <= found_s <= shortest_s


def test_the_price_of_room_finds_what_can_have_begun() -> None:
    # Two ranks have 4 micro-batches of F = 1, B = 2. Until 4 s three forwards have begun where there is room for three.
    begins_s = np.add.outer(np.array([0.0, 4.0]), np.zeros(4))
    way = Way(begins_s, np.array([1.0, 3.0]), np.array([1.0, 0.0]))
    assert idle_bound_s([way], 3.0, ranks=2) == pytest.approx(4 + (12 - 3) / 2)
    assert idle_bound_s([way], 9.0, ranks=2) == pytest.approx(4 + (12 - 4) / 2)
