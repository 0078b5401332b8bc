"""Groups of GPUs: members of a node, and the bytes of collectives on links, against every send counted one by one."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim.errors import UserError
from dualpipe_sim.hardware.cluster import Cluster, Link, Tier
from dualpipe_sim.hardware.collectives import RING_EFFICIENCY, RING_LAUNCH_S
from dualpipe_sim.hardware.groups import Group

SIZE = 720_720.0
"""Bytes of a tensor that all group sizes here divide."""

Sent = defaultdict[tuple[int, Tier], float]
"""Bytes that each member puts on its links."""


@dataclass(frozen=True)
class Laid:
    """A group's members laid on GPUs, one by one."""

    group: Group

    @property
    def members(self) -> range:
        """Their numbers."""
        return range(self.group.gpus)

    def node(self, member: int) -> int:
        """The node of a member's GPU."""
        return member * self.group.stride // self.group.cluster.gpus_per_node

    @property
    def of_nodes(self) -> list[list[int]]:
        """The members in each node."""
        nodes = sorted({self.node(member) for member in self.members})
        return [[member for member in self.members if self.node(member) == node] for node in nodes]

    def tier(self, sender: int, receiver: int) -> Tier:
        """The links between two members."""
        return "nvlink" if self.node(sender) == self.node(receiver) else "infiniband"


def most(sent: Sent, tier: Tier) -> float:
    """Return the bytes of the member that puts most on its links of a tier."""
    return max((size for (_, where), size in sent.items() if where == tier), default=0.0)


def around(laid: Laid, ring: list[int], holds: dict[int, set[int]], share: float, sent: Sent) -> None:
    """Pass what each of a ring's members holds all the way round it."""
    passed = {member: set(holds[member]) for member in ring}
    for _ in range(len(ring) - 1):
        for place, member in enumerate(ring):
            sent[member, laid.tier(member, ring[(place + 1) % len(ring)])] += len(passed[member]) * share
        passed = {ring[(place + 1) % len(ring)]: passed[member] for place, member in enumerate(ring)}
        for member in ring:
            holds[member] |= passed[member]


def gathered_on_rails(laid: Laid) -> Sent:
    """All-gather: first the members of one place in each node, each on its rail, then those of each node."""
    sent: Sent = defaultdict(float)
    holds = {member: {member} for member in laid.members}
    for rail in zip(*laid.of_nodes, strict=True):
        around(laid, list(rail), holds, SIZE / laid.group.gpus, sent)
    for node in laid.of_nodes:
        around(laid, node, holds, SIZE / laid.group.gpus, sent)
    assert all(held == set(laid.members) for held in holds.values())
    return sent


def gathered_in_flat_rings(laid: Laid) -> Sent:
    """All-gather in as many rings as a node has members, each of which leaves nodes by another and has its part."""
    sent: Sent = defaultdict(float)
    inside = len(laid.of_nodes[0])
    for exit_ in range(inside):
        ring = [node[(exit_ + 1 + place) % inside] for node in laid.of_nodes for place in range(inside)]
        holds = {member: {member} for member in laid.members}
        around(laid, ring, holds, SIZE / laid.group.gpus / inside, sent)
    return sent


