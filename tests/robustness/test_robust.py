"""Robust choice: what is said of schedules in many scenarios."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dualpipe_sim import ConfigError, UserError, robust, simulate
from dualpipe_sim.config import load_experiment
from dualpipe_sim.engine import discrete_event
from dualpipe_sim.robustness.play import drawn_for, robust_choice
from dualpipe_sim.simulation import lower_choice

UNIT: dict[str, Any] = {
    "pipeline": {"ranks": 4, "micro_batches": 8},
    "compare": ["1f1b", "zb-h1", "dualpipe"],
    "costs": {"forward": 1, "backward": 2, "transfer": 0.1},
    "scenarios": {"runs": 60},
}
NOTHING: dict[str, Any] = {f"scenarios.{key}": 0 for key in ("jitter", "stragglers", "slow_links")}


def test_where_nothing_happens_every_scenario_is_the_plain_run() -> None:
    for standing in robust(UNIT, **NOTHING):
        plain = simulate(UNIT, schedule=standing.run.schedule, compare=[])
        assert set(standing.times_s.tolist()) == {plain.makespan_s}
        assert standing.p50_s == standing.p95_s == standing.worst_s == standing.plain_s == plain.makespan_s


def test_percentiles_are_those_of_as_many_plays_by_simpy() -> None:
    experiment = load_experiment(UNIT, {"scenarios.runs": 25, "scenarios.stragglers": 0.3})
    found = {one.run.schedule: one for one in robust_choice(experiment)}
    for choice in experiment.choices:
        graph, drawn = drawn_for(experiment, choice)
        plays = (discrete_event.play(replace(graph, duration_s=drawn.durations_s(run))) for run in range(25))
        seconds = [one.makespan_s for one in plays]
        assert found[choice.name].times_s.tolist() == seconds
        assert found[choice.name].p50_s == sorted(seconds)[12]
        assert found[choice.name].worst_s == max(seconds)


def test_a_seed_repeats_it_and_workers_do_not_count() -> None:
    alone, shared, other = robust(UNIT), robust(UNIT, workers=2), robust(UNIT, scenarios={"seed": 1, "runs": 60})
    assert alone.to_dict() == shared.to_dict()
    assert [one.times_s.tolist() for one in alone] == [one.times_s.tolist() for one in shared]
    assert alone.to_dict() != other.to_dict()


def test_what_is_compared_beside_changes_no_schedules_scenarios() -> None:
    alone = robust(UNIT, compare=["zb-h1"])[0]
    among = next(one for one in robust(UNIT) if one.run.schedule == "zb-h1")
    assert alone.times_s.tolist() == among.times_s.tolist()


def test_best_shares_and_regrets_follow_from_the_times_of_each_scenario() -> None:
    found = robust(UNIT, scenarios={"stragglers": 0.3, "slowdown": 1.0, "runs": 60})
    times = np.array([one.times_s for one in found])
    winners = [np.flatnonzero(of_scenario == of_scenario.min()).tolist() for of_scenario in times.T]
    for place, share in enumerate(found.best_shares):
        assert share == pytest.approx(sum(1 / len(one) for one in winners if place in one) / 60)
    assert found.best_shares.sum() == pytest.approx(1)
    np.testing.assert_allclose(found.regrets, times / times.min(axis=0) - 1)
    assert found.regrets.min() == 0


def test_schedules_of_other_sizes_are_compared_by_micro_batch() -> None:
    found = robust(UNIT, compare=["gpipe", {"name": "gpipe", "micro_batches": 64}])
    assert [one.run.micro_batches for one in found] == [64, 8]  # a smaller bubble, though a step takes longer
    assert found[0].p95_s > found[1].p95_s
    assert found.best_shares.tolist() == [1.0, 0.0]


def test_two_of_the_same_are_too_close_to_call() -> None:
    found = robust(UNIT, compare=["1f1b", "1f1b"])
    assert found.best_shares.tolist() == [0.5, 0.5]
    assert [lead.close for lead in found.leads] == [[1], [1]]
    assert found.verdicts[0].startswith("p50: too close to call between 1f1b and 1f1b")


def test_a_lead_is_called_where_samples_of_the_scenarios_agree() -> None:
    lead = robust(UNIT, compare=["1f1b", "zb-h1"], scenarios={"runs": 200}).leads[0]
    assert lead.close == []
    assert 0 < lead.surely[0, 1] < lead.behind[1] < lead.surely[1, 1]


def test_what_cannot_be_played_is_said_and_left_out() -> None:
    found = robust(UNIT, compare=["1f1b", "dualpipe"], micro_batches=7)
    assert [one.run.schedule for one in found] == ["1f1b"]
    assert [run.schedule for run in found.refused] == ["dualpipe"]
    assert "refused: dualpipe" in str(found)
    assert found.verdicts == ["best in so many scenarios: 1f1b in 100.0%"]
    with pytest.raises(UserError, match="no schedule can be played: dualpipe needs"):
        robust(UNIT, compare=["dualpipe"], micro_batches=7)


def test_slow_ranks_of_the_noise_are_slow_in_every_scenario() -> None:
    slow = {"noise": {"slow_ranks": {3: 1.5}, "jitter": 0.3}}
    experiment = load_experiment({**UNIT, **slow})
    assert experiment.scenarios.jitter == 0.3  # of the noise, where the scenarios have no own
    found = robust({**UNIT, **slow}, compare=["1f1b"], **NOTHING)
    assert found[0].worst_s == simulate({**UNIT, "noise": {"slow_ranks": {3: 1.5}}}, schedule="1f1b").makespan_s


V3: dict[str, Any] = {"pipeline.micro_batches": 32, **NOTHING}


def test_a_drawn_skew_is_the_one_that_costs_by_layer_would_have() -> None:
    """The skew of an op read off one of its routed phases prices all of its phases."""
    told = {**V3, "compare": ["1f1b"], "pipeline.layout": [4] * 15 + [1], "scenarios.routing_skew": 1.5}
    even, skewed = (load_experiment("deepseek_v3", {**told, "training.routing_skew": skew}) for skew in (1.0, 2.0))
    graph, drawn = drawn_for(even, even.choices[0])
    at_two = lower_choice(skewed, skewed.choices[0])
    phases = slice(0, graph.first_transfer)
    plain_s, drawn_s = graph.duration_s[phases], drawn.durations_s(0)[phases]
    slope_s = at_two.duration_s[phases] - plain_s
    grows = slope_s > 1e-9
    assert 0.2 < grows.mean() < 0.8
    np.testing.assert_allclose(drawn_s[~grows], plain_s[~grows])
    skew = 1 + (drawn_s[grows] - plain_s[grows]) / slope_s[grows]
    op = graph.op_of_node[phases][grows]
    by_op = [skew[op == one] for one in np.unique(op)[::50]]
    assert all(one == pytest.approx(one[0]) for one in by_op)
    assert skew.min() >= 1
    assert skew.mean() == pytest.approx(1.5, abs=0.1)


def test_a_step_by_layer_has_what_comes_after_its_pipeline_and_what_fits_is_first() -> None:
    told = {**V3, "compare": ["zb-h1", "dualpipe"], "pipeline.layout": "even", "scenarios.runs": 2}
    found = robust("deepseek_v3", **{**told, "scenarios.routing_skew": 1})
    assert [(one.run.schedule, one.run.fits) for one in found] == [("dualpipe", True), ("zb-h1", False)]
    assert found[0].times_s == pytest.approx([found[0].run.step_time_s] * 2, rel=1e-12)
    assert found.best_shares.tolist() == [1.0, 0.0]
    assert found.to_table().rows[1][0].startswith("zb-h1, does not fit")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("runs", 0, "must be a whole number, 1 or more, got 0"),
        ("jitter", -1, "must be a number from 0 up, like 0.02, got -1"),
        ("stragglers", 2, "must be from 0 to 1, like 0.05, got 2"),
        ("routing_skew", 0.5, "must be a number from 1 (even routing) up, like 1.12, got 0.5"),
        ("straglers", 0.1, "unknown key; did you mean 'stragglers'?"),
    ],
)
def test_a_mistake_is_one_line(key: str, value: float, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        robust({**UNIT, "scenarios": {key: value}})
    assert str(raised.value) == f"config: scenarios.{key}: {said}"


def test_skew_cannot_be_drawn_where_links_are_shared() -> None:
    with pytest.raises(UserError, match=r"scenarios\.routing_skew: cannot be drawn where links or SMs are shared"):
        robust("deepseek_v3", compare=["1f1b"], micro_batches=16, contention="fair", scenarios={"runs": 1})
