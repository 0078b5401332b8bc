"""The parts that ops are made of, each with its time alone and beside what shares its GPU.

A part is one phase to be: a block of a layer for one kind of work, an all-to-all, the embedding, the head. It has two
times, since an overlapped pair divides the GPU: ``alone_s`` with all SMs (or idle links) and ``beside_s`` while the
other lane is busy. Formulas give both. A measured time takes the place of ``beside_s``, which is what traces of pairs
show; for compute, ``alone_s`` is then computed back from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias

from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.base.precision import BF16_BYTES
from dualpipe_sim.base.show import brief
from dualpipe_sim.costs.alltoall import AllToAll, Exchange, payload_bytes
from dualpipe_sim.costs.compute import (
    Block,
    Compute,
    Work,
    Workload,
    embedding_compute,
    head_compute,
    layer_compute,
    mtp_compute,
)
from dualpipe_sim.costs.phases import Flow
from dualpipe_sim.costs.tensor_parallel import CutBlock, TensorGroup
from dualpipe_sim.hardware.cluster import Tier
from dualpipe_sim.hardware.collectives import ALLTOALL_STEPS, AllToAllStep
from dualpipe_sim.model.architecture import Layer, Model
from dualpipe_sim.order.ops import Kind

Sharing: TypeAlias = Literal["reserved", "on-demand", "none"]

_BLOCKS: tuple[Block, ...] = ("attn", "mlp")
_WORKS: tuple[Work, ...] = ("F", "I", "W")


@dataclass(frozen=True)
class Overlap:
    """How compute and communication share a GPU in an overlapped pair.

    Attributes:
        communication_sms: SMs that the all-to-all takes, alone or not; compute beside it has the others.
        sharing: ``reserved``: compute has the others for all of a pair's slot; ``on-demand``: only while an
            all-to-all runs, and all of them otherwise; ``none``: as on demand, but none are kept free for it, as for
            NCCL's: it starts when a kernel of compute ends.
        chunk_tokens: tokens of a chunk that a channel sends; None for the best size.
        alltoall_beside: with ``none``, what an all-to-all takes beside compute, once it has SMs, over its time alone;
            1.4 to 1.7 on two H100.

    """

    communication_sms: int = 20
    sharing: Sharing = "reserved"
    chunk_tokens: int | None = None
    alltoall_beside: float = 1.5

    @property
    def on_demand(self) -> bool:
        """Whether compute is slower only while an all-to-all runs."""
        return self.sharing != "reserved"

    @property
    def behind_kernels(self) -> bool:
        """Whether an all-to-all starts only when a kernel of compute ends."""
        return self.sharing == "none"


@dataclass(frozen=True)
class Measured:
    """Times of an MoE layer in overlapped pairs that stand in for the formulas'; empty for none.

    Attributes:
        compute: kernels of a compute phase beside communication, without the gaps between them; those of
            attention hold for every layer.
        alltoall_s: whole all-to-alls beside compute, once they have SMs.

    """

    compute: Mapping[tuple[Block, Work], Compute] = field(default_factory=dict)
    alltoall_s: Mapping[AllToAllStep, float] = field(default_factory=dict)

    __repr__ = brief


class Part(NamedTuple):
    """One phase to be.

    Attributes:
        lane: lane that it occupies.
        name: what it does.
        kind: kind code of the work.
        alone_s: seconds with the GPU to itself.
        beside_s: seconds beside a phase of the other lane.
        alone_flows: bytes that it puts on links.
        beside_flows: the same beside compute, which makes it slower.
        before: the tensor-parallel group's collective that it waits for.
        after: the one that waits for it.
        kernels: how many kernels compute is, where an all-to-all gets SMs only as one ends, else 0.

    """

    lane: Lane
    name: str
    kind: int
    alone_s: float
    beside_s: float
    alone_flows: tuple[Flow, ...] = ()
    beside_flows: tuple[Flow, ...] = ()
    before: Part | None = None
    after: Part | None = None
    kernels: int = 0


@dataclass(frozen=True)
class Parts:
    """All parts of a model in one setting.

    Attributes:
        model: the model, or one GPU's share of it in a tensor-parallel group.
        load: one micro-batch on one GPU, all SMs computing.
        alltoall: the all-to-all of the expert-parallel group; None where there is none.
        overlap: how compute and communication share the GPU.
        measured: times that stand in for the formulas'.
        tensor_group: the tensor-parallel group; None where tensors are whole.

    """

    model: Model
    load: Workload
    alltoall: AllToAll | None
    overlap: Overlap
    measured: Measured
    tensor_group: TensorGroup | None = None

    __repr__ = brief

    @cached_property
    def beside(self) -> Workload:
        """The same micro-batch on the SMs that communication leaves."""
        return replace(self.load, sms=self.load.gpu.sms - self.overlap.communication_sms)

    @property
    def recomputed(self) -> bool:
        """Whether the backward runs the forward of whole layers again."""
        return self.load.recipe.recompute.full

    def layer(self, layer: int) -> dict[tuple[Block, Work], Part]:
        """Return the compute parts of a layer; those of multi-token prediction follow the model's in number."""
        return self._layers[self._kind(layer)]

    def exchanges(self, layer: int) -> dict[AllToAllStep, Part]:
        """Return the all-to-alls of a layer; none where it is dense or its experts are not spread."""
        return self._exchanges if self._kind(layer).moe else {}

    @cached_property
    def embedding(self) -> dict[Work, Part]:
        """The token embedding."""
        return self._in_group("embedding", _always("embedding", embedding_compute(self.model, self.load)))

    @cached_property
    def head(self) -> dict[Work, Part]:
        """The output head with the loss."""
        return self._in_group("head", _always("head", head_compute(self.model, self.load)))

    @cached_property
    def mtp(self) -> dict[Work, Part]:
        """What a multi-token prediction module does before its layer: the next token's embedding, joined in."""
        lookup, projection = embedding_compute(self.model, self.load), mtp_compute(self.model, self.load)
        joined = {work: _sum(lookup[work], projection[work]) for work in lookup}
        return _always("mtp", joined)

    def _kind(self, layer: int) -> Layer:
        """Return a layer's kind; one of multi-token prediction, numbered on, is as the model's last."""
        return self.model.layer_kinds()[min(layer, self.model.layers - 1)]

    @cached_property
    def _exchanges(self) -> dict[AllToAllStep, Part]:
        if self.alltoall is None or self.alltoall.group.gpus == 1:
            return {}
        return {step: self._exchange(self.alltoall, step) for step in ALLTOALL_STEPS}

    @cached_property
    def _layers(self) -> dict[Layer, dict[tuple[Block, Work], Part]]:
        return {kind: self._layer(kind) for kind in set(self.model.layer_kinds())}

    def _layer(self, kind: Layer) -> dict[tuple[Block, Work], Part]:
        """Return the compute parts of a kind of layer, measured ones in place of the formulas'."""
        alone, beside = (layer_compute(self.model, kind, load) for load in (self.load, self.beside))
        for (block, work), kernels in self.measured.compute.items():
            if kind.moe or block == "attn":
                measured = kernels._replace(
                    gap_s=kernels.busy_s * self.load.gpu.kernel_gap, kernels=alone[block, work].kernels
                )
                beside[block, work] = measured
                alone[block, work] = _with_sms(measured, self.beside.share_of_sms)
        parts = {
            (block, work): Part(
                Lane.COMPUTE,
                block,
                Kind[work],
                alone[block, work].duration_s,
                beside[block, work].duration_s,
                kernels=alone[block, work].kernels if self.overlap.behind_kernels else 0,
            )
            for block, work in alone
        }
        # Routed experts are whole and see the GPU's own tokens; shared ones are cut like a dense FFN.
        whole = kind.moe and self.model.experts is not None and not self.model.experts.shared
        return parts | {
            (block, work): part
            for block in (("attn",) if whole else _BLOCKS)
            for work, part in self._in_group("layer", {work: parts[block, work] for work in _WORKS}).items()
        }

    def _in_group(self, block: CutBlock, parts: dict[Work, Part]) -> dict[Work, Part]:
        """Return the parts of a block with the collectives of the tensor-parallel group around them."""
        if self.tensor_group is None:
            return parts
        around = {work: self.tensor_group.around(block, work) for work in parts}
        return {
            work: part._replace(
                before=self._collective(around[work][0], part.kind), after=self._collective(around[work][1], part.kind)
            )
            for work, part in parts.items()
        }

    def _collective(self, name: str | None, kind: int) -> Part | None:
        """Return the part of a collective of a whole micro-batch's hidden state, in BF16 in any recipe (assumed)."""
        if name is None or self.tensor_group is None:
            return None
        size_bytes = self.load.tokens * self.model.hidden * BF16_BYTES
        seconds, flows = self.tensor_group.seconds(name, size_bytes), self.tensor_group.flows(name, size_bytes)
        return Part(Lane.ALLTOALL, name, kind, seconds, seconds, flows, flows)

    def _exchange(self, alltoall: AllToAll, step: AllToAllStep) -> Part:
        """Return the part of one all-to-all; a backward's (``combine I``) is of kind I, since W has none."""
        tokens, hidden = self.load.own_tokens, self.model.hidden
        alone = alltoall.exchange(
            tokens,
            hidden * payload_bytes(step, self.load.recipe),
            sms=self.overlap.communication_sms,
            chunk_tokens=self.overlap.chunk_tokens,
            skew=self.load.routing_skew,
        )
        if self.overlap.behind_kernels:
            beside = _lasting(alone, alone.duration_s * self.overlap.alltoall_beside)
        else:
            beside = alltoall.overlapped(alone, step, tokens, hidden)
        if step in self.measured.alltoall_s:
            beside = _lasting(beside, self.measured.alltoall_s[step])
        name, work = step.split()
        return Part(
            Lane.ALLTOALL,
            name,
            Kind["F" if work == "F" else "I"],
            alone.duration_s,
            beside.duration_s,
            _flows(alone, alltoall),
            _flows(beside, alltoall),
        )


