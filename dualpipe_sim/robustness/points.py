"""What is known of the compared schedules at the points of a map, a line of points at a time.

Points of a line differ in one value, so most of their graphs differ in durations only: each schedule's are lowered one
by one, and played side by side. What a map needs of a run is little: how long it takes, and whether it fits.

Two things are not asked at every point. A layout that is ``balanced`` is sought once, in the middle of the map, so that
no boundary on it is one between layouts. Where memory depends on no more than when things run, points between two that
both fit do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import numpy as np

from dualpipe_sim.analysis.memory import memory_of
from dualpipe_sim.analysis.metrics import peak_activations_by_rank
from dualpipe_sim.analysis.step import TrainingStep, step
from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.base.show import brief
from dualpipe_sim.batch.points import Point, Row
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.asked import costs_of_kinds
from dualpipe_sim.costs.layers import LayerCosts, LayerStageCosts
from dualpipe_sim.costs.phases import JobStageCosts, StageCosts, with_job
from dualpipe_sim.engine.side_by_side import play_all
from dualpipe_sim.errors import UserError
from dualpipe_sim.experiment import Experiment
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.model.job import Job
from dualpipe_sim.model.layout import BALANCED
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.robustness.axis import ACTIVATIONS
from dualpipe_sim.simulation import laid_costs, lower_choice

_ROUNDING = 1e-9
_NEXT_TO_NOTHING = 1e-6  # of a step
_FEWEST = 4  # points of a line that are lowered one by one


class Judged(NamedTuple):
    """What is known of one schedule at one point.

    Attributes:
        seconds: of a micro-batch, or GPU-seconds of a token where a model is known; None where it cannot be played.
        unfit: why it cannot be played, or does not fit; empty where it fits.

    """

    seconds: float | None
    unfit: str = ""


class Line(NamedTuple):
    """Points of a map in a row.

    Attributes:
        x: values of the key that varies, in order.
        x_numbers: the same as numbers, empty for words.
        y: the value of the other key.

    """

    x: Sequence[object]
    x_numbers: Sequence[float]
    y: object


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


def settle(at: At, x: object, y: object) -> tuple[tuple[int, ...] | None, ...]:
    """Return the layers of each stage that are sought at a point, for each compared schedule; None where none are.

    Raises:
        UserError: values that no configuration has.

    """
    experiment = at.experiment(x, y)
    return tuple(map(_Lowered(experiment).settled, range(len(experiment.choices))))


@dataclass(frozen=True)
class JudgeLines:
    """Judges all compared schedules at the points of some lines.

    One schedule after the other, since what lines have in common is kept for the last few orders.

    Attributes:
        at: the configuration.
        layouts: what :func:`settle` found, taken at all points that it suits.

    """

    at: At
    layouts: tuple[tuple[int, ...] | None, ...] = ()

    __repr__ = brief

    def __call__(self, point: Point) -> Row:
        """Return what is known at the points of the ``lines``: a list for each schedule, or why there is none."""
        lines = [_Judged(self, line) for line in cast("Sequence[Line]", point["lines"])]
        for which in range(max((line.schedules for line in lines), default=0)):
            for line in lines:
                line.judge(which)
        return {"points": [one for line in lines for one in line.found]}


class _Judged:
    """A line while it is judged."""

    def __init__(self, judge: JudgeLines, line: Line) -> None:
        at = judge.at
        self.found: list[list[Judged] | str] = []
        self._lowered: dict[int, _Lowered] = {}
        for place, x in enumerate(line.x):
            try:
                self._lowered[place] = _Lowered(at.experiment(x, line.y), judge.layouts)
                self.found.append([])
            except UserError as error:
                self.found.append(str(error).removeprefix(f"{at.source}: "))
        self._limits = {place: at.limit(line.x[place], line.y) for place in self._lowered}
        self._along = {place: float(line.x_numbers[place]) for place in self._lowered} if line.x_numbers else None

    @property
    def schedules(self) -> int:
        """How many schedules are compared."""
        return max((len(one.experiment.choices) for one in self._lowered.values()), default=0)

    def judge(self, which: int) -> None:
        """Note what is known of one of the compared schedules at each point."""
        graphs = _Graphs(self._lowered, which, self._along).all()
        there = {place: one for place, one in graphs.items() if isinstance(one, TaskGraph)}
        judged = {place: Judged(None, one) for place, one in graphs.items() if isinstance(one, str)}
        try:
            engine = next(iter(self._lowered.values())).experiment.engine
            timelines = play_all(list(there.values()), engine)
        except UserError as error:  # such as a deadlock, which depends on no time
            judged |= {place: Judged(None, str(error)) for place in there}
        else:
            micro_batches = {place: self._lowered[place].experiment.choices[which].micro_batches for place in there}
            seconds = _Seconds(dict(zip(there, timelines, strict=True)), micro_batches, self._along).all()
            for place, timeline, over in zip(there, timelines, _over_memory(timelines), strict=True):
                judged[place] = Judged(seconds[place], over or _over_limit(timeline, self._limits[place]))
        for place in self._lowered:
            cast("list[Judged]", self.found[place]).append(judged[place])


@dataclass(frozen=True)
class _Lowered:
    """The compared schedules of an experiment as task graphs.

    Attributes:
        experiment: what is compared.
        layouts: those that were sought elsewhere, for each schedule.

    """

    experiment: Experiment
    layouts: tuple[tuple[int, ...] | None, ...] = ()

    def graph(self, which: int) -> TaskGraph | str:
        """Return the graph of a compared schedule, or why there is none."""
        laid = self._laid(which)
        graph = _lower(laid, which)
        # (a layout that was sought elsewhere may be one for another number of stages)
        return _lower(self.experiment, which) if isinstance(graph, str) and laid is not self.experiment else graph

    def costs(self, which: int, order: Schedule) -> StageCosts:
        """Return the costs that :meth:`graph` lays on the stages of an order."""
        costs = laid_costs(self._laid(which), order).on(order.placement)
        return costs_of_kinds(costs, order.kind, order.vocabulary)

    def _laid(self, which: int) -> Experiment:
        """Return the experiment with the layout that was sought elsewhere for a schedule, if it has such layers."""
        job, layout = self.experiment.job, self.layouts[which] if which < len(self.layouts) else None
        if job is None or layout is None or not self._is_sought(job) or sum(layout) != job.model.layers:
            return self.experiment
        laid = replace(cast("LayerCosts", self.experiment.cost_model), job=replace(job, layout=layout))
        return replace(self.experiment, cost_model=laid)

    def settled(self, which: int) -> tuple[int, ...] | None:
        """Return the layers of each stage of a compared schedule where they are sought for it, else None."""
        job = self.experiment.job
        graph = None if job is None or not self._is_sought(job) else _lower(self.experiment, which)
        if not isinstance(graph, TaskGraph) or not isinstance(graph.costs, LayerStageCosts):
            return None
        return tuple(len(one.layers) for one in graph.costs.stage_layers[: len(graph.schedule.placement.pipes[0])])

    def _is_sought(self, job: Job) -> bool:
        return job.layout == BALANCED and self.experiment.settle_layout


def _lower(experiment: Experiment, which: int) -> TaskGraph | str:
    try:
        return lower_choice(experiment, experiment.choices[which])
    except UserError as error:  # at other points it may be none
        return str(error)


class _Graphs:
    """The graphs of one schedule along a line.

    Times are mostly sums and maxima of terms that go with the key, or with its inverse as bytes over bandwidth do. Such
    a time is convex along the line, and a convex function that meets its chord in between is that chord. So between two
    points that are on a straight line with one between them, as all durations are there, nothing need be lowered.

    Args:
        lowered: the experiments, by their place along the line.
        which: the place of the schedule among those compared.
        along: the number that the key has at each place; None for words.

    """

    def __init__(self, lowered: Mapping[int, _Lowered], which: int, along: Mapping[int, float] | None) -> None:
        self._lowered, self._which, self._along = lowered, which, along
        self._found: dict[int, TaskGraph | str] = {}

    def all(self) -> dict[int, TaskGraph | str]:
        """Return the graph at each place, or why there is none."""
        places = list(self._lowered)
        self._fill(places)
        return {place: self._found[place] for place in places}

    def _fill(self, places: Sequence[int]) -> None:
        first, middle, last = places[0], places[len(places) // 2], places[-1]
        for place in (first, middle, last):
            if place not in self._found:
                self._found[place] = self._lowered[place].graph(self._which)
        if len(places) <= _FEWEST:
            for place in places:
                if place not in self._found:
                    self._found[place] = self._lowered[place].graph(self._which)
            return
        scale = self._straight(first, middle, last)
        if scale is None:
            self._fill(places[: len(places) // 2 + 1])
            self._fill(places[len(places) // 2 :])
            return
        before, behind = cast("TaskGraph", self._found[first]), cast("TaskGraph", self._found[last])
        for place in places:
            if place not in self._found:
                way = (scale[place] - scale[first]) / (scale[last] - scale[first])
                duration_s = (1 - way) * before.duration_s + way * behind.duration_s
                costs = self._lowered[place].costs(self._which, before.schedule)
                self._found[place] = replace(before, duration_s=duration_s, costs=costs)

    def _straight(self, first: int, middle: int, last: int) -> Mapping[int, float] | None:
        """Return along what the durations at three places are on a straight line, None if along nothing."""
        graphs = [self._found[place] for place in (first, middle, last)]
        if self._along is None or not all(isinstance(one, TaskGraph) and _is_plain(one) for one in graphs):
            return None
        one, between, other = cast("list[TaskGraph]", graphs)
        if not one.wiring is between.wiring is other.wiring or not _sends_the_same(one, between, other):
            return None
        return _straight(self._along, (first, middle, last), [one.duration_s for one in (one, between, other)])


def _straight(
    along: Mapping[int, float], places: tuple[int, int, int], values: Sequence[FloatArray], atol: float = 0.0
) -> Mapping[int, float] | None:
    """Return what values at three places are on a straight line along: the key or its inverse, or None for neither."""
    scales = [along]
    if min(along.values()) > 0:
        scales.append({place: 1 / number for place, number in along.items()})
    first, middle, last = places
    for scale in scales:
        way = (scale[middle] - scale[first]) / (scale[last] - scale[first])
        expected = (1 - way) * values[0] + way * values[2]
        if np.allclose(values[1], expected, rtol=_ROUNDING, atol=atol):
            return scale
    return None


def _is_plain(graph: TaskGraph) -> bool:
    """Return whether all that a graph's timeline depends on beside its wiring is how long each node takes."""
    return graph.fixed_durations and graph.issue is None and graph.load is None


