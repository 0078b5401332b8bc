"""Orders on stages of whole layers, as they are played; first those of the registered schedules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple, cast

import numpy as np

from dualpipe_sim.costs.profile import LayerTime, ProfileCosts
from dualpipe_sim.errors import ScheduleError, UserError
from dualpipe_sim.experiment import Choice, Experiment
from dualpipe_sim.model.layout import BALANCED, EVEN
from dualpipe_sim.order.ops import B, F, I, R, W
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.result import Result
from dualpipe_sim.schedules.annealing.problem import Problem
from dualpipe_sim.schedules.registry import schedules, spec
from dualpipe_sim.search.ask import with_order
from dualpipe_sim.simulation import build_choice, run

_ROUNDING = 1e-9


class Order(NamedTuple):
    """An order on stages of so many layers, and its run."""

    schedule: Schedule
    partition: tuple[int, ...]
    result: Result
    origin: str

    @property
    def makespan_s(self) -> float:
        """Seconds of a step."""
        return cast("float", self.result.makespan_s)


def played(
    experiment: Experiment, problem: Problem, schedule: Schedule, partition: tuple[int, ...], origin: str
) -> Order:
    """Return an order with its run."""
    return Order(schedule, partition, run(with_order(experiment, problem, schedule, partition)), origin)


def fits(order: Order, problem: Problem) -> bool:
    """Return whether an order holds no more than a problem allows."""
    return problem.most_activations is None or max(peaks(order.schedule, order.partition, problem)) <= (
        problem.most_activations + _ROUNDING
    )


def peaks(schedule: Schedule, partition: Sequence[int], problem: Problem) -> list[float]:
    """Return the most activations on each rank, in those of 1/ranks of the layers.

    They are held from F to the end of W or B; where a stage's forward runs again, its input from F on, all from R.
    """
    size = np.array(partition) * (schedule.ranks / sum(partition))
    left = size.copy()
    left[schedule.stage[schedule.of_kinds(R)]] = problem.input_share
    stage = schedule.stage
    change = np.select(
        [schedule.of_kinds(F), schedule.of_kinds(R), schedule.of_kinds(B, W)],
        [left[stage], (size - left)[stage], -size[stage]],
        0.0,
    )
    return [float(np.cumsum(change[schedule.rank == rank]).max(initial=0.0)) for rank in range(schedule.ranks)]


def registered(experiment: Experiment, problem: Problem) -> Iterator[Order]:
    """Yield the best run of each registered schedule that a search could have found, within the limit."""
    for name in schedules():
        one = spec(name)
        limits = {} if problem.most_activations is None else one.within(problem.most_activations)
        tried = []
        for values in product(*one.tries.values()):
            options = {**dict(zip(one.tries, values, strict=True)), **limits}
            for layout in (BALANCED, EVEN):
                order = _named(experiment, problem, Choice(name, problem.ranks, problem.micro_batches, options), layout)
                if order is not None:
                    tried.append(order)
        if tried:
            yield min(tried, key=lambda order: order.makespan_s)


def _named(experiment: Experiment, problem: Problem, choice: Choice, layout: str) -> Order | None:
    """Return a registered schedule's order on stages of whole layers, or None where it has none such."""
    kinds = (F, *((I, W, B) if problem.split else (B,)), *((R,) if problem.recompute else ()))
    profile = ProfileCosts(tuple(LayerTime(*seconds) for seconds in problem.layer_s), layout, problem.hop_s)
    told = replace(experiment, choice=choice, cost_model=profile, compare=(), measured=None)
    try:
        schedule = build_choice(told, choice)
        stages = schedule.placement.stages
        apart = len(schedule.placement.pipes) > 1 or schedule.slices > 1 or schedule.micro_batch_share != 1
        apart = apart or bool((schedule.partner >= 0).any()) or not schedule.of_kinds(*kinds).all()
        if apart or stages > problem.most_stages:
            return None
        order = played(experiment, problem, schedule, profile.partition(stages), choice.name)
    except (ScheduleError, UserError):
        return None
    return order if fits(order, problem) else None
