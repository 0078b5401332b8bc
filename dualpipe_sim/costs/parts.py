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
from dualpipe_sim.costs.collective import Collective
from dualpipe_sim.costs.compute import Compute, embedding_compute, head_compute, layer_compute, mtp_compute
from dualpipe_sim.costs.context_parallel import ContextGroup
from dualpipe_sim.costs.phases import GATHER, SCATTER, Flow
from dualpipe_sim.costs.rates import linear_s
from dualpipe_sim.costs.shared_weights import SharedWeights
from dualpipe_sim.costs.tensor_parallel import CutBlock, TensorGroup, ring
from dualpipe_sim.costs.workload import WORKS, Block, Work, Workload
from dualpipe_sim.errors import UserError
from dualpipe_sim.hardware.cluster import Tier
from dualpipe_sim.hardware.collectives import ALLTOALL_STEPS, AllToAllStep
from dualpipe_sim.hardware.groups import Group
from dualpipe_sim.model.activations import layer_activations
from dualpipe_sim.model.architecture import FeedForward, Layer, Model
from dualpipe_sim.model.linear import Linear
from dualpipe_sim.model.micro_batch import MicroBatch
from dualpipe_sim.model.recipe import Recompute
from dualpipe_sim.order.ops import Kind

Sharing: TypeAlias = Literal["reserved", "on-demand", "none"]

_BLOCKS: tuple[Block, ...] = ("attn", "mlp")


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
        delay_wgrad: when a full backward makes weights' gradients. False: right behind the input's, and what follows
            waits for both, as in Megatron-LM's combined 1F1B. True: as with its ``--delay-wgrad-compute``, beside the
            all-to-all behind the input's, and those of a stage's first attention beside the send of its gradient. None:
            likewise inside of a stage, but all are done when the gradient leaves, as in DualPipe.

    """

    communication_sms: int = 20
    sharing: Sharing = "reserved"
    chunk_tokens: int | None = None
    alltoall_beside: float = 1.5
    delay_wgrad: bool | None = None

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
        before: collectives of groups that it waits for, one after the other.
        after: those that wait for it.
        kernels: how many kernels compute is, where an all-to-all gets SMs only as one ends, else 0.

    """

    lane: Lane
    name: str
    kind: int
    alone_s: float
    beside_s: float
    alone_flows: tuple[Flow, ...] = ()
    beside_flows: tuple[Flow, ...] = ()
    before: tuple[Part, ...] = ()
    after: tuple[Part, ...] = ()
    kernels: int = 0

    def longer(self, seconds: float) -> Part:
        """Return it so many seconds longer, or shorter."""
        return self._replace(alone_s=self.alone_s + seconds, beside_s=self.beside_s + seconds)


class Shared(NamedTuple):
    """What a unit whose weights are shared out takes beside its own parts.

    Attributes:
        gather: of its weights.
        scatter: of its gradients.
        gather_toll_s: seconds that the gathering and compute beside it lose to each other.
        scatter_toll_s: the same of the other.

    """

    gather: Part
    scatter: Part
    gather_toll_s: float = 0.0
    scatter_toll_s: float = 0.0


_OfLayer: TypeAlias = dict[tuple[Block, Work], Part]


@dataclass(frozen=True)
class Groups:
    """The groups of GPUs whose collectives stand around blocks of layers; None for those that there are not.

    Attributes:
        tensor: the tensor-parallel group.
        context: the context-parallel group.
        experts: GPUs that share out each routed expert.
        arriving_tokens: tokens that reach the experts of such a group together.
        weights: GPUs that share weights out and gather them for each op.

    """

    tensor: TensorGroup | None = None
    context: ContextGroup | None = None
    experts: Group | None = None
    arriving_tokens: float = 0.0
    weights: SharedWeights | None = None

    __repr__ = brief


