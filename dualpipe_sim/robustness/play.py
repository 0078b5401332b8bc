"""The schedules of a configuration, each played in the same scenarios."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.base.show import brief
from dualpipe_sim.batch.points import Point, Progress, Row
from dualpipe_sim.batch.runner import evaluate_all
from dualpipe_sim.costs.layers import LayerStageCosts
from dualpipe_sim.demand import check
from dualpipe_sim.engine.scenarios import Drawn, makespans_s
from dualpipe_sim.errors import UserError
from dualpipe_sim.experiment import Choice, Experiment
from dualpipe_sim.graph.lowering import durations_s
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.result import Result
from dualpipe_sim.robustness.outcome import Robust, Standing
from dualpipe_sim.simulation import experiment_to_compare, lower_choice, run_or_refuse

_TRACED_SKEW = 1.12  # of a layer in DeepSeek's published trace, https://github.com/deepseek-ai/profile-data
_AT_ONCE = 125  # scenarios of a point: enough to be played side by side, few enough to share out


def robust(
    config: str | Path | Mapping[str, object] | None = None,
    *,
    workers: int = 1,
    progress: Progress | None = None,
    **overrides: object,
) -> Robust:
    """Play all schedules that a configuration compares in the same scenarios, those of its section ``scenarios``.

    >>> found = robust("figure5", compare=["1f1b", "dualpipe"], **{"scenarios.runs": 100})
    >>> found[0].label, found[0].p50_s < found[0].p95_s <= found[0].worst_s
    ('dualpipe', True)

    Args:
        config: as for :func:`~dualpipe_sim.compare`.
        workers: processes on this machine; what comes out does not depend on them.
        progress: told how many of how many plays are done.
        overrides: as for :func:`~dualpipe_sim.compare`.

    Raises:
        ConfigError: what is wrong with the configuration, in one line.
        UserError: no schedule can be played.

    """
    return robust_choice(experiment_to_compare(config, overrides), workers=workers, progress=progress)


def robust_choice(experiment: Experiment, *, workers: int = 1, progress: Progress | None = None) -> Robust:
    """Play an experiment's schedules in its scenarios; arguments and errors as for :func:`robust`."""
    experiment = _settled(experiment)
    with experiment.named():
        check(experiment, experiment.choices, draws=experiment.scenarios.runs)
        plain = [run_or_refuse(experiment, choice) for choice in experiment.choices]
        played = [place for place, run in enumerate(plain) if run.error is None]
        if not played:
            raise UserError(f"no schedule can be played: {plain[0].error}")
        times_s = _played(experiment, played, workers, progress)
    standings = [Standing(plain[place], times_s[place] + _after_s(plain[place])) for place in played]
    refused = tuple(run for run in plain if run.error is not None)
    return Robust.of(experiment.scenarios, standings, refused)


def _settled(experiment: Experiment) -> Experiment:
    """Return the experiment with jitter in its scenarios alone, and the routing skew that they have, if any."""
    noise, told, job = experiment.noise, experiment.scenarios, experiment.job
    routed = told.expert_share > 0 if job is None else job.model.experts is not None
    skew = told.routing_skew or max(_TRACED_SKEW, 1.0 if job is None else job.routing_skew)
    return replace(
        experiment,
        noise=None if noise is None else replace(noise, jitter=0.0),
        scenarios=replace(told, routing_skew=skew if routed else None),
    )


def _after_s(plain: Result) -> float:
    """Return what a step takes beside its pipeline: reduction and optimizer, taken to be as without scenarios."""
    return (plain.step_time_s or 0.0) - (plain.makespan_s or 0.0) if plain.step_time_s else 0.0


def _played(
    experiment: Experiment, places: list[int], workers: int, progress: Progress | None
) -> dict[int, FloatArray]:
    """Return the makespans of each of some choices, by its place, shape ``(runs,)`` each."""
    runs = experiment.scenarios.runs
    points: list[Point] = [
        {"schedule": place, "first": first, "end": min(first + _AT_ONCE, runs)}
        for place in places
        for first in range(0, runs, _AT_ONCE)
    ]
    found: dict[int, FloatArray] = {place: np.empty(runs) for place in places}
    done = 0
    with closing(evaluate_all(points, PlayScenarios(experiment), workers=workers)) as evaluated:
        for number, row in evaluated:
            point = cast("Mapping[str, int]", points[number])
            if row.get("error") is not None:
                raise UserError(f"{experiment.choices[point['schedule']]}: {row['error']}")
            found[point["schedule"]][point["first"] : point["end"]] = cast("list[float]", row["makespans_s"])
            done += point["end"] - point["first"]
            if progress is not None:
                progress(done, runs * len(places))
    return found


@dataclass(frozen=True)
class PlayScenarios:
    """Plays some scenarios of one choice of an experiment: those from ``first`` to ``end``."""

    experiment: Experiment

    __repr__ = brief

    def __call__(self, point: Point) -> Row:
        """Return the makespans of a point's scenarios."""
        place, first, end = (cast("int", point[key]) for key in ("schedule", "first", "end"))
        graph, drawn = self._drawn(place)
        return {"makespans_s": makespans_s(drawn, graph, range(first, end)).tolist()}

    def _drawn(self, place: int) -> tuple[TaskGraph, Drawn]:
        if place not in self._kept:
            self._kept[place] = drawn_for(self.experiment, self.experiment.choices[place])
        return self._kept[place]

    @cached_property
    def _kept(self) -> dict[int, tuple[TaskGraph, Drawn]]:
        return {}


def drawn_for(experiment: Experiment, choice: Choice) -> tuple[TaskGraph, Drawn]:
    """Return the graph of a choice, and what draws its durations in an experiment's scenarios."""
    graph, job = lower_choice(experiment, choice), experiment.job
    skew = 1.0 if job is None else job.routing_skew
    return graph, Drawn(graph, experiment.scenarios, skew, _sensitivity(experiment, graph))


def _sensitivity(experiment: Experiment, graph: TaskGraph) -> FloatArray | None:
    """Return how much longer each phase takes for one more of routing skew, over its duration, shape ``(phases,)``."""
    costs, mean = graph.costs, experiment.scenarios.routing_skew
    if mean is None:
        return None
    if not isinstance(costs, LayerStageCosts):
        return np.where(graph.on(Lane.COMPUTE), experiment.scenarios.expert_share, 0.0)
    if mean == costs.job.routing_skew == 1:
        return None
    if not graph.fixed_durations:
        raise UserError(
            "scenarios.routing_skew: cannot be drawn where links or SMs are shared; make it 1, as training.routing_skew"
        )
    job = replace(costs.job, routing_skew=costs.job.routing_skew + 1)
    more = _Laid(replace(costs, costs=replace(costs.costs, job=job)))
    topology = experiment.topology(graph.schedule.ranks)
    before_s, after_s = (
        durations_s(graph, one, topology)[: graph.first_transfer] for one in (_Laid(costs), more)
    )  # durations go up in a straight line with it
    return np.divide(after_s, before_s, out=np.ones_like(before_s), where=before_s > 0) - 1


@dataclass(frozen=True)
class _Laid:
    """Costs that lie on their stages already."""

    stages: LayerStageCosts

    def on(self, _placement: Placement) -> LayerStageCosts:
        return self.stages
