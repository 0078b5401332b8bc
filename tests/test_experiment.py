"""An experiment: one cluster, for costs and for routes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dualpipe_sim import UserError
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.experiment import Choice, Experiment
from dualpipe_sim.hardware.cluster import Cluster, Link
from dualpipe_sim.simulation import run


def test_a_slower_network_slows_all_to_alls_and_transfers_alike() -> None:
    # InfiniBand at a tenth: told to the costs or to the routes alone, DeepSeek-V3 took 18.6 s
    experiment = load_experiment("deepseek_v3")
    slow = replace(experiment.cluster, infiniband=replace(experiment.cluster.infiniband, bytes_per_s=5e9))
    by_hand = load_experiment("deepseek_v3", {"cluster.infiniband.bandwidth": "5 GB/s"})
    told = run(replace(experiment, cluster=slow))
    assert told.makespan_s == run(by_hand).makespan_s == pytest.approx(104.3, abs=0.05)


def test_costs_that_bring_a_cluster_of_their_own_are_refused() -> None:
    experiment = load_experiment("deepseek_v3")
    assert isinstance(experiment.cost_model, LayerCosts)
    with pytest.raises(UserError, match="an experiment has one cluster"):
        replace(experiment, cost_model=experiment.cost_model.on_cluster(Cluster()))


def test_layer_costs_without_a_cluster_say_what_they_need() -> None:
    cost_model = load_experiment("deepseek_v3").cost_model
    assert isinstance(cost_model, LayerCosts)
    with pytest.raises(UserError, match="layer costs need a cluster"):
        cost_model.stage_layers(4)


def test_neighbouring_groups_of_gpus_are_the_jobs_data_parallel_degree() -> None:
    experiment = load_experiment("deepseek_v3")
    assert experiment.job is not None
    assert experiment.topology(3).gpu_of_rank == (0, 128, 256)
    uniform = Experiment(Choice("1f1b", 3, 3), UniformCosts(1, 1, 1), Cluster(4, Link(1e9), Link(1e9)), gpus_per_rank=2)
    assert uniform.topology(3).gpu_of_rank == (0, 2, 4)


def test_an_experiment_needs_no_more_than_a_choice_and_costs() -> None:
    assert run(Experiment(Choice("1f1b", 2, 4), UniformCosts(1, 1, 1))).makespan_s == (4 + 1) * 3
