"""Seconds of a stage boundary's tensor on its way, given as a time or as bytes over the links."""

from __future__ import annotations

from itertools import pairwise

from dualpipe_sim.costs.phases import StageCosts
from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.hardware.cluster import Topology
from dualpipe_sim.order.placement import Placement


def hop_s(costs: StageCosts, topology: Topology | None, source: int, target: int) -> float:
    """Return the seconds of a tensor from one rank to another where no other shares its links; 0 on the same rank.

    Raises:
        ScheduleError: the tensor is given as bytes, and there is no topology to say how long they take.

    """
    if source == target:
        return 0.0
    if costs.transfer_s is not None:
        return costs.transfer_s
    if topology is None:
        raise ScheduleError("transfers are given as bytes, so a cluster is needed: its links say how long they take")
    return topology.route(source, target).seconds(costs.transfer_bytes)


def slowest_hop_s(costs: StageCosts, topology: Topology | None, placement: Placement) -> float:
    """Return the seconds of a placement's slowest hop from a stage to the next; the given time where one is given."""
    if costs.transfer_s is not None:
        return costs.transfer_s
    hops = {hop for pipe in placement.pipes for hop in pairwise(pipe)}
    return max((hop_s(costs, topology, *hop) for hop in hops), default=0.0)
