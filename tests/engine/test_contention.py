"""Shared links and shared SMs: worked by hand, and what always holds of max-min fairness."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.phases import Flow, Phase
from dualpipe_sim.engine import discrete_event
from dualpipe_sim.engine.fair_share import FairShare, fair_rates
from dualpipe_sim.engine.flows import Flows, flows_of
from dualpipe_sim.errors import ConfigError, UserError
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.hardware.cluster import Cluster, Link, Topology
from dualpipe_sim.lanes import Lane
from dualpipe_sim.order.ops import F, TaskShape
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.schedules.registry import build
from dualpipe_sim.simulation import simulate

INF = float("inf")


# Rates: progressive filling


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


# Flows on a clock


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
    assert network.end_s == pytest.approx(_fluid(sent, capacity), rel=1e-6)
    for one, end_s in zip(sent, network.end_s, strict=True):
        alone_s = one.size_bytes / min(one.cap, *(capacity[link] for link in one.links))
        assert end_s - one.start_s >= alone_s * (1 - 1e-9)


def _fluid(sent: Sequence[Sent], capacity: Sequence[float]) -> list[float]:
    """Ends of all flows, stepping from change to change with the rates of all flows at once."""
    left = [one.size_bytes for one in sent]
    ends = [INF] * len(sent)
    now_s = 0.0
    while INF in ends:
        running = [flow for flow, one in enumerate(sent) if ends[flow] == INF and one.start_s <= now_s]
        rates = fair_rates([sent[flow].links for flow in running], [sent[flow].cap for flow in running], capacity)
        next_start = min((one.start_s - now_s for one in sent if one.start_s > now_s), default=INF)
        due_s = [left[flow] / rate for flow, rate in zip(running, rates, strict=True)]
        step_s = min([next_start, *due_s])
        now_s += step_s
        for flow, rate, due in zip(running, rates, due_s, strict=True):
            left[flow] -= rate * step_s
            if due == step_s:
                ends[flow] = now_s
    return ends


def test_the_same_traffic_gives_the_same_bits() -> None:
    rng = np.random.default_rng(5)
    sent = [Sent(float(rng.random()), (int(rng.integers(4)), 4), float(rng.random())) for _ in range(40)]
    assert Network(sent, [0.3, 0.5, 0.7, 1.1, 1.3]).end_s == Network(sent, [0.3, 0.5, 0.7, 1.1, 1.3]).end_s


# On a task graph


@dataclass(frozen=True)
class Exchanging:
    """Costs of a test: every op is 1 s of compute, then an all-to-all."""

    flows: tuple[Flow, ...]
    alltoall_s: float
    transfer_bytes: float = 0.0
    transfer_s: float | None = None

    def on(self, placement: Placement) -> Exchanging:  # noqa: ARG002 - the same at every stage
        return self

    def phases(self, task: TaskShape) -> tuple[Phase, ...]:
        phases: list[Phase] = []
        for half, (kind, _) in enumerate(task):
            compute = Phase(Lane.COMPUTE, 1.0, kind, "attn", 0, half)
            after = (len(phases),)
            phases += [compute, Phase(Lane.ALLTOALL, self.alltoall_s, kind, "dispatch", 0, half, after, self.flows)]
        return tuple(phases)


def cluster(gpus_per_node: int, latency_s: float = 0.0) -> Cluster:
    """NVLink with 100 bytes a second, InfiniBand with 50."""
    return Cluster(gpus_per_node, Link(100, latency_s), Link(50, latency_s))


def play(name: str, micro_batches: int, costs: Exchanging, topology: Topology, *, contention: bool) -> Timeline:
    schedule = build(name, len(topology.gpu_of_rank), micro_batches)
    return discrete_event.play(lower(schedule, costs, topology, contention=contention))


def ends(timeline: Timeline) -> dict[tuple[int, str, str], float]:
    return {(rank, lane, label): end for rank, lane, label, _, end in timeline.rows()}


def test_a_transfer_in_the_node_shares_nvlink_with_the_all_to_all() -> None:
    # 0F0 is out at 2, its 200 bytes are half through at 3, when the all-to-all of 0F1 starts: 50 each until 5.
    costs = Exchanging((Flow("nvlink", 100),), alltoall_s=1, transfer_bytes=200)
    free, fair = (play("gpipe", 2, costs, cluster(2).topology(2), contention=flag) for flag in (False, True))
    assert ends(free)[0, "send", "0SEND_F0"] == 4
    assert ends(free)[0, "alltoall", "0F1 dispatch F layer 0"] == 4
    assert ends(fair)[0, "send", "0SEND_F0"] == 5
    assert ends(fair)[0, "alltoall", "0F1 dispatch F layer 0"] == 5


def test_an_all_to_all_with_few_sms_leaves_the_link_to_the_transfer() -> None:
    # It takes 25 a second, so the other 100 bytes of the transfer go at 75.
    costs = Exchanging((Flow("nvlink", 100, cap_bytes_per_s=25),), alltoall_s=4, transfer_bytes=200)
    fair = ends(play("gpipe", 2, costs, cluster(2).topology(2), contention=True))
    first = fair[0, "alltoall", "0F0 dispatch F layer 0"]
    assert first == 5
    assert fair[0, "send", "0SEND_F0"] == pytest.approx(6 + 4 / 3)
    assert fair[0, "alltoall", "0F1 dispatch F layer 0"] == 10


@pytest.mark.parametrize(
    ("flow", "gpus_per_node"),
    [(Flow("nvlink", 100), 1), (Flow("infiniband", 50), 2)],
    ids=["transfer between nodes, all-to-all inside", "transfer inside the node, all-to-all between"],
)
def test_tiers_do_not_slow_each_other(flow: Flow, gpus_per_node: int) -> None:
    costs = Exchanging((flow,), alltoall_s=1, transfer_bytes=200)
    topology = cluster(gpus_per_node).topology(2)
    free, fair = (play("gpipe", 1, costs, topology, contention=flag) for flag in (False, True))
    assert ends(fair) == pytest.approx(ends(free))
    several = [ends(play("gpipe", 2, costs, topology, contention=flag)) for flag in (False, True)]
    alltoall = [
        {key: end for key, end in one.items() if key[:2] == (0, "alltoall") and "F" in key[2]} for one in several
    ]
    assert alltoall[0] == pytest.approx(alltoall[1])


def test_both_tiers_of_an_all_to_all_run_at_once_and_the_later_ends_it() -> None:
    costs = Exchanging((Flow("nvlink", 100), Flow("infiniband", 200)), alltoall_s=4.5, transfer_s=0.0)
    fair = ends(play("gpipe", 1, costs, cluster(1).topology(1), contention=True))
    assert fair[0, "alltoall", "0F0 dispatch F layer 0"] == 1 + 0.5 + 4


def routes(graph: TaskGraph, topology: Topology, node: int) -> list[list[str]]:
    flows = flows_of(graph, topology)
    names = ["->".join("".join(map(str, place)) for place in link) for link in flows.links]
    return [
        [names[link] for link in flows.routes[flows.route[row]]]
        for row in range(flows.first[node], flows.first[node + 1])
    ]


def test_an_expert_group_inside_a_node_uses_nvlink_both_ways() -> None:
    # Groups of four in nodes of eight: rank 1 is GPU 4 of node 0, and the stages' transfer stays in the node.
    topology = cluster(8).topology(2, 4)
    costs = Exchanging((Flow("nvlink", 100), Flow("infiniband", 0)), alltoall_s=1, transfer_bytes=200)
    graph = lower(build("gpipe", 2, 1), costs, topology, contention=True)
    phases = {graph.label(node): node for node in range(graph.nodes)}
    own = ["gpu4->nvswitch0", "nvswitch0->gpu4"]
    assert routes(graph, topology, phases["1F0 dispatch F layer 0"]) == [own]
    assert routes(graph, topology, phases["0SEND_F0"]) == [["gpu0->nvswitch0", "nvswitch0->gpu4"]]
    assert routes(graph, topology, phases["1SEND_B0"]) == [["gpu4->nvswitch0", "nvswitch0->gpu0"]]
    assert routes(graph, topology, phases["0F0 attn F layer 0"]) == []


def test_an_expert_group_over_nodes_uses_both_tiers_and_stages_the_nics() -> None:
    # Groups of sixteen over two nodes of eight: rank 1 is GPU 16, in node 2.
    topology = cluster(8).topology(2, 16)
    costs = Exchanging((Flow("nvlink", 100), Flow("infiniband", 50)), alltoall_s=1, transfer_bytes=200)
    graph = lower(build("gpipe", 2, 1), costs, topology, contention=True)
    phases = {graph.label(node): node for node in range(graph.nodes)}
    assert routes(graph, topology, phases["1F0 dispatch F layer 0"]) == [
        ["gpu16->nvswitch2", "nvswitch2->gpu16"],
        ["nic16->fabric", "fabric->nic16"],
    ]
    assert routes(graph, topology, phases["0SEND_F0"]) == [["nic0->fabric", "fabric->nic16"]]


schedules = st.sampled_from(
    ["gpipe", "1f1b", "zb-h1", "interleaved-1f1b", "1f1b-overlap", "zb-v", "dualpipe", "chimera"]
)


@st.composite
def runs(draw: st.DrawFn) -> tuple[str, int, Exchanging, Topology]:
    flow = st.builds(
        Flow, st.sampled_from(["nvlink", "infiniband"]), st.floats(0, 300), st.one_of(st.just(INF), st.floats(10, 100))
    )
    flows = tuple(draw(st.lists(flow, max_size=2, unique_by=lambda one: one.tier)))
    width = {"nvlink": 100, "infiniband": 50}
    slowest_s = max((one.size_bytes / min(one.cap_bytes_per_s, width[one.tier]) for one in flows), default=0.0)
    costs = Exchanging(flows, slowest_s + draw(st.floats(0, 1)), transfer_bytes=draw(st.floats(0, 300)))
    topology = cluster(draw(st.sampled_from([1, 2, 8])), latency_s=draw(st.sampled_from([0.0, 0.1]))).topology(4)
    return draw(schedules), 8, costs, topology


@given(runs())
def test_sharing_never_helps_and_links_bound_the_makespan(run: tuple[str, int, Exchanging, Topology]) -> None:
    name, micro_batches, costs, topology = run
    free = play(name, micro_batches, costs, topology, contention=False)
    fair = play(name, micro_batches, costs, topology, contention=True)
    assert (fair.start_s >= free.start_s - 1e-9).all()
    assert (fair.end_s - fair.start_s >= fair.graph.duration_s * (1 - 1e-9) - 1e-9).all()
    flows = flows_of(fair.graph, topology)
    carried = np.zeros(len(flows.links))
    for size_bytes, route in zip(flows.size_bytes, flows.route, strict=True):
        carried[list(flows.routes[route])] += size_bytes
    assert (carried / flows.capacity_bytes_per_s <= fair.makespan_s * (1 + 1e-9)).all()


@given(
    st.sampled_from(["gpipe", "1f1b"]),
    st.floats(0, 300),
    st.floats(0, 300),
    st.sampled_from([1, 8]),
)
def test_one_flow_at_a_time_takes_what_it_takes_alone(
    name: str, alltoall_bytes: float, transfer_bytes: float, gpus_per_node: int
) -> None:
    flows = (Flow("nvlink", alltoall_bytes), Flow("infiniband", alltoall_bytes))
    costs = Exchanging(flows, alltoall_bytes / 50 + 0.25, transfer_bytes)
    topology = cluster(gpus_per_node, latency_s=0.5).topology(3)
    free, fair = (play(name, 1, costs, topology, contention=flag) for flag in (False, True))
    np.testing.assert_allclose(fair.start_s, free.start_s, rtol=1e-9)
    np.testing.assert_allclose(fair.end_s, free.end_s, rtol=1e-9)


def test_a_node_that_lasts_longer_carries_more() -> None:
    costs = Exchanging((Flow("nvlink", 100),), alltoall_s=1.5, transfer_bytes=200)
    topology = cluster(2, latency_s=0.5).topology(2)
    graph = lower(build("gpipe", 2, 1), costs, topology, contention=True)
    slow = replace(graph, duration_s=graph.duration_s * 3)
    np.testing.assert_allclose(discrete_event.play(slow).end_s, 3 * discrete_event.play(graph).end_s)
    np.testing.assert_allclose(flows_of(slow, topology).size_bytes, 3 * flows_of(graph, topology).size_bytes)


def test_a_phase_shorter_than_its_flows_is_refused() -> None:
    costs = Exchanging((Flow("nvlink", 100), Flow("infiniband", 100)), alltoall_s=1.5, transfer_s=0.0)
    with pytest.raises(UserError) as error:
        play("gpipe", 1, costs, cluster(8).topology(1), contention=True)
    assert str(error.value) == (
        "0F0 dispatch F layer 0 lasts 1.5 s, but its flows take 2 s with every link to themselves; "
        "a phase's duration holds its slowest flow"
    )


def test_only_flows_that_share_unfix_durations() -> None:
    topology = cluster(8).topology(2)
    schedule = build("gpipe", 2, 1)
    bytes_, seconds = Exchanging((), 0.0, transfer_bytes=1.0), Exchanging((), 0.0, transfer_s=1.0)
    assert not lower(schedule, bytes_, topology, contention=True).fixed_durations
    assert lower(schedule, seconds, topology, contention=True).fixed_durations
    assert lower(schedule, bytes_, topology).fixed_durations


def test_a_large_graph_plays_fast() -> None:
    """80,000 phases, half of them all-to-alls of two flows, and 18,750 transfers that share their links."""
    costs = Exchanging((Flow("nvlink", 30), Flow("infiniband", 20)), alltoall_s=0.5, transfer_bytes=10.0)
    schedule = build("1f1b", 16, 1250)
    graph = lower(schedule, costs, cluster(8, latency_s=0.01).topology(16, 64), contention=True)
    assert graph.first_transfer == 80_000
    begin = time.process_time()
    discrete_event.play(graph)
    assert time.process_time() - begin < 20


# SMs on demand


@dataclass(frozen=True)
class Script:
    """Costs of a test: F is the phases given, B takes no time."""

    forward: tuple[Phase, ...]
    transfer_s: float | None = 0.0
    transfer_bytes: float = 0.0

    def on(self, placement: Placement) -> Script:  # noqa: ARG002 - the same at every stage
        return self

    def phases(self, task: TaskShape) -> tuple[Phase, ...]:
        return self.forward if task[0][0] == F else (Phase(Lane.COMPUTE, 0.0, task[0][0]),)


def ends_of(*forward: Phase) -> list[float]:
    """Ends of the phases of one forward on one rank."""
    graph = lower(build("gpipe", 1, 1), Script(forward))
    assert not graph.fixed_durations
    return list(map(float, discrete_event.play(graph).end_s[: len(forward)]))


def test_compute_is_fast_once_the_all_to_all_is_over() -> None:
    # A third of the compute is done beside the all-to-all, the other two thirds take 2/3 x 2 s.
    assert ends_of(Phase(Lane.ALLTOALL, 1, F), Phase(Lane.COMPUTE, 3, F, alone_s=2)) == pytest.approx([1, 1 + 4 / 3])


def test_compute_slows_down_when_an_all_to_all_starts() -> None:
    # The second compute phase starts with the all-to-all, does two thirds of its work in those 2 s, the rest in 2/3 s.
    assert ends_of(
        Phase(Lane.COMPUTE, 1.5, F, alone_s=1),
        Phase(Lane.ALLTOALL, 2, F, after=(0,)),
        Phase(Lane.COMPUTE, 3, F, alone_s=2),
        Phase(Lane.COMPUTE, 1.5, F, alone_s=1),
    ) == pytest.approx([1, 3, 3 + 2 / 3, 4 + 2 / 3])


def test_all_to_alls_in_a_row_count_as_one() -> None:
    assert ends_of(
        Phase(Lane.ALLTOALL, 1, F), Phase(Lane.ALLTOALL, 1, F), Phase(Lane.COMPUTE, 3, F, alone_s=2)
    ) == pytest.approx([1, 2, 2 + 2 / 3])


def test_a_rank_has_its_sms_for_itself() -> None:
    """The all-to-all of one rank slows the compute of no other: each rank's forward lasts the same."""
    forward = (Phase(Lane.ALLTOALL, 1, F), Phase(Lane.COMPUTE, 3, F, alone_s=2))
    timeline = discrete_event.play(lower(build("gpipe", 4, 4), Script(forward)))
    is_forward = timeline.task_end_s > timeline.task_start_s
    lasted_s = (timeline.task_end_s - timeline.task_start_s)[is_forward]
    assert lasted_s == pytest.approx(np.full(16, 1 + 4 / 3))


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """Phases on both lanes, some waiting for earlier ones on the other."""
    seconds = st.floats(0.1, 5)
    phases = [Phase(Lane.COMPUTE, 1.0, F)]
    for position in range(1, draw(st.integers(2, 8))):
        after = tuple(draw(st.lists(st.integers(0, position - 1), max_size=1)))
        if draw(st.booleans()):
            phases.append(Phase(Lane.ALLTOALL, draw(seconds), F, after=after))
        else:
            beside_s = draw(seconds)
            phases.append(Phase(Lane.COMPUTE, beside_s, F, after=after, alone_s=beside_s * draw(st.floats(0.1, 1.0))))
    return Script(tuple(phases), transfer_s=draw(st.floats(0, 1)))


