"""What a task graph puts on the network: the bytes of its phases and transfers, as flows over directed links."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

import numpy as np

from dualpipe_sim.arrays import FloatArray, IntArray
from dualpipe_sim.errors import UserError
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.hardware.cluster import TIERS, Place, Topology

Hop: TypeAlias = tuple[Place, Place]


@dataclass(frozen=True, eq=False)
class Flows:
    """Flows, one row each, in the order of the nodes that they belong to.

    Attributes:
        first: where each node's flows begin, shape ``(nodes + 1,)``.
        size_bytes: bytes that a flow carries, shape ``(flows,)``.
        cap_bytes_per_s: most that it can take of a link, shape ``(flows,)``.
        route: its route, shape ``(flows,)``.
        routes: the links of each route.
        latency_s: seconds from each node's start to that of its flows, shape ``(nodes,)``.
        links: the places that each link joins.
        capacity_bytes_per_s: bandwidth of each link, shape ``(links,)``.

    """

    first: IntArray
    size_bytes: FloatArray
    cap_bytes_per_s: FloatArray
    route: IntArray
    routes: tuple[tuple[int, ...], ...]
    latency_s: FloatArray
    links: tuple[Hop, ...]
    capacity_bytes_per_s: FloatArray


def flows_of(graph: TaskGraph, topology: Topology) -> Flows:
    """Return the flows of a graph.

    What a node lasts alone beyond its slowest flow is its latency. A node whose duration is not the one that its costs
    gave (jitter, a slow rank) has its bytes and its latency scaled alike.

    Raises:
        UserError: a phase whose flows, alone on their links, take longer than the phase.

    """
    node, tier_of_rank, size_bytes, cap_bytes_per_s = _of_phases(graph)
    hop, paths = _paths(graph, topology)
    sent = np.flatnonzero(graph.transfers.size_bytes)
    node = np.concatenate([node, graph.first_transfer + sent])
    size_bytes = np.concatenate([size_bytes, graph.transfers.size_bytes[sent]])
    cap_bytes_per_s = np.concatenate([cap_bytes_per_s, np.full(len(sent), np.inf)])
    route = np.concatenate([tier_of_rank, hop[sent]])

    links, capacity, routes = _number_links(paths, topology)
    widest = np.array([min((capacity[link] for link in links_of), default=np.inf) for links_of in routes])
    alone_s = size_bytes / np.minimum(cap_bytes_per_s, widest[route])
    slowest_s = np.zeros(graph.nodes)
    np.maximum.at(slowest_s, node, alone_s)
    scale = _scale(graph, slowest_s)
    there = alone_s > 0
    node = node[there]
    return Flows(
        first=np.searchsorted(node, np.arange(graph.nodes + 1)),
        size_bytes=size_bytes[there] * scale[node],
        cap_bytes_per_s=cap_bytes_per_s[there],
        route=route[there],
        routes=routes,
        latency_s=np.maximum(graph.duration_s - slowest_s * scale, 0.0),
        links=links,
        capacity_bytes_per_s=np.array(capacity),
    )


def _of_phases(graph: TaskGraph) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
    """Return node, rank x TIERS + tier, bytes and cap of each flow of a phase, in the order of nodes."""
    templates = list(chain.from_iterable(phase.flows for phase in graph.phases))
    counts = np.array([len(phase.flows) for phase in graph.phases])
    first_of_node = (np.cumsum(counts) - counts)[graph.phase]
    counts = counts[graph.phase]
    node = np.repeat(np.arange(graph.first_transfer), counts)
    row = np.arange(len(node)) + (first_of_node - np.cumsum(counts) + counts)[node]
    tier = np.array([TIERS.index(flow.tier) for flow in templates], dtype=np.int64)[row]
    size_bytes = np.array([flow.size_bytes for flow in templates])[row]
    cap_bytes_per_s = np.array([flow.cap_bytes_per_s for flow in templates])[row]
    return node, graph.rank[node] * len(TIERS) + tier, size_bytes, cap_bytes_per_s


def _paths(graph: TaskGraph, topology: Topology) -> tuple[IntArray, list[tuple[Hop, ...]]]:
    """Return the path of each transfer, and the hops of all paths: first each rank's own on each tier."""
    rank, ranks = graph.schedule.rank, graph.schedule.ranks
    own = [topology.own_links(one, tier) for one in range(ranks) for tier in TIERS]
    hop = rank[graph.transfers.producer] * ranks + rank[graph.transfers.consumer]
    hops, hop_of_transfer = np.unique(hop, return_inverse=True)
    return len(own) + hop_of_transfer, own + [topology.route(*divmod(code, ranks)).links for code in hops.tolist()]


def _number_links(
    paths: list[tuple[Hop, ...]], topology: Topology
) -> tuple[tuple[Hop, ...], list[float], tuple[tuple[int, ...], ...]]:
    """Return the links that limit some path, their bandwidths, and of each path the numbers of such links."""
    bandwidth = topology.bytes_per_s
    limited = [[link for link in path if bandwidth(link) < np.inf] for path in paths]
    number = {link: position for position, link in enumerate(dict.fromkeys(chain.from_iterable(limited)))}
    return (
        tuple(number),
        [bandwidth(link) for link in number],
        tuple(tuple(map(number.__getitem__, path)) for path in limited),
    )


def _scale(graph: TaskGraph, slowest_s: FloatArray) -> FloatArray:
    """Return each node's duration over the one that its costs gave, shape ``(nodes,)``."""
    given_s = np.array([phase.duration_s for phase in graph.phases])[graph.phase]
    late = np.flatnonzero(slowest_s[: graph.first_transfer] > given_s * (1 + 1e-9))
    if len(late):
        node = int(late[0])
        raise UserError(
            f"{graph.label(node)} lasts {given_s[node]:g} s, but its flows take {slowest_s[node]:g} s with every link "
            "to themselves; a phase's duration holds its slowest flow"
        )
    given_s = np.append(given_s, graph.transfers.latency_s + slowest_s[graph.first_transfer :])
    scale: FloatArray = np.divide(graph.duration_s, given_s, out=np.ones(graph.nodes), where=given_s > 0)
    return scale