@dataclass(frozen=True)
class Parts:
    """All parts of a model in one setting.

    Attributes:
        model: the model, or one GPU's share of it in a tensor-parallel group.
        load: one micro-batch on one GPU, all SMs computing.
        alltoall: the all-to-all of the expert-parallel group; None where there is none.
        overlap: how compute and communication share the GPU.
        measured: times that stand in for the formulas'.
        groups: the groups whose collectives stand around blocks.
        micro_batch: the micro-batch as the GPU has it.

    """

    model: Model
    load: Workload
    alltoall: AllToAll | None
    overlap: Overlap
    measured: Measured
    groups: Groups = field(default_factory=Groups)
    micro_batch: MicroBatch = field(default_factory=lambda: MicroBatch(0, 1))

    __repr__ = brief

    @cached_property
    def beside(self) -> Workload:
        """The same micro-batch on the SMs that communication leaves."""
        return replace(self.load, sms=self.load.gpu.sms - self.overlap.communication_sms)

    @cached_property
    def without_recompute(self) -> Parts:
        """The same, of backwards that find all that their forward left."""
        recipe = replace(self.load.recipe, recompute=Recompute.of(()))
        return replace(self, load=replace(self.load, recipe=recipe))

    def with_vocabulary_over(self, ranks: int) -> Parts:
        """Return the same with one of so many shares of the vocabulary."""
        return replace(self, model=self.model.with_vocabulary_over(ranks))

    def copy(self, layer: int, direction: Literal["to host", "from host"], *, whole: bool) -> Part:
        """Return the copy of what a layer keeps to the host's memory, or back.

        Args:
            layer: its number.
            direction: where to.
            whole: whether it is recomputed whole, so that it keeps its input alone.

        Raises:
            UserError: the GPU's bandwidth to its host is not known.

        """
        gpu, recipe = self.load.gpu, self.load.recipe
        if not gpu.host_bytes_per_s:
            raise UserError("gpu.host: is missing; activations that are offloaded take the way to the host's memory")
        again = Recompute(full=True) if whole else recipe.recompute.of_others
        kept = layer_activations(self.model, self._kind(layer), replace(recipe, recompute=again), self.micro_batch)
        seconds = sum(kept.values()) / gpu.host_bytes_per_s
        return Part(Lane.COPY, direction, Kind.F if direction == "to host" else Kind.I, seconds, seconds)

    def ffn(self, layer: int) -> FeedForward:
        """Return what a layer's feed-forward network is."""
        return self._kind(layer).ffn

    def layer(self, layer: int) -> _OfLayer:
        """Return the compute parts of a layer; those of multi-token prediction follow the model's in number."""
        return self._of_layers[self._number(layer)]

    def mlp_again(self, layer: int) -> Part:
        """Return the FFN of a layer whose forward runs again, as far as the software does."""
        number = self._number(layer)
        if number not in self._mlps_again:
            self._mlps_again[number] = self._mlp_again(self._kind(layer))
        return self._mlps_again[number]

    @cached_property
    def _mlps_again(self) -> dict[int, Part]:
        return {}

    def _mlp_again(self, kind: Layer) -> Part:
        whole = self.load.recipe.recompute.full
        part = (self._layers if whole else self._unissued)[kind]["mlp", "F"]
        left_out = self.left_out_again(kind)
        if not left_out:
            return part
        return part.longer(-sum(linear_s(linear, "F", self.load) for linear in left_out))._replace(after=())

    def left_out_again(self, kind: Layer) -> list[Linear]:
        """Return the maps that software leaves out where an FFN's forward runs again: the last, which keeps nothing."""
        dense = [linear for linear in self.model.linears(kind) if linear.part == "dense"]
        return dense[-1:] if self.load.recipe.stack.stops_early and not kind.moe else []

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

    def shared(self, layer: int, name: str) -> Shared | None:
        """Return what is gathered for a unit's ops and scattered behind its backward; None where its weights are here.

        Args:
            layer: the unit's layer; those of multi-token prediction follow the model's.
            name: what the unit is called where it is no layer.

        """
        if self.groups.weights is None or (layer < 0 and name == "pass"):
            return None
        unit: Layer | str = self._kind(layer) if layer >= 0 else "head" if "head" in name else name
        if unit not in self._shared:
            self._shared[unit] = self._shared_of(self.groups.weights, unit)
        return self._shared[unit]

    @cached_property
    def _shared(self) -> dict[Layer | str, Shared]:
        return {}

    def _shared_of(self, weights: SharedWeights, unit: Layer | str) -> Shared:
        if isinstance(unit, Layer):
            parameters = self.model.layer_parameters(unit)
        else:
            parameters = self.model.head_parameters() if unit == "head" else self.model.embedding_parameters()
        gathered, scattered = weights.gather(parameters), weights.scatter(parameters)
        (gather,), (scatter,) = _collective(gathered, Kind.F), _collective(scattered, Kind.W)
        if not self.load.recipe.stack.by_shape:
            return Shared(gather, scatter)
        return Shared(gather, scatter, gathered.toll_s, scattered.toll_s)

    def _kind(self, layer: int) -> Layer:
        """Return a layer's kind; one of multi-token prediction, numbered on, is as the model's last."""
        return self.model.layer_kinds()[min(layer, self.model.layers - 1)]

    def _number(self, layer: int) -> int:
        """Return the number of a layer's kind."""
        return self.model.kind_numbers()[min(layer, self.model.layers - 1)]

    @cached_property
    def _exchanges(self) -> dict[AllToAllStep, Part]:
        if self.alltoall is None or self.alltoall.group.gpus == 1:
            return {}
        return {step: self._exchange(self.alltoall, step) for step in ALLTOALL_STEPS}

    @cached_property
    def _of_layers(self) -> dict[int, _OfLayer]:
        """Parts of layers by the number of their kind."""
        kinds = dict(zip(self.model.kind_numbers(), self.model.layer_kinds(), strict=True))
        return {number: self._layers[kind] for number, kind in kinds.items()}

    @cached_property
    def _layers(self) -> dict[Layer, _OfLayer]:
        return {kind: self._issued(kind, parts) for kind, parts in self._unissued.items()}

    @cached_property
    def _unissued(self) -> dict[Layer, _OfLayer]:
        """Parts of layers whose host issues them in no time."""
        return {kind: self._layer(kind) for kind in set(self.model.layer_kinds())}

    def _layer(self, kind: Layer) -> _OfLayer:
        """Return the compute parts of a kind of layer, measured ones in place of the formulas'."""
        alone, beside = (layer_compute(self.model, kind, load) for load in (self.load, self.beside))
        for (block, work), kernels in self.measured.compute.items():
            if kind.moe or block == "attn":
                measured = kernels._replace(
                    gap_s=kernels.busy_s * self.load.gpu.kernel_gap, kernels=alone[block, work].kernels
                )
                beside[block, work] = measured
                alone[block, work] = _with_sms(measured, self.beside.share_of_sms)
        parts: _OfLayer = {
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
        # Routed experts are not cut by this group and see the GPU's own tokens; shared ones are cut like a dense FFN.
        whole = kind.moe and self.model.experts is not None and not self.model.experts.shared
        blocks = [block for block in _BLOCKS if any(parts[block, work].alone_s for work in WORKS)]
        parts |= {
            (block, work): part
            for block in blocks
            if block == "attn" or not whole
            for work, part in self._in_group(
                "layer", {work: parts[block, work] for work in WORKS}, self._beside(kind, block)
            ).items()
        }
        return self._with_experts_cut(kind, self._with_context(kind, parts))

    def _issued(self, kind: Layer, parts: _OfLayer) -> _OfLayer:
        """Return the parts of a layer, its last ones as much longer as the host takes to issue them all."""
        issue, found = self.load.recipe.stack.issue, dict(parts)
        both: tuple[tuple[Work, ...], ...] = (("F",), ("I", "W"))
        for works in both:
            of_works = [part for (_, work), part in parts.items() if work in works]
            around = [one for part in of_works for one in (*part.before, *part.after)]
            taken_s = sum(part.alone_s for part in (*of_works, *around))
            least_s = issue.layer_s(works, kind.blocks, routed=kind.moe) + issue.collective_s * len(around)
            for work in works:
                late_s = max(0.0, least_s - taken_s) / len(works)
                found["mlp", work] = found["mlp", work].longer(late_s)
        return found

    def _beside(self, kind: Layer, block: Block) -> tuple[Linear, ...]:
        """Return the maps of a block beside which a tensor-parallel group may send; none of routed experts' layers."""
        if kind.moe and block == "mlp":
            return ()
        return tuple(one for one in self.model.linears(kind) if (one.part == "attention") == (block == "attn"))

    def _in_group(self, block: CutBlock, parts: dict[Work, Part], beside: tuple[Linear, ...] = ()) -> dict[Work, Part]:
        """Return the parts of a block with the collectives of the tensor-parallel group around them."""
        group = self.groups.tensor
        if group is None:
            return parts
        found = {}
        for work, part in parts.items():
            hidden_s = group.beside(beside, work, self.load)
            before, after = (
                self._of_hidden_state(name, part.kind, seconds)
                for name, seconds in zip(group.around(block, work), hidden_s, strict=True)
            )
            found[work] = part._replace(before=before, after=after)
        return found

    def _of_hidden_state(self, name: str | None, kind: int, hidden_s: float) -> tuple[Part, ...]:
        """Return the part of a collective of a whole micro-batch's hidden state, in BF16 in any recipe (assumed)."""
        if name is None or self.groups.tensor is None:
            return ()
        whole = ring(self.groups.tensor.group, name, self.load.tokens * self.model.hidden * BF16_BYTES)
        return _collective(whole.beside(hidden_s), kind)

    def _with_context(self, kind: Layer, parts: _OfLayer) -> _OfLayer:
        """Return the parts of a layer with what a context-parallel group sends, next to attention."""
        if self.groups.context is None:
            return parts
        found = dict(parts)
        for work in WORKS:
            part = parts["attn", work]
            before, after = self.groups.context.around(kind, work, self.load)
            found["attn", work] = part._replace(
                before=(*part.before, *_collective(before, part.kind)),
                after=(*_collective(after, part.kind), *part.after),
            )
        return found

    def _with_experts_cut(self, kind: Layer, parts: _OfLayer) -> _OfLayer:
        """Return the parts of a layer with tokens gathered for experts that GPUs share out, and results scattered."""
        group = self.groups.experts
        if group is None or not kind.moe:
            return parts
        size_bytes = self.groups.arriving_tokens * self.model.hidden * BF16_BYTES
        found = dict(parts)
        for work in ("F", "I"):
            part = parts["mlp", work]
            gathered, scattered = (_collective(ring(group, name, size_bytes), part.kind) for name in (GATHER, SCATTER))
            found["mlp", work] = part._replace(before=(*part.before, *gathered), after=(*scattered, *part.after))
        return found

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


def _collective(one: Collective | None, kind: int) -> tuple[Part, ...]:
    """Return the part of a collective, which takes as long beside compute as alone."""
    if one is None:
        return ()
    return (Part(Lane.ALLTOALL, one.name, kind, one.duration_s, one.duration_s, one.flows, one.flows),)


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
