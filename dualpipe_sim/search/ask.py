"""From an experiment to what a search is asked, and from its answer back to an experiment that plays it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dualpipe_sim.base.units import number_of
from dualpipe_sim.costs.asked import op_seconds, stage_costs
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.costs.phases import Costs
from dualpipe_sim.costs.profile import LayerTime, ProfileCosts
from dualpipe_sim.costs.transfers import slowest_hop_s
from dualpipe_sim.errors import UserError
from dualpipe_sim.experiment import Choice, Experiment, Sought
from dualpipe_sim.order.ops import F, I, W
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.annealing.problem import Problem


def problem_of(experiment: Experiment) -> Problem:
    """Return what a search is asked by an experiment.

    Layers are those of a profile or of a model; where costs know none, stages as small as may be are.

    Raises:
        UserError: costs that do not say what a part of the model takes, micro-batches that are not alike, fewer layers
            than ranks, or a limit that not even one micro-batch fits.

    """
    choice, asked = experiment.choice, experiment.sought
    costs = experiment.costs
    layers = _layers(experiment)
    placement = Placement(choice.ranks, (tuple(layer % choice.ranks for layer in range(layers)),))
    single = _laid_out(costs, (1,) * layers)
    on_stages = stage_costs(single, placement)
    for key in ("micro_batch_weights", "slices"):
        if getattr(on_stages, key, None) is not None:
            raise UserError(f"costs.{key}: a search takes micro-batches that are all alike; leave it out")
    _check(layers, choice.ranks, asked)
    seconds = np.array([op_seconds(on_stages, kind, layers) for kind in (F, I, W)])
    return Problem(
        ranks=choice.ranks,
        micro_batches=choice.micro_batches,
        layer_s=tuple(map(tuple, seconds.T.tolist())),
        hop_s=slowest_hop_s(on_stages, experiment.topology(choice.ranks), placement),
        most_stages=min(layers, asked.stages_per_rank * choice.ranks),
        most_activations=asked.activations,
        split=asked.split,
        recompute=asked.recompute,
    )


def _check(layers: int, ranks: int, asked: Sought) -> None:
    if layers < ranks:
        raise UserError(f"search: {number_of(layers, 'layer')} cannot be shared out over {number_of(ranks, 'rank')}")
    if asked.activations is not None and asked.activations < 1 and not asked.recompute:
        raise UserError(
            "search.activations: must be 1 or more (one micro-batch through one rank's share of the model), "
            f"got {asked.activations:g}"
        )


def with_order(experiment: Experiment, problem: Problem, schedule: Schedule, partition: tuple[int, ...]) -> Experiment:
    """Return the experiment with an order as its schedule, on stages that hold so many layers each."""
    choice = Choice(schedule.name, schedule.ranks, schedule.micro_batches, order=schedule)
    costs = _laid_out(experiment.cost_model, partition)
    if costs is experiment.cost_model:  # its layers are the search's own
        layers = tuple(LayerTime(*seconds) for seconds in problem.layer_s)
        costs = ProfileCosts(layers, partition, problem.hop_s, unitless=getattr(costs, "unitless", False))
    return replace(experiment, choice=choice, cost_model=costs, compare=(), settle_layout=False, measured=None)


def _layers(experiment: Experiment) -> int:
    if isinstance(experiment.cost_model, ProfileCosts):
        return len(experiment.cost_model.layers)
    if experiment.job is not None:
        return experiment.job.model.layers
    return experiment.sought.stages_per_rank * experiment.choice.ranks


def _laid_out(costs: Costs, partition: tuple[int, ...]) -> Costs:
    """Return costs with a layout of their own; those that know no layers stay as they are."""
    if isinstance(costs, ProfileCosts):
        return replace(costs, layout=partition)
    if isinstance(costs, LayerCosts):
        return replace(costs, job=replace(costs.job, layout=partition))
    return costs
