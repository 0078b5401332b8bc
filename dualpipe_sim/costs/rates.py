"""Seconds of GEMMs and of attention's core, by their shape where that was timed, else by their class."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from dualpipe_sim.base.precision import BF16_BYTES, Format
from dualpipe_sim.costs.workload import Work, Workload
from dualpipe_sim.hardware.gpu import GemmClass, Gpu
from dualpipe_sim.model.architecture import Layer
from dualpipe_sim.model.flops import linear_flops
from dualpipe_sim.model.linear import HIGH_PRECISION, Linear
from dualpipe_sim.model.recipe import Recipe

Source: TypeAlias = Literal["table", "roofline", "rate", "trace"]
"""Where seconds come from: a table of kernels by shape, bytes over bandwidth, a rate that the GPU's preset or the user
states for all shapes, or times a token of DeepSeek's trace."""

PROMOTION_FMAS = 2
"""FP32 operations that promote one accumulator: multiply by the joint scale, add (assumed: one FMA each)."""

FLASH_1_PACE = 0.55
"""What FlashAttention's first version achieves of the second one's rate (1.7 to 3.0 times slower on an A100, about
twice with long sequences: https://arxiv.org/abs/2307.08691, section 4.1)."""


class Timed(NamedTuple):
    """Seconds, and where they come from."""

    seconds: float
    source: Source


def linear_s(linear: Linear, work: Work, load: Workload) -> float:
    """Return the seconds of a linear map's GEMMs for one kind of work."""
    return timed_linear(linear, work, load).seconds


def timed_linear(linear: Linear, work: Work, load: Workload) -> Timed:
    """Return the same with where they come from."""
    numbers: Format = "bf16" if linear.part in HIGH_PRECISION else load.recipe.numbers.gemm
    tokens = load.own_tokens if linear.cut is None else load.tokens
    skew = load.routing_skew * load.expert_tensor if linear.part == "routed" else 1.0
    flops = tokens * skew * linear_flops(linear, load.recipe)["FIW".index(work)]
    found = _by_shape(linear, work, load, numbers, tokens * skew)
    if found is not None:
        rate, least_s = found
        seconds = flops / (rate * load.share_of_sms)
        return Timed(seconds, "table") if seconds >= least_s else Timed(least_s, "roofline")
    rate = load.gpu.gemm_rates(numbers).of(_gemm_class(linear, work)) * load.share_of_sms
    factor = promotion_factor(load.recipe, load.gpu) if numbers == "fp8" else 1.0
    return Timed(flops / rate * factor, "rate")


def _by_shape(linear: Linear, work: Work, load: Workload, numbers: Format, rows: float) -> tuple[float, float] | None:
    """Return the rate of the shape, and the least time that its bytes take; None where no table is to be asked."""
    if not load.recipe.stack.by_shape:
        return None
    here = linear.stored / load.expert_parallel if linear.part == "routed" else float(linear.stored)
    each = rows * linear.active / here
    rate = load.gpu.kernels.gemm_flops_per_s(numbers, work, each, linear.outputs, linear.inputs, here)
    if rate is None:
        return None
    moved = here * (each * (linear.inputs + linear.outputs) + linear.inputs * linear.outputs)
    return rate, moved * (
        load.recipe.numbers.element_bytes if numbers != "bf16" else BF16_BYTES
    ) / load.gpu.hbm_bytes_per_s


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
    """Return the seconds of attention's core for one kind of work (0 for W)."""
    return timed_attention(layer, work, load).seconds


def timed_attention(layer: Layer, work: Work, load: Workload) -> Timed:
    """Return the same with where they come from.

    A recurrence takes its FLOPs at softmax attention's rate (assumed).
    """
    if work == "W":
        return Timed(0.0, "rate")
    core = layer.attention.core(load.sequence_length, causal=load.causal)
    tokens = load.tokens * _skew(layer, load) / load.share_of_sms
    forward, backward = (_core_rate(layer, one, load) for one in ("F", "I"))
    forward_s = tokens * core.forward / forward[0]
    if work == "F":
        return Timed(forward_s, forward[1])
    again_s = forward_s if load.recipe.recompute.core else 0.0
    return Timed(tokens * core.backward / backward[0] + again_s, backward[1])


def _core_rate(layer: Layer, work: Work, load: Workload) -> tuple[float, Source]:
    shape = layer.attention.core_shape(load.sequence_length, causal=load.causal)
    if load.recipe.stack.by_shape and shape is not None and not load.recipe.low_precision_attention:
        heads = shape.heads * load.sequences
        if shape.products:
            rate = _products_rate(shape.head, heads, shape.length, work, load)
        else:
            kernel = load.recipe.attention_kernel
            pace, timed = (FLASH_1_PACE, "flash-2") if kernel == "flash-1" else (1.0, kernel)
            rate = load.gpu.kernels.attention_flops_per_s(timed, work, shape.head, heads, shape.length)
            rate = rate * pace if rate is not None else None
        if rate is not None:
            return rate, "table"
    direction: Literal["forward", "backward"] = "forward" if work == "F" else "backward"
    return load.gpu.attention.of(direction, fp8=load.recipe.low_precision_attention), "rate"


_LEAST_INNER = 512
"""Inner size from which tables of GEMMs begin; those of a head's width are bound by the scores that they write or read,
not by fewer tiles."""

_PRODUCTS_PACE = 0.78
"""What batched GEMMs of 16 to 96 heads of 96 to 160 achieve of memory's bandwidth, counting scores alone, on an H100 at
1024 to 4096 tokens: 0.75 to 0.82."""


def _products_rate(head: float, heads: float, length: float, work: Work, load: Workload) -> float | None:
    """Return the rate of attention's two products as GEMMs of their own, queries by keys and scores by values.

    They run for all heads at once, which a GEMM of as many rows stands for, and pass over the scores once each, at
    ``_PRODUCTS_PACE`` of a copy's pace.
    """
    rows, inner = heads * length, max(head, _LEAST_INNER)
    bound = 2.0 * head * _PRODUCTS_PACE * load.gpu.hbm_bytes_per_s / BF16_BYTES
    rates = [
        load.gpu.kernels.gemm_flops_per_s("bf16", work, rows, *shape) for shape in ((length, inner), (inner, length))
    ]
    return None if None in rates else 2.0 / sum(1.0 / min(rate, bound) for rate in rates if rate)


def _skew(layer: Layer, load: Workload) -> float:
    """Return what attention takes on the GPU with the last run of a sequence, which has most of it, over the mean."""
    if load.runs == 1:
        return 1.0
    before = load.sequence_length * (load.runs - 1) // load.runs
    of_all, of_others = (
        length * layer.attention.core(length, causal=load.causal).forward for length in (load.sequence_length, before)
    )
    return load.runs * (1 - of_others / of_all) if of_all else 1.0


def _gemm_class(linear: Linear, work: Work) -> GemmClass:
    grouped = linear.part == "routed"
    if work == "W":
        return "grouped_weight_gradient" if grouped else "weight_gradient"
    return "grouped" if grouped else "dense"
