"""Seconds of a stage boundary's tensor on its way, given as a time or as bytes over the links."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.costs.phases import ByBoundary, StageCosts
from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.hardware.cluster import Topology
from dualpipe_sim.order.placement import Placement


def by_boundary(amount: ByBoundary, placement: Placement) -> FloatArray:
    """Return an amount for each boundary between two stages of a pipe, shape ``(stages of a pipe - 1,)``."""
    return np.broadcast_to(np.asarray(amount, dtype=np.float64), max(0, len(placement.pipes[0]) - 1))


def hop_s(costs: StageCosts, topology: Topology | None, source: int, target: int, boundary: int) -> float:
    """Return the seconds of a boundary's tensor from one rank to another where no other shares its links.

    None pass on the same rank.

    Raises:
        ScheduleError: the tensor is given as bytes, and there is no topology to say how long they take.

    """
    if source == target:
        return 0.0
    if costs.transfer_s is not None:
        return _at(costs.transfer_s, boundary)
    if topology is None:
        raise ScheduleError("transfers are given as bytes, so a cluster is needed: its links say how long they take")
    return topology.route(source, target).seconds(_at(costs.transfer_bytes, boundary))


def slowest_hop_s(costs: StageCosts, topology: Topology | None, placement: Placement) -> float:
    """Return the seconds of a placement's slowest hop from a stage to the next; the given time where one is given."""
    if isinstance(costs.transfer_s, (int, float)):
        return costs.transfer_s
    hops = {(*hop, boundary) for pipe in placement.pipes for boundary, hop in enumerate(pairwise(pipe))}
    return max((hop_s(costs, topology, *hop) for hop in hops), default=0.0)


def _at(amount: ByBoundary, boundary: int) -> float:
    return amount if isinstance(amount, (int, float)) else amount[boundary]
