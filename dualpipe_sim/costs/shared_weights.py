"""Weights that GPUs share out and gather, for each op or a stage at a time, and gradients that they scatter.

Fully sharded data parallelism (https://arxiv.org/abs/2304.11277) and ZeRO-3 (https://arxiv.org/abs/1910.02054) gather a
layer's weights shortly before it runs, beside the layer before it, and reduce its gradients beside the next one. Under
torch's pipelining all layers of a stage are gathered one after the other, and stay for as many ops as there are. Where
several groups hold copies, a GPU's share of the gradients is then summed over the groups.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dualpipe_sim.base.precision import BF16_BYTES
from dualpipe_sim.base.show import brief
from dualpipe_sim.costs.collective import Collective
from dualpipe_sim.costs.phases import GRADIENTS, WEIGHTS, Flow
from dualpipe_sim.hardware.cluster import Cluster, Tier
from dualpipe_sim.hardware.groups import Group
from dualpipe_sim.model.architecture import Parameters
from dualpipe_sim.model.parallelism import Parallelism
from dualpipe_sim.model.state import local_parameters


@dataclass(frozen=True)
class SharedWeights:
    """How a pipeline rank's GPUs share weights out.

    Attributes:
        cut: who holds what.
        cluster: the links between them.
        gradient_bytes: bytes of a gradient on its way.

    """

    cut: Parallelism
    cluster: Cluster
    gradient_bytes: float = BF16_BYTES

    __repr__ = brief

    def gather(self, parameters: Parameters) -> Collective:
        """Return the gathering of a unit's weights, in BF16."""
        local = local_parameters(parameters, self.cut.expert)
        pieces = zip(self._shards, (local.non_expert, local.expert), strict=True)
        return _joined(WEIGHTS, [(group, group.ring(each * BF16_BYTES)) for group, each in pieces if each])

    def scatter(self, parameters: Parameters) -> Collective:
        """Return the reduction of its gradients: scattered in a group, then summed over the groups with copies."""
        local = local_parameters(parameters, self.cut.expert)
        moved = []
        for shards, copies, each in zip(self._shards, self._copies, (local.non_expert, local.expert), strict=True):
            if each:
                size_bytes = each * self.gradient_bytes
                moved.append((shards, shards.ring(size_bytes)))
                moved.append((copies, copies.ring(2 * size_bytes / shards.gpus)))
        return _joined(GRADIENTS, moved)

    def gather_all(self, units: Iterable[Parameters]) -> Collective:
        """Return the gathering of several units' weights, one after the other."""
        return _in_a_row(WEIGHTS, [self.gather(one) for one in units])

    def scatter_all(self, units: Iterable[Parameters]) -> Collective:
        """Return the reduction of several units' gradients, one after the other."""
        return _in_a_row(GRADIENTS, [self.scatter(one) for one in units])

    @property
    def _strides(self) -> tuple[int, int]:
        return self.cut.tensor, self.cut.expert * self.cut.expert_tensor

    @property
    def _shards(self) -> tuple[Group, Group]:
        """Groups that share out non-expert weights, and experts."""
        holders = self.cut.over(self.cut.holders), self.cut.over(self.cut.expert_holders)
        first, second = (Group(self.cluster, *one) for one in zip(holders, self._strides, strict=True))
        return first, second

    @property
    def _copies(self) -> tuple[Group, Group]:
        """Groups of those that have the same share."""
        all_of_them = self.cut.holders, self.cut.expert_holders
        first, second = (
            Group(self.cluster, -(-holders // shards.gpus), stride * shards.gpus)
            for holders, shards, stride in zip(all_of_them, self._shards, self._strides, strict=True)
        )
        return first, second


def _joined(name: str, moved: list[tuple[Group, dict[Tier, float]]]) -> Collective:
    """Return collectives that run one after the other as one; those of a lone GPU are none."""
    return _in_a_row(name, [Collective.of(name, group, by_tier) for group, by_tier in moved if group.gpus > 1])


def _in_a_row(name: str, parts: list[Collective]) -> Collective:
    flows: dict[Tier, float] = {}
    for flow in (flow for part in parts for flow in part.flows):
        flows[flow.tier] = flows.get(flow.tier, 0.0) + flow.size_bytes
    seconds, toll_s = (sum(times) for times in ((part.duration_s for part in parts), (part.toll_s for part in parts)))
    return Collective(name, seconds, tuple(Flow(*one) for one in flows.items()), toll_s)
