"""A collective inside an op, of whatever group: how long it takes alone, and what it puts on links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from dualpipe_sim.costs.phases import Flow
from dualpipe_sim.hardware.cluster import Tier
from dualpipe_sim.hardware.collectives import RING_EFFICIENCY
from dualpipe_sim.hardware.groups import Group


class Collective(NamedTuple):
    """One collective of one micro-batch, from the view of one GPU.

    Attributes:
        name: what it does.
        duration_s: seconds on links that nobody else uses.
        flows: what it puts on them.
        toll_s: seconds that it and compute beside it lose to each other, where all of it is beside compute.

    """

    name: str
    duration_s: float
    flows: tuple[Flow, ...] = ()
    toll_s: float = 0.0

    @classmethod
    def of(cls, name: str, group: Group, by_tier: Mapping[Tier, float]) -> Collective:
        """Return the one that puts so many bytes on a GPU's links, of which NCCL achieves a share."""
        flows = tuple(Flow(tier, size / RING_EFFICIENCY) for tier, size in by_tier.items())
        seconds = group.seconds(by_tier)
        return cls(name, seconds, flows, seconds * group.toll(by_tier))

    def beside(self, seconds: float) -> Collective | None:
        """Return what is left of it where so much is hidden beside compute, None for nothing."""
        left_s = self.duration_s - seconds
        if left_s <= 0:
            return None
        share = left_s / self.duration_s
        flows = tuple(flow._replace(size_bytes=flow.size_bytes * share) for flow in self.flows)
        return self._replace(duration_s=left_s, flows=flows)
