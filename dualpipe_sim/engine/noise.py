"""Noise and stragglers: the same order under durations that vary, drawn reproducibly.

A slow rank is slow all the time, so it changes the graph once. Jitter differs from run to run: a draw is a duration for
each node, and a run plays the graph with one draw. What is left of many runs is the spread of their makespans.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.base.show import brief
from dualpipe_sim.engine.play import play
from dualpipe_sim.errors import UserError
from dualpipe_sim.graph.task_graph import TaskGraph


@dataclass(frozen=True)
class Noise:
    """How durations vary.

    >>> from dualpipe_sim import simulate
    >>> simulate("figure5", noise={"slow_ranks": {3: 1.5}}).makespan_s
    93.0

    Attributes:
        jitter: standard deviation of each duration over its mean; every phase and transfer draws its own factor,
            log-normal with mean 1.
        seed: what the draws follow from.
        runs: how many times the step is drawn.
        slow_ranks: factor on the compute of ranks that are always slower (or faster), by rank.

    """

    jitter: float = 0.0
    seed: int = 0
    runs: int = 100
    slow_ranks: Mapping[int, float] = field(default_factory=dict)

    __repr__ = brief


@dataclass(frozen=True)
class Spread:
    """Makespans of many draws.

    >>> from dualpipe_sim import simulate
    >>> spread = simulate("figure5", noise={"jitter": 0.1, "runs": 20}).noise
    >>> list(spread), spread["p5_s"] < spread["median_s"] < spread["p95_s"]
    (['runs', 'median_s', 'p5_s', 'p95_s'], True)

    Attributes:
        runs: how many.
        median_s: the one in the middle, in seconds.
        p5_s: the one that 5 % are faster than.
        p95_s: the one that 95 % are faster than.

    """

    runs: int
    median_s: float
    p5_s: float
    p95_s: float


def slowed(graph: TaskGraph, noise: Noise) -> TaskGraph:
    """Return the graph with the compute of slow ranks stretched.

    Raises:
        UserError: a slow rank that the pipeline does not have.

    """
    ranks = graph.schedule.ranks
    factor = np.ones(ranks)
    for rank, slowness in noise.slow_ranks.items():
        if rank >= ranks:
            raise UserError(f"noise.slow_ranks: there is no rank {rank}; the pipeline has ranks 0 to {ranks - 1}")
        factor[rank] = slowness
    duration_s = graph.duration_s.copy()
    on_compute = graph.on(Lane.COMPUTE)
    duration_s[: graph.first_transfer] *= np.where(on_compute, factor[graph.rank], 1.0)
    return replace(graph, duration_s=duration_s)


def draws_s(graph: TaskGraph, noise: Noise) -> Iterator[FloatArray]:
    """Yield the durations of each run, of shape ``(nodes,)``.

    Every node's duration is multiplied with a factor of its own: the exponential of a normal variable with standard
    deviation ``sigma`` and mean -sigma²/2. Such a factor has mean 1, so that jitter alone makes no op slower on
    average, and the standard deviation sqrt(exp(sigma²) - 1), which is the jitter.
    """
    sigma = np.sqrt(np.log1p(noise.jitter**2))
    for run in range(noise.runs):
        # A generator for each run: its draws do not depend on how many runs there are.
        factors = np.random.default_rng([noise.seed, run]).normal(-(sigma**2) / 2, sigma, graph.nodes)
        yield graph.duration_s * np.exp(factors)


def spread(graph: TaskGraph, noise: Noise) -> Spread:
    """Draw and play the graph many times, and return the spread of the makespans.

    Where nothing shares links or SMs, the longest-path engine plays many draws side by side.

    Args:
        graph: what is played, slow ranks already slowed.
        noise: how durations vary.

    """
    if graph.fixed_durations:
        from dualpipe_sim.engine import longest_path

        makespans_s = longest_path.makespans_s(graph, draws_s(graph, noise))
    else:
        makespans_s = np.array([play(replace(graph, duration_s=drawn)).makespan_s for drawn in draws_s(graph, noise)])
    p5_s, median_s, p95_s = np.percentile(makespans_s, (5, 50, 95)).tolist()
    return Spread(noise.runs, median_s, p5_s, p95_s)
