"""What a task graph puts on the network: the bytes of its phases and transfers, as flows over directed links.

A *flow* is bytes from one node of the graph over one route. A transfer is one flow from its sender's GPU to its
receiver's. An all-to-all is one flow for each tier that it uses, over the rank's own links of that tier. A *route* is a
row of links; only links of limited bandwidth are numbered, since only they can be shared. Routes are numbered too:
first, for each rank and each tier, the rank's own links (number rank x tiers + tier), then one for each pair of ranks
that some transfer joins.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

import numpy as np

from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.base.show import brief
from dualpipe_sim.errors import UserError
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.hardware.cluster import TIERS, Place, Topology

Hop: TypeAlias = tuple[Place, Place]

_TICK = 1e-11
"""Moments closer than this share of the makespan are one."""
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Flows:
    """Flows, one row each, in the order of the nodes that they belong to.

    Attributes:
        first: where each node's flows begin, shape ``(nodes + 1,)``; node n's are the rows ``first[n]`` to
            ``first[n + 1]``, without the last.
        size_bytes: bytes that a flow carries, shape ``(flows,)``.
        cap_bytes_per_s: most that it can take of a link, shape ``(flows,)``.
        route: number of its route, shape ``(flows,)``.
        routes: the numbers of the links of each route.
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

    __repr__ = brief


def flows_of(graph: TaskGraph, topology: Topology) -> Flows:
    """Return the flows of a graph.

    A node starts with its latency and then puts all its flows on the links. The latency is what the node lasts alone
    beyond its slowest flow. A node whose duration is not the one that its costs gave (jitter, a slow rank) has its
    bytes and its latency scaled alike, so that alone on its links it lasts just its duration.

    Raises:
        UserError: a phase whose flows, alone on their links, take longer than the phase.

    """
    # Flows of phases, then flows of transfers: nodes are in that order too, so ``node`` ascends.
    node, tier_of_rank, size_bytes, cap_bytes_per_s = _of_phases(graph)
    hop, paths = _paths(graph, topology)
    sent = np.flatnonzero(graph.transfers.size_bytes)
    node = np.concatenate([node, graph.first_transfer + sent])
    size_bytes = np.concatenate([size_bytes, graph.transfers.size_bytes[sent]])
    cap_bytes_per_s = np.concatenate([cap_bytes_per_s, np.full(len(sent), np.inf)])
    route = np.concatenate([tier_of_rank, hop[sent]])

    links, capacity, routes = _number_links(paths, topology)
    widest = np.array([min((capacity[link] for link in links_of), default=np.inf) for links_of in routes])
    # A route is as wide as its narrowest link, infinitely wide without links that limit it.
    alone_s = size_bytes / np.minimum(cap_bytes_per_s, widest[route])
    slowest_s = np.zeros(graph.nodes)
    np.maximum.at(slowest_s, node, alone_s)  # ``at``, since a node with several flows is there several times
    scale = _scale(graph, slowest_s)
    there = alone_s > 0  # what takes no time, for want of bytes or of limits, is no flow
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


def crowded(timeline: Timeline, topology: Topology) -> bool:
    """Return whether flows that are under way together ask more of a link than it has, as the timeline plays them.

    Where they never do, each has what it has alone, and to share links changes nothing.
    """
    flows = flows_of(timeline.graph, topology)
    node = np.repeat(np.arange(timeline.graph.nodes), np.diff(flows.first))
    widest = np.array([flows.capacity_bytes_per_s[list(route)].min(initial=np.inf) for route in flows.routes])
    rate = np.minimum(flows.cap_bytes_per_s, widest[flows.route])
    begins_s = timeline.start_s[node] + flows.latency_s[node]
    ends_s = begins_s + flows.size_bytes / rate
    # A row for each link that a flow passes, once when it begins and once when it ends.
    passed = np.array([len(route) for route in flows.routes])[flows.route]
    flow = np.repeat(np.arange(len(node)), passed)
    link = np.array([link for route in flows.routes for link in route], dtype=np.int64)
    before = np.cumsum([0, *map(len, flows.routes)])[:-1]
    link = link[before[flows.route[flow]] + np.arange(len(flow)) - np.repeat(np.cumsum(passed) - passed, passed)]
    moment_s = np.concatenate([ends_s[flow], begins_s[flow]])  # at one moment, what ends leaves room for what begins
    more = np.concatenate([-rate[flow], rate[flow]])
    tick = np.rint(moment_s / (timeline.makespan_s * _TICK or 1.0))
    link = np.concatenate([link, link])
    order = np.lexsort((tick, link))  # which keeps the order of rows of one moment
    asked = np.cumsum(more[order])  # every flow ends, so what one link adds is nothing to the next
    return bool((asked > flows.capacity_bytes_per_s[link[order]] * (1 + _ROUNDING)).any())


