"""What is known of the compared schedules at the points of a map, a line of points at a time.

Points of a line differ in one value, so most of their graphs differ in durations only: each schedule's are lowered one
by one, and played side by side. What a map needs of a run is little: how long it takes, and whether it fits.

Two things are not asked at every point. A layout that is ``balanced`` is sought at some points of the map, and the
others take that of the nearest one. Where memory depends on no more than when things run, points between two that both
fit do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

from dualpipe_sim.analysis.memory import memory_of
from dualpipe_sim.analysis.metrics import peak_activations_by_rank
from dualpipe_sim.analysis.step import step
from dualpipe_sim.base.show import brief
from dualpipe_sim.batch.points import Point, Row
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.layers import LayerCosts, LayerStageCosts
from dualpipe_sim.costs.phases import JobStageCosts, with_job
from dualpipe_sim.engine.side_by_side import play_all
from dualpipe_sim.errors import ScheduleError, UnfitCostsError, UserError
from dualpipe_sim.experiment import Choice, Experiment
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.model.layout import BALANCED
from dualpipe_sim.robustness.axis import ACTIVATIONS
from dualpipe_sim.simulation import lower_choice

_ROUNDING = 1e-9


class Judged(NamedTuple):
    """What is known of one schedule at one point.

    Attributes:
        seconds: of a micro-batch, or GPU-seconds of a token where a model is known; None where it cannot be played.
        unfit: why it cannot be played, or does not fit; empty where it fits.

    """

    seconds: float | None
    unfit: str = ""


class Settled(NamedTuple):
    """The layouts that were sought at one point of a map.

    Attributes:
        x: where it is along one axis, as a share of it.
        y: where it is along the other.
        layouts: layers of each stage, for each compared schedule; None where there is nothing to seek.

    """

    x: float
    y: float
    layouts: tuple[tuple[int, ...] | None, ...]


class Line(NamedTuple):
    """Points of a map in a row.

    Attributes:
        x: values of the key that varies, in order.
        x_places: where each is along its axis, as a share of it.
        y: the value of the other key.
        y_place: where it is along its axis.

    """

    x: Sequence[object]
    x_places: Sequence[float]
    y: object
    y_place: float


@dataclass(frozen=True)
class At:
    """A configuration at values of two keys.

    Attributes:
        base: the configuration as plain data.
        source: what to call it in errors.
        x: one key.
        y: the other one.

    """

    base: Mapping[str, object]
    source: str
    x: str
    y: str

    __repr__ = brief

    def experiment(self, x: object, y: object) -> Experiment:
        """Return the experiment at a point.

        Raises:
            UserError: values that no configuration has.

        """
        over = {key: value for key, value in {self.x: x, self.y: y}.items() if key != ACTIVATIONS}
        return load_experiment(self.base, over, source=self.source)

    def limit(self, x: object, y: object) -> float | None:
        """Return the most activations that a rank may hold at a point, where that is an axis."""
        value = {self.x: x, self.y: y}.get(ACTIVATIONS)
        return None if value is None else float(cast("float", value))


@dataclass(frozen=True)
class SettleAt:
    """Seeks the layouts of all compared schedules at a point."""

    at: At

    __repr__ = brief

    def __call__(self, point: Point) -> Row:
        """Return the point's ``layouts``, as :class:`Settled` has them."""
        experiment = self.at.experiment(point["x"], point["y"])
        return {"layouts": tuple(map(_Lowered(experiment).settled, range(len(experiment.choices))))}


@dataclass(frozen=True)
class JudgeLine:
    """Judges all compared schedules at the points of a line.

    Attributes:
        at: the configuration.
        settled: layouts that were sought.

    """

    at: At
    settled: tuple[Settled, ...] = ()

    __repr__ = brief

    def __call__(self, point: Point) -> Row:
        """Return what is known at each point of the ``line``: a list for each schedule, or why there is none."""
        line = cast("Line", point["line"])
        experiments: dict[int, Experiment] = {}
        found: list[list[Judged] | str] = []
        for place, x in enumerate(line.x):
            try:
                experiments[place] = self.at.experiment(x, line.y)
                found.append([])
            except UserError as error:
                found.append(str(error).removeprefix(f"{self.at.source}: "))
        limits = [self.at.limit(line.x[place], line.y) for place in experiments]
        lowered = [
            _Lowered(experiment, self._nearest(line.x_places[place], line.y_place))
            for place, experiment in experiments.items()
        ]
        for which in range(max((len(one.choices) for one in experiments.values()), default=0)):
            for place, judged in zip(experiments, _judge(lowered, which, limits), strict=True):
                cast("list[Judged]", found[place]).append(judged)
        return {"points": found}

    def _nearest(self, x: float, y: float) -> Sequence[Settled]:
        return sorted(self.settled, key=lambda one: max(abs(one.x - x), abs(one.y - y)))