def _always(name: str, compute: Mapping[Work, Compute]) -> dict[Work, Part]:
    """Return parts that nothing runs beside."""
    return {work: Part(Lane.COMPUTE, name, Kind[work], one.duration_s, one.duration_s) for work, one in compute.items()}


def _sum(one: Compute, other: Compute) -> Compute:
    """Return two pieces of compute as one, each kind of seconds added."""
    return Compute(
        one.gemm_s + other.gemm_s,
        one.attention_s + other.attention_s,
        one.other_s + other.other_s,
        one.gap_s + other.gap_s,
        one.kernels + other.kernels,
    )


def _with_sms(beside: Compute, share: float) -> Compute:
    """Return a phase that ran on a share of the SMs as it runs on all of them.

    GEMMs and attention take time in inverse proportion to SMs; what memory bounds takes the same, and the gaps between
    kernels stay the same part of the time in kernels.
    """
    gap = beside.gap_s / beside.busy_s if beside.busy_s else 0.0
    alone = beside._replace(gemm_s=beside.gemm_s * share, attention_s=beside.attention_s * share)
    return alone._replace(gap_s=alone.busy_s * gap)


def _lasting(exchange: Exchange, seconds: float) -> Exchange:
    """Return an exchange that lasts so long.

    Bytes cannot grow, so one that is to last longer has slower links and more latency. One that is to be shorter has
    fewer bytes at the same bandwidth, and less latency.
    """
    stretch = seconds / exchange.duration_s
    fewer = min(1.0, stretch)
    return replace(
        exchange,
        latency_s=exchange.latency_s * stretch,
        infiniband_bytes=exchange.infiniband_bytes * fewer,
        nvlink_bytes=exchange.nvlink_bytes * fewer,
        infiniband_bytes_per_s=exchange.infiniband_bytes_per_s * fewer / stretch,
        nvlink_bytes_per_s=exchange.nvlink_bytes_per_s * fewer / stretch,
    )


def _flows(exchange: Exchange, alltoall: AllToAll) -> tuple[Flow, ...]:
    """Return what an exchange puts on the links; a kernel that achieves a share of one occupies it whole.

    A kernel that achieves 80 % of a link leaves nothing for others while it runs alone. So its flow has 1/0.8 of the
    bytes at 1/0.8 of the rate: as long as before, and the link is full.
    """
    kernel = alltoall.kernel
    tiers: tuple[tuple[Tier, float, float, float], ...] = (
        ("infiniband", exchange.infiniband_bytes, exchange.infiniband_bytes_per_s, kernel.infiniband_efficiency),
        ("nvlink", exchange.nvlink_bytes, exchange.nvlink_bytes_per_s, kernel.nvlink_efficiency),
    )
    return tuple(Flow(tier, size / share, rate / share) for tier, size, rate, share in tiers if size)
