"""Context parallelism: what GPUs that share a sequence out send each other of its keys and values, and what it takes.

Causal attention is as much for each of them where each has a share of the start and of the end of the sequence
(zigzag; https://arxiv.org/abs/2407.21783, section 3.3.2). Where each has a run of it, the last one's is as much as that
of all keys before it, and the others wait.
"""

from __future__ import annotations

from dataclasses import dataclass

from dualpipe_sim.base.precision import BF16_BYTES
from dualpipe_sim.base.show import brief
from dualpipe_sim.costs.collective import Collective
from dualpipe_sim.costs.phases import CONTEXT
from dualpipe_sim.costs.rates import attention_s
from dualpipe_sim.costs.workload import Work, Workload
from dualpipe_sim.hardware.groups import Group
from dualpipe_sim.model.architecture import Layer
from dualpipe_sim.model.parallelism import ContextExchange


@dataclass(frozen=True)
class ContextGroup:
    """A context-parallel group.

    Attributes:
        group: its GPUs.
        exchange: how they see each other's keys and values.

    """

    group: Group
    exchange: ContextExchange

    __repr__ = brief

    def around(self, layer: Layer, work: Work, load: Workload) -> tuple[Collective | None, Collective | None]:
        """Return what stands before and after a layer's attention, in whose phase its core is."""
        exchanged = layer.attention.exchanged
        if work == "W" or not any(exchanged):
            return None, None
        queries, keys_values, outputs = (load.tokens * elements * BF16_BYTES for elements in exchanged)
        if self.exchange == "ring":
            return self._passed_on(keys_values, layer, work, load), None
        if self.exchange == "gather":
            whole = Collective.of(CONTEXT, self.group, self.group.ring(keys_values * self.group.gpus))
            return (
                whole,
                whole if work == "I" else None,
            )  # gathered again for I, whose gradients are summed and scattered
        before, after = queries + keys_values, outputs
        to_heads, to_tokens = (
            Collective.of(CONTEXT, self.group, self.group.all_to_all(size)) for size in (before, after)
        )
        return (to_heads, to_tokens) if work == "F" else (to_tokens, to_heads)

    def _passed_on(self, keys_values: float, layer: Layer, work: Work, load: Workload) -> Collective | None:
        """Return what a ring takes longer than the attention beside it.

        A step attends to one GPU's keys and values while the next ones come; in I their gradients come with them.
        """
        steps = self.group.gpus - 1
        passed = self.group.next_one(keys_values * (2 if work == "I" else 1))
        step = Collective.of(CONTEXT, self.group, passed).beside(attention_s(layer, work, load) / self.group.gpus)
        if step is None:
            return None
        flows = tuple(flow._replace(size_bytes=flow.size_bytes * steps) for flow in step.flows)
        return Collective(CONTEXT, step.duration_s * steps, flows)
