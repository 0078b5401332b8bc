"""Noise: what jitter and stragglers must do to any schedule."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim import ConfigError, UserError, build, simulate
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine import discrete_event, longest_path
from dualpipe_sim.engine.noise import Noise, draws_s, slowed, spread
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.task_graph import TaskGraph

UNIT = UniformCosts(1, 1, 1, transfer_s=0.1)


def graph(name: str = "dualpipe", ranks: int = 4, micro_batches: int = 16) -> TaskGraph:
    return lower(build(name, ranks, micro_batches), UNIT)


def test_one_slow_rank_alone_is_as_much_slower() -> None:
    alone = graph("gpipe", ranks=1)
    assert longest_path.play(slowed(alone, Noise(slow_ranks={0: 1.5}))).makespan_s == 1.5 * 48


def test_a_slow_last_rank_sets_the_pace_of_1f1b() -> None:
    """It has no slack: three forwards reach it, it works without a gap, and three backwards follow its last."""
    played = longest_path.play(slowed(lower(build("1f1b", 4, 40), UniformCosts(1, 1, 1)), Noise(slow_ranks={3: 1.1})))
    assert played.makespan_s == pytest.approx(3 * 1 + 40 * 3 * 1.1 + 3 * 2)


def test_a_slow_rank_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="there is no rank 4; the pipeline has ranks 0 to 3"):
        slowed(graph(), Noise(slow_ranks={4: 1.1}))


def test_no_jitter_is_no_spread() -> None:
    found = spread(graph(), Noise(runs=5))
    makespan_s = longest_path.play(graph()).makespan_s
    assert found == dataclasses.replace(found, runs=5, median_s=makespan_s, p5_s=makespan_s, p95_s=makespan_s)


def test_percentiles_are_those_of_the_runs() -> None:
    """Of 21 runs in order the second, the middle and the last but one have 5, 50 and 95 % below them."""
    noise = Noise(0.2, seed=1, runs=21)
    each = sorted(
        longest_path.play(dataclasses.replace(graph(), duration_s=one)).makespan_s for one in draws_s(graph(), noise)
    )
    found = spread(graph(), noise)
    assert (found.p5_s, found.median_s, found.p95_s) == pytest.approx((each[1], each[10], each[19]), rel=1e-12)


def test_factors_have_mean_one_and_the_deviation_asked_for() -> None:
    played = graph(ranks=8, micro_batches=64)
    drawn = np.concatenate([one / played.duration_s for one in draws_s(played, Noise(0.1, seed=3, runs=50))])
    assert drawn.mean() == pytest.approx(1, abs=0.002)
    assert drawn.std() == pytest.approx(0.1, abs=0.002)


@given(st.integers(0, 2**32), st.integers(1, 5))
def test_draws_are_repeated_by_the_seed_and_do_not_depend_on_their_number(seed: int, runs: int) -> None:
    few = list(draws_s(graph(), Noise(0.1, seed, runs)))
    more = list(draws_s(graph(), Noise(0.1, seed, runs + 3)))
    np.testing.assert_array_equal(few, more[:runs])
    assert not np.array_equal(few[0], next(iter(draws_s(graph(), Noise(0.1, seed + 1, 1)))))


@pytest.mark.parametrize("name", ["1f1b", "zb-h1", "dualpipe", "chimera"])
def test_jitter_costs_time_on_average(name: str) -> None:
    """A longest path is convex in its durations, so its mean is at least the one of the means (Jensen)."""
    played = graph(name)
    makespans_s = longest_path.makespans_s(played, draws_s(played, Noise(0.2, seed=5, runs=200)))
    assert makespans_s.mean() > longest_path.play(played).makespan_s


def test_both_ways_to_play_the_draws_agree() -> None:
    played, noise = graph(), Noise(0.1, seed=2, runs=4)
    by_simpy = [
        discrete_event.play(dataclasses.replace(played, duration_s=drawn)).makespan_s
        for drawn in draws_s(played, noise)
    ]
    np.testing.assert_allclose(longest_path.makespans_s(played, draws_s(played, noise)), by_simpy, rtol=1e-9)


def test_a_configuration_has_noise() -> None:
    noise = {"jitter": 0.05, "seed": 1, "runs": 40, "slow_ranks": {5: 1.1}}
    quiet, noisy, again = (simulate("figure5", noise=one) for one in ({"slow_ranks": {5: 1.1}}, noise, noise))
    assert quiet.noise is None
    assert noisy.noise == again.noise
    assert noisy.noise is not None
    assert noisy.noise["runs"] == 40
    assert 66 < noisy.noise["p5_s"] < noisy.noise["median_s"] < noisy.noise["p95_s"]
    assert noisy.makespan_s == quiet.makespan_s


@pytest.mark.parametrize(
    ("noise", "said"),
    [
        ({"jitter": -1}, "noise.jitter: must be a number from 0 up, like 0.02, got -1"),
        ({"slow_ranks": {5: 0}}, "noise.slow_ranks[5]: must be a factor above 0, like 1.1, got 0"),
        ({"slow_ranks": {9: 1.1}}, "noise.slow_ranks: there is no rank 9; the pipeline has ranks 0 to 7"),
        ({"jiter": 0.1}, "noise.jiter: unknown key; did you mean 'jitter'?"),
    ],
)
def test_wrong_noise_is_named(noise: dict[str, object], said: str) -> None:
    with pytest.raises((ConfigError, UserError)) as caught:
        simulate("figure5", noise=noise)
    assert said in str(caught.value)
