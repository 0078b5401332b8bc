"""Shared links under a task graph: which flows pass which links, and what their sharing does to a run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.phases import Flow, Phase
from dualpipe_sim.engine import discrete_event, longest_path
from dualpipe_sim.engine.flows import crowded, flows_of
from dualpipe_sim.engine.play import play as play_on_either
from dualpipe_sim.errors import ConfigError, UserError
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.hardware.cluster import Cluster, Link, Topology
from dualpipe_sim.order.ops import TaskShape
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.schedules.registry import build
from dualpipe_sim.simulation import simulate

if TYPE_CHECKING:
    from tests.conftest import Calls

INF = float("inf")


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
@pytest.mark.slow
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


@given(runs())
@pytest.mark.slow
def test_where_no_link_is_crowded_the_longest_path_is_the_run_that_shares(
    run: tuple[str, int, Exchanging, Topology],
) -> None:
    """Crowded: something takes longer than alone. Then, and only then, the engine that takes turns is asked."""
    name, micro_batches, costs, topology = run
    graph = lower(build(name, 4, micro_batches), costs, topology, contention=True)
    fair = discrete_event.play(graph)
    timeline = play_on_either(graph)
    np.testing.assert_allclose(timeline.end_s, fair.end_s, rtol=1e-6, atol=1e-6)
    slowed = (fair.end_s - fair.start_s > graph.duration_s * (1 + 1e-3) + 1e-6).any()
    alone = longest_path.play(replace(graph, shared=None))
    assert crowded(alone, topology) is (timeline.engine == discrete_event.NAME)
    assert not slowed or crowded(alone, topology)


def test_flows_that_touch_crowd_nothing() -> None:
    """Each all-to-all takes a second of NVLink's whole bandwidth, right behind the one before it."""
    costs = Exchanging((Flow("nvlink", 100),), alltoall_s=1.0)
    topology = cluster(8).topology(2)
    alone = longest_path.play(lower(build("gpipe", 2, 8), costs, topology, contention=True))
    assert not crowded(alone, topology)
    beside = Exchanging((Flow("nvlink", 100),), alltoall_s=1.0, transfer_bytes=10)
    assert crowded(longest_path.play(lower(build("gpipe", 2, 8), beside, topology, contention=True)), topology)


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


@pytest.mark.slow
def test_sharing_takes_as_many_calls_a_flow_at_any_length(calls: Calls) -> None:
    """Two flows an all-to-all and transfers beside them, on links that all of them share."""
    costs = Exchanging((Flow("nvlink", 30), Flow("infiniband", 20)), alltoall_s=0.5, transfer_bytes=10.0)
    topology = cluster(8, latency_s=0.01).topology(16, 64)

    def played(micro_batches: int) -> tuple[int, int]:
        graph = lower(build("1f1b", 16, micro_batches), costs, topology, contention=True)
        return calls(partial(discrete_event.play, graph)), graph.nodes

    played(16)
    (few, _), (many, nodes) = played(16), played(160)
    assert many < 10.5 * few
    assert many < 150 * nodes


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
