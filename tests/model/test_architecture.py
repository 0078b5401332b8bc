"""Models and GPUs against published parameter counts, FLOPs and kernel times."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from dualpipe_sim.config.records import read
from dualpipe_sim.costs.compute import embedding_compute, head_compute, layer_compute, mtp_compute
from dualpipe_sim.costs.published import TRACE_COMPUTE_US, compute_deviations, measured_compute, trace_compute
from dualpipe_sim.costs.rates import promotion_factor
from dualpipe_sim.costs.workload import Block, Work, Workload
from dualpipe_sim.errors import UserError
from dualpipe_sim.hardware.gpu import Gpu
from dualpipe_sim.model.architecture import Experts, Layer, Model
from dualpipe_sim.model.attention.softmax import SoftmaxAttention
from dualpipe_sim.model.flops import layer_flops, model_flops_per_token
from dualpipe_sim.model.recipe import Recipe, Recompute

PRESETS = Path(__file__).parents[2] / "dualpipe_sim" / "presets"
GPTS = {"gpt-1.5b": 1.5, "gpt-6.2b": 6.2, "gpt-14.6b": 14.6, "gpt-28.3b": 28.3}


def mapping(kind: str, name: str) -> dict[str, object]:
    return cast("dict[str, object]", yaml.safe_load((PRESETS / kind / f"{name}.yaml").read_text()))


def model(name: str) -> Model:
    return read(Model, mapping("models", name), "model")


def gpu(name: str) -> Gpu:
    return read(Gpu, mapping("gpus", name), "gpu")


V3, H800 = model("deepseek-v3"), gpu("h800")
DENSE, MOE = Layer(V3.attention, "dense"), Layer(V3.attention, "moe")


@pytest.mark.parametrize("path", sorted(PRESETS.glob("models/*.yaml")), ids=lambda path: path.stem)
def test_every_model_preset_is_a_model_of_its_name(path: Path) -> None:
    assert model(path.stem).name == path.stem


@pytest.mark.parametrize("path", sorted(PRESETS.glob("gpus/*.yaml")), ids=lambda path: path.stem)
def test_every_gpu_preset_is_a_gpu_of_its_name(path: Path) -> None:
    assert gpu(path.stem).name == path.stem


@pytest.mark.parametrize("path", sorted(PRESETS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_presets_say_where_their_values_come_from(path: Path) -> None:
    text = path.read_text()
    assert "https://" in text
    # YAML reads 1e9 and 1e+9 as text; only 1.0e+9 is a number.
    assert not [value for value in _leaves(yaml.safe_load(text)) if isinstance(value, str) and value[0].isdigit()]


def _leaves(data: object) -> list[object]:
    return [leaf for value in data.values() for leaf in _leaves(value)] if isinstance(data, dict) else [data]


# Parameters: totals of the papers' abstracts and tables; active ones count the head, not the embedding.


@pytest.mark.parametrize(
    ("name", "total_billions", "active_billions"),
    [("deepseek-v3", 671, 36.6), ("deepseek-v2", 236, 20.9), ("deepseek-v2-lite", 15.7, 2.45)],
)
def test_parameters_are_the_published_ones(name: str, total_billions: float, active_billions: float) -> None:
    assert model(name).parameters().total / 1e9 == pytest.approx(total_billions, rel=0.005)
    assert model(name).active_parameters() / 1e9 == pytest.approx(active_billions, rel=0.01)


@pytest.mark.parametrize(("name", "billions"), GPTS.items())
def test_dense_gpts_have_the_size_in_their_name(name: str, billions: float) -> None:
    assert model(name).parameters().total / 1e9 == pytest.approx(billions, abs=0.05)


def test_v3_parts_are_the_shapes_multiplied_out_by_hand() -> None:
    layer = V3.layer_parameters(MOE)
    mla = 7168 * 1536 + 1536 * 128 * 192 + 7168 * 576 + 512 * 128 * 256 + 128 * 128 * 7168
    assert layer.attention == mla
    assert mla / 1e6 == pytest.approx(187.1, abs=0.05)
    assert layer.shared == 3 * 7168 * 2048
    assert layer.routed == 256 * 3 * 7168 * 2048
    assert layer.gate == 7168 * 256
    assert V3.layer_parameters(DENSE).dense / 1e6 == pytest.approx(396.4, abs=0.05)
    assert layer.non_expert / 1e6 == pytest.approx(232.95, abs=0.1)


def test_multi_token_prediction_weighs_what_the_report_and_the_checkpoint_say() -> None:
    # The published weights are 685B with the module: 671B, and 14B that hold the shared embedding and head again.
    again = V3.embedding_parameters().total + V3.head_parameters().head
    assert (V3.parameters().total + V3.mtp_parameters().total + again) / 1e9 == pytest.approx(685, rel=0.005)


def test_parts_sum_to_the_whole() -> None:
    parameters = V3.parameters()
    assert parameters.expert + parameters.non_expert == parameters.total == sum(vars(parameters).values())
    layers = sum(V3.layer_parameters(kind).total for kind in V3.layer_kinds())
    assert parameters.total == layers + V3.embedding_parameters().total + V3.head_parameters().total


def test_layers_are_dense_first() -> None:
    assert V3.layer_kinds() == (DENSE,) * 3 + (MOE,) * 58
    assert {layer.ffn for layer in model("gpt-6.2b").layer_kinds()} == {"dense"}


# FLOPs


def test_v3_model_flops_a_token() -> None:
    assert model_flops_per_token(V3, 4096) / 1e9 == pytest.approx(250.4, rel=0.005)
    assert model_flops_per_token(V3, 4096, causal=False) / 1e9 == pytest.approx(281.2, rel=0.005)


def test_attention_core_of_v3_by_hand() -> None:
    assert V3.attention.core(4096, causal=False).forward == 2 * 4096 * 128 * (192 + 128)
    assert V3.attention.core(4096).forward == 4096 * 128 * (192 + 128)


def test_v3_executed_flops_by_part() -> None:
    parts = layer_flops(V3, MOE, Recipe(), 4096)
    redone = 2 * (1536 * 128 * 192 + 512 * 128 * 256)
    assert parts["core"].input_gradient == pytest.approx(2.6 * parts["core"].forward)
    assert parts["core"].weight_gradient == 0
    assert parts["projections"].forward == parts["projections"].weight_gradient
    assert parts["projections"].input_gradient == parts["projections"].forward + redone
    assert parts["routed"].forward + parts["shared"].forward == pytest.approx(2 * 9 * 44.04e6, rel=1e-3)
    stored = layer_flops(V3, MOE, Recipe(recompute=Recompute(up_projections=False)), 4096)
    assert stored["projections"].input_gradient == stored["projections"].forward


@pytest.mark.parametrize("name", GPTS)
def test_dense_gpts_have_the_zero_bubble_papers_flops(name: str) -> None:
    """F = sbh(24h + 4s), I = sbh(24h + 8s), W = 24 s b h^2 a layer (https://arxiv.org/abs/2401.10241, table 1)."""
    gpt, s = model(name), 1024
    h = gpt.hidden
    parts = layer_flops(gpt, gpt.layer_kinds()[0], Recipe("bf16"), s, causal=False).values()
    assert sum(part.forward for part in parts) == h * (24 * h + 4 * s)
    assert sum(part.input_gradient for part in parts) == h * (24 * h + 8 * s)
    assert sum(part.weight_gradient for part in parts) == 24 * h * h


# Seconds


def test_v3_compute_phases_are_near_the_published_trace() -> None:
    """The rates are published or fitted apart from most of these sums; docs/costs_appendix.md lists each error."""
    deviations = compute_deviations(V3, H800)
    assert len(deviations) == 6
    assert all(abs(one.error) < 0.05 for one in deviations), deviations
    whole = sum(one.predicted for one in deviations) / sum(one.published for one in deviations)
    assert whole == pytest.approx(1, abs=0.02)


def test_rates_taken_from_the_trace_are_those_of_112_of_132_sms() -> None:
    """The trace's kernels had 112 SMs; the preset's rates are for all 132."""
    tokens, scale = 4096, 132 / 112
    core = tokens * V3.attention.core(4096).forward
    forward_us, backward_us = TRACE_COMPUTE_US["attn", "F"][1], TRACE_COMPUTE_US["attn", "I"][1]
    assert H800.attention.forward_flops_per_s == pytest.approx(core / (forward_us * 1e-6) * scale, rel=0.005)
    assert H800.attention.backward_flops_per_s == pytest.approx(2.6 * core / (backward_us * 1e-6) * scale, rel=0.005)
    projections = tokens * layer_flops(V3, MOE, Recipe(), 4096)["projections"].weight_gradient
    weight_us = TRACE_COMPUTE_US["attn", "W"][0]
    assert H800.gemm_rates("fp8").weight_gradient_flops_per_s == pytest.approx(
        projections / (weight_us * 1e-6) * scale, rel=0.005
    )


def test_measured_phases_sum_to_the_traces_busy_times() -> None:
    busy_us = {phase: compute.busy_s * 1e6 for phase, compute in measured_compute().items()}
    published = {("attn", "F"): 4370, ("mlp", "F"): 4604, ("mlp", "I"): 5306, ("attn", "I"): 9341, ("mlp", "W"): 5063}
    for phase, microseconds in published.items():
        assert busy_us[cast("tuple[Block, Work]", phase)] == pytest.approx(microseconds, abs=0.5)


def test_more_sms_speed_up_kernels_that_sms_bound_and_nothing_else() -> None:
    few = trace_compute(V3, H800)
    everything = layer_compute(V3, MOE, Workload(H800, Recipe(), 4096, 4096))
    for phase, compute in everything.items():
        assert compute.gemm_s == pytest.approx(few[phase].gemm_s * 112 / 132)
        assert compute.attention_s == pytest.approx(few[phase].attention_s * 112 / 132)
        assert compute.other_s == few[phase].other_s
        assert compute.duration_s == pytest.approx(compute.busy_s * 1.017)


def test_time_is_proportional_to_tokens() -> None:
    once = layer_compute(V3, MOE, Workload(H800, Recipe(), 4096, 4096))
    twice = layer_compute(V3, MOE, Workload(H800, Recipe(), 8192, 4096))
    assert all(twice[phase].duration_s == pytest.approx(2 * once[phase].duration_s) for phase in once)


def test_routing_skew_slows_the_routed_experts_only() -> None:
    even = layer_compute(V3, MOE, Workload(H800, Recipe(), 4096, 4096))
    skewed = layer_compute(V3, MOE, Workload(H800, Recipe(), 4096, 4096, routing_skew=1.12))
    routed = layer_flops(V3, MOE, Recipe(), 4096)["routed"].forward * 4096 / 1223e12
    assert skewed["attn", "F"] == even["attn", "F"]
    assert skewed["mlp", "F"].gemm_s - even["mlp", "F"].gemm_s == pytest.approx(0.12 * routed)
    dense = Workload(H800, Recipe(), 4096, 4096)
    assert layer_compute(V3, DENSE, dense) == layer_compute(V3, DENSE, replace(dense, routing_skew=1.12))


def test_fp8_buys_time_in_gemms_but_not_in_attention() -> None:
    fp8 = layer_compute(V3, MOE, Workload(H800, Recipe(), 4096, 4096))
    bf16 = layer_compute(V3, MOE, Workload(H800, Recipe("bf16"), 4096, 4096))
    for phase in fp8:
        assert fp8[phase].gemm_s < bf16[phase].gemm_s
        assert fp8[phase].attention_s == bf16[phase].attention_s


def test_promotion_is_free_at_128_and_sets_the_pace_when_it_takes_longer_than_the_tensor_cores() -> None:
    """An interval of N_C products takes the tensor cores N_C FMAs at 1979 TFLOPS; promotion 2 FMAs at 67."""
    assert promotion_factor(Recipe(), H800) == 1
    assert promotion_factor(Recipe(accumulation_interval=256), H800) == 1
    assert promotion_factor(Recipe(accumulation_interval=32), H800) == pytest.approx(2 * 1979 / 67 / 32)
    assert promotion_factor(Recipe("bf16", accumulation_interval=32), H800) == 1


def test_head_of_v3_by_hand() -> None:
    head = head_compute(V3, Workload(H800, Recipe(), 4096, 4096))
    assert head["F"].gemm_s == pytest.approx(2 * 129280 * 7168 * 4096 / 724e12)
    assert head["F"].other_s == pytest.approx(2 * 4 * 129280 * 4096 / 3.01e12)
    assert head["W"].other_s == 0
    projection = mtp_compute(V3, Workload(H800, Recipe(), 4096, 4096))
    assert projection["I"].gemm_s == pytest.approx(2 * 2 * 7168 * 7168 * 4096 / 724e12)
    embedding = embedding_compute(V3, Workload(H800, Recipe(), 4096, 4096))
    assert embedding["F"].busy_s == pytest.approx(4 * 7168 * 4096 / 3.01e12)
    assert embedding["I"].busy_s == 0


def test_other_time_scales_with_width_and_with_experts_a_token() -> None:
    lite, load = model("deepseek-v2-lite"), Workload(H800, Recipe(), 4096, 4096)
    small, large = layer_compute(lite, lite.layer_kinds()[-1], load), layer_compute(V3, MOE, load)
    assert small["attn", "F"].other_s == pytest.approx(large["attn", "F"].other_s * 2048 / 7168)
    assert small["mlp", "F"].other_s == pytest.approx(large["mlp", "F"].other_s * 6 * 2048 / (8 * 7168))


# Mistakes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hiden": 5}, "model.hiden: unknown key; did you mean 'hidden'?"),
        ({"hidden": -1}, "model.hidden: must be more than 0, not -1"),
        ({"hidden": "7168"}, "model.hidden: must be a whole number, not '7168'"),
        ({"dropout": 1}, "model.dropout: must be true or false, not 1"),
        ({"layers": True}, "model.layers: must be a whole number, not True"),
        ({"activation": "relu"}, "model.activation: must be one of 'swiglu', 'geglu', 'gelu', 'relu2', not 'relu'"),
        ({"dense_layers": 62}, "model.dense_layers: must be at most the 61 layers, not 62"),
        ({"experts": None}, "model.dense_layers: 3 of 61 layers need 'experts' for the rest"),
        ({"attention": 3}, "model.attention: needs a mapping of keys to values, not 3"),
        ({"experts": {"routed": 256}}, "model.experts: the key 'active' is missing"),
    ],
)
def test_a_wrong_model_is_refused_in_one_sentence(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as error:
        read(Model, {**mapping("models", "deepseek-v3"), **change}, "model")
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": 7}, "model.experts.groups: 7 groups do not divide 256 routed experts"),
        ({"group_limit": 9}, "model.experts.group_limit: must be at most 8 groups, not 9"),
        ({"active": 129}, "model.experts.active: 129 experts a token do not fit in 4 group(s) of 32"),
    ],
)
def test_wrong_experts_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        Experts(**{"routed": 256, "active": 8, "ffn": 2048, "groups": 8, "group_limit": 4, **change})
    assert str(error.value) == message


