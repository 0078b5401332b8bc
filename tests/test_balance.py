"""The layout ``balanced``: which of the equally fast splits is best for a schedule."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from dualpipe_sim import simulate
from dualpipe_sim.balance import balanced_for
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.experiment import Experiment
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.simulation import build_choice

DENSE_80: dict[str, Any] = {
    # After NVIDIA-NeMo/Megatron-Bridge PR 5391: 80 layers on 8 ranks of 5 stages, where one stage has three layers and
    # the last one, with the head, has one. Which stage has the three is free: none is slower than it.
    "pipeline": {"ranks": 8, "micro_batches": 32, "layout": "balanced"},
    "schedule": {"name": "interleaved-1f1b", "stages_per_rank": 5},
    "costs": {"kind": "layers"},
    "model": {
        "name": "dense-80",
        "hidden": 8192,
        "layers": 80,
        "vocabulary": 128256,
        "ffn": 28672,
        "activation": "swiglu",
        "attention": {"heads": 64, "qk_head": 128, "v_head": 128},
    },
    "gpu": "h100",
    "cluster": "h100-ib",
    "parallel": {"data": 8},
    "training": {"sequence_length": 8192, "precision": "fp8"},
}


def with_three_at(stage: int) -> dict[str, Any]:
    return {"pipeline.layout": [3 if one == stage else 2 for one in range(39)] + [1]}


def test_of_equally_slow_layouts_the_fastest_step_is_taken() -> None:
    found = simulate(DENSE_80)
    assert found.layers_by_stage == with_three_at(33)["pipeline.layout"]
    every = [simulate(DENSE_80, **with_three_at(stage)).makespan_s or 0.0 for stage in range(39)]
    assert found.makespan_s == pytest.approx(min(every))
    assert found.makespan_s == pytest.approx(28.39, abs=0.005)
    assert max(every) == pytest.approx(29.19, abs=0.005)


@pytest.mark.parametrize("schedule", ["1f1b", "zb-v", "dualpipe", "zb-auto"])
def test_settling_never_makes_a_step_longer_nor_without_pairs_a_stage_slower(schedule: str) -> None:
    setting: dict[str, Any] = {"schedule": schedule, "model.layers": 29}
    setting |= {"pipeline.ranks": 4, "pipeline.micro_batches": 16}
    experiment = load_experiment(DENSE_80, setting)
    settled, split = (simulate(DENSE_80, **setting), simulate(DENSE_80, **setting, **split_by_times(experiment)))
    assert (settled.makespan_s or 0.0) <= (split.makespan_s or 0.0) * (1 + 1e-9)
    assert sum(settled.layers_by_stage or []) == 29
    assert settled.slowest_stage is not None
    assert split.slowest_stage is not None
    if schedule != "dualpipe":  # where ops overlap, what a stage takes alone is not what counts
        assert settled.slowest_stage["seconds"] <= split.slowest_stage["seconds"] * (1 + 1e-9)


def split_by_times(experiment: Experiment) -> dict[str, Any]:
    stages = len(build_choice(experiment, experiment.choice).placement.pipes[0])
    assert isinstance(experiment.costs, LayerCosts)
    return {"pipeline.layout": [len(stage.layers) for stage in experiment.costs.stage_layers(stages)]}


def test_layouts_that_are_given_and_costs_without_layers_stay_as_they_are() -> None:
    for config in ("figure5", DENSE_80 | {"pipeline": {"ranks": 8, "micro_batches": 32, "layout": "even"}}):
        experiment = load_experiment(config)
        order = build_choice(experiment, experiment.choice)
        topology = experiment.topology(8)
        costs, graph = balanced_for(order, experiment.costs, topology, partial(lower, order, topology=topology))
        assert costs is experiment.costs
        assert graph.schedule is order
