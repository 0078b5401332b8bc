"""What is known of the compared schedules at the points of a map, a line of points at a time.

Points of a line differ in one value, so most of their graphs differ in durations only: each schedule's are lowered one
by one, and played side by side. What a map needs of a run is little: how long it takes, and whether it fits.

Two things are not asked at every point. A layout that is ``balanced`` is sought once, in the middle of the map, so that
no boundary on it is one between layouts. Where memory depends on no more than when things run, points between two that
both fit do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from dualpipe_sim.analysis.metrics import peak_activations_by_rank
from dualpipe_sim.base.show import brief
from dualpipe_sim.batch.points import Point, Row
from dualpipe_sim.config import load_experiment
from dualpipe_sim.engine.side_by_side import play_all
from dualpipe_sim.errors import UserError
from dualpipe_sim.experiment import Experiment
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.robustness.along import Graphs, Lowered, Seconds, over_memory
from dualpipe_sim.robustness.axis import ACTIVATIONS

_ROUNDING = 1e-9


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
    return tuple(map(Lowered(experiment).settled, range(len(experiment.choices))))


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
                if which < line.schedules:
                    line.judge(which)
        return {"points": [one for line in lines for one in line.found]}


class _Judged:
    """A line while it is judged."""

    def __init__(self, judge: JudgeLines, line: Line) -> None:
        at = judge.at
        self.found: list[list[Judged] | str] = []
        self._lowered: dict[int, Lowered] = {}
        for place, x in enumerate(line.x):
            try:
                self._lowered[place] = Lowered(at.experiment(x, line.y), judge.layouts)
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
        graphs = Graphs(self._lowered, which, self._along).all()
        there = {place: one for place, one in graphs.items() if isinstance(one, TaskGraph)}
        judged = {place: Judged(None, one) for place, one in graphs.items() if isinstance(one, str)}
        try:
            engine = next(iter(self._lowered.values())).experiment.engine
            timelines = play_all(list(there.values()), engine)
        except UserError as error:  # such as a deadlock, which depends on no time
            judged |= {place: Judged(None, str(error)) for place in there}
        else:
            micro_batches = {place: self._lowered[place].experiment.choices[which].micro_batches for place in there}
            seconds = Seconds(dict(zip(there, timelines, strict=True)), micro_batches, self._along).all()
            for place, timeline, over in zip(there, timelines, over_memory(timelines), strict=True):
                judged[place] = Judged(seconds[place], over or _over_limit(timeline, self._limits[place]))
        for place in self._lowered:
            cast("list[Judged]", self.found[place]).append(judged[place])


def _over_limit(timeline: Timeline, limit: float | None) -> str:
    if limit is None:
        return ""
    peak = float(peak_activations_by_rank(timeline).max())
    return f"a rank holds {peak:.4g} activations, more than {limit:.4g}" if peak > limit + _ROUNDING else ""