@st.composite
def groups(draw: st.DrawFn) -> Laid:
    """Draw groups that fill the nodes they are on, as far apart as divides a node or fills whole ones."""
    node = draw(st.sampled_from([1, 2, 4, 8, 16, 72]))
    divisors = [stride for stride in range(1, node + 1) if node % stride == 0]
    stride = draw(st.sampled_from([*divisors, 2 * node, 3 * node]))
    inside = max(1, node // stride)
    members = [few for few in range(1, inside + 1) if inside % few == 0]
    gpus = draw(st.sampled_from(members) | st.integers(1, 5).map(lambda nodes: nodes * inside))
    return Laid(Group(Cluster(node, Link(300e9), Link(50e9)), gpus, stride))


@given(groups())
def test_members_of_a_node_are_those_whose_gpus_are_in_it(laid: Laid) -> None:
    assert laid.group.nodes == len(laid.of_nodes)
    assert {len(node) for node in laid.of_nodes} == {laid.group.inside}


def test_strides_by_hand() -> None:
    eight = Cluster(gpus_per_node=8)
    found = [(Group(eight, *one).inside, Group(eight, *one).nodes) for one in ((8, 1), (8, 2), (4, 8), (16, 4), (2, 4))]
    assert found == [(8, 1), (4, 2), (1, 4), (2, 8), (2, 1)]
    assert Group(Cluster(gpus_per_node=72), 16, 4).nodes == 1


@given(groups())
def test_a_ring_puts_on_nics_what_rails_put_there_and_on_nvlink_no_less(laid: Laid) -> None:
    """Each node must get the (N - 1) / N of the tensor that it has not, through the NICs of its members."""
    counted, found = gathered_on_rails(laid), laid.group.ring(SIZE)
    assert isclose(found.get("infiniband", 0.0), most(counted, "infiniband"))
    assert found.get("nvlink", 0.0) >= most(counted, "nvlink") * (1 - 1e-12)
    assert found.get("nvlink", 0.0) <= SIZE * (laid.group.gpus - 1) / laid.group.gpus
    if laid.group.nodes == 1 or laid.group.inside == 1:
        flat = gathered_in_flat_rings(laid)
        for tier, size in found.items():
            assert isclose(size, most(flat, tier))


@given(groups())
def test_flat_rings_put_more_on_nics_but_less_than_twice_as_much(laid: Laid) -> None:
    """NCCL's rings pass all nodes one GPU after the other: (n - 1) / n of a tensor crosses, not (N - 1) / N."""
    flat, found = most(gathered_in_flat_rings(laid), "infiniband"), laid.group.ring(SIZE).get("infiniband", 0.0)
    n, nodes, inside = laid.group.gpus, laid.group.nodes, laid.group.inside
    assert isclose(flat, SIZE * (n - 1) / n / inside if nodes > 1 else 0.0)
    assert found * (1 - 1e-12) <= flat <= 2 * found


@given(groups())
def test_an_all_to_all_sends_an_equal_share_to_each_other_one(laid: Laid) -> None:
    sent: Sent = defaultdict(float)
    for sender in laid.members:
        for receiver in laid.members:
            if receiver != sender:
                sent[sender, laid.tier(sender, receiver)] += SIZE / laid.group.gpus
    found = laid.group.all_to_all(SIZE)
    for tier in ("nvlink", "infiniband"):
        assert isclose(found.get(tier, 0.0), most(sent, tier))
    assert isclose(sum(found.values()), SIZE * (laid.group.gpus - 1) / laid.group.gpus)


@given(groups())
def test_the_next_one_that_is_furthest_is_in_another_node_if_any_is(laid: Laid) -> None:
    sent: Sent = defaultdict(float)
    for member in laid.members:
        sent[member, laid.tier(member, (member + 1) % laid.group.gpus)] += SIZE
    tier: Tier = "infiniband" if most(sent, "infiniband") else "nvlink"
    assert laid.group.next_one(SIZE) == {tier: most(sent, tier)}


@pytest.mark.parametrize(
    ("gpus", "stride", "by_tier"),
    [  # of 800 MB, nodes of eight
        (8, 1, {"nvlink": 700e6}),
        (16, 1, {"nvlink": 750e6, "infiniband": 50e6}),  # half of it, through eight NICs
        (32, 1, {"nvlink": 775e6, "infiniband": 75e6}),
        (4, 8, {"infiniband": 600e6}),  # one in each node: a plain ring of NICs
        (8, 4, {"nvlink": 700e6, "infiniband": 300e6}),  # three quarters, through two
        (1, 1, {}),
    ],
)
def test_rings_by_hand(gpus: int, stride: int, by_tier: dict[Tier, float]) -> None:
    assert Group(Cluster(gpus_per_node=8), gpus, stride).ring(800e6) == pytest.approx(by_tier)


def test_the_slower_tier_sets_the_time() -> None:
    """16 GPUs, 800 MB: 750 MB over 300 GB/s are 2.5 ms, 50 MB over a NIC of 50 GB/s one; over one of 10 GB/s five."""
    for nic, seconds in ((50e9, 2.5e-3), (10e9, 5e-3)):
        group = Group(Cluster(8, Link(300e9), Link(nic)), 16)
        assert group.seconds(group.ring(800e6)) == pytest.approx(RING_LAUNCH_S + seconds / RING_EFFICIENCY)
    assert Group(Cluster(), 1).seconds({}) == RING_LAUNCH_S


@given(groups(), st.floats(1.0, 8.0))
def test_more_bandwidth_is_never_slower(laid: Laid, factor: float) -> None:
    one = laid.group
    nvlink, infiniband = (Link(300e9 * factor), Link(50e9 * factor))
    faster = Group(Cluster(one.cluster.gpus_per_node, nvlink, infiniband), one.gpus, one.stride)
    for by_tier in (one.ring(SIZE), one.all_to_all(SIZE), one.next_one(SIZE)):
        assert RING_LAUNCH_S <= faster.seconds(by_tier) <= one.seconds(by_tier)


# Pods.


@dataclass(frozen=True)
class Podded(Laid):
    """Members of a group whose nodes stand in pods."""

    def pod(self, member: int) -> int:
        """The pod of a member's GPU."""
        return member * self.group.stride // self.group.cluster.gpus_per_pod


@st.composite
def podded_groups(draw: st.DrawFn) -> Podded:
    """Draw groups that fill nodes and pods of two to four nodes, with fewer links between pods."""
    laid = draw(groups())
    cluster = laid.group.cluster
    nodes = draw(st.sampled_from([2, 3, 4]))
    pod = nodes * max(cluster.gpus_per_node, laid.group.stride)
    pod += -pod % cluster.gpus_per_node
    fabric = Cluster(
        cluster.gpus_per_node, cluster.nvlink, cluster.infiniband, None, pod, draw(st.sampled_from([1.0, 2.0, 7.0]))
    )
    whole = pod // laid.group.stride
    gpus = laid.group.gpus if laid.group.gpus < whole else whole * draw(st.integers(1, 3))
    return Podded(Group(fabric, gpus, laid.group.stride))


def leaving(laid: Podded, sends: list[tuple[int, int, float]]) -> float:
    """Return the most bytes that leave a pod, over its members."""
    out: defaultdict[int, float] = defaultdict(float)
    for sender, receiver, size in sends:
        if laid.pod(sender) != laid.pod(receiver):
            out[laid.pod(sender)] += size
    members: defaultdict[int, int] = defaultdict(int)
    for member in laid.members:
        members[laid.pod(member)] += 1
    return max((size / members[pod] for pod, size in out.items()), default=0.0)


@given(podded_groups())
def test_what_leaves_a_pod_goes_through_its_links_to_others(laid: Podded) -> None:
    """Each send counted: of rings on rails, of an all-to-all."""
    group, times = laid.group, laid.group.cluster.oversubscription
    flat = Group(
        Cluster(group.cluster.gpus_per_node, group.cluster.nvlink, group.cluster.infiniband), group.gpus, group.stride
    )
    on_rails = [
        (rail[place], rail[(place + 1) % len(rail)], SIZE / group.gpus * (len(rail) - 1))
        for rail in map(list, zip(*laid.of_nodes, strict=True))
        for place in range(len(rail))
        if len(rail) > 1
    ]
    each = SIZE / group.gpus
    to_all = [(one, other, each) for one in laid.members for other in laid.members if one != other]
    for found, free, sends in (
        (group.ring(SIZE), flat.ring(SIZE), on_rails),
        (group.all_to_all(SIZE), flat.all_to_all(SIZE), to_all),
    ):
        nic = free.get("infiniband", 0.0)
        assert isclose(found.get("infiniband", 0.0), max(nic, leaving(laid, sends) * times), rel_tol=1e-9)
        assert found.get("nvlink") == free.get("nvlink")


def test_rings_hardly_leave_a_pod_but_all_to_alls_do() -> None:
    """Llama 3's cluster: pods of 3,072 GPUs, a seventh of their bandwidth between them.

    https://arxiv.org/abs/2407.21783, section 3.3.1. Of 6,144 GPUs, a ring of all leaves each pod once on each of eight
    rails, which share what 3,072 have; of an all-to-all half of all bytes leave.
    """
    llama = Cluster(8, Link(360e9), Link(50e9), None, 3072, 7.0)
    flat = Cluster(8, Link(360e9), Link(50e9))
    assert Group(llama, 6144).ring(SIZE) == Group(flat, 6144).ring(SIZE)
    assert Group(llama, 6144).all_to_all(SIZE)["infiniband"] == pytest.approx(SIZE * 7 / 2)
    assert Group(llama, 3072).all_to_all(SIZE) == Group(flat, 3072).all_to_all(SIZE)
    # Two GPUs, each in another pod, have a seventh of a NIC.
    assert Group(llama, 2, 3072).ring(SIZE)["infiniband"] == pytest.approx(SIZE / 2 * 7)


def test_messages_of_a_pipeline_share_a_pods_links() -> None:
    cluster = Cluster(8, Link(360e9), Link(50e9, 5e-6), None, 16, 4.0)
    topology = cluster.topology(4, 8)  # two ranks in each pod
    inside, across = topology.route(0, 1), topology.route(1, 2)
    assert (inside.bytes_per_s, across.bytes_per_s) == (50e9, 25e9)
    assert inside.latency_s == across.latency_s == pytest.approx(5e-6)
    assert topology.own_links(0, "infiniband")[0] == (("nic", 0), ("pod", 0))


@pytest.mark.parametrize(
    ("pod", "times", "message"),
    [
        (12, 2.0, "cluster.gpus_per_pod: 12 are no whole nodes of 8 GPUs"),
        (0, 2.0, "cluster.gpus_per_pod: is missing; oversubscription is that of a pod's links to others"),
        (16, 0.5, "cluster.oversubscription: must be 1 or more, not 0.5"),
    ],
)
def test_pods_that_cannot_be_are_refused(pod: int, times: float, message: str) -> None:
    with pytest.raises(UserError) as error:
        Cluster(gpus_per_pod=pod, oversubscription=times)
    assert str(error.value) == message