def test_a_gpu_without_fp8_says_so() -> None:
    with pytest.raises(UserError, match=r"GPU a100 has no FP8 rates \(gpu.gemm.fp8\); use precision bf16"):
        layer_compute(V3, MOE, Workload(gpu("a100"), Recipe(), 4096, 4096))


def test_more_sms_than_the_gpu_has_are_refused() -> None:
    with pytest.raises(UserError, match="133 SMs for compute: GPU h800 has 132"):
        layer_compute(V3, MOE, Workload(H800, Recipe(), 4096, 4096, sms=133))


def test_a_dense_model_has_no_moe_layer() -> None:
    with pytest.raises(UserError, match=r"model gpt-6\.2b has no experts, so it has no MoE layer"):
        model("gpt-6.2b").linears(MOE)


@pytest.mark.parametrize(
    ("name", "attention", "ffn", "norms", "total"),
    [
        # Safetensors' own counts of the published checkpoints of Llama 3.1.
        ("llama3-8b", 1_342_177_280, 5_637_144_576, 266_240, 8_030_261_248),
        ("llama3-70b", 12_079_595_520, 56_371_445_760, 1_318_912, 70_553_706_496),
        ("llama3-405b", 71_873_593_344, 329_772_957_696, 4_145_152, 405_853_388_800),
    ],
)
def test_grouped_query_attention_has_the_parameters_of_the_published_weights(
    name: str, attention: int, ffn: int, norms: int, total: int
) -> None:
    parameters = model(name).parameters()
    assert (parameters.attention, parameters.dense, parameters.norms) == (attention, ffn, norms)
    assert parameters.total == total