@given(scripts(), st.sampled_from(["gpipe", "1f1b"]))
def test_the_work_of_every_compute_phase_gets_done(script: Script, name: str) -> None:
    """Time beside an all-to-all over its time there, plus time alone over its time alone, is the whole phase."""
    timeline = discrete_event.play(lower(build(name, 2, 3), script))
    graph = timeline.graph
    for node in range(graph.first_transfer):
        phase = graph.phases[graph.phase[node]]
        lasted_s = timeline.end_s[node] - timeline.start_s[node]
        if phase.alone_s is None:
            assert lasted_s == pytest.approx(phase.duration_s, abs=1e-9)
            continue
        others = np.flatnonzero(graph.on(Lane.ALLTOALL, int(graph.rank[node])))
        begin = np.maximum(timeline.start_s[others], timeline.start_s[node])
        beside_s = np.maximum(np.minimum(timeline.end_s[others], timeline.end_s[node]) - begin, 0).sum()
        done = beside_s / phase.duration_s + (lasted_s - beside_s) / phase.alone_s
        assert done == pytest.approx(1, abs=1e-6)


def test_no_all_to_all_at_all_leaves_every_sm_to_compute() -> None:
    phases = (Phase(Lane.COMPUTE, 3, F, alone_s=2), Phase(Lane.COMPUTE, 3, F, alone_s=1))
    assert ends_of(*phases) == [2, 3]


