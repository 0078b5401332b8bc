"""The layout ``balanced`` for one schedule: of the splits that are as fast at their slowest stage, the best to run.

Where the slowest stage is as fast as can be, it is often free which stages hold a layer more; yet an order waits longer
for some than for others. So numbers of layers are exchanged between two stages at a time, as long as a step gets
shorter, with each op as one phase: the same graph under many durations, which takes milliseconds.

Where ops overlap in pairs, how long a stage takes alone is not what counts: the split also begins from what layers take
in pairs, and stages give each other single layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, compress, permutations
from typing import NamedTuple, TypeAlias

import numpy as np

from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.base.lanes import COMPUTE
from dualpipe_sim.costs.asked import phases_of
from dualpipe_sim.costs.layers import LayerCosts, LayerStageCosts
from dualpipe_sim.costs.phases import ByBoundary, Costs, Phase, ends_s
from dualpipe_sim.engine import longest_path
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.hardware.cluster import Topology
from dualpipe_sim.model.layout import BALANCED, balanced, with_ends
from dualpipe_sim.order.ops import B, F, TaskShape
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.order.schedule import Schedule

_MOST_TRIED = 256  # in a round; of more, some that lie evenly
_MOST_MOVED = 64  # likewise
_MOST_ROUNDS = 4
_ROUNDING = 1e-9
_MOST_HELD = 1 << 24  # numbers of what stages hold: two of them and one of kinds are an integer

Layout: TypeAlias = tuple[int, ...]
"""Layers of each stage of a pipe."""


def balanced_for(
    schedule: Schedule, costs: Costs, topology: Topology, lowered: Callable[[Costs], TaskGraph]
) -> tuple[Costs, TaskGraph]:
    """Return costs whose layout ``balanced`` is settled for a schedule, and its graph; other costs stay as they are.

    It is never slower than the split that no schedule was asked for.

    Args:
        schedule: the order.
        costs: on any layout.
        topology: routes of transfers.
        lowered: makes the graph that is run of the order and costs.

    """
    if not isinstance(costs, LayerCosts) or costs.job.layout != BALANCED:
        return costs, lowered(costs)
    costs = replace(costs, vocabulary=schedule.vocabulary)
    counts = tuple(len(stage.layers) for stage in costs.stage_layers(len(schedule.placement.pipes[0])))
    best = _best(schedule, costs, topology, counts)
    given = costs, lowered(costs)
    if best == counts:
        return given
    settled = costs.in_layout(best)
    both = given, (settled, lowered(settled))
    return min(both, key=lambda one: longest_path.play(one[1]).makespan_s)  # (of equal ones the first)


def _best(schedule: Schedule, costs: LayerCosts, topology: Topology, counts: Layout) -> Layout:
    """Return the best layout that is found from a split, with each op as one phase."""
    tried = _Tried(costs, schedule, topology, counts)
    begun, overlapped = [counts], bool((schedule.partner >= 0).any())
    if overlapped:  # what counts there is how long pairs are, not the slowest stage alone
        begun.append(balanced(costs.depth_times_in_pairs, len(counts)))
    begun_s = tried.makespans_s(begun)
    place = int(begun_s.argmin())
    best, best_s = begun[place], begun_s[place]
    for _ in range(_MOST_ROUNDS):
        others = _moved(best) if overlapped else _exchanged(best, tried)
        if not others:
            break
        seconds = tried.makespans_s(others)
        place = int(seconds.argmin())
        if seconds[place] >= best_s * (1 - _ROUNDING):
            break
        best, best_s = others[place], seconds[place]
    return best


def _exchanged(counts: Layout, tried: _Tried) -> list[Layout]:
    """Return splits in which two stages have exchanged their numbers of layers, none slower at its slowest stage."""
    pairs = [(one, other) for one, other in combinations(range(len(counts)), 2) if counts[one] != counts[other]]
    exchanged = []
    for one, other in pairs[:: -(-len(pairs) // _MOST_TRIED) or 1]:
        layers = list(counts)
        layers[one], layers[other] = counts[other], counts[one]
        exchanged.append(tuple(layers))
    fast = tried.slowest_s(exchanged) <= tried.least_s if exchanged else []
    return list(compress(exchanged, fast))


def _moved(counts: Layout) -> list[Layout]:
    """Return splits in which a stage has given another one layer."""
    moves = [(one, other) for one, other in permutations(range(len(counts)), 2) if counts[one] > counts[other]]
    moved = []
    for one, other in moves[:: -(-len(moves) // _MOST_MOVED) or 1]:
        layers = list(counts)
        layers[one] -= 1
        layers[other] += 1
        moved.append(tuple(layers))
    return moved


class _Tried:
    """One order under the times of many layouts.

    Args:
        costs: on any layout.
        schedule: the order.
        topology: routes of transfers.
        counts: layers of each stage, in the split that is the measure.

    """

    def __init__(self, costs: LayerCosts, schedule: Schedule, topology: Topology, counts: Layout) -> None:
        self._costs, self._schedule = costs, schedule
        self._graph = lower(schedule, _WholeOps(costs), topology)
        shapes, self._shape_of_task = schedule.task_shapes
        self._shapes = _Shapes.of(shapes)
        self._alone = _Shapes.of([((kind, stage),) for kind in (F, B) for stage in range(len(counts))])
        self._kind_of_layer = tuple(costs.job.model.kind_numbers())
        self._number_of_kinds: dict[tuple[int, ...], int] = {}
        beside = [what for _, *what in self._on(counts).alike]
        self._beside = np.array([beside.index(what) for what in beside])
        self._known_s: dict[object, float] = {}
        (self.least_s,) = self.slowest_s([counts]) * (1 + _ROUNDING)

    def makespans_s(self, layouts: Sequence[Layout]) -> FloatArray:
        """Return the makespan under each layout, with each op as one phase, shape ``(layouts,)``."""
        seconds = self._whole_s(layouts, self._shapes)[:, self._shape_of_task]
        transfer_s = self._graph.duration_s[self._graph.first_transfer :]
        return longest_path.makespans_s(self._graph, (np.append(row, transfer_s) for row in seconds))

    def slowest_s(self, layouts: Sequence[Layout]) -> FloatArray:
        """Return the seconds of F and B of each layout's slowest stage, shape ``(layouts,)``."""
        forward_s, backward_s = np.split(self._whole_s(layouts, self._alone), 2, axis=1)
        slowest_s: FloatArray = (forward_s + backward_s).max(axis=1)
        return slowest_s

    def _whole_s(self, layouts: Sequence[Layout], shapes: _Shapes) -> FloatArray:
        """Return the seconds of tasks of some shapes where they run alone, shape ``(layouts, shapes)``.

        Stages that hold the same are asked for once.
        """
        held = self._held(np.array(layouts))
        question = (shapes.kinds * _MOST_HELD + held[:, shapes.stage]) * _MOST_HELD + held[:, shapes.beside]
        _, first, which = np.unique(question, return_index=True, return_inverse=True)
        seconds = []
        for layout, shape in zip(*np.unravel_index(first, question.shape), strict=True):
            task = shapes.tasks[shape]
            key = tuple([kind for kind, _ in task]), *(int(held[layout, stage[shape]]) for stage in shapes.stages)
            if key not in self._known_s:
                (phases,) = phases_of(self._on(layouts[layout]), [task])
                self._known_s[key] = max(ends_s(phases, [phase.duration_s for phase in phases]))
            seconds.append(self._known_s[key])
        return np.array(seconds)[which].reshape(question.shape)

    def _held(self, counts: IntArray) -> IntArray:
        """Return a number for what each stage of each layout holds, the same for the same, shape ``(layouts, stages)``.

        That is layers of some kinds, and what there is beside layers, which no layout moves.
        """
        end = counts.cumsum(axis=1)
        places, which = np.unique((end - counts) * _MOST_HELD + end, return_inverse=True)
        of_layers = []
        for place in places.tolist():
            begin, behind = divmod(place, _MOST_HELD)
            kinds = self._kind_of_layer[begin:behind]
            of_layers.append(self._number_of_kinds.setdefault(kinds, len(self._number_of_kinds)))
        held = np.array(of_layers)[which].reshape(counts.shape)
        everywhere = np.tile(held, len(self._schedule.placement.pipes))
        return np.asarray(everywhere * len(self._beside) + self._beside)

    def _on(self, counts: Layout) -> LayerStageCosts:
        pipe = with_ends(counts, self._costs.job.model.mtp_depth)
        return self._costs.of(self._schedule.placement, pipe * len(self._schedule.placement.pipes))


