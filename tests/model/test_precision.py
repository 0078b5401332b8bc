"""Precisions: bytes of numbers with their scales, what weights lie in, what is sent, and which rates GEMMs take."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim import simulate
from dualpipe_sim.base.precision import PRECISIONS, Precision
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.alltoall import payload_bytes
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.costs.rates import attention_s, linear_s, promotion_factor
from dualpipe_sim.errors import ConfigError, UserError
from dualpipe_sim.hardware.collectives import ALLTOALL_STEPS
from dualpipe_sim.model.activations import layer_activations, weight_gradient_inputs
from dualpipe_sim.model.flops import core_flops
from dualpipe_sim.model.micro_batch import MicroBatch
from dualpipe_sim.model.precision import NUMBERS
from dualpipe_sim.model.recipe import Recipe, Recompute
from dualpipe_sim.model.state import LocalParameters, state_bytes

T = 4096
LLAMA: dict[str, Any] = {
    "pipeline": {"ranks": 2, "micro_batches": 4},
    "schedule": "1f1b",
    "model": {"preset": "llama3-8b", "layers": 8},
    "gpu": "b200",
    "training": {"sequence_length": T, "recompute": "none"},
}
LOW = tuple(name for name in PRECISIONS if name not in ("bf16", "fp16"))
TRANSFORMER_ENGINE: tuple[Precision, ...] = ("fp8-tensor", "fp8-block", "mxfp8", "nvfp4")


def costs_of(precision: Precision = "bf16", config: dict[str, Any] = LLAMA, /, **overrides: object) -> LayerCosts:
    costs = load_experiment(config, {"training.precision": precision, **overrides}).costs
    assert isinstance(costs, LayerCosts)
    return costs


ACTIVATION: dict[Precision, float] = {
    "bf16": 2,
    "fp16": 2,
    "fp8": 1 + 4 / 128,  # a scale in FP32 for 1 x 128 (DeepSeek-V3 report, https://arxiv.org/abs/2412.19437, 3.3.2)
    "fp8-tensor": 1,  # one scale a tensor
    "fp8-block": 1 + 4 / 128,  # the same blocks in Transformer Engine
    "mxfp8": 1 + 1 / 32,  # an E8M0 scale for 32 (Open Compute Project, Microscaling Formats, version 1.0, table 1)
    "nvfp4": 1 / 2 + 1 / 16,  # an E4M3 scale for 16 (https://arxiv.org/abs/2509.25149, section 2)
}
WEIGHT: dict[Precision, float] = {
    "bf16": 2,
    "fp16": 2,
    "fp8": 1 + 4 / 128**2,  # 128 x 128; resident in FP8 alone
    "fp8-tensor": 2 + 2 * 1,  # BF16, and as rows and as columns
    "fp8-block": 2 + 2 * (1 + 4 / 128**2),
    "mxfp8": 2 + 2 * (1 + 1 / 32),
    "nvfp4": 2 + 2 * (1 / 2 + 1 / 16),
}
OUTPUT: dict[Precision, float] = {
    "bf16": 2,
    "fp16": 2,
    "fp8": 1.5,  # E5M6, 12 bits (DeepSeek-V3 report, section 3.3.3)
    "fp8-tensor": 2 + 1,  # what attention's backward reads, and what the output map reads
    "fp8-block": 2 + 1,
    "mxfp8": 2 + 1,
    "nvfp4": 2 + 1 / 2,
}


def test_every_precision_has_its_bytes() -> None:
    assert {*NUMBERS} == {*PRECISIONS} == {*ACTIVATION} == {*WEIGHT} == {*OUTPUT}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_bytes_by_hand(precision: Precision) -> None:
    recipe = Recipe(precision)
    assert recipe.activation_bytes == ACTIVATION[precision]
    assert recipe.weight_bytes == WEIGHT[precision]
    assert recipe.attention_output_bytes == OUTPUT[precision]
    assert recipe.attention_input_bytes == 2


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_may_lie_in_low_precision_alone_or_beside_bf16(precision: Precision) -> None:
    alone, beside = (Recipe(precision, low_precision_weights=only).weight_bytes for only in (True, False))
    if precision not in LOW:
        assert alone == beside == 2
        return
    assert beside == alone + 2
    assert WEIGHT[precision] == (alone if precision == "fp8" else beside)


def test_groups_of_scales_may_be_others() -> None:
    assert Recipe("fp8", activation_group=64).activation_bytes == 1 + 4 / 64
    assert Recipe("fp8", weight_group=64).weight_bytes == 1 + 4 / 64**2
    assert Recipe("mxfp8", activation_group=64).activation_bytes == 1 + 1 / 64


@given(st.sampled_from(LOW), st.integers(1, 512), st.integers(1, 512))
def test_larger_groups_never_take_more(precision: Precision, one: int, more: int) -> None:
    small, large = sorted((one, one + more))
    few, many = (Recipe(precision, activation_group=group, weight_group=group) for group in (large, small))
    assert few.activation_bytes <= many.activation_bytes
    assert few.weight_bytes <= many.weight_bytes


@pytest.mark.parametrize("precision", PRECISIONS)
def test_head_router_norms_and_embedding_stay_in_bf16(precision: Precision) -> None:
    cut = costs_of().job.parallel
    found = state_bytes(LocalParameters(1000.0, 600.0, high_precision=200.0), Recipe(precision), cut)
    assert found.weights == pytest.approx(1400 * WEIGHT[precision] + 200 * 2)
    costs = costs_of(precision)
    assert costs.parts.head == costs_of("bf16").parts.head
    assert costs.parts.embedding == costs_of("bf16").parts.embedding


@pytest.mark.parametrize("precision", PRECISIONS)
def test_resident_weights_of_a_whole_run(precision: Precision) -> None:
    """Two stages of four layers; the first one has the embedding, of 128256 x 4096 in BF16."""
    result = simulate(LLAMA, **{"training.precision": precision})
    assert result.memory is not None
    maps = 4 * (4096 * (4096 + 2 * 1024) + 4096**2 + 3 * 4096 * 14336)
    expected = maps * WEIGHT[precision] + 2 * (4 * 2 * 4096 + 128256 * 4096)
    assert result.memory.over_time(0)[1][0, 0] == pytest.approx(expected, abs=8)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_layer_keeps_what_its_maps_read_in_these_numbers(precision: Precision) -> None:
    """Llama 3 8B, a token: norms' outputs, SwiGLU's in and out as maps read them; norms' inputs, Q, K, V in BF16."""
    model = costs_of().job.model
    (layer,) = set(model.layer_kinds())
    recipe, batch = Recipe(precision, recompute=Recompute.of(())), MicroBatch(T, T)
    low = 2 * 4096 + 3 * 14336
    by_hand = low * ACTIVATION[precision] + 2 * (2 * 4096 + 4096 + 2 * 1024) + 4096 * OUTPUT[precision] + 32 * 4
    assert sum(layer_activations(model, layer, recipe, batch).values()) == pytest.approx(T * by_hand)
    deferred = weight_gradient_inputs(model, layer, recipe, batch)
    read, gradients = 4096 + 4096 + 14336, 4096 + 2 * 1024 + 4096 + 2 * 14336 + 4096
    expected = (read + gradients) * ACTIVATION[precision] + 4096 * OUTPUT[precision]
    assert sum(deferred.values()) == pytest.approx(T * expected)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_only_deepseeks_recipe_sends_tokens_in_fp8(precision: Precision) -> None:
    """Dispatch and the gradient of combine; both reductions in BF16 (DeepSeek-V3 report, section 3.3.3)."""
    low = 1 + 4 / 128 if precision == "fp8" else 2
    sent = {step: payload_bytes(step, Recipe(precision)) for step in ALLTOALL_STEPS}
    assert sent == {"dispatch F": low, "combine F": 2, "combine I": low, "dispatch I": 2}


