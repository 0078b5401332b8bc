"""The layout ``balanced`` for one schedule: of the splits that are as fast at their slowest stage, the best to run.

Where the slowest stage is as fast as can be, it is often free which stages hold a layer more; yet an order waits longer
for some than for others. So numbers of layers are exchanged between two stages at a time, as long as a step gets
shorter, with each op as one phase: the same graph under many durations, which takes milliseconds.

Where ops overlap in pairs, how long a stage takes alone is not what counts: the split also begins from what layers take
in pairs, and stages give each other single layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations

import numpy as np

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.base.lanes import COMPUTE
from dualpipe_sim.costs.asked import phases_of
from dualpipe_sim.costs.layers import LayerCosts, LayerStageCosts
from dualpipe_sim.costs.phases import ByBoundary, Costs, Phase, ends_s
from dualpipe_sim.engine import longest_path
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.hardware.cluster import Topology
from dualpipe_sim.model.layout import BALANCED, balanced, with_ends
from dualpipe_sim.order.ops import B, F, TaskShape
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.order.schedule import Schedule

_MOST_TRIED = 256  # in a round; of more, some that lie evenly
_MOST_MOVED = 64  # likewise
_MOST_ROUNDS = 4
_ROUNDING = 1e-9


def balanced_for(schedule: Schedule, costs: Costs, topology: Topology) -> Costs:
    """Return costs whose layout ``balanced`` is settled for a schedule; any other costs stay as they are.

    It is never slower than the split that no schedule was asked for.
    """
    if not isinstance(costs, LayerCosts) or costs.job.layout != BALANCED:
        return costs
    costs = replace(costs, vocabulary=schedule.vocabulary)
    counts = tuple(len(stage.layers) for stage in costs.stage_layers(len(schedule.placement.pipes[0])))
    tried = _Tried(costs, schedule, topology, counts)
    begun, overlapped = [counts], bool((schedule.partner >= 0).any())
    if overlapped:  # what counts there is how long pairs are, not the slowest stage alone
        begun.append(balanced(costs.depth_times_in_pairs, len(counts)))
    begun_s = tried.makespans_s(begun)
    place = int(begun_s.argmin())
    best, best_s = begun[place], begun_s[place]
    for _ in range(_MOST_ROUNDS):
        others = list(_moved(best) if overlapped else _exchanged(best, tried))
        if not others:
            break
        seconds = tried.makespans_s(others)
        place = int(seconds.argmin())
        if seconds[place] >= best_s * (1 - _ROUNDING):
            break
        best, best_s = others[place], seconds[place]
    if best == counts:
        return costs
    settled = _with_layout(costs, best)
    before, after = (longest_path.play(lower(schedule, one, topology)).makespan_s for one in (costs, settled))
    return settled if after < before else costs


def _with_layout(costs: LayerCosts, counts: tuple[int, ...]) -> LayerCosts:
    return replace(costs, job=replace(costs.job, layout=counts))


def _exchanged(counts: tuple[int, ...], tried: _Tried) -> Iterator[tuple[int, ...]]:
    """Yield splits in which two stages have exchanged their numbers of layers, none slower at its slowest stage."""
    pairs = [(one, other) for one, other in combinations(range(len(counts)), 2) if counts[one] != counts[other]]
    for one, other in pairs[:: -(-len(pairs) // _MOST_TRIED) or 1]:
        exchanged = list(counts)
        exchanged[one], exchanged[other] = counts[other], counts[one]
        if tried.slowest_s(tuple(exchanged)) <= tried.least_s:
            yield tuple(exchanged)


def _moved(counts: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield splits in which a stage has given another one layer."""
    moves = [(one, other) for one, other in permutations(range(len(counts)), 2) if counts[one] > counts[other]]
    for one, other in moves[:: -(-len(moves) // _MOST_MOVED) or 1]:
        moved = list(counts)
        moved[one] -= 1
        moved[other] += 1
        yield tuple(moved)


class _Tried:
    """One order under the times of many layouts.

    Args:
        costs: on any layout.
        schedule: the order.
        topology: routes of transfers.
        counts: layers of each stage, in the split that is the measure.

    """

    def __init__(self, costs: LayerCosts, schedule: Schedule, topology: Topology, counts: tuple[int, ...]) -> None:
        self._costs, self._schedule = costs, schedule
        self._known: dict[object, float] = {}
        self._graph = lower(schedule, _WholeOps(costs, self._known), topology)
        self._shapes, self._shape_of_task = schedule.task_shapes
        self.least_s = self.slowest_s(counts) * (1 + _ROUNDING)

    def makespans_s(self, layouts: Sequence[tuple[int, ...]]) -> FloatArray:
        """Return the makespan under each layout, with each op as one phase, shape ``(layouts,)``."""
        return longest_path.makespans_s(self._graph, map(self._durations_s, layouts))

    def slowest_s(self, counts: tuple[int, ...]) -> float:
        """Return the seconds of F and B of a layout's slowest stage."""
        alone = [((kind, stage),) for kind in (F, B) for stage in range(len(counts))]
        forward_s, backward_s = np.split(self._whole_s(counts, alone), 2)
        return float((forward_s + backward_s).max())

    def _durations_s(self, counts: tuple[int, ...]) -> FloatArray:
        seconds = self._whole_s(counts, self._shapes)[self._shape_of_task]
        return np.append(seconds, self._graph.duration_s[self._graph.first_transfer :])

    def _whole_s(self, counts: tuple[int, ...], shapes: Sequence[TaskShape]) -> FloatArray:
        """Return the seconds of tasks of some shapes; stages that hold the same are asked for once."""
        pipe = with_ends(counts, self._costs.job.model.mtp_depth)
        of_stages = self._costs.of(self._schedule.placement, pipe * len(self._schedule.placement.pipes))
        return np.array(_whole_s(of_stages, shapes, self._known))


@dataclass(frozen=True)
class _WholeOps:
    """Costs whose tasks are one phase each."""

    costs: LayerCosts
    known: dict[object, float]

    def on(self, placement: Placement) -> _WholeStageOps:
        return _WholeStageOps(self.costs.on(placement), self.known)


@dataclass(frozen=True)
class _WholeStageOps:
    costs: LayerStageCosts
    known: dict[object, float]

    @property
    def transfer_s(self) -> ByBoundary | None:
        return self.costs.transfer_s

    @property
    def transfer_bytes(self) -> ByBoundary:
        return self.costs.transfer_bytes

    def phases(self, task: TaskShape) -> tuple[Phase, ...]:
        (seconds,) = _whole_s(self.costs, [task], self.known)
        return (Phase(COMPUTE, seconds, task[0][0]),)


def _whole_s(costs: LayerStageCosts, tasks: Sequence[TaskShape], known: dict[object, float]) -> list[float]:
    """Return the seconds of each task where it runs alone; ``known``, of tasks of stages that hold the same, grows."""
    holds, found = costs.alike, []
    for task in tasks:
        key = tuple([(kind, holds[stage]) for kind, stage in task])
        if key not in known:
            (phases,) = phases_of(costs, [task])
            known[key] = max(ends_s(phases, [phase.duration_s for phase in phases]))
        found.append(known[key])
    return found
