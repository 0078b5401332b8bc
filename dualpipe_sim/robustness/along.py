"""One schedule along a line of points: its graphs, how long they take, and which do not fit.

Points of a line differ in one value, so most graphs differ in durations only, and most durations go with that value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from dualpipe_sim.analysis.memory import memory_of
from dualpipe_sim.analysis.step import TrainingStep, step
from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.costs.asked import costs_of_kinds
from dualpipe_sim.costs.layers import LayerCosts, LayerStageCosts
from dualpipe_sim.costs.phases import JobStageCosts, StageCosts, with_job
from dualpipe_sim.errors import UserError
from dualpipe_sim.experiment import Experiment
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.model.job import Job
from dualpipe_sim.model.layout import BALANCED
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.simulation import laid_costs, lower_choice

_ROUNDING = 1e-9
_NEXT_TO_NOTHING = 1e-6  # of a step
_FEWEST = 4  # points of a line that are lowered one by one


@dataclass(frozen=True)
class Lowered:
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


class Graphs:
    """The graphs of one schedule along a line.

    Times are mostly sums and maxima of terms that go with the key, or with its inverse as bytes over bandwidth do. Such
    a time is convex along the line, and a convex function that meets its chord in between is that chord. So between two
    points that are on a straight line with one between them, as all durations are there, nothing need be lowered.

    Args:
        lowered: the experiments, by their place along the line.
        which: the place of the schedule among those compared.
        along: the number that the key has at each place; None for words.

    """

    def __init__(self, lowered: Mapping[int, Lowered], which: int, along: Mapping[int, float] | None) -> None:
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
    for scale in scales if along[first] != along[last] else ():
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


class Seconds:
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


def over_memory(timelines: Sequence[Timeline]) -> list[str]:
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
