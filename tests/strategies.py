"""What property tests of several folders draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.costs.phases import Phase
from dualpipe_sim.hardware.cluster import Cluster, Link, Topology
from dualpipe_sim.order.ops import TaskShape
from dualpipe_sim.order.placement import Placement


def topologies(ranks: int) -> st.SearchStrategy[Topology]:
    """Draw the links between ranks on nodes of any size."""
    link = st.builds(Link, st.floats(1e6, 1e11), st.floats(0, 1))
    cluster = st.builds(Cluster, gpus_per_node=st.integers(1, 8), nvlink=link, infiniband=link)
    return cluster.map(lambda one: one.topology(ranks))


@dataclass(frozen=True)
class RandomPhases:
    """Costs of a few phases a task, on both lanes and of any lengths: what is true of them is true of any model's.

    Each phase waits for some of those before it.
    """

    seed: int
    transfer_s: float | None = 0.5
    transfer_bytes: float = 0.0

    def on(self, placement: Placement) -> RandomPhases:  # noqa: ARG002 - the same at every stage
        """Return these costs."""
        return self

    def phases(self, task: TaskShape) -> tuple[Phase, ...]:
        """Return a task's phases, the same whenever asked."""
        random = np.random.default_rng([self.seed, *(number for op in task for number in op)])
        phases = [Phase(Lane.COMPUTE, float(random.uniform(0, 3)), task[0][0])]
        for half, (kind, _) in enumerate(task):
            for layer in range(random.integers(0, 4)):
                waits_for = tuple(int(one) for one in np.flatnonzero(random.random(len(phases)) < 0.3))
                lane = Lane.COMPUTE if random.random() < 0.5 else Lane.ALLTOALL
                phases.append(Phase(lane, float(random.uniform(0, 3)), kind, "part", layer, half, waits_for))
        return tuple(phases)