class _Shapes(NamedTuple):
    """Tasks of some shapes, as columns.

    Attributes:
        tasks: the shapes.
        kinds: a number for the kinds of each, shape ``(shapes,)``.
        stage: the stage of its first op, same shape.
        beside: the stage of its last one, same shape.

    """

    tasks: Sequence[TaskShape]
    kinds: IntArray
    stage: IntArray
    beside: IntArray

    @classmethod
    def of(cls, tasks: Sequence[TaskShape]) -> _Shapes:
        numbers: dict[tuple[int, ...], int] = {}
        kinds = [numbers.setdefault(tuple([kind for kind, _ in task]), len(numbers)) for task in tasks]
        stage, beside = ([task[place][1] for task in tasks] for place in (0, -1))
        return cls(tasks, np.array(kinds), np.array(stage), np.array(beside))

    @property
    def stages(self) -> tuple[IntArray, IntArray]:
        """The stages of first and last ops."""
        return self.stage, self.beside


@dataclass(frozen=True)
class _WholeOps:
    """Costs whose tasks are one phase each, of no length yet."""

    costs: LayerCosts

    def on(self, placement: Placement) -> _WholeStageOps:
        return _WholeStageOps(self.costs.on(placement))


@dataclass(frozen=True)
class _WholeStageOps:
    costs: LayerStageCosts

    @property
    def transfer_s(self) -> ByBoundary | None:
        return self.costs.transfer_s

    @property
    def transfer_bytes(self) -> ByBoundary:
        return self.costs.transfer_bytes

    def phases(self, task: TaskShape) -> tuple[Phase, ...]:
        return (Phase(COMPUTE, 0.0, task[0][0]),)
