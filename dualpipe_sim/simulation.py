"""From an experiment to results: order, costs and topology meet, an engine plays, metrics read the timeline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dualpipe_sim import metrics
from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.experiment import Choice, Experiment
from dualpipe_sim.graph import TaskGraph, lower
from dualpipe_sim.registry import build
from dualpipe_sim.result import Comparison, Result, by_throughput
from dualpipe_sim.schedule import Schedule
from dualpipe_sim.timeline import Timeline

_SHORT = {"ranks": "pipeline.ranks", "micro_batches": "pipeline.micro_batches"}


def simulate(config: str | Path | Mapping[str, object], **overrides: object) -> Result:
    """Run the schedule of a configuration.

    Args:
        config: a YAML file, the name of a packaged one (``deepseek_v3``), or a mapping of the same shape.
        overrides: values that replace those of the configuration: ``schedule="1f1b"``, ``micro_batches=64``,
            ``ranks=8``, ``cluster={...}``, or any dotted key as ``**{"costs.transfer": "1 ms"}``.

    Raises:
        ConfigError: what is wrong with the configuration, in one line.
        ScheduleError: the schedule cannot do these sizes.

    """
    experiment = _load(config, overrides)
    return run(experiment, experiment.choice)


def compare(config: str | Path | Mapping[str, object], **overrides: object) -> Comparison:
    """Run all schedules that a configuration compares; one that refuses its sizes is a run with ``error``.

    Args:
        config: as for :func:`simulate`.
        overrides: as for :func:`simulate`; ``compare=["1f1b", "dualpipe"]`` chooses the schedules.

    Raises:
        ConfigError: what is wrong with the configuration, in one line.

    """
    return run_all(_load(config, overrides))


def run(experiment: Experiment, choice: Choice) -> Result:
    """Run one schedule of an experiment.

    Raises:
        ScheduleError: the schedule cannot do these sizes, or its order deadlocks.

    """
    try:
        return _run(experiment, choice)
    except ScheduleError as error:
        raise type(error)(f"{experiment.source}: schedule: {error}") from error


def run_all(experiment: Experiment) -> Comparison:
    """Run every schedule that an experiment compares (or its only one)."""
    return by_throughput([_run_or_refuse(experiment, choice) for choice in experiment.compare or (experiment.choice,)])


def build_choice(choice: Choice) -> Schedule:
    """Return the order of a choice."""
    return build(choice.name, choice.ranks, choice.micro_batches, **choice.options)


def lower_choice(experiment: Experiment, choice: Choice) -> TaskGraph:
    """Return the task graph of a choice."""
    return lower(build_choice(choice), experiment.costs, experiment.cluster.topology(choice.ranks))


def play(graph: TaskGraph) -> Timeline:
    """Play a graph."""
    from dualpipe_sim.engine import discrete_event

    return discrete_event.play(graph)


def _run(experiment: Experiment, choice: Choice) -> Result:
    return _result(choice, play(lower_choice(experiment, choice)))


def _run_or_refuse(experiment: Experiment, choice: Choice) -> Result:
    try:
        return _run(experiment, choice)
    except ScheduleError as error:
        return Result(choice.name, choice.ranks, choice.micro_batches, dict(choice.options), error=str(error))


def _load(config: str | Path | Mapping[str, object], overrides: Mapping[str, object]) -> Experiment:
    from dualpipe_sim.config import load_experiment

    return load_experiment(config, {_SHORT.get(key, key): value for key, value in overrides.items()})


def _result(choice: Choice, timeline: Timeline) -> Result:
    makespan_s = timeline.makespan_s
    return Result(
        schedule=choice.name,
        ranks=choice.ranks,
        micro_batches=choice.micro_batches,
        options=dict(choice.options),
        makespan_s=makespan_s,
        bubble_ratio=metrics.bubble_ratio(timeline),
        bubble_ratio_by_rank=_floats(metrics.bubble_ratio_by_rank(timeline)),
        span_bubble_ratio=metrics.span_bubble_ratio(timeline),
        compute_idle_ratio=metrics.compute_idle_ratio(timeline),
        micro_batches_per_s=choice.micro_batches / makespan_s if makespan_s else None,
        idle_s_by_cause={cause: _floats(idle) for cause, idle in metrics.idle_s_by_cause(timeline).items()},
        peak_in_flight_by_rank=[int(count) for count in metrics.peak_in_flight_by_rank(timeline)],
        peak_activations_by_rank=_floats(metrics.peak_activations_by_rank(timeline)),
        theory=None,
        engine=timeline.engine,
        timeline=timeline,
    )


def _floats(values: NDArray[np.float64]) -> list[float]:
    return [float(value) for value in values]
