"""The cluster: nodes of GPUs behind NVLink switches, and NICs on an InfiniBand fabric of pods, as a networkx graph."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from dualpipe_sim.base.show import brief
from dualpipe_sim.base.units import number_of
from dualpipe_sim.errors import UserError
from dualpipe_sim.hardware.kernels import packaged, read_collectives

if TYPE_CHECKING:
    import networkx as nx

FABRIC = ("fabric",)
"""The InfiniBand fabric's place in the topology; others are ``("gpu", g)``, ``("nic", g)``, ``("nvswitch", node)``, and
``("pod", p)`` where the fabric has pods."""

Place = tuple[str] | tuple[str, int]

Tier: TypeAlias = Literal["nvlink", "infiniband"]
TIERS: tuple[Tier, ...] = ("nvlink", "infiniband")


@dataclass(frozen=True)
class Link:
    """What a tier of the network achieves between two GPUs.

    >>> Cluster(nvlink=Link(450e9)).topology(ranks=2).route(0, 1).seconds(45e9)
    0.1

    Attributes:
        bytes_per_s: bandwidth of one GPU, each way.
        latency_s: end-to-end latency of a small message.

    """

    bytes_per_s: float
    latency_s: float = 0.0


class Route(NamedTuple):
    """How a tensor travels from one GPU to another.

    Attributes:
        latency_s: sum over the links passed.
        bytes_per_s: bandwidth of the narrowest link passed.
        links: the directed links passed, as pairs of places.

    """

    latency_s: float
    bytes_per_s: float
    links: tuple[tuple[Place, Place], ...]

    def seconds(self, size_bytes: float) -> float:
        """Return how long a tensor alone on the route is under way."""
        return self.latency_s + size_bytes / self.bytes_per_s


@dataclass(frozen=True)
class Cluster:
    """GPUs in nodes: NVLink inside a node, InfiniBand with a NIC for each GPU between nodes.

    The defaults are the figures that the DeepSeek-V3 report gives for its H800 cluster
    (https://arxiv.org/abs/2412.19437, section 3.2.2) with latencies from
    "Insights into DeepSeek-V3" (https://arxiv.org/abs/2505.09343).

    >>> topology = Cluster(gpus_per_node=8).topology(ranks=16)
    >>> topology.route(0, 7).bytes_per_s, topology.route(7, 8).bytes_per_s
    (160000000000.0, 50000000000.0)

    Attributes:
        gpus_per_node: GPUs behind one NVLink switch.
        nvlink: what a GPU achieves inside its node.
        infiniband: what a GPU achieves between nodes.
        mapping: GPU of each pipeline rank; None for neighbouring groups of GPUs, see :meth:`topology`.
        gpus_per_pod: GPUs whose NICs meet below the fabric's upper layer, each at its full bandwidth; 0 for all.
        collectives: table of what NCCL's collectives take inside a node, by their size; a packaged one or a CSV file,
            empty for their bytes at a share of the links' bandwidth.
        oversubscription: bandwidth of a pod's NICs over that of its links to other pods (7 in Llama 3's cluster, with
            pods of 3,072 GPUs, https://arxiv.org/abs/2407.21783, section 3.3.1).

    """

    gpus_per_node: int = 8
    nvlink: Link = Link(160e9, 3e-6)
    infiniband: Link = Link(50e9, 5e-6)
    mapping: tuple[int, ...] | None = None
    gpus_per_pod: int = 0
    oversubscription: float = 1.0
    collectives: str = ""

    __repr__ = brief

    def __post_init__(self) -> None:
        if self.oversubscription < 1:
            raise UserError(f"cluster.oversubscription: must be 1 or more, not {self.oversubscription:g}")
        if self.gpus_per_pod % self.gpus_per_node:
            nodes = number_of(self.gpus_per_node, "GPU")
            raise UserError(f"cluster.gpus_per_pod: {self.gpus_per_pod} are no whole nodes of {nodes}")
        if self.oversubscription > 1 and not self.gpus_per_pod:
            raise UserError("cluster.gpus_per_pod: is missing; oversubscription is that of a pod's links to others")
        if self.collectives and f"nccl-{self.collectives}" not in packaged():
            read_collectives(self.collectives)  # said here, whether or not a run then has collectives inside a node

    def node_of_gpu(self, gpu: int) -> int:
        """Return the node that a GPU is in."""
        return gpu // self.gpus_per_node

    def topology(self, ranks: int, gpus_per_rank: int = 1) -> Topology:
        """Return the part of the cluster that a pipeline's ranks use.

        Args:
            ranks: pipeline ranks.
            gpus_per_rank: GPUs of each rank (tensor-, expert- and data-parallel), which are neighbours: rank r stands
                for GPU r x ``gpus_per_rank``, unless ``mapping`` says which.

        Raises:
            UserError: ``mapping`` names fewer GPUs.

        """
        if self.mapping is None:
            return Topology(self, tuple(rank * gpus_per_rank for rank in range(ranks)))
        if ranks > len(self.mapping):
            missing = len(self.mapping)
            raise UserError(f"cluster.mapping names {number_of(missing, 'GPU')}, but the pipeline has a rank {missing}")
        return Topology(self, self.mapping[:ranks])


@dataclass(frozen=True)
class Topology:
    """The GPUs of a pipeline and the links between them.

    >>> Cluster().topology(ranks=4, gpus_per_rank=8).gpu_of_rank
    (0, 8, 16, 24)

    Attributes:
        cluster: tiers and sizes.
        gpu_of_rank: the GPU that each rank stands for.

    """

    cluster: Cluster
    gpu_of_rank: tuple[int, ...]

    __repr__ = brief

    @cached_property
    def network(self) -> nx.DiGraph[Place]:
        """The topology as a graph of places; edges carry ``latency_s`` and ``bytes_per_s``."""
        import networkx as nx

        network: nx.DiGraph[Place] = nx.DiGraph()
        for gpu in sorted(set(self.gpu_of_rank)):
            _connect(network, ("gpu", gpu), ("nvswitch", self.cluster.node_of_gpu(gpu)), self.cluster.nvlink)
            _connect(network, ("gpu", gpu), ("nic", gpu), Link(float("inf")))
            _connect(network, ("nic", gpu), self._above(gpu), self.cluster.infiniband)
        if self.cluster.gpus_per_pod:
            # Ranks stand for all GPUs: a pod's ranks have its links to others, of which each has as many as its GPUs.
            for pod, ranks in Counter(self._above(gpu) for gpu in self.gpu_of_rank).items():
                up = ranks * self.cluster.infiniband.bytes_per_s / self.cluster.oversubscription
                _connect(network, pod, FABRIC, Link(up))
        return network

    def _above(self, gpu: int) -> Place:
        """Return where a GPU's NIC leads to."""
        pod = self.cluster.gpus_per_pod
        return ("pod", gpu // pod) if pod else FABRIC

    def bytes_per_s(self, link: tuple[Place, Place]) -> float:
        """Return the bandwidth of a directed link."""
        return float(self.network.edges[link]["bytes_per_s"])

    def own_links(self, rank: int, tier: Tier) -> tuple[tuple[Place, Place], tuple[Place, Place]]:
        """Return the links of a tier that only a rank's GPU uses, out and in."""
        gpu = self.gpu_of_rank[rank]
        inner: Place = ("gpu", gpu) if tier == "nvlink" else ("nic", gpu)
        outer: Place = ("nvswitch", self.cluster.node_of_gpu(gpu)) if tier == "nvlink" else self._above(gpu)
        return (inner, outer), (outer, inner)

    def route(self, source: int, target: int) -> Route:
        """Return the route between two ranks: the fewest links, so NVLink inside a node and InfiniBand between."""
        if (source, target) not in self._routes:
            self._routes[source, target] = self._find_route(source, target)
        return self._routes[source, target]

    @cached_property
    def _routes(self) -> dict[tuple[int, int], Route]:
        """Routes found so far, by the ranks at their ends."""
        return {}

    def _find_route(self, source: int, target: int) -> Route:
        import networkx as nx

        places = nx.shortest_path(self.network, ("gpu", self.gpu_of_rank[source]), ("gpu", self.gpu_of_rank[target]))
        links = tuple(pairwise(places))
        hops = [self.network.edges[link] for link in links]
        return Route(
            latency_s=sum(hop["latency_s"] for hop in hops),
            bytes_per_s=min((hop["bytes_per_s"] for hop in hops), default=float("inf")),
            links=links,
        )


def _connect(network: nx.DiGraph[Place], inner: Place, outer: Place, tier: Link) -> None:
    # Every route passes a tier twice, in and out; each half carries half of the end-to-end latency.
    for edge in ((inner, outer), (outer, inner)):
        network.add_edge(*edge, bytes_per_s=tier.bytes_per_s, latency_s=tier.latency_s / 2)