def test_bytes_of_a_dispatch_on_links() -> None:
    moe = {**LLAMA, "model": {"preset": "deepseek-v2-lite", "layers": 8}, "gpu": "h800", "parallel": {"expert": 8}}
    sizes = {}
    for precision in ("bf16", "fp8", "mxfp8"):
        exchange = costs_of(precision, moe).parts.exchanges(5)
        sizes[precision] = [exchange[step].alone_flows[0].size_bytes for step in ("dispatch F", "combine F")]
    assert sizes["mxfp8"] == sizes["bf16"]
    assert sizes["fp8"] == pytest.approx([sizes["bf16"][0] * (1 + 4 / 128) / 2, sizes["bf16"][1]])


# Rates.


@pytest.mark.parametrize("gpu", ["h100", "b200"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_gemms_take_the_rates_of_their_numbers(precision: Precision, gpu: str) -> None:
    if (gpu, precision) == ("h100", "nvfp4"):
        return  # which has none
    costs = costs_of(precision, gpu=gpu)
    numbers = {"bf16": "bf16", "fp16": "bf16", "nvfp4": "fp4"}.get(precision, "fp8")
    rates = getattr(costs.gpu.gemm, numbers)
    model = costs.job.model
    qkv = model.linears(model.layer_kinds()[0])[0]
    flops = 2 * T * 4096 * (4096 + 2 * 1024)
    assert linear_s(qkv, "F", costs.parts.load) == pytest.approx(flops / rates.dense_flops_per_s)
    assert linear_s(qkv, "W", costs.parts.load) == pytest.approx(flops / rates.weight_gradient_flops_per_s)


def test_fewer_bits_are_faster_on_a_b200() -> None:
    def seconds(precision: Precision) -> list[float]:
        parts = costs_of(precision).parts.layer(0)
        return [parts[block, work].alone_s for block in ("attn", "mlp") for work in ("F", "I", "W")]

    four, eight, sixteen = seconds("nvfp4"), seconds("mxfp8"), seconds("bf16")
    assert all(a < b < c for a, b, c in zip(four, eight, sixteen, strict=True))
    makespans = [
        simulate(LLAMA, **{"training.precision": precision}).makespan_s for precision in ("nvfp4", "mxfp8", "bf16")
    ]
    assert None not in makespans
    assert makespans == sorted(makespans, key=lambda one: one or 0.0)
    assert len(set(makespans)) == 3


def test_recipes_of_the_same_numbers_take_the_same_time() -> None:
    assert costs_of("fp16").parts.layer(0) == costs_of("bf16").parts.layer(0)
    for precision in TRANSFORMER_ENGINE[1:3]:
        assert costs_of(precision).parts.layer(0) == costs_of("fp8-tensor").parts.layer(0)


def test_promotion_is_deepseeks_alone() -> None:
    """At N_C = 32: 2 x 1979 / 67 operations on CUDA cores for 32 on tensor cores, 1.85 times as long."""
    gpu = costs_of("fp8", gpu="h100").gpu
    for precision in PRECISIONS:
        expected = 2 * 1979 / 67 / 32 if precision == "fp8" else 1.0
        assert promotion_factor(Recipe(precision, accumulation_interval=32), gpu) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("gpu", "precision", "message"),
    [
        *(
            ("a100", precision, r"GPU a100 has no .* \(gpu\.\w+\.fp[48]\); use precision bf16$")
            for precision in ("fp8", *TRANSFORMER_ENGINE)
        ),
        ("h100", "nvfp4", r"GPU h100 has no FP4 rates \(gpu\.gemm\.fp4\); use precision fp8, mxfp8 or bf16$"),
    ],
)
def test_a_gpu_without_such_numbers_is_refused_in_one_line(gpu: str, precision: Precision, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        simulate(LLAMA, gpu=gpu, **{"training.precision": precision})
    assert "\n" not in str(refused.value)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"training\.precision"):
        costs_of("fp7")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"training\.precision: must be 'bf16' or .*, not 'fp7'"):
        Recipe("fp7")  # type: ignore[arg-type]