def test_as_many_key_value_heads_as_heads_are_plain_multi_head_attention() -> None:
    plain, same = SoftmaxAttention(8, 64, 64), SoftmaxAttention(8, 64, 64, kv_heads=8)
    assert plain.key_value_outputs == same.key_value_outputs == 8 * 128
    assert SoftmaxAttention(8, 64, 64, kv_heads=1).key_value_outputs == 128  # multi-query attention


@pytest.mark.parametrize(
    ("kv_heads", "kv_lora", "message"),
    [
        (3, 0, r"model\.attention\.kv_heads: 3 do not share 8 heads out evenly; take a divisor"),
        (16, 0, r"model\.attention\.kv_heads: 16 do not share 8 heads out evenly"),
        (2, 512, r"model\.attention\.kv_heads: with kv_lora \(MLA\) every head has its own keys and values"),
    ],
)
def test_key_value_heads_must_fit_the_heads(kv_heads: int, kv_lora: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SoftmaxAttention(8, 64, 64, kv_heads=kv_heads, kv_lora=kv_lora)


def test_plain_multi_head_attention_needs_no_latents() -> None:
    plain = SoftmaxAttention(heads=32, qk_head=128, v_head=128)
    assert plain.qk_dims == 128
    assert replace(V3, attention=plain).layer_parameters(Layer(plain, "dense")).attention == 4 * 32 * 128 * 7168