@dataclass(frozen=True)
class _Lowered:
    """The compared schedules of an experiment as task graphs.

    Attributes:
        experiment: what is compared.
        near: layouts that were sought at other points, the nearest first.

    """

    experiment: Experiment
    near: Sequence[Settled] = ()

    def graph(self, which: int) -> TaskGraph | str:
        """Return the graph of a compared schedule, or why there is none."""
        experiment, job = self.experiment, self.experiment.job
        if job is not None and job.layout == BALANCED and experiment.settle_layout:
            for layout in dict.fromkeys(one.layouts[which] for one in self.near):
                if layout is not None and sum(layout) == job.model.layers:
                    laid = replace(cast("LayerCosts", experiment.cost_model), job=replace(job, layout=layout))
                    graph = _lower(replace(experiment, cost_model=laid), which)
                    if not isinstance(graph, str):  # (else it may be one for another number of stages)
                        return graph
        return _lower(experiment, which)

    def settled(self, which: int) -> tuple[int, ...] | None:
        """Return the layers of each stage of a compared schedule where they are sought for it, else None."""
        job = self.experiment.job
        if job is None or job.layout != BALANCED or not self.experiment.settle_layout:
            return None
        graph = _lower(self.experiment, which)
        if isinstance(graph, str) or not isinstance(graph.costs, LayerStageCosts):
            return None
        return tuple(len(one.layers) for one in graph.costs.stage_layers[: len(graph.schedule.placement.pipes[0])])


def _lower(experiment: Experiment, which: int) -> TaskGraph | str:
    try:
        return lower_choice(experiment, experiment.choices[which])
    except (ScheduleError, UnfitCostsError) as error:
        return str(error)


def _judge(lowered: Sequence[_Lowered], which: int, limits: Sequence[float | None]) -> list[Judged]:
    """Judge one of the compared schedules in experiments that differ little, one after the other."""
    graphs = [one.graph(which) for one in lowered]
    there = [place for place, one in enumerate(graphs) if isinstance(one, TaskGraph)]
    found = {place: Judged(None, one) for place, one in enumerate(graphs) if isinstance(one, str)}
    if not there:
        return list(found.values())
    try:
        timelines = play_all([cast("TaskGraph", graphs[place]) for place in there], lowered[0].experiment.engine)
    except ScheduleError as error:  # whether an order deadlocks depends on no time
        return [found.get(place, Judged(None, str(error))) for place in range(len(lowered))]
    over = _over_memory(timelines)
    for place, timeline, full in zip(there, timelines, over, strict=True):
        seconds = _seconds(timeline, lowered[place].experiment.choices[which])
        found[place] = Judged(seconds, full or _over_limit(timeline, limits[place]))
    return [found[place] for place in range(len(lowered))]


def _seconds(timeline: Timeline, choice: Choice) -> float:
    costs = with_job(timeline.graph.costs)
    if costs is None:
        return timeline.makespan_s / choice.micro_batches
    return 1 / step(timeline, costs).tokens_per_second_per_gpu


def _over_limit(timeline: Timeline, limit: float | None) -> str:
    if limit is None:
        return ""
    peak = float(peak_activations_by_rank(timeline).max())
    return f"a rank holds {peak:.4g} activations, more than {limit:.4g}" if peak > limit + _ROUNDING else ""


def _over_memory(timelines: Sequence[Timeline]) -> list[str]:
    """Return why each does not fit its GPUs, or an empty text; of those between two that agree, the same."""
    found: dict[int, str] = {}

    def verdict(place: int) -> str:
        if place not in found:
            costs = with_job(timelines[place].graph.costs)
            memory = None if costs is None else memory_of(timelines[place])
            found[place] = "" if memory is None or memory.fits else memory.verdict()
        return found[place]

    def fill(first: int, last: int) -> None:
        if last - first < 2:
            return
        if (
            bool(verdict(first)) == bool(verdict(last))
            and len({_holds(one) for one in timelines[first : last + 1]}) == 1
        ):
            found.update(dict.fromkeys(range(first + 1, last), verdict(first)))
            return
        fill(first, (first + last) // 2)
        fill((first + last) // 2, last)

    fill(0, len(timelines) - 1)
    return [verdict(place) for place in range(len(timelines))]


def _holds(timeline: Timeline) -> object:
    """Return what its memory depends on beside when things run, and what goes one way along an axis."""
    costs: JobStageCosts | None = with_job(timeline.graph.costs)
    if costs is None:
        return None
    return timeline.graph.schedule.key, replace(costs.job, routing_skew=1.0), costs.stage_layers