# Attention in FP8.


RATES = {"fp8_forward": 1162e12, "fp8_backward": 640e12}


def test_attention_in_fp8_takes_the_rates_that_are_given() -> None:
    """FlashAttention-3 (https://arxiv.org/abs/2407.08608): a core of 2 (T / 2) 32 heads x 256 FLOPs a token in F.

    In the backward two and a half times as much. Nothing else of the layer changes.
    """
    low = {"training.low_precision_attention": True}
    given_rates = {"preset": "h100", "attention": RATES}
    plain, fast = costs_of("bf16", gpu="h100"), costs_of("bf16", gpu=given_rates, **low)
    model = plain.job.model
    (layer,) = set(model.layer_kinds())
    flops = T * 2 * (T / 2) * 32 * 256
    assert core_flops(layer, plain.job.recipe, T).forward * T == flops
    for work, (rate, fp8, times) in {"F": (581e12, 1162e12, 1.0), "I": (411e12, 640e12, 2.5)}.items():
        assert attention_s(layer, work, plain.parts.load) == pytest.approx(times * flops / rate)  # type: ignore[arg-type]
        assert attention_s(layer, work, fast.parts.load) == pytest.approx(times * flops / fp8)  # type: ignore[arg-type]
        one, other = (costs.parts.layer(0)["attn", work].alone_s for costs in (plain, fast))  # type: ignore[index]
        assert one - other == pytest.approx(times * flops * (1 / rate - 1 / fp8) * 1.017)
    for work in ("F", "I", "W"):
        assert plain.parts.layer(0)["mlp", work] == fast.parts.layer(0)["mlp", work]  # type: ignore[index]
    assert plain.parts.layer(0)["attn", "W"] == fast.parts.layer(0)["attn", "W"]


def test_where_none_are_given_it_takes_those_of_bf16() -> None:
    low = {"training.low_precision_attention": True}
    given_rates = {"preset": "h100", "attention": RATES}
    plain = costs_of("bf16", gpu="h100").parts.layer(0)
    assert costs_of("bf16", gpu="h100", **low).parts.layer(0) == plain
    assert costs_of("bf16", gpu=given_rates).parts.layer(0) == plain  # which is not asked for


def test_attention_in_fp8_keeps_what_it_reads_in_it() -> None:
    model = costs_of().job.model
    (layer,) = set(model.layer_kinds())
    one, other = (
        layer_activations(
            model, layer, Recipe("mxfp8", low_precision_attention=low, recompute=Recompute.of(())), MicroBatch(T, T)
        )
        for low in (False, True)
    )
    assert {name: size / other[name] for name, size in one.items() if size != other[name]} == {
        "queries": 2,
        "keys and values": 2,
    }
    assert other["queries"] == T * 4096
