"""Micro-batches of different sizes, and boundaries of different times."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim import ConfigError, UserError, build, compare, simulate
from dualpipe_sim.bounds.makespan import order_bound_s
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine.play import play
from dualpipe_sim.graph.lowering import durations_s, lower

TEN: dict[str, Any] = {"forward": "10 ms", "backward_input": "10 ms", "backward_weight": "10 ms"}
PACKED = [2, *[2 / 3] * 3] * 3
"""Twelve micro-batches of packed sequences, after pytorch/torchtitan#431: three take twice the mean."""


MORE: list[dict[str, Any]] = [{}, {"costs.micro_batch_weights": PACKED}]


def test_variable_lengths_change_which_schedule_wins_by_how_much() -> None:
    names = ["1f1b", "zb-h1", "zb-h2"]
    even, packed = (
        {run.schedule: run.makespan_s for run in compare(schedule=names, ranks=4, micro_batches=12, **TEN, **more)}
        for more in MORE
    )
    assert even == pytest.approx({"1f1b": 0.45, "zb-h1": 0.39, "zb-h2": 0.39})
    assert packed == pytest.approx({"1f1b": 0.76, "zb-h1": 0.58, "zb-h2": 0.4466667}, abs=1e-6)


def test_two_ranks_by_hand() -> None:
    # 1F1B, two ranks, two micro-batches, the second twice as long; a transfer takes 1 s, of the second 2 s.
    costs: dict[str, Any] = {"forward": 1, "backward": 2, "transfer": 1, "costs.micro_batch_weights": [1, 2]}
    run = simulate(schedule="1f1b", ranks=2, micro_batches=2, **costs)
    at = {task: (start, end) for _, lane, task, start, end in run.played.rows() if lane != "recv"}
    wanted = {"0F0": (0, 1), "0F1": (1, 3), "0SEND_F1": (3, 5), "1F0": (2, 3), "1B0": (3, 5), "1F1": (5, 7)}
    wanted |= {"1B1": (7, 11), "1SEND_B1": (11, 13), "0B1": (13, 17)}
    assert {task: at[task] for task in wanted} == wanted
    # rank 0 holds both, of 1 and 2; rank 1 one after the other
    assert run.peak_activations_by_rank == [3, 2]
    assert run.peak_in_flight_by_rank == [2, 1]


def test_an_overlapped_pair_takes_as_much_longer_as_its_two_ops() -> None:
    # F = 1, B = 3, a pair 3.2 instead of 4: a forward of weight 3 and a backward of weight 1 take 3 + 3 over 4 of it
    run = simulate(
        schedule="dualpipev",
        ranks=1,
        micro_batches=3,
        costs=UniformCosts(1.0, 1.5, 1.5, 3.2, micro_batch_weights=(1.0, 1.0, 3.0)),
    )
    graph = run.played.graph
    pairs = {str(graph.schedule.task(int(task))): graph.duration_s[node] for node, task in enumerate(graph.task)}
    (pair,) = [name for name in pairs if name.startswith("(0F2;1B")]
    # half a rank's model in each of the two stages
    assert pairs[pair] == pytest.approx(3.2 / 2 * (3 * 1 + 1 * 3) / 4)


@given(st.integers(1, 4), st.integers(1, 3), st.floats(0.1, 4.0))
def test_weights_that_are_all_alike_scale_all_times(half: int, rounds: int, weight: float) -> None:
    schedule = build("dualpipe", 2 * half, 4 * half * rounds)
    costs = UniformCosts(1.0, 1.0, 0.5, 2.2, transfer_s=0.25)
    alike = UniformCosts(1.0, 1.0, 0.5, 2.2, transfer_s=0.25, micro_batch_weights=(weight,) * schedule.micro_batches)
    plain, weighed = lower(schedule, costs), lower(schedule, alike)
    np.testing.assert_allclose(weighed.duration_s, weight * plain.duration_s)
    np.testing.assert_allclose(durations_s(plain, alike), weighed.duration_s)
    assert play(weighed).makespan_s == pytest.approx(weight * play(plain).makespan_s)


