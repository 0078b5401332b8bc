"""Searched orders: never longer than zero bubble's on the same stages, within the limit, the same each time."""

from random import Random
from typing import Any

import numpy as np
import pytest

from dualpipe_sim import build, simulate
from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order import check_schedule
from dualpipe_sim.order.op_times import OpTimes
from dualpipe_sim.order.placement import linear, loop, v_shape


@pytest.mark.parametrize("seed", range(12))
def test_it_is_never_longer_than_zero_bubble(seed: int) -> None:
    random = Random(seed)  # noqa: S311 - draws cases, keeps no secret
    ranks, micro_batches = random.choice([(2, 3), (3, 7), (4, 8), (6, 12)])
    limit = random.choice([None, 1.0, ranks / 2 + 1, ranks])
    costs: dict[str, Any] = {
        "forward": random.uniform(1, 3),
        "backward_input": random.uniform(1, 3),
        "backward_weight": 1.0,
    }
    costs["transfer"] = random.choice([0.0, 0.1])
    for stages, shape in ((1, "linear"), (2, "v")):
        within = {} if limit is None else {"activations": limit}
        found = simulate(
            schedule={"name": "searched", "stages_per_rank": stages, **within},
            ranks=ranks,
            micro_batches=micro_batches,
            **costs,
        )
        zero = {"memory_limit": float(limit or ranks), "weight_gradient_inputs": 1.0}
        known = simulate(
            schedule={"name": "zb-auto", "placement": shape, **zero}, ranks=ranks, micro_batches=micro_batches, **costs
        )
        assert found.makespan_s is not None
        assert known.makespan_s is not None
        assert found.peak_activations_by_rank is not None
        assert found.makespan_s <= known.makespan_s * (1 + 1e-9)
        assert limit is None or max(found.peak_activations_by_rank) <= limit + 1e-9


def test_uneven_stages_are_ordered_by_their_times() -> None:
    # The last stage's rank works twice as long as any: nothing is shorter than its work and the wait for its first op.
    where = linear(4)
    long = np.array([1.0, 1.0, 1.0, 2.0])
    order = build("searched", ranks=4, micro_batches=8, stages_per_rank=1, times=OpTimes(long, long, long))
    check_schedule(order)
    assert order.placement == where
    layers = [{"forward": time, "backward_input": time, "backward_weight": time} for time in long.tolist()]
    played = simulate({"costs": {"kind": "profile", "layers": layers}}, schedule=order)
    assert played.makespan_s == pytest.approx(8 * 6.0 + 3.0)


@pytest.mark.parametrize(("shape", "where"), [("loop", loop(3, 2)), ("v", v_shape(3))])
def test_stages_go_round_or_there_and_back(shape: str, where: object) -> None:
    order = build("searched", ranks=3, micro_batches=4, shape=shape)
    assert order.placement == where
    assert order == build("searched", ranks=3, micro_batches=4, shape=shape)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"activations": 0.5}, "searched: activations must be 1 or more"),
        ({"activations": float("nan")}, "searched: option activations must be a number, no larger than"),
        ({"stages_per_rank": 0}, "searched: stages_per_rank must be 1 or more, got 0"),
        ({"stages_per_rank": 3}, "stages in a V come in twos; take an even number, got 3"),
        ({"moves": 0}, "searched: moves must be 1 or more, got 0"),
        ({"times": OpTimes.uniform(linear(2))}, "searched: times must have 4 stages, got 2"),
    ],
)
def test_what_it_cannot_do_is_said(options: dict[str, object], words: str) -> None:
    with pytest.raises(ScheduleError, match=words):
        build("searched", ranks=2, micro_batches=2, **options)