def test_shared_links_and_shared_sms_together() -> None:
    # The transfer of 0F0 and the all-to-all of 0F1 share NVLink, as above, so the all-to-all lasts 2 s in place of 1.
    # Meanwhile 0F1's second compute phase does its work at the slow rate: 2 s of 3; the last third takes 2/3 s.
    forward = (
        Phase(Lane.COMPUTE, 1, F),
        Phase(Lane.ALLTOALL, 1, F, after=(0,), flows=(Flow("nvlink", 100),)),
        Phase(Lane.COMPUTE, 3, F, alone_s=2),
    )
    costs = Script(forward, transfer_s=None, transfer_bytes=200)
    schedule, topology = build("gpipe", 2, 2), cluster(2).topology(2)
    alone = discrete_event.play(lower(schedule, costs, topology))
    assert alone.task_end_s[:2] == pytest.approx([1 + 1 + 4 / 3, 2 * (2 + 4 / 3)])
    shared = discrete_event.play(lower(schedule, costs, topology, contention=True))
    # 0F0 is out at 10/3. From 13/3 on both share; the transfer has 100 left, the all-to-all 100: both end at 19/3.
    assert shared.end_s[4] == pytest.approx(19 / 3)
    assert shared.end_s[5] == pytest.approx(19 / 3 + 2 / 3)


