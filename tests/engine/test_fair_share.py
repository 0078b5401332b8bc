"""Flows that share links: worked by hand, and what always holds of max-min fairness."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim.engine.fair_share import FairShare, fair_rates
from dualpipe_sim.engine.flows import Flows
from tests.referee.fluid import Flow, ends_of

INF = float("inf")


def test_two_flows_on_one_link_get_half_each() -> None:
    assert fair_rates([[0], [0]], [INF, INF], [10.0]) == [5.0, 5.0]


def test_three_flows_over_two_links() -> None:
    # Link 1 is the tighter: its two flows get 4/2 each, and the first flow all that is left of link 0.
    assert fair_rates([[0], [1], [0, 1]], [INF] * 3, [10.0, 4.0]) == [8.0, 2.0, 2.0]


def test_a_capped_flow_leaves_the_rest_to_others() -> None:
    assert fair_rates([[0], [0], [0]], [2.0, INF, INF], [10.0]) == [2.0, 4.0, 4.0]


def test_flows_without_links_run_at_their_cap() -> None:
    assert fair_rates([[], [0]], [3.0, INF], [10.0]) == [3.0, 10.0]


positive = st.floats(0.01, 1000.0)


@st.composite
def networks(draw: st.DrawFn) -> tuple[list[list[int]], list[float], list[float]]:
    capacity = draw(st.lists(positive, min_size=1, max_size=6))
    path = st.lists(st.integers(0, len(capacity) - 1), min_size=1, max_size=4, unique=True)
    links = draw(st.lists(path, min_size=1, max_size=12))
    caps = draw(st.lists(st.one_of(st.just(INF), positive), min_size=len(links), max_size=len(links)))
    return links, caps, capacity


@given(networks())
def test_rates_are_max_min_fair(network: tuple[list[list[int]], list[float], list[float]]) -> None:
    """The certificate: a flow is at its cap, or on a full link where none is faster."""
    links, caps, capacity = network
    rates = fair_rates(links, caps, capacity)
    _check_certificate(links, caps, capacity, rates)


def _check_certificate(
    links: Sequence[Sequence[int]], caps: Sequence[float], capacity: Sequence[float], rates: Sequence[float]
) -> None:
    on_link = [[flow for flow, passed in enumerate(links) if link in passed] for link in range(len(capacity))]
    used = [sum(rates[flow] for flow in flows) for flows in on_link]
    assert all(one <= most * (1 + 1e-9) for one, most in zip(used, capacity, strict=True))
    for flow, rate in enumerate(rates):
        assert 0 < rate <= caps[flow]
        bottleneck = any(
            used[link] >= capacity[link] * (1 - 1e-9)
            and rate >= max(rates[other] for other in on_link[link]) * (1 - 1e-9)
            for link in links[flow]
        )
        assert rate == caps[flow] or bottleneck


@dataclass(frozen=True)
class Sent:
    """A flow of a test: when it starts, what it passes, how much it carries."""

    start_s: float
    links: tuple[int, ...]
    size_bytes: float
    cap: float = INF


class Network:
    """Plays flows, and looks at every rate between any two events."""

    def __init__(self, sent: Sequence[Sent], capacity: Sequence[float]) -> None:
        self.sent, self.capacity = sent, capacity
        self.end_s = [INF] * len(sent)
        self.delivered = [0.0] * len(sent)
        env = simpy.Environment()
        fixed_s = simpy.Timeout
        flows = Flows(
            first=np.arange(len(sent) + 1),
            size_bytes=np.array([one.size_bytes for one in sent]),
            cap_bytes_per_s=np.array([one.cap for one in sent]),
            route=np.arange(len(sent)),
            routes=tuple(one.links for one in sent),
            latency_s=np.array([one.start_s for one in sent]),
            links=(),
            capacity_bytes_per_s=np.array(capacity),
        )
        self.share = FairShare(env, flows, lambda _: fixed_s(env, 0.0))
        for node in range(len(sent)):
            self.share.lasts(node).callbacks.append(self._note)
        self._env = env
        self._run()

    def _note(self, event: simpy.Event) -> None:
        self.end_s[cast("int", event.value)] = self._env.now

    def _run(self) -> None:
        while self._env.peek() < INF:
            before_s = self._env.now
            rates = self.rates()
            length_s = self._env.peek() - before_s
            if length_s:
                self._look(rates)
            for node, rate in rates.items():
                self.delivered[node] += rate * length_s
            self._env.step()

    def rates(self) -> dict[int, float]:
        return {flow.node: flow.rate for flows in self.share._on_link for flow in flows}

    def _look(self, rates: dict[int, float]) -> None:
        links = [self.sent[node].links for node in rates]
        _check_certificate(links, [self.sent[node].cap for node in rates], self.capacity, list(rates.values()))


def test_two_equal_flows_on_one_link_take_twice_the_time() -> None:
    alone = Network([Sent(0, (0,), 100)], [10])
    both = Network([Sent(0, (0,), 100), Sent(0, (0,), 100)], [10])
    assert alone.end_s == [10]
    assert both.end_s == [20, 20]


def test_a_flow_that_joins_halves_the_rate_from_then_on() -> None:
    # First: 50 alone until 5, then 5 a second: ends at 15. Second: 50 until 15, the rest alone: ends at 20.
    assert Network([Sent(0, (0,), 100), Sent(5, (0,), 100)], [10]).end_s == [15, 20]


def test_three_flows_over_two_links_over_time() -> None:
    # Rates 8, 2, 2 until the first is through at 5; link 1 still holds the others at 2, the third ends at 10 with 20;
    # the second has 10 left and link 1 for itself: 10/4.
    sent = [Sent(0, (0,), 40), Sent(0, (1,), 30), Sent(0, (0, 1), 20)]
    assert Network(sent, [10, 4]).end_s == [5, 12.5, 10]


def test_what_a_capped_flow_leaves_goes_to_the_other() -> None:
    # 2 and 8 a second: 80 bytes are through at 10, and the capped flow gains nothing from it.
    assert Network([Sent(0, (0,), 40, cap=2), Sent(0, (0,), 80)], [10]).end_s == [20, 10]


def test_flows_on_other_links_do_not_feel_it() -> None:
    sent = [Sent(0, (0,), 100), Sent(3, (1,), 30), Sent(4, (1,), 30)]
    assert Network(sent, [10, 10]).end_s == [10, 8, 9]


@st.composite
def traffic(draw: st.DrawFn) -> tuple[list[Sent], list[float]]:
    links, caps, capacity = draw(networks())
    starts = st.one_of(st.integers(0, 3).map(float), st.floats(0, 10))
    return [
        Sent(draw(starts), tuple(path), draw(positive), cap) for path, cap in zip(links, caps, strict=True)
    ], capacity


@given(traffic())
def test_every_byte_arrives_at_fair_rates(drawn: tuple[list[Sent], list[float]]) -> None:
    """Between any two events the rates carry the certificate, and what they delivered is what was sent."""
    sent, capacity = drawn
    network = Network(sent, capacity)
    assert network.delivered == pytest.approx([one.size_bytes for one in sent], rel=1e-6)
    flows = [(one.start_s, Flow(one.size_bytes, one.links, one.cap)) for one in sent]
    assert network.end_s == pytest.approx(ends_of(flows, dict(enumerate(capacity))), rel=1e-6)
    for one, end_s in zip(sent, network.end_s, strict=True):
        alone_s = one.size_bytes / min(one.cap, *(capacity[link] for link in one.links))
        assert end_s - one.start_s >= alone_s * (1 - 1e-9)


SIMGRID = json.loads((Path(__file__).parents[2] / "validation/flows_simgrid.json").read_text(encoding="utf-8"))["sets"]
"""What SimGrid made of 200 sets of flows (``validation/run_simgrid.py``)."""


@pytest.mark.parametrize("latencies", ["none", "alike"])
def test_flows_end_when_simgrids_do(latencies: str) -> None:
    sets = [one for one in SIMGRID if one["latencies"] == latencies]
    assert len(sets) > 60
    for one in sets:
        sent, capacity = _of_simgrid(one)
        assert Network(sent, capacity).end_s == pytest.approx(one["CM02"], rel=1e-9)


def test_simgrid_gives_a_flow_of_twice_the_latency_half_as_much() -> None:
    """Where routes have latencies of their own: so do no links here, which know no TCP."""
    off = 0.0
    for one in [one for one in SIMGRID if one["latencies"] == "own"]:
        sent, capacity = _of_simgrid(one)
        delays = [flow.start_s - told[0] for flow, told in zip(sent, one["flows"], strict=True)]
        flows = [
            (flow.start_s, Flow(flow.size_bytes, flow.links, flow.cap, 1 / delay))
            for flow, delay in zip(sent, delays, strict=True)
        ]
        assert ends_of(flows, dict(enumerate(capacity))) == pytest.approx(one["CM02"], rel=1e-6)
        off = max(off, *(abs(a / b - 1) for a, b in zip(Network(sent, capacity).end_s, one["CM02"], strict=True)))
    assert off > 0.1


def _of_simgrid(told: dict[str, Any]) -> tuple[list[Sent], list[float]]:
    """Return flows and the bandwidth of links; a flow is on its links once its route's latency is over."""
    links = told["links"]
    sent = [
        Sent(start_s + own_s + sum(links[link][1] for link in passed), tuple(passed), round(size), cap or INF)
        for start_s, passed, size, cap, own_s in told["flows"]
    ]
    return sent, [bandwidth for bandwidth, _ in links]


def test_the_same_traffic_gives_the_same_bits() -> None:
    rng = np.random.default_rng(5)
    sent = [Sent(float(rng.random()), (int(rng.integers(4)), 4), float(rng.random())) for _ in range(40)]
    assert Network(sent, [0.3, 0.5, 0.7, 1.1, 1.3]).end_s == Network(sent, [0.3, 0.5, 0.7, 1.1, 1.3]).end_s


def test_certificate_catches_unfair_rates() -> None:
    """The check above is no rubber stamp."""
    for rates in ([7.0, 3.0], [4.0, 4.0], [6.0, 6.0]):
        with pytest.raises(AssertionError):
            _check_certificate([[0], [0]], [INF, INF], [10.0], rates)
