"""Flows that share links, and work that changes its speed, played step by step in plain Python.

Between two moments at which something begins or ends all speeds stay; at each such moment all are found anew, of all
flows at once. Rates are max-min fair: the link that would give each of its flows the least gives it to them, which
leaves less of other links to others, and so on (Bertsekas and Gallager, Data Networks, 1992, section 6.5.2).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import TypeAlias

Link: TypeAlias = Hashable
Name: TypeAlias = Hashable
_DONE = 1e-12
"""Of what there was at first: less than that left is rounding."""


@dataclass
class Flow:
    """Bytes on their way over some links, at most so many a second; one of twice the weight gets twice as many."""

    size: float
    links: tuple[Link, ...]
    cap: float = inf
    weight: float = 1.0

    def __post_init__(self) -> None:
        self.left = self.size  # of what is under way


def fair(flows: Sequence[Flow], bandwidth: Mapping[Link, float]) -> list[float]:
    """Return the rate of each flow."""
    rates = [0.0] * len(flows)
    open_flows = set(range(len(flows)))
    left = {link: bandwidth[link] for flow in flows for link in flow.links}
    while open_flows:
        on = {link: [one for one in open_flows if link in flows[one].links] for link in left}
        level = {link: left[link] / sum(flows[one].weight for one in those) for link, those in on.items() if those}
        least = min(level.values(), default=inf)
        slowest = min(flows[one].cap / flows[one].weight for one in open_flows)
        if slowest <= least:
            settled = [one for one in open_flows if flows[one].cap / flows[one].weight == slowest]
        else:
            settled = on[next(link for link, each in level.items() if each == least)]
        for one in settled:
            rates[one] = min(slowest, least) * flows[one].weight
            open_flows.discard(one)
            for link in flows[one].links:
                left[link] -= rates[one]
    return rates


@dataclass
class Activity:
    """Something that begins once and then takes its time.

    Attributes:
        seconds: how long, where nothing changes its speed; of flows what comes before them.
        flows: what it then puts on links; it ends with the last.
        alone: seconds of work while its rank exchanges nothing, where that is less than ``seconds``.
        rank: whose work it is, or whose all-to-all.
        exchanges: whether it is on its rank's all-to-all lane.

    """

    seconds: float
    flows: tuple[Flow, ...] = ()
    alone: float | None = None
    rank: int = -1
    exchanges: bool = False

    def times(self, factor: float) -> Activity:
        """Return an activity that takes longer by a factor."""
        alone = None if self.alone is None else self.alone * factor
        return replace(self, seconds=self.seconds * factor, alone=alone) if factor != 1 else self


class Fluid:
    """Plays activities; who waits for whom is known to who begins them."""

    def __init__(self, bandwidth: Mapping[Link, float], ended: Callable[[Name], None]) -> None:
        self.now = 0.0
        self._bandwidth, self._ended = bandwidth, ended
        self._under_way: dict[Name, Activity] = {}
        self._flows: dict[Name, list[Flow]] = {}
        self._left: dict[Name, float] = {}  # of work whose speed changes, from 1 on
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, moment: float, what: Callable[[], None]) -> None:
        """Do something at a moment."""
        self._count += 1
        heapq.heappush(self._due, (moment, self._count, what))

    def begin(self, name: Name, activity: Activity) -> None:
        """Begin an activity now."""
        self._under_way[name] = activity
        if activity.alone is not None and activity.seconds:
            self._left[name] = 1.0
        elif activity.flows:
            for flow in activity.flows:
                flow.left = flow.size
            self.at(self.now + activity.seconds, lambda: self._flows.update({name: list(activity.flows)}))
        else:
            self.at(self.now + activity.seconds, lambda: self._end(name))

    def run(self) -> None:
        """Go on until nothing is under way."""
        while True:
            while self._due and self._due[0][0] <= self.now:
                heapq.heappop(self._due)[2]()
            if not (self._due or self._flows or self._left):
                return
            self._step()

    def _end(self, name: Name) -> None:
        del self._under_way[name]
        self._ended(name)

    def _takes(self, name: Name) -> float:
        """Return what all of some work takes at the speed of this moment."""
        work = self._under_way[name]
        beside = any(other.exchanges and other.rank == work.rank for other in self._under_way.values())
        return work.seconds if beside or work.alone is None else work.alone

    def _step(self) -> None:
        """Go on to the next moment at which something begins or ends."""
        flows = [(name, flow) for name, several in self._flows.items() for flow in several]
        rates = fair([flow for _, flow in flows], self._bandwidth)
        takes = {name: self._takes(name) for name in self._left}
        ends = [flow.left / rate for (_, flow), rate in zip(flows, rates, strict=True)]
        ends += [left * takes[name] for name, left in self._left.items()]
        length = min(ends, default=inf)
        if self._due and self._due[0][0] <= self.now + length:
            length = self._due[0][0] - self.now
            self.now = self._due[0][0]
        else:
            self.now += length
        for (_, flow), rate in zip(flows, rates, strict=True):
            flow.left -= rate * length
        for name in self._left:
            self._left[name] -= length / takes[name] if takes[name] else 1.0
        for name in [name for name, left in self._left.items() if left <= _DONE]:
            del self._left[name]
            self._end(name)
        for name, several in list(self._flows.items()):
            several[:] = [flow for flow in several if flow.left > _DONE * flow.size]
            if not several:
                del self._flows[name]
                self._end(name)


def ends_of(flows: Sequence[tuple[float, Flow]], bandwidth: Mapping[Link, float]) -> list[float]:
    """Return when flows end that begin at some moments."""
    ends = [inf] * len(flows)
    fluid = Fluid(bandwidth, lambda name: ends.__setitem__(int(str(name)), fluid.now))
    for number, (start, flow) in enumerate(flows):
        fluid.begin(number, Activity(start, (flow,)))
    fluid.run()
    return ends
