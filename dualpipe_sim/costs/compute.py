"""Seconds of compute: the parts of a layer, the head and the embedding.

A part takes its GEMM FLOPs over the class's rate, attention's FLOPs over theirs, both on the share of SMs that
compute, and a time for each token for everything else, which memory bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from dualpipe_sim.base.precision import BF16_BYTES, FP32_BYTES, Format
from dualpipe_sim.base.show import brief
from dualpipe_sim.hardware.gpu import GemmClass, Gpu
from dualpipe_sim.model.architecture import Layer, Model
from dualpipe_sim.model.flops import linear_flops
from dualpipe_sim.model.linear import HIGH_PRECISION, Linear
from dualpipe_sim.model.recipe import Recipe

Work: TypeAlias = Literal["F", "I", "W"]
Block: TypeAlias = Literal["attn", "mlp"]
"""The compute phases of a layer; the gate is in ``attn``, since the dispatch waits for it."""

PROMOTION_FMAS = 2
"""FP32 operations that promote one accumulator: multiply by the joint scale, add (assumed: one FMA each)."""

LOSS_PASSES: dict[Work, int] = {"F": 2, "I": 2, "W": 0}
"""Passes over the FP32 logits that the cross-entropy makes (assumed: two reads in F; a read and a write in I)."""


RESIDUAL_PASSES: dict[Work, int] = {"F": 5, "I": 6, "W": 0}
"""Passes over a token's hidden state that a block's norm and residual make: F reads and writes the norm, and adds two
into one; I reads input and gradient and writes one, and adds two into one (assumed: nothing fused)."""


class Compute(NamedTuple):
    """Seconds of one compute phase.

    Attributes:
        gemm_s: GEMMs.
        attention_s: attention's core.
        other_s: everything else.
        gap_s: gaps between kernels.
        kernels: number of GEMMs and attention kernels; all else is short.

    """

    gemm_s: float
    attention_s: float
    other_s: float
    gap_s: float
    kernels: int = 0

    @property
    def busy_s(self) -> float:
        """Time in kernels."""
        return self.gemm_s + self.attention_s + self.other_s

    @property
    def duration_s(self) -> float:
        """Time from the first kernel's start to the last one's end."""
        return self.busy_s + self.gap_s


@dataclass(frozen=True)
class Workload:
    """One micro-batch on one GPU: what compute depends on beside the model.

    Attributes:
        gpu: the GPU.
        recipe: precision and recompute.
        tokens: tokens of the micro-batch, or of the GPU's share of each sequence.
        sequence_length: tokens of a sequence, which attention sees.
        sms: SMs that compute; None for all.
        causal: True where attention skips the masked half.
        routing_skew: tokens of the busiest expert rank over the mean, which slows routed experts.
        tensor_parallel: GPUs that share out what of the model can be cut; the model is one GPU's share of it.
        sequence_parallel: whether they share out the sequence elsewhere.
        expert_tensor: GPUs that share out each expert's width, and so pass the tokens of all of them.
        runs: GPUs that share each sequence out, a run each, so that the last one's queries see most; 1 where all have
            as much to do.

    """

    gpu: Gpu
    recipe: Recipe
    tokens: int
    sequence_length: int
    sms: int | None = None
    causal: bool = True
    routing_skew: float = 1.0
    tensor_parallel: int = 1
    sequence_parallel: bool = True
    expert_tensor: int = 1
    runs: int = 1

    __repr__ = brief

    @property
    def own_tokens(self) -> int:
        """Tokens that the GPU has where nothing else is cut."""
        return self.tokens // self.tensor_parallel if self.sequence_parallel else self.tokens

    @property
    def share_of_sms(self) -> float:
        """Share of the GPU's SMs that compute."""
        return self.gpu.share_of_sms(self.sms)


def linear_s(linear: Linear, work: Work, load: Workload) -> float:
    """Return the seconds of a linear map's GEMMs for one kind of work."""
    numbers: Format = "bf16" if linear.part in HIGH_PRECISION else load.recipe.numbers.gemm
    rate = load.gpu.gemm_rates(numbers).of(_gemm_class(linear, work)) * load.share_of_sms
    factor = promotion_factor(load.recipe, load.gpu) if numbers == "fp8" else 1.0
    skew = load.routing_skew * load.expert_tensor if linear.part == "routed" else 1.0
    tokens = load.own_tokens if linear.cut is None else load.tokens
    return tokens * skew * linear_flops(linear, load.recipe)["FIW".index(work)] / rate * factor


def promotion_factor(recipe: Recipe, gpu: Gpu) -> float:
    """Return how many times longer an FP8 GEMM takes because accumulators are promoted.

    Promotion runs on the CUDA cores while the tensor cores go on (two warpgroups take turns, DeepSeek-V3 report,
    section 3.3.2), so it costs nothing until it takes longer than they do: for each output, ``PROMOTION_FMAS`` FP32
    operations for every N_C on the tensor cores, each at its peak rate. At 128 that is about half the time, hidden, and
    the published rates hold it; below about 60 it sets the pace.
    """
    fp8 = gpu.peak.fp8_flops_per_s
    if not recipe.numbers.promoted or fp8 is None:
        return 1.0
    return max(1.0, PROMOTION_FMAS * fp8 / gpu.peak.fp32_flops_per_s / recipe.accumulation_interval)


