"""Groups of GPUs: members of a node, and the bytes of collectives on links, against every send counted one by one."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