def _of_phases(graph: TaskGraph) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
    """Return node, rank x tiers + tier, bytes and cap of each flow of a phase, by node, shape ``(flows,)`` each.

    Flows are listed once for each phase in the templates; ``row`` says which of them each flow of the graph is. If
    the templates are A with two flows (rows 0 and 1) and B with one (row 2), and the graph's nodes 0 and 1 are a B and
    an A, then ``node = [0, 1, 1]`` and ``row = [2, 0, 1]``.
    """
    templates = list(chain.from_iterable(phase.flows for phase in graph.phases))
    counts = np.array([len(phase.flows) for phase in graph.phases])
    first_of_node = (np.cumsum(counts) - counts)[graph.phase]
    counts = counts[graph.phase]
    node = np.repeat(np.arange(graph.first_transfer), counts)
    # A flow's place among its node's flows, its own place less that of the node's first, counts on from the template's
    # first.
    row = np.arange(len(node)) + (first_of_node - np.cumsum(counts) + counts)[node]
    tier = np.array([TIERS.index(flow.tier) for flow in templates], dtype=np.int64)[row]
    size_bytes = np.array([flow.size_bytes for flow in templates])[row]
    cap_bytes_per_s = np.array([flow.cap_bytes_per_s for flow in templates])[row]
    return node, graph.rank[node] * len(TIERS) + tier, size_bytes, cap_bytes_per_s


def _paths(graph: TaskGraph, topology: Topology) -> tuple[IntArray, list[tuple[Hop, ...]]]:
    """Return the number of each transfer's route, and the hops of all routes: first each rank's own on each tier.

    Many transfers go from the same rank to the same other; the topology is asked once for each two ranks.
    """
    rank, ranks = graph.schedule.rank, graph.schedule.ranks
    own = [topology.own_links(one, tier) for one in range(ranks) for tier in TIERS]
    hop = rank[graph.transfers.producer] * ranks + rank[graph.transfers.consumer]
    hops, hop_of_transfer = np.unique(hop, return_inverse=True)
    return len(own) + hop_of_transfer, own + [topology.route(*divmod(code, ranks)).links for code in hops.tolist()]


def _number_links(
    paths: list[tuple[Hop, ...]], topology: Topology
) -> tuple[tuple[Hop, ...], list[float], tuple[tuple[int, ...], ...]]:
    """Return the links that limit some path, their bandwidths, and of each path the numbers of such links.

    Links are numbered in the order in which they first appear, so that the same graph gives the same numbers.
    """
    bandwidth = topology.bytes_per_s
    limited = [[link for link in path if bandwidth(link) < np.inf] for path in paths]
    number = {link: position for position, link in enumerate(dict.fromkeys(chain.from_iterable(limited)))}
    return (
        tuple(number),
        [bandwidth(link) for link in number],
        tuple(tuple(map(number.__getitem__, path)) for path in limited),
    )


def _scale(graph: TaskGraph, slowest_s: FloatArray) -> FloatArray:
    """Return each node's duration over the one that its costs gave, shape ``(nodes,)``.

    1 where nothing was changed, 1.2 for a node made 20 % longer, and 1 where the costs gave no time at all.
    """
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
