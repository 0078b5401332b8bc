"""Shared links: flows under way at the same time share bandwidth by max-min fairness.

Rates are max-min fair if no flow can have more without taking from one that has no more than itself (Bertsekas and
Gallager, Data Networks, 1992, section 6.5.2). :func:`fair_rates` finds them for flows that stand still.

:class:`FairShare` plays them in time. Between two changes each flow runs at one rate, so the moment of its end is known
and is an event. When a flow starts or ends, the flows on its links get new rates, and their ends move. Rates can only
change for flows that links connect with it, directly or over others, so only those are computed anew.
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

    All rates rise together from 0. A flow stops rising at its own cap, or when one of its links is full. The others
    rise on, until all have stopped.

    Three flows, two links of 10 and 4: flow 0 passes link 0, flow 1 both, flow 2 link 1. At 2 link 1 is full, so flows
    1 and 2 stop there; flow 0 alone rises on to the 8 that link 0 has left:

    >>> fair_rates([(0,), (0, 1), (1,)], [inf, inf, inf], [10.0, 4.0])
    [8.0, 2.0, 2.0]

    If flow 2 can take 1 at most, it stops at 1, and link 1 has 3 for flow 1:

    >>> fair_rates([(0,), (0, 1), (1,)], [inf, inf, 1.0], [10.0, 4.0])
    [7.0, 3.0, 1.0]

    Args:
        links: the links that each flow passes, as numbers.
        cap_bytes_per_s: what each flow can take at most, infinite where its links alone limit it.
        capacity_bytes_per_s: bandwidth of each link.

    """
    on_link: dict[int, list[int]] = {}
    for flow, passed in enumerate(links):
        for link in passed:
            on_link.setdefault(link, []).append(flow)
    # Of each link, the bandwidth that flows which have stopped leave, and how many flows still rise on it.
    left = {link: capacity_bytes_per_s[link] for link in on_link}
    sharers = {link: len(flows) for link, flows in on_link.items()}
    rates = list(cap_bytes_per_s)  # the cap of a flow that rises, the rate of one that has stopped
    rising = dict.fromkeys(range(len(links)))
    while rising:
        level, tightest = min(((left[link] / count, link) for link, count in sharers.items()), default=(inf, -1))
        # ``level`` is where the first link would be full. Flows whose caps lie below it stop before that and leave more
        # for the others, so they go first, and the level is found anew.
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
    """A flow under way: ``left_bytes`` were left at ``since_s``, and until the event ``due`` it runs at one rate."""

    __slots__ = ("cap", "due", "left_bytes", "links", "node", "rate", "since_s")

    def __init__(self, node: int, links: tuple[int, ...], size_bytes: float, cap: float) -> None:
        self.node, self.links, self.left_bytes, self.cap = node, links, size_bytes, cap
        self.rate = 0.0
        self.since_s = 0.0
        self.due: simpy.Event | None = None


class FairShare:
    """The network of one run.

    A node may put several flows on the links, one for each tier of an all-to-all; it is done when the last one is.

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
        """Put a node's flows on their links, once its latency is over."""
        rows = range(self._first[node], self._first[node + 1])
        self._under_way[node] = len(rows)
        for row in rows:
            flow = _Flow(node, self._links[row], self._size_bytes[row], self._cap[row])
            for link in flow.links:
                self._on_link[link][flow] = None
            self._unsettle((flow,))

    def _end(self, flow: _Flow) -> None:
        """Take a flow off its links, which leaves more for the others; fire its node's event if it was the last one."""
        self._unsettled.pop(flow, None)
        for link in flow.links:
            del self._on_link[link][flow]
            self._unsettle(self._on_link[link])
        self._under_way[flow.node] -= 1
        if not self._under_way[flow.node]:
            del self._under_way[flow.node]
            self._done.pop(flow.node).succeed(flow.node)

    def _unsettle(self, flows: Iterable[_Flow]) -> None:
        """Note flows whose rates may have changed.

        Ranks in step start and end many flows in one instant, and all are settled at once: an event that is due now
        fires after those that are due now already.
        """
        first = not self._unsettled
        self._unsettled.update(dict.fromkeys(flows))
        if first and self._unsettled:
            simpy.Timeout(self._env, 0.0).callbacks.append(self._settle)

    def _settle(self, _: simpy.Event) -> None:
        """Give new rates to all that were noted and to all that links connect with them, each such group once."""
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
        for one in walked:  # the list grows while it is walked: a search in breadth
            for link in one.links:
                new = [other for other in self._on_link[link] if other not in found]
                found.update(dict.fromkeys(new))
                walked.extend(new)
        return walked

    def _share(self, flows: list[_Flow]) -> None:
        """Give each of some connected flows its fair rate; one whose rate stays keeps its event."""
        rates = fair_rates([flow.links for flow in flows], [flow.cap for flow in flows], self._capacity)
        for flow, rate in zip(flows, rates, strict=True):
            if rate != flow.rate:
                self._change(flow, rate)

    def _change(self, flow: _Flow, rate: float) -> None:
        """Count what a flow has carried at its old rate, and set its end by the new one."""
        now_s = self._env.now
        flow.left_bytes = max(0.0, flow.left_bytes - flow.rate * (now_s - flow.since_s))
        flow.rate, flow.since_s = rate, now_s
        if flow.due is not None:
            flow.due.callbacks.clear()  # SimPy cannot take an event back, so the old end fires and nobody listens
        flow.due = simpy.Timeout(self._env, flow.left_bytes / rate)
        flow.due.callbacks.append(lambda _: self._end(flow))
