"""Groups of GPUs that communicate: how they lie on nodes, and what their collectives put on the links of each.

A ring passes every share of a tensor but one through each GPU. Between nodes the shares of a node's GPUs go through all
of its members' NICs side by side, each on its own rail, so that a group with g members in each of N nodes sends
(N - 1) / N / g of the tensor through a NIC.

Where pods of nodes have fewer links between them than NICs (``oversubscription``), what leaves a pod counts as the
bytes that a NIC would send in the same time, if that is longer: all members of a pod share its links.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from dualpipe_sim.base.show import brief
from dualpipe_sim.hardware.cluster import Cluster, Link, Tier
from dualpipe_sim.hardware.collectives import NIC_TOLL, NVLINK_TOLL, RING_EFFICIENCY, RING_LAUNCH_S
from dualpipe_sim.hardware.kernels import read_collectives


@dataclass(frozen=True)
class Group:
    """GPUs of which each is so many behind the one before it.

    >>> every_fourth = Group(Cluster(gpus_per_node=8), gpus=16, stride=4)
    >>> every_fourth.inside, every_fourth.nodes
    (2, 8)

    Attributes:
        cluster: the links between them.
        gpus: how many they are.
        stride: GPUs from one to the next; 1 for neighbours.

    """

    cluster: Cluster
    gpus: int
    stride: int = 1

    __repr__ = brief

    @property
    def inside(self) -> int:
        """Members in one node."""
        return max(1, min(self.gpus, self.cluster.gpus_per_node // self.stride))

    @property
    def nodes(self) -> int:
        """Nodes that the group lies on."""
        return ceil(self.gpus / self.inside)

    @property
    def in_pod(self) -> int:
        """Members in one pod."""
        pod = self.cluster.gpus_per_pod
        return max(self.inside, min(self.gpus, pod // self.stride)) if pod else self.gpus

    def _through(self, nic_bytes: float, leaving_bytes: float) -> float:
        """Return the bytes of a NIC, or what leaves the pod of each member, whichever takes longer."""
        return max(nic_bytes, leaving_bytes * self.cluster.oversubscription if self.in_pod < self.gpus else 0.0)

    def ring(self, size_bytes: float) -> dict[Tier, float]:
        """Return the bytes that an all-gather or reduce-scatter of a tensor of that size puts on a GPU's links."""
        within = size_bytes * (self.gpus - 1) / self.gpus if self.inside > 1 else 0.0
        between = size_bytes * (self.nodes - 1) / self.nodes / self.inside
        # One ring on each rail, which leaves a pod once.
        return _present(within, self._through(between, between * self.inside / self.in_pod))

    def all_to_all(self, size_bytes: float) -> dict[Tier, float]:
        """Return the bytes on a GPU's links where it sends each of the others an equal share of a tensor of its own."""
        within, between, leaving = (
            size_bytes * others / self.gpus
            for others in (self.inside - 1, self.gpus - self.inside, self.gpus - self.in_pod)
        )
        return _present(within, self._through(between, leaving))

    def next_one(self, size_bytes: float) -> dict[Tier, float]:
        """Return the bytes on the links of a GPU whose next one is furthest, if each sends it a tensor."""
        if self.nodes == 1:
            return _present(size_bytes, 0.0)
        return _present(0.0, self._through(size_bytes, size_bytes / self.in_pod))

    def seconds(self, by_tier: Mapping[Tier, float]) -> float:
        """Return how long bytes take on links that nobody else uses, launch included."""
        return RING_LAUNCH_S + max(self.taken_s(by_tier).values(), default=0.0)

    def taken_s(self, by_tier: Mapping[Tier, float]) -> dict[Tier, float]:
        """Return how long bytes take on the links of each tier."""
        links: dict[Tier, Link] = {"nvlink": self.cluster.nvlink, "infiniband": self.cluster.infiniband}
        taken = {tier: size / links[tier].bytes_per_s / RING_EFFICIENCY for tier, size in by_tier.items()}
        if self.cluster.collectives and "nvlink" in taken:
            taken["nvlink"] = self._timed_s(by_tier["nvlink"])
        return taken

    def toll(self, by_tier: Mapping[Tier, float]) -> float:
        """Return the share of their time that they and compute beside them lose to each other."""
        taken = self.taken_s(by_tier)
        slowest = max(taken, key=taken.__getitem__, default=None)
        if slowest is None:
            return 0.0
        return NVLINK_TOLL if slowest == "nvlink" else NIC_TOLL

    def _timed_s(self, link_bytes: float) -> float:
        """Return what NCCL takes inside a node for so many bytes on each GPU's links."""
        timed = read_collectives(self.cluster.collectives)
        gpus, most = self.inside, timed.axes[1][-1]
        size_bytes = link_bytes * gpus / (gpus - 1)
        return timed.at((gpus, size_bytes)) * 1e-6 * max(1.0, size_bytes / most)


def _present(nvlink_bytes: float, infiniband_bytes: float) -> dict[Tier, float]:
    by_tier: dict[Tier, float] = {"nvlink": nvlink_bytes, "infiniband": infiniband_bytes}
    return {tier: size for tier, size in by_tier.items() if size}
