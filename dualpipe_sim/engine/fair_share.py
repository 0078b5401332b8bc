"""Shared links: flows under way at the same time share bandwidth by max-min fairness.

Max-min fair rates are those at which no flow can gain without one that has no more losing (Bertsekas and Gallager,
Data Networks, 1992, section 6.5.2). They are
computed anew at each instant in which a flow starts or ends, but only for the flows that its links connect it with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf

import simpy

from dualpipe_sim.engine.flows import Flows


def fair_rates(
    links: Sequence[Sequence[int]], cap_bytes_per_s: Sequence[float], capacity_bytes_per_s: Sequence[float]
) -> list[float]:
    """Return the max-min fair rate of each flow in bytes a second, by progressive filling.

    All rates rise together; a flow stops at its own cap, or where one of its links is full.

    Args:
        links: the links that each flow passes.
        cap_bytes_per_s: what each flow can take at most, infinite where its links alone limit it.
        capacity_bytes_per_s: bandwidth of each link.

    """
    on_link: dict[int, list[int]] = {}
    for flow, passed in enumerate(links):
        for link in passed:
            on_link.setdefault(link, []).append(flow)
    left = {link: capacity_bytes_per_s[link] for link in on_link}
    sharers = {link: len(flows) for link, flows in on_link.items()}
    rates = list(cap_bytes_per_s)
    rising = dict.fromkeys(range(len(links)))
    while rising:
        level, tightest = min(((left[link] / count, link) for link, count in sharers.items()), default=(inf, -1))
        # A flow that wants no more than the tightest link's share leaves the others more, so it can stop first.
        stops = [flow for flow in rising if rates[flow] <= level]
        for flow in stops or [flow for flow in on_link[tightest] if flow in rising]:
            rates[flow] = min(rates[flow], level)
            del rising[flow]
            for link in links[flow]:
                left[link] -= rates[flow]
                sharers[link] -= 1
                if not sharers[link]:
                    del sharers[link]
    return rates


class _Flow:
    """A flow under way. Between ``since_s`` and ``due`` it runs at one rate."""

    __slots__ = ("cap", "due", "left_bytes", "links", "node", "rate", "since_s")

    def __init__(self, node: int, links: tuple[int, ...], size_bytes: float, cap: float) -> None:
        self.node, self.links, self.left_bytes, self.cap = node, links, size_bytes, cap
        self.rate = 0.0
        self.since_s = 0.0
        self.due: simpy.Event | None = None


class FairShare:
    """The network of one run.

    Args:
        env: the run's clock.
        flows: what each node puts on the links.
        fixed: gives the event of a node without flows.

    """

    def __init__(self, env: simpy.Environment, flows: Flows, fixed: Callable[[int], simpy.Event]) -> None:
        self._env, self._fixed = env, fixed
        self._capacity = flows.capacity_bytes_per_s.tolist()
        self._first = flows.first.tolist()
        self._size_bytes = flows.size_bytes.tolist()
        self._cap = flows.cap_bytes_per_s.tolist()
        self._links = [flows.routes[route] for route in flows.route.tolist()]
        self._latency_s = flows.latency_s.tolist()
        # Dictionaries without values: sets that keep their order, so that the same run gives the same bits.
        self._on_link: list[dict[_Flow, None]] = [{} for _ in self._capacity]
        self._unsettled: dict[_Flow, None] = {}
        self._under_way: dict[int, int] = {}
        self._done: dict[int, simpy.Event] = {}

    def lasts(self, node: int) -> simpy.Event:
        """Start a node; the event fires, with the node as its value, when its last flow is through."""
        if self._first[node] == self._first[node + 1]:
            return self._fixed(node)
        self._done[node] = done = simpy.Event(self._env)
        if self._latency_s[node]:
            begin = simpy.Timeout(self._env, self._latency_s[node], node)
            begin.callbacks.append(lambda event: self._begin(event.value))
        else:
            self._begin(node)
        return done

    def _begin(self, node: int) -> None:
        rows = range(self._first[node], self._first[node + 1])
        self._under_way[node] = len(rows)
        for row in rows:
            flow = _Flow(node, self._links[row], self._size_bytes[row], self._cap[row])
            for link in flow.links:
                self._on_link[link][flow] = None
            self._unsettle((flow,))

    def _end(self, flow: _Flow) -> None:
        self._unsettled.pop(flow, None)
        for link in flow.links:
            del self._on_link[link][flow]
            self._unsettle(self._on_link[link])
        self._under_way[flow.node] -= 1
        if not self._under_way[flow.node]:
            del self._under_way[flow.node]
            self._done.pop(flow.node).succeed(flow.node)

    def _unsettle(self, flows: Iterable[_Flow]) -> None:
        # What starts and ends in one instant is settled once: ranks in step start many flows together.
        first = not self._unsettled
        self._unsettled.update(dict.fromkeys(flows))
        if first and self._unsettled:
            simpy.Timeout(self._env, 0.0).callbacks.append(self._settle)

    def _settle(self, _: simpy.Event) -> None:
        settled: set[_Flow] = set()
        for flow in self._unsettled:
            if flow not in settled:
                flows = self._connected(flow)
                settled.update(flows)
                self._share(flows)
        self._unsettled.clear()

    def _connected(self, flow: _Flow) -> list[_Flow]:
        """Return a flow and all that share a link with it, or with one that does, and so on."""
        found = {flow: None}
        walked = [flow]
        for one in walked:
            for link in one.links:
                new = [other for other in self._on_link[link] if other not in found]
                found.update(dict.fromkeys(new))
                walked.extend(new)
        return walked

    def _share(self, flows: list[_Flow]) -> None:
        rates = fair_rates([flow.links for flow in flows], [flow.cap for flow in flows], self._capacity)
        for flow, rate in zip(flows, rates, strict=True):
            if rate != flow.rate:
                self._change(flow, rate)

    def _change(self, flow: _Flow, rate: float) -> None:
        now_s = self._env.now
        flow.left_bytes = max(0.0, flow.left_bytes - flow.rate * (now_s - flow.since_s))
        flow.rate, flow.since_s = rate, now_s
        if flow.due is not None:
            flow.due.callbacks.clear()  # SimPy cannot take an event back, so the old end fires and nobody listens
        flow.due = simpy.Timeout(self._env, flow.left_bytes / rate)
        flow.due.callbacks.append(lambda _: self._end(flow))
