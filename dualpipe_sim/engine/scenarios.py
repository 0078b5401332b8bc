"""Scenarios: what may happen in a step, drawn so that every schedule meets the same.

A draw belongs to what it happens to (a rank, a link, a stage's op of a micro-batch) and not to a place in an order, and
each kind of draw of each scenario has a generator of its own. So two schedules that cut the model alike meet the very
same numbers, and none depends on how many scenarios there are, which schedules are compared, or who plays what.

What varies with the work is gamma distributed, since a sum of gamma variables is one: a rank's share that is cut into
halves varies in all as much as the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.base.show import brief
from dualpipe_sim.engine.play import play
from dualpipe_sim.errors import UserError
from dualpipe_sim.graph.micro_batch_weights import weight_of_phase
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.order.ops import B, F, I, W

_RANKS, _LINKS, _SKEW, _SENT = 100, 101, 102, 200  # what a generator draws, beside the ops of a kind


@dataclass(frozen=True)
class Scenarios:
    """What is drawn for a step, again and again.

    >>> from dualpipe_sim.config import load_experiment
    >>> load_experiment("figure5", {"scenarios.stragglers": 0.1}).scenarios.stragglers
    0.1

    Attributes:
        runs: how many scenarios.
        seed: what they follow from.
        jitter: standard deviation of what a rank's share takes for a micro-batch over its mean, and of a transfer.
        stragglers: chance of each rank to be slow for the whole step.
        slowdown: how much longer a slow rank computes, at the mean; exponentially distributed.
        slow_links: chance of each two ranks that send to each other to have a slow link between them.
        link_slowdown: how much longer transfers over a slow link take, likewise.
        routing_skew: tokens of the busiest expert rank over the mean, at the mean over stages and micro-batches; how
            far it is above 1 is drawn for each of them. None for what costs say, and 1.12 at least.
        expert_share: share of an op that lasts as long as the busiest expert rank, where costs know no layers.

    Raises:
        UserError: a chance or a share above 1.

    """

    runs: int = 1000
    seed: int = 0
    jitter: float = 0.05
    stragglers: float = 0.05
    slowdown: float = 0.2
    slow_links: float = 0.05
    link_slowdown: float = 1.0
    routing_skew: float | None = None
    expert_share: float = 0.0

    __repr__ = brief

    def __post_init__(self) -> None:
        for key in ("stragglers", "slow_links", "expert_share"):
            if getattr(self, key) > 1:
                raise UserError(f"scenarios.{key}: must be from 0 to 1, like 0.05, got {getattr(self, key):g}")


class Drawn:
    """One graph under scenarios.

    Args:
        graph: what is played.
        scenarios: what is drawn.
        skew: the routing skew that the graph's durations are of.
        sensitivity: how much longer each phase takes for one more of it, over its duration, shape ``(phases,)``, or
            None where nothing depends on it.

    """

    def __init__(
        self, graph: TaskGraph, scenarios: Scenarios, skew: float = 1.0, sensitivity: FloatArray | None = None
    ) -> None:
        schedule, placement = graph.schedule, graph.schedule.placement
        self._graph, self._scenarios, self._skew, self._sensitivity = graph, scenarios, skew, sensitivity
        self._stages = len(placement.pipes[0])
        of_pipe = np.array(schedule.micro_batches_of_pipe) * schedule.slices
        before = (np.cumsum(of_pipe) - of_pipe)[placement.pipe_of_stage]
        self._units = int(of_pipe.sum())
        # In tables of (micro-batch of the step, stage of a pipe): where each op's draw is, and how large a share it is.
        self._cell = (before[schedule.stage] + schedule.unit) * self._stages + placement.depth_of_stage[schedule.stage]
        of_stage = placement.activations_of_stage[: self._stages] * schedule.micro_batch_share / schedule.slices
        self._size = np.resize(of_stage, self._units * self._stages)
        self._ops_of_kind = {kind: np.flatnonzero(schedule.kind == kind) for kind in np.unique(schedule.kind).tolist()}
        self._drawn_kinds = {one for kind in self._ops_of_kind for one in ((int(I), int(W)) if kind == B else (kind,))}
        # A pair that is one phase is its forward in one part, its backward in the other.
        self._first = schedule.first_op[graph.task]
        self._second = self._first + (schedule.partner[self._first] >= 0)
        is_first = np.zeros(len(schedule.rank))
        is_first[schedule.first_op] = 1.0
        halves = np.array([phase.half for phase in graph.phases])[graph.phase]
        self._part = weight_of_phase(schedule, graph.costs, is_first, graph.task, halves, graph.lane)
        self._pairs = bool((self._part < 1).any())
        self._computes = graph.on(Lane.COMPUTE)
        sender, receiver = schedule.rank[graph.transfers.producer], schedule.rank[graph.transfers.consumer]
        high, low = np.maximum(sender, receiver), np.minimum(sender, receiver)
        self._link = high * (high - 1) // 2 + low

    def durations_s(self, run: int) -> FloatArray:
        """Return how long each node takes in a scenario, by its number, shape ``(nodes,)``."""
        graph, told = self._graph, self._scenarios
        duration_s: FloatArray = graph.duration_s.copy()
        phases, transfers = duration_s[: graph.first_transfer], duration_s[graph.first_transfer :]
        if self._sensitivity is not None:
            above = (told.routing_skew or 1.0) - 1
            drawn = 1 + above * self._gamma(run, _SKEW, 1.0)[self._cell]
            phases *= 1 + (self._of_phases(drawn) - self._skew) * self._sensitivity
        if told.jitter:
            phases *= self._of_phases(self._jitter(run))
            transfers *= self._transfer_jitter(run)
        if told.stragglers:
            slow = self._slow(run, _RANKS, graph.schedule.ranks, told.stragglers, told.slowdown)
            phases *= np.where(self._computes, slow[graph.rank], 1.0)
        if told.slow_links and len(transfers):
            links = int(self._link.max()) + 1
            transfers *= self._slow(run, _LINKS, links, told.slow_links, told.link_slowdown)[self._link]
        return duration_s

    def _of_phases(self, of_op: FloatArray) -> FloatArray:
        """Return each phase's share in what was drawn for its task's ops."""
        if not self._pairs:
            return np.asarray(of_op[self._first])
        return np.asarray(self._part * of_op[self._first] + (1 - self._part) * of_op[self._second])

    def _jitter(self, run: int) -> FloatArray:
        """Return each op's factor, shape ``(ops,)``; a full backward is half I and half W."""
        factor = np.ones(len(self._cell))
        shape = 1 / self._scenarios.jitter**2
        tables = {kind: self._gamma(run, kind, shape) for kind in self._drawn_kinds}
        for kind, ops in self._ops_of_kind.items():
            cells = self._cell[ops]
            factor[ops] = (tables[I][cells] + tables[W][cells]) / 2 if kind == B else tables[kind][cells]
        return factor

    def _transfer_jitter(self, run: int) -> FloatArray:
        producer, shape = self._graph.transfers.producer, 1 / self._scenarios.jitter**2
        forward = self._graph.schedule.kind[producer] == F
        factor = np.ones(len(producer))
        for direction, sent in enumerate((forward, ~forward)):
            rng = np.random.default_rng([self._scenarios.seed, run, _SENT + direction])
            table = rng.standard_gamma(shape, self._units * self._stages) / shape
            factor[sent] = table[self._cell[producer[sent]]]
        return factor

    def _gamma(self, run: int, what: int, shape: float) -> FloatArray:
        """Return a factor with mean 1 for each micro-batch and stage; smaller shares vary more.

        Args:
            run: the scenario.
            what: what is drawn.
            shape: one over the square of the standard deviation of a rank's share.

        """
        shapes = self._size * shape
        return np.random.default_rng([self._scenarios.seed, run, what]).standard_gamma(shapes) / shapes

    def _slow(self, run: int, what: int, count: int, chance: float, slowdown: float) -> FloatArray:
        """Return a factor of each of ``count`` things, of which some are slow."""
        happens, how_much = np.random.default_rng([self._scenarios.seed, run, what]).random((count, 2)).T
        return np.where(happens < chance, 1 - slowdown * np.log1p(-how_much), 1.0)


def makespans_s(drawn: Drawn, graph: TaskGraph, runs: Iterable[int]) -> FloatArray:
    """Return the makespan of a graph in some scenarios, by their numbers, shape ``(runs,)``.

    Where nothing shares links or SMs, the longest-path engine plays many of them side by side.
    """
    durations_s: Iterator[FloatArray] = map(drawn.durations_s, runs)
    if graph.fixed_durations:
        from dualpipe_sim.engine import longest_path

        return longest_path.makespans_s(graph, durations_s)
    return np.array([play(replace(graph, duration_s=one)).makespan_s for one in durations_s])