def _sends_the_same(*graphs: TaskGraph) -> bool:
    first, *others = (graph.transfers.size_bytes for graph in graphs)
    return all(np.array_equal(first, other) for other in others)


class _Seconds:
    """The seconds of a micro-batch, or GPU-seconds of a token, of one schedule along a line.

    What a step takes beside its pipeline is little, and mostly goes with the key: it is asked at some places, and
    between those that are on a straight line with one between them it is taken to be there, too.

    Args:
        timelines: by their place along the line.
        micro_batches: of a step, at each place.
        along: the number that the key has at each place; None for words.

    """

    def __init__(
        self, timelines: Mapping[int, Timeline], micro_batches: Mapping[int, int], along: Mapping[int, float] | None
    ) -> None:
        self._timelines, self._micro_batches, self._along = timelines, micro_batches, along
        self._found: dict[int, float] = {}
        self._steps: dict[int, TrainingStep] = {}

    def all(self) -> dict[int, float]:
        """Return them by place."""
        for place, timeline in self._timelines.items():
            if with_job(timeline.graph.costs) is None:
                self._found[place] = timeline.makespan_s / self._micro_batches[place]
        left = [place for place in self._timelines if place not in self._found]
        if left:
            self._fill(left)
        return self._found

    def _fill(self, places: Sequence[int]) -> None:
        first, middle, last = places[0], places[len(places) // 2], places[-1]
        alike = len({_holds(self._timelines[place]) for place in places}) == 1
        if self._along is None or not alike or len(places) <= _FEWEST:
            for place in places:
                self._found[place] = self._asked(place)
            return
        three = first, middle, last
        beside_s = [np.array(self._asked(one) and self._beside_s(one)) for one in three]
        scale = _straight(self._along, three, beside_s, atol=_NEXT_TO_NOTHING * self._steps[first].time_s)
        if scale is None:
            self._fill(places[: len(places) // 2 + 1])
            self._fill(places[len(places) // 2 :])
            return
        for place in places:
            way = (scale[place] - scale[first]) / (scale[last] - scale[first])
            time_s = self._timelines[place].makespan_s + float((1 - way) * beside_s[0] + way * beside_s[2])
            self._found[place] = time_s * self._steps[first].gpus / self._steps[first].tokens

    def _asked(self, place: int) -> float:
        if place not in self._steps:
            timeline = self._timelines[place]
            self._steps[place] = step(timeline, cast("JobStageCosts", with_job(timeline.graph.costs)))
        return 1 / self._steps[place].tokens_per_second_per_gpu

    def _beside_s(self, place: int) -> float:
        return self._steps[place].time_s - self._steps[place].pipeline_s


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