def attention_s(layer: Layer, work: Work, load: Workload) -> float:
    """Return the seconds of attention's core for one kind of work (0 for W).

    A recurrence takes its FLOPs at softmax attention's rate (assumed).
    """
    if work == "W":
        return 0.0
    core = layer.attention.core(load.sequence_length, causal=load.causal)
    fp8, tokens = load.recipe.low_precision_attention, load.tokens * _skew(layer, load)
    rates = load.gpu.attention
    forward_s = tokens * core.forward / (rates.of("forward", fp8=fp8) * load.share_of_sms)
    if work == "F":
        return forward_s
    backward_s = tokens * core.backward / (rates.of("backward", fp8=fp8) * load.share_of_sms)
    return backward_s + (forward_s if load.recipe.recompute.core else 0.0)


def _skew(layer: Layer, load: Workload) -> float:
    """Return what attention takes on the GPU with the last run of a sequence, which has most of it, over the mean."""
    if load.runs == 1:
        return 1.0
    before = load.sequence_length * (load.runs - 1) // load.runs
    of_all, of_others = (
        length * layer.attention.core(length, causal=load.causal).forward for length in (load.sequence_length, before)
    )
    return load.runs * (1 - of_others / of_all) if of_all else 1.0


def other_s(model: Model, layer: Layer, block: Block, work: Work, load: Workload) -> float:
    """Return the seconds of everything but GEMM and attention.

    A dense layer's MLP counts like an MoE layer's of as many experts as the times were measured with (assumed;
    DeepSeek-V3's dense FFN is exactly as wide as its nine active experts together). GPUs of a tensor-parallel group
    share the time out (assumed), without sequence parallelism all but that of norms and residuals.
    """
    other = load.gpu.other_costs(load.recipe.numbers.gemm)
    part = {"attn": "attention", "mlp": "mlp"}[block]
    per_token: float = getattr(other, f"{part}_{_WORK_NAME[work]}_s")
    scale = model.hidden / other.hidden
    if layer.moe and block == "mlp" and model.experts is not None:
        scale *= model.experts.active / other.active_experts * load.routing_skew
    shared = load.tokens / load.tensor_parallel
    return shared * per_token * scale + (load.own_tokens - shared) * _residual_s(model, work, load)


def _residual_s(model: Model, work: Work, load: Workload) -> float:
    """Return the seconds a token of a block's norm and residual, by the bytes that they pass."""
    return RESIDUAL_PASSES[work] * model.hidden * BF16_BYTES / load.gpu.hbm_bytes_per_s


def layer_compute(model: Model, layer: Layer, load: Workload) -> dict[tuple[Block, Work], Compute]:
    """Return the compute phases of one layer for one micro-batch; those of a block that it has not take no time.

    Returns:
        By block and work; ``("attn", "W")`` is the attention block's weight gradient, and so on.

    """
    phases: dict[tuple[Block, Work], Compute] = {}
    for block, work in _PHASES:
        linears = [linear for linear in model.linears(layer) if _block(linear) == block]
        if not linears:
            phases[block, work] = Compute(0.0, 0.0, 0.0, 0.0)
            continue
        gemm = sum(linear_s(linear, work, load) for linear in linears)
        attention = attention_s(layer, work, load) if block == "attn" else 0.0
        kernels = len(linears) + (attention > 0)
        phases[block, work] = _compute(gemm, attention, other_s(model, layer, block, work, load), load, kernels)
    return phases


def head_compute(model: Model, load: Workload) -> dict[Work, Compute]:
    """Return the output head with the loss: its GEMM in BF16, and passes of the cross-entropy over FP32 logits."""
    pass_s = load.tokens * model.vocabulary * FP32_BYTES / load.gpu.hbm_bytes_per_s
    (head,) = model.head_linears()
    return {
        work: _compute(linear_s(head, work, load), 0.0, passes * pass_s, load) for work, passes in LOSS_PASSES.items()
    }


def mtp_compute(model: Model, load: Workload) -> dict[Work, Compute]:
    """Return the projection that starts a multi-token prediction module; its layer and head come on top."""
    (projection,) = model.mtp_linears()
    return {work: _compute(linear_s(projection, work, load), 0.0, 0.0, load) for work in LOSS_PASSES}


def embedding_compute(model: Model, load: Workload) -> dict[Work, Compute]:
    """Return the embedding: rows read and written in F; FP32 gradient rows read and written in W, nothing in I."""
    element_s = load.tokens * model.hidden / load.gpu.hbm_bytes_per_s
    element_bytes: dict[Work, float] = {"F": 2 * BF16_BYTES, "I": 0.0, "W": BF16_BYTES + 2 * FP32_BYTES}
    return {work: _compute(0.0, 0.0, size * element_s, load) for work, size in element_bytes.items()}


_WORK_NAME: dict[Work, str] = {"F": "forward", "I": "input_gradient", "W": "weight_gradient"}
_PHASES: tuple[tuple[Block, Work], ...] = (
    ("attn", "F"), ("mlp", "F"), ("mlp", "I"), ("attn", "I"), ("mlp", "W"), ("attn", "W"),
)  # fmt: skip


def _compute(gemm: float, attention: float, other: float, load: Workload, kernels: int = 0) -> Compute:
    return Compute(gemm, attention, other, (gemm + attention + other) * load.gpu.kernel_gap, kernels)


def _block(linear: Linear) -> Block:
    return "attn" if linear.part in ("attention", "gate") else "mlp"


def _gemm_class(linear: Linear, work: Work) -> GemmClass:
    grouped = linear.part == "routed"
    if work == "W":
        return "grouped_weight_gradient" if grouped else "weight_gradient"
    return "grouped" if grouped else "dense"