# In a configuration

TWO_RANKS = {
    "pipeline": {"ranks": 2, "micro_batches": 2},
    "schedule": "gpipe",
    "costs": {"forward": 1, "backward_input": 1, "backward_weight": 1, "transfer": "200 B"},
    "cluster": {"nvlink": {"bandwidth": "100 B/s"}},
}


def test_contention_in_a_configuration() -> None:
    # 0F0's 200 bytes leave at 1, 0F1's at 2: alone they would arrive at 3 and 4. Sharing from 2 on, the first has 100
    # left and arrives at 4, the second then has 100 left and arrives at 5.
    free, fair = simulate(TWO_RANKS), simulate(TWO_RANKS, contention="fair")
    assert free.timeline is not None
    assert fair.timeline is not None
    assert ends(free.timeline)[1, "recv", "1RECV_F1"] == 4
    assert ends(fair.timeline)[1, "recv", "1RECV_F0"] == 4
    assert ends(fair.timeline)[1, "recv", "1RECV_F1"] == 5
    assert (free.engine, fair.engine) == ("longest-path", "simpy")


def test_contention_is_off_unless_asked_for() -> None:
    assert load_experiment(TWO_RANKS).contention == "none"
    assert load_experiment(TWO_RANKS, {"contention": "fair"}).contention == "fair"


def test_an_unknown_contention_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^config: contention: .*'none' or 'fair'"):
        load_experiment(TWO_RANKS, {"contention": "fifo"})


def test_the_longest_path_engine_cannot_share() -> None:
    with pytest.raises(UserError, match="engine: longest-path"):
        simulate(TWO_RANKS, contention="fair", engine="longest-path")


def test_lowering_with_contention_needs_a_cluster() -> None:
    with pytest.raises(UserError, match="contention needs a cluster"):
        lower(build("gpipe", 2, 1), Exchanging((), 0.0, transfer_s=0.0), contention=True)


def test_certificate_catches_unfair_rates() -> None:
    """The check above is no rubber stamp."""
    for rates in ([7.0, 3.0], [4.0, 4.0], [6.0, 6.0]):
        with pytest.raises(AssertionError):
            _check_certificate([[0], [0]], [INF, INF], [10.0], rates)
