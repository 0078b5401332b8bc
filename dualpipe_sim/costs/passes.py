"""Seconds of what is neither GEMM nor attention's core: bytes that software passes over, at the pace of a large copy.

How often it passes over what is said by its :mod:`~dualpipe_sim.model.traffic`. DeepSeek's stack has one time a token
for each block instead, fitted to its published trace.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dualpipe_sim.base.precision import BF16_BYTES
from dualpipe_sim.costs.workload import Block, Work, Workload
from dualpipe_sim.hardware.kernels import WORK_NAMES
from dualpipe_sim.model.architecture import GATED, Layer, Model
from dualpipe_sim.model.linear import HIGH_PRECISION, Linear, Part
from dualpipe_sim.model.traffic import Passes, Traffic

SHORT_KERNEL_S = 2.5e-6
"""What a kernel takes that has next to nothing to do, with the gap to the next one (measured on an H100)."""

RESIDUAL_PASSES: dict[Work, int] = {"F": 5, "I": 6, "W": 0}
"""Passes over a token's hidden state that a block's norm and residual make: F reads and writes the norm, and adds two
into one; I reads input and gradient and writes one, and adds two into one (assumed: nothing fused)."""


PART_OF: dict[Part, str] = {
    "attention": "attention", "gate": "router", "routed": "experts", "shared": "shared", "dense": "mlp", "head": "head",
    "mtp": "mtp",
}  # fmt: skip
"""What of a layer a linear map is shown as."""


class Passed(NamedTuple):
    """What one step of a block passes over.

    Attributes:
        part: what of a layer it belongs to.
        name: what it does.
        seconds: how long it takes.

    """

    part: str
    name: str
    seconds: float


def block_of(linear: Linear) -> Block:
    """Return the block that a linear map belongs to."""
    return "attn" if linear.part in ("attention", "gate") else "mlp"


def passes(model: Model, layer: Layer, block: Block, work: Work, load: Workload) -> list[Passed]:
    """Return what a block of a layer takes beside GEMMs and attention's core.

    Args:
        model: the model, or one GPU's share of it in a tensor-parallel group.
        layer: the layer.
        block: attention, or the feed-forward network.
        work: F, I or W.
        load: one micro-batch on one GPU.

    """
    traffic = load.recipe.stack.traffic
    if traffic is None:
        part = "attention" if block == "attn" else "experts" if layer.moe else "mlp"
        return [Passed(part, "everything else", _trace_s(model, layer, block, work, load))]
    element_s = BF16_BYTES / load.gpu.hbm_bytes_per_s
    own = block == "mlp" or bool(layer.attention.linears(model.hidden))  # else it is the router's map alone
    steps = (*(_around(model, traffic, load) if own else ()), *_inside(model, layer, block, traffic, load))
    steps = (*steps, *_casts(model, layer, block, traffic, load))
    again = _again(load)
    found = [
        Passed(part, name, _count(number, name, work, again) * elements * element_s)
        for part, name, elements, number in steps
    ]
    if layer.moe and block == "mlp":
        seconds = traffic.router_kernels.of(work) * SHORT_KERNEL_S
        found.append(Passed("router", "router", seconds))
    if work == "W":
        found.append(
            Passed("mlp" if block == "mlp" else "attention", "sums", _added_s(model, layer, block, traffic, load))
        )
    return [one for one in found if one.seconds]


_Step = tuple[str, str, float, Passes]


def _around(model: Model, traffic: Traffic, load: Workload) -> Iterator[_Step]:
    """Yield the norm before a block, and the residual stream around it."""
    width = load.own_tokens * model.hidden
    yield "norms", "norm", width * (2 if model.post_norms else 1), traffic.norm
    yield "norms", "residual", width, traffic.residual
    if model.dropout:
        yield "norms", "dropout", width, traffic.dropout


def _inside(model: Model, layer: Layer, block: Block, traffic: Traffic, load: Workload) -> Iterator[_Step]:
    if block == "attn":
        yield from _beside_core(model, layer, traffic, load)
    elif layer.moe and model.experts is not None:
        experts, rows = model.experts, load.routed_rows(model.experts.active)
        yield "experts", "routing", rows * model.hidden, traffic.routing
        if load.expert_parallel > 1:
            yield "experts", "sorting", rows * model.hidden, traffic.sorting
        yield "experts", "activation", rows * experts.ffn, _activation(model, traffic)
        if experts.shared:
            yield "shared", "activation", load.tokens * experts.shared_width, _activation(model, traffic)
    elif layer.ffn == "dense":
        yield "mlp", "activation", load.tokens * model.ffn, _activation(model, traffic)


def _activation(model: Model, traffic: Traffic) -> Passes:
    return traffic.gated if GATED[model.activation] else traffic.plain


def _beside_core(model: Model, layer: Layer, traffic: Traffic, load: Workload) -> Iterator[_Step]:
    """Yield what is done to queries, keys, values and scores."""
    queries, keys_values, outputs = layer.attention.exchanged
    if model.positions == "rotary":
        yield "attention", "rotation", load.tokens * layer.attention.rotary, traffic.rotation
    yield "attention", "joint", load.tokens * (queries + keys_values), traffic.joint
    yield "attention", "inner norms", load.tokens * layer.attention.normed, traffic.norm
    shape = layer.attention.core_shape(load.sequence_length, causal=load.causal)
    if shape is not None and shape.products:
        scores = load.tokens * shape.heads * shape.length
        yield "attention", "scores", scores, traffic.scores
        if model.dropout:
            yield "attention", "scores", scores, traffic.scores_dropout
    if shape is None:  # convolutions, gates and norms of recurrences, as often as eager norms (assumed)
        yield "attention", "gates", load.tokens * (queries + keys_values + outputs), traffic.norm


def _casts(model: Model, layer: Layer, block: Block, traffic: Traffic, load: Workload) -> Iterator[_Step]:
    """Yield what quantises: once each thing that GEMMs of fewer bits read, and each gradient that they get."""
    if load.recipe.numbers.gemm == "bf16":
        return
    read = set[str]()
    for linear in model.linears(layer):
        if block_of(linear) != block or linear.part in HIGH_PRECISION:
            continue
        rows = load.routed_rows(linear.active) if linear.part == "routed" else float(load.tokens)
        part = PART_OF[linear.part]
        inputs = 0 if linear.reads in read else linear.inputs
        read.add(linear.reads)
        yield part, "casts", rows * inputs, Passes(traffic.casts.forward, 0)
        yield part, "casts", rows * linear.outputs, Passes(0, traffic.casts.backward)


def _again(load: Workload) -> frozenset[str]:
    """Return the steps that a backward runs again."""
    recompute = load.recipe.recompute
    named = (("norm", recompute.norms), ("activation", recompute.activation), ("scores", recompute.core))
    return frozenset(name for name, again in named if again)


def _count(number: Passes, name: str, work: Work, again: frozenset[str]) -> float:
    return number.of(work) + (number.forward if work == "I" and name in again else 0.0)


def _added_s(model: Model, layer: Layer, block: Block, traffic: Traffic, load: Workload) -> float:
    """Return the seconds that adding a block's weight gradients to those of earlier micro-batches takes."""
    parameters = sum(
        linear.parameters / (load.expert_parallel if linear.part == "routed" else 1)
        for linear in model.linears(layer)
        if block_of(linear) == block
    )
    return load.added * traffic.added * parameters / load.gpu.hbm_bytes_per_s


def _trace_s(model: Model, layer: Layer, block: Block, work: Work, load: Workload) -> float:
    """Return the seconds of everything else as DeepSeek's trace has them.

    A dense layer's MLP counts like an MoE layer's of as many experts as the times were measured with (assumed;
    DeepSeek-V3's dense FFN is exactly as wide as its nine active experts together). GPUs of a tensor-parallel group
    share the time out (assumed), without sequence parallelism all but that of norms and residuals.
    """
    other = load.gpu.other_costs(load.recipe.numbers.gemm)
    part = {"attn": "attention", "mlp": "mlp"}[block]
    per_token: float = getattr(other, f"{part}_{WORK_NAMES[work]}_s")
    scale = model.hidden / other.hidden
    if layer.moe and block == "mlp" and model.experts is not None:
        scale *= model.experts.active / other.active_experts * load.routing_skew
    shared = load.tokens / load.tensor_parallel
    residual_s = RESIDUAL_PASSES[work] * model.hidden * BF16_BYTES / load.gpu.hbm_bytes_per_s
    return shared * per_token * scale + (load.own_tokens - shared) * residual_s
