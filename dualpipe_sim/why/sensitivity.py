"""What a step depends on: how much longer it takes as one cost grows, and how long it takes with half of that cost.

In a fixed order the step is a maximum over chains of waits, so as one cost grows it grows along straight lines, from
corner to corner. Played with a little more and a little less of a cost it gives the slopes on both sides: two numbers
where several chains are as long, and the seconds of the cost on the critical path lie between them.

Where links or SMs are shared there is no such chain; steps are then played with a thousandth more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from dualpipe_sim.analysis import step
from dualpipe_sim.analysis.critical_path import PARTS, critical_path
from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.base.show import brief
from dualpipe_sim.costs.asked import on_cluster
from dualpipe_sim.costs.phases import Costs, with_job
from dualpipe_sim.engine.longest_path import play_many
from dualpipe_sim.engine.play import play
from dualpipe_sim.experiment import Experiment
from dualpipe_sim.graph.task_graph import Issue
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.hardware.cluster import TIERS, Cluster, Link, Tier
from dualpipe_sim.simulation import laid_costs, lower_order
from dualpipe_sim.why.costs import Cost, costs_of

_LITTLE = 2**-20
"""A power of two, so that times of few digits stay exact."""
_LITTLE_SHARED = 2**-10
"""Where links are shared the step jumps as flows meet or miss each other, and less would tell of nothing else."""
_ROUNDING = 1e-12
_TIER_WORDS = {"nvlink": "NVLink", "infiniband": "InfiniBand"}
_SLOWER: dict[str, Callable[[Link, float], Link]] = {
    "bandwidth": lambda link, factor: replace(link, bytes_per_s=link.bytes_per_s / factor),
    "latency": lambda link, factor: replace(link, latency_s=link.latency_s * factor),
}


@dataclass(frozen=True)
class Sensitivity:
    """How a step depends on one cost.

    >>> from dualpipe_sim.why import why
    >>> weights = next(one for one in why("figure5").costs if one.key == "W")
    >>> weights.path_s, weights.less_s, weights.more_s, weights.halved_s
    (6.0, 3.0, 6.0, 64.5)

    Attributes:
        key: that of a :class:`~dualpipe_sim.why.costs.Cost`; or ``host``, ``optimizer``, ``compute`` for all compute at
            once, ``nvlink.bandwidth``, ``nvlink.latency``, ``infiniband.bandwidth`` and ``infiniband.latency``.
        words: what it is.
        less_s: by how many seconds the step gets shorter as the cost shrinks, over the share by which that shrinks:
            d step / d log cost to the left. Of a bandwidth the cost is its inverse.
        more_s: the same as the cost grows, to the right.
        halved_s: the step with half of the cost: with twice the bandwidth, say.
        one_s: seconds of one op of a rank's share, one transfer, one all-to-all, the mean where they differ; None for
            what is not counted.
        path_s: its seconds on the critical path; None for what others' seconds are counted for.

    """

    key: str
    words: str
    less_s: float
    more_s: float
    halved_s: float
    one_s: float | None = None
    path_s: float | None = None

    __repr__ = brief

    @property
    def per_second(self) -> float | None:
        """Slope d step / d cost: the seconds that the step grows by for one more of each; None where not counted."""
        return self.more_s / self.one_s if self.one_s else None


class _Step:
    """The step of a run, and what it is with more or less of a cost."""

    def __init__(self, timeline: Timeline, experiment: Experiment) -> None:
        self.graph, self.experiment = timeline.graph, experiment
        self.seconds = step_time_s(timeline)
        self._little = _LITTLE if self.graph.fixed_durations else _LITTLE_SHARED
        self.factors = (1 - self._little, 1 + self._little, 0.5)

    def depends(
        self,
        key: str,
        words: str,
        played: Iterable[Timeline | float],
        one_s: float | None = None,
        path_s: float | None = None,
    ) -> Sensitivity:
        """Return how it depends on a cost, from what was played with a little less, a little more and half of it."""
        less_s, more_s, halved_s = (one if isinstance(one, float) else step_time_s(one) for one in played)
        shorter_s, longer_s = (max(0.0, change) for change in (self.seconds - less_s, more_s - self.seconds))
        return Sensitivity(
            key, words, shorter_s / self._little, longer_s / self._little, halved_s, one_s=one_s, path_s=path_s
        )

    def changed(self, shares: Sequence[FloatArray]) -> Iterator[tuple[Timeline, ...]]:
        """Yield, for each share of phases and transfers, what is played with the factors on it."""
        graph, engine = self.graph, self.experiment.engine
        rows = (graph.duration_s * (1 + (factor - 1) * share) for share in shares for factor in self.factors)
        if graph.fixed_durations and engine != "simpy":
            played = play_many(graph, rows)
        else:
            played = (play(replace(graph, duration_s=row), engine) for row in rows)
        return zip(played, played, played, strict=True)

    @cached_property
    def _costs(self) -> Costs:
        """The costs in the layout of the run, which takes a while to settle."""
        return laid_costs(self.experiment, self.graph.schedule)

    def on_links(self, tier: Tier, slower: Callable[[Link, float], Link]) -> Iterator[Timeline]:
        """Yield what is played in the same order and layout with the factors on a tier of links."""
        for factor in self.factors:
            cluster = _with_link(self.experiment.cluster, tier, slower, factor)
            experiment = replace(self.experiment, cluster=cluster)
            graph = lower_order(experiment, self.graph.schedule, on_cluster(self._costs, cluster))
            yield play(graph, experiment.engine)


def of_costs(timeline: Timeline, experiment: Experiment) -> list[Sensitivity]:
    """Return how a run's step depends on what its tasks take, its host and its optimizer; the largest first."""
    of, costs = _Step(timeline, experiment), list(costs_of(timeline.graph))
    path_s = _on_path(timeline, costs)
    found = [
        of.depends(cost.key, cost.words, played, one_s=cost.one_s, path_s=path_s[cost.key])
        for cost, played in zip(costs, of.changed([cost.share for cost in costs]), strict=True)
    ]
    graph, job_costs = timeline.graph, with_job(timeline.graph.costs)
    if graph.issue is not None:
        issues = (Issue(*(factor * one for one in graph.issue)) for factor in of.factors)
        hosts = (play(replace(graph, issue=one), experiment.engine) for one in issues)
        found.append(of.depends("host", PARTS["host"], hosts, path_s=path_s["host"]))
    if job_costs is not None and (last_s := step.step(timeline, job_costs).optimizer_s):
        steps = (of.seconds + (factor - 1) * last_s for factor in of.factors)
        found.append(of.depends("optimizer", "optimizer", steps, one_s=last_s, path_s=last_s))
    return sorted(found, key=lambda one: -max(one.less_s, one.more_s))