def test_bytes_go_with_the_micro_batch_and_latency_does_not() -> None:
    link: dict[str, Any] = {"cluster.gpus_per_node": 2, "cluster.nvlink": {"bandwidth": "1 GB/s", "latency": "1 s"}}
    sizes: dict[str, Any] = {"schedule": "1f1b", "ranks": 2, "micro_batches": 2, "forward": 1, "backward": 2}
    weights: dict[str, Any] = {"costs.micro_batch_weights": [1, 0.5]}
    run = simulate(**sizes, transfer="2 GB", **link, **weights)
    seconds = {task: end - start for _, lane, task, start, end in run.played.rows() if lane == "send"}
    assert seconds == pytest.approx({"0SEND_F0": 3, "1SEND_B0": 3, "0SEND_F1": 2, "1SEND_B1": 2})


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2], "costs.micro_batch_weights: must have one for each of 8 micro-batches, got 2"),
        ([1] * 7 + [0], "must be a factor above 0, like 1.1, got 0"),
        (2, "must be a list with a factor for each micro-batch, like [2, 0.5, 0.5], got 2"),
        ([], "must be a list with a factor for each micro-batch"),
    ],
)
def test_weights_that_are_none_are_refused(weights: object, message: str) -> None:
    with pytest.raises(UserError) as refused:
        simulate(schedule="1f1b", ranks=4, micro_batches=8, **(TEN | {"costs.micro_batch_weights": weights}))
    assert message in str(refused.value)


def test_no_bound_is_proved_where_micro_batches_differ() -> None:
    costs = UniformCosts(1.0, 1.0, 1.0, micro_batch_weights=(1.0, 2.0))
    schedule = build("1f1b", 2, 2)
    with pytest.raises(UserError, match="bounds take micro-batches that are all alike"):
        order_bound_s(schedule, costs.on(schedule.placement))


# Boundaries


def test_each_boundary_may_have_its_own_time() -> None:
    # One micro-batch through three stages and back: F = 1, B = 2, and both ways 1 s and 3 s.
    run = simulate(schedule="1f1b", ranks=3, micro_batches=1, forward=1, backward=2, transfer=[1, 3])
    assert run.makespan_s == 3 * (1 + 2) + 2 * (1 + 3)
    seconds = {task: end - start for _, lane, task, start, end in run.played.rows() if lane == "send"}
    assert seconds == {"0SEND_F0": 1, "1SEND_F0": 3, "2SEND_B0": 3, "1SEND_B0": 1}


def test_boundaries_of_opposed_pipes_are_counted_from_each_ones_first_stage() -> None:
    run = simulate(schedule="dualpipe", ranks=2, micro_batches=4, forward=1, backward=2, transfer=[0.25])
    assert {round(end - start, 9) for _, lane, _, start, end in run.played.rows() if lane == "send"} == {0.25}


def test_bytes_by_boundary() -> None:
    link: dict[str, Any] = {"cluster.gpus_per_node": 4, "cluster.nvlink": {"bandwidth": "1 GB/s", "latency": 0}}
    sizes: dict[str, Any] = {"schedule": "1f1b", "ranks": 3, "micro_batches": 1, "forward": 1, "backward": 2}
    assert simulate(**sizes, transfer=["1 GB", "3 GB"], **link).makespan_s == pytest.approx(17)
    assert simulate(**sizes, transfer=["1 GB", "3 GB"], **link, contention="fair").makespan_s == pytest.approx(17)


@pytest.mark.parametrize(
    ("transfer", "message"),
    [
        (
            [1, 2, 3],
            "a list needs one entry for each of the 2 boundaries between the stages of a pipe, got 3",
        ),
        (["1 s", "3 GB"], "must be times only, or bytes only, got ['1 s', '3 GB']"),
        ([], "got []"),
        ([1, -2], "got -2"),
    ],
)
def test_lists_that_are_none_are_refused(transfer: object, message: str) -> None:
    with pytest.raises(UserError) as refused:
        simulate(schedule="1f1b", ranks=3, micro_batches=1, forward=1, backward=2, transfer=transfer)
    assert message in str(refused.value)


def test_costs_of_layers_take_times_by_boundary_only() -> None:
    times: dict[str, Any] = {"costs.transfer": ["1 ms"] * 31}
    run = simulate("deepseek_v3", schedule="dualpipev", ranks=16, micro_batches=32, **times)
    assert run.error is None
    with pytest.raises(ConfigError, match=r"costs.transfer: costs of kind 'layers' know the bytes; give times"):
        load_experiment("deepseek_v3", {"costs.transfer": ["1 MB"] * 15})