def of_hardware(timeline: Timeline, experiment: Experiment) -> list[Sensitivity]:
    """Return how a run's step depends on what it runs on: all compute at once, and links that matter, tier by tier.

    The order and the layout of stages stay as they are.
    """
    of, graph = _Step(timeline, experiment), timeline.graph
    computes = np.zeros(graph.nodes)
    computes[: graph.first_transfer] = graph.on(Lane.COMPUTE)
    found = [of.depends("compute", "all compute", next(of.changed([computes])))]
    for tier in TIERS:
        for what, slower in _SLOWER.items():
            one = of.depends(f"{tier}.{what}", f"{_TIER_WORDS[tier]} {what}", of.on_links(tier, slower))
            if max(one.less_s, one.more_s, of.seconds - one.halved_s) > _ROUNDING * of.seconds:
                found.append(one)
    return found


def step_time_s(timeline: Timeline) -> float:
    """Return the seconds of a training step where a model is known, else those of the pipeline."""
    costs = with_job(timeline.graph.costs)
    return timeline.makespan_s if costs is None else step.step(timeline, costs).time_s


def _on_path(timeline: Timeline, costs: Iterable[Cost]) -> dict[str, float]:
    """Return the seconds of each cost on the critical path."""
    path = critical_path(timeline)
    seconds, there = path.end_s - path.begin_s, path.node >= 0
    on_path = {cost.key: float(seconds[there] @ cost.share[path.node[there]]) for cost in costs}
    return on_path | {"host": float(seconds[~there].sum())}


def _with_link(cluster: Cluster, tier: Tier, slower: Callable[[Link, float], Link], factor: float) -> Cluster:
    if tier == "nvlink":
        return replace(cluster, nvlink=slower(cluster.nvlink, factor))
    return replace(cluster, infiniband=slower(cluster.infiniband, factor))
