"""Bytes of activations and state, derived from shapes, against published formulas and sums worked by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from dualpipe_sim.base.precision import Precision
from dualpipe_sim.config.records import read
from dualpipe_sim.model.activations import (
    head_activations,
    layer_activations,
    mtp_activations,
    weight_gradient_inputs,
)
from dualpipe_sim.model.architecture import Layer, Model, Parameters
from dualpipe_sim.model.attention.softmax import SoftmaxAttention
from dualpipe_sim.model.job import Job
from dualpipe_sim.model.micro_batch import MicroBatch
from dualpipe_sim.model.optimizer import Optimizer
from dualpipe_sim.model.parallelism import Parallelism
from dualpipe_sim.model.recipe import Recipe, Recompute
from dualpipe_sim.model.routing import expert_group
from dualpipe_sim.model.stacks import STACKS
from dualpipe_sim.model.state import (
    LocalParameters,
    alltoall_buffer_bytes,
    local_parameters,
    state_bytes,
)

PRESETS = Path(__file__).parents[2] / "dualpipe_sim" / "presets" / "models"
T = 4096
BATCH = MicroBatch(T, T)

FOUR = Parallelism(data=4, expert=2)
RANK = Parallelism(data=128, expert=64)
"""GPUs of a rank of DeepSeek-V3's run (report, section 3.2)."""


def store_all(precision: Precision) -> Recipe:
    return Recipe(precision, recompute=Recompute(norms=False, up_projections=False, activation=False))


def model(name: str) -> Model:
    return read(Model, yaml.safe_load((PRESETS / f"{name}.yaml").read_text()), "model")


V3 = model("deepseek-v3")
DENSE, MOE = Layer(V3.attention, "dense"), Layer(V3.attention, "moe")
assert V3.experts is not None
GROUP = expert_group(V3.experts, 64, 8)
GPTS = ("gpt-1.5b", "gpt-6.2b", "gpt-14.6b", "gpt-28.3b")


def local_layers(kinds: list[Layer], expert_parallel: int) -> LocalParameters:
    """What one GPU holds of a run of layers."""
    layers = sum((V3.layer_parameters(kind) for kind in kinds), start=Parameters())
    return local_parameters(layers, expert_parallel)


def items_mb(recipe: Recipe, kind: Layer | None = None) -> dict[str, float]:
    received = T * GROUP.distinct_gpus
    items = layer_activations(V3, kind or MOE, recipe, MicroBatch(T, T, received_tokens=received))
    return {name: size / 1e6 for name, size in items.items()}


@pytest.mark.parametrize(
    ("recipe", "kind", "megabytes"),
    [
        (Recipe(), MOE, 624),
        (Recipe(), DENSE, 393),
        (store_all("fp8"), MOE, 1308),
        (Recipe("bf16"), MOE, 1017),
        (store_all("bf16"), MOE, 1839),
    ],
)
def test_v3_layer_keeps_the_megabytes_worked_by_hand(recipe: Recipe, kind: Layer, megabytes: float) -> None:
    # 0.1 %: the sums by hand take 7.48 distinct GPUs a token, which are 7.471 here.
    assert sum(items_mb(recipe, kind).values()) == pytest.approx(megabytes, rel=0.001)


@pytest.mark.parametrize("kind", [DENSE, MOE])
def test_a_layer_that_is_recomputed_keeps_its_input(kind: Layer) -> None:
    # 2 s b h bytes (Korthikanti et al. 2022, https://arxiv.org/abs/2205.05198, table 2), whatever the precision.
    for precision in ("bf16", "fp8"):
        full = Recipe(precision, recompute=Recompute(full=True))
        assert layer_activations(V3, kind, full, BATCH) == {"layer input": T * 7168 * 2}


def test_nothing_else_is_recomputed_beside_whole_layers() -> None:
    assert Recompute(norms=True, full=True) == Recompute(norms=False, up_projections=False, activation=False, full=True)
    assert Recompute(full=True).names == ("full",)


def test_v3_layer_item_by_item() -> None:
    items = items_mb(Recipe())
    expected = {
        "norm inputs": 117.4,
        "latents": 17.3,
        "attention's output": 100.7,
        "softmax statistics": 2.1,
        "dispatched tokens": 226.5,
        "routed swiglu inputs": 138.4,
        "shared swiglu inputs": 17.3,
        "router": 4.6,
    }
    assert items.keys() == expected.keys()
    for name, megabytes in expected.items():
        assert items[name] == pytest.approx(megabytes, rel=0.002, abs=0.05), name


@pytest.mark.parametrize("name", GPTS)
@pytest.mark.parametrize("micro_batch", [1, 3])
def test_dense_gpts_keep_the_zero_bubble_papers_bytes(name: str, micro_batch: int) -> None:
    """M_B = sb(34h + 5as) and M_W = 32sbh a layer (https://arxiv.org/abs/2401.10241, table 1)."""
    gpt, s, b = model(name), 1024, micro_batch
    assert isinstance(gpt.attention, SoftmaxAttention)
    h, a = gpt.hidden, gpt.attention.heads
    recipe = store_all("bf16")
    stored = sum(layer_activations(gpt, gpt.layer_kinds()[0], recipe, MicroBatch(s * b, s)).values())
    deferred = sum(weight_gradient_inputs(gpt, gpt.layer_kinds()[0], recipe, MicroBatch(s * b, s)).values())
    assert stored == s * b * (34 * h + 5 * a * s)
    assert deferred == 32 * s * b * h
    assert deferred / stored == pytest.approx(0.366 if name == "gpt-1.5b" else 0.43, abs=0.005)


def test_deferred_weight_gradient_of_v3_counts_each_input_once() -> None:
    items = weight_gradient_inputs(V3, MOE, Recipe(), MicroBatch(T, T, received_tokens=T * GROUP.distinct_gpus))
    fp8 = 1 + 4 / 128
    assert items["mlp norm's output"] == T * 7168 * fp8  # read by the gate and the shared expert
    assert items["attention's output"] == T * 128 * 128 * 1.5
    assert items["gradient of routed up"] == T * 8 * 2 * 2048 * fp8
    assert items["gradient of routed down"] == items["dispatched tokens"]  # one gradient for each token received


def test_recompute_never_keeps_more() -> None:
    precisions: tuple[Precision, ...] = ("bf16", "fp8")
    for precision in precisions:
        least = items_mb(Recipe(precision))
        most = items_mb(store_all(precision))
        assert most.items() >= least.items()


def test_v2_lite_keeps_queries_which_no_latent_can_redo() -> None:
    lite = model("deepseek-v2-lite")
    items = layer_activations(lite, lite.layer_kinds()[-1], Recipe(), BATCH)
    assert items["queries"] == T * 16 * 192 * 2
    assert "keys and values" not in items


def test_v3_moe_layer_on_one_of_64_gpus_has_409_1_million_parameters() -> None:
    local = local_layers([MOE], 64)
    assert local.expert == 4 * 3 * 7168 * 2048
    assert local.non_expert / 1e6 == pytest.approx(232.95, abs=0.1)
    assert local.total / 1e6 == pytest.approx(409.1, abs=0.1)


def test_static_state_by_hand() -> None:
    """P(w + 4) + 8 (P_ne / (DP c) + P_e / (DP / EP c))."""
    static = state_bytes(LocalParameters(1000.0, 600.0), Recipe("bf16"), FOUR, copies=2)
    assert static.weights == 1600 * 2
    assert static.gradients == 1600 * 4
    assert static.optimizer == 8 * (1000 / 8 + 600 / 4)
    assert static.total == 1600 * 6 + 8 * (1000 / 8 + 600 / 4)


@pytest.mark.parametrize(
    ("optimizer", "gradients", "states"),
    [
        (Optimizer(moments="fp32"), 4, 12 * (1000 / 8 + 600 / 4)),  # Megatron-LM's distributed optimizer
        (
            Optimizer(main_weights="none", moments="fp32", gradients="bf16"),
            2,
            8 * (1000 / 8 + 600 / 4),
        ),  # torch's AdamW
        (Optimizer(moments="none"), 4, 4 * (1000 / 8 + 600 / 4)),  # plain descent
    ],
)
def test_other_optimizers_hold_what_they_hold(optimizer: Optimizer, gradients: float, states: float) -> None:
    recipe = Recipe("bf16", optimizer=optimizer)
    static = state_bytes(LocalParameters(1000.0, 600.0), recipe, FOUR, copies=2)
    assert (static.weights, static.gradients) == (1600 * 2, 1600 * gradients)
    assert static.optimizer == pytest.approx(states)


@pytest.mark.parametrize(
    ("cut", "weights", "gradients", "optimizer"),
    [  # of 1,600 parameters, 1,000 of them on four GPUs and 600 on two
        ({"zero": 0}, 3200, 6400, 8 * 1600),
        ({"zero": 1}, 3200, 6400, 8 * (250 + 300)),
        ({"zero": 2}, 3200, 4 * (250 + 300), 8 * (250 + 300)),
        ({"zero": 3}, 0, 4 * (250 + 300), 8 * (250 + 300)),  # main weights are the only ones between ops
        ({"zero": 3, "gathers": "once"}, 3200, 6400, 8 * (250 + 300)),
        ({"fsdp": 2}, 0, 4 * (500 + 300), 8 * (500 + 300)),
    ],
)
def test_zero_and_fsdp_share_out_what_they_say(
    cut: dict[str, Any], weights: float, gradients: float, optimizer: float
) -> None:
    """ZeRO's stages (https://arxiv.org/abs/1910.02054, section 5): states, gradients, weights; FSDP in groups."""
    static = state_bytes(LocalParameters(1000.0, 600.0), Recipe("bf16"), replace(FOUR, **cut))
    assert (static.weights, static.gradients, static.optimizer) == (weights, gradients, optimizer)


def test_weights_without_a_main_copy_are_what_is_shared_out() -> None:
    recipe = Recipe("bf16", optimizer=Optimizer(main_weights="none"))
    static = state_bytes(LocalParameters(1000.0, 600.0), recipe, replace(FOUR, zero=3))
    assert static.weights == pytest.approx(2 * (250 + 300))


def test_fp8_halves_the_weights_of_gemms_but_not_of_the_head() -> None:
    fp8 = state_bytes(LocalParameters(1000.0, 600.0, high_precision=200.0), Recipe(), Parallelism())
    assert fp8.weights == pytest.approx(1400 * (1 + 4 / 128**2) + 200 * 2)


def test_dualpipe_of_four_layers_a_stage_fits_80_gb_in_fp8_and_not_in_bf16_without_recompute() -> None:
    """17 micro-batches in flight, four MoE layers a stage, 16 ranks x 128 GPUs, two copies."""
    both = local_layers([MOE] * 8, 64)
    ends = (
        local_parameters(V3.embedding_parameters())
        + local_parameters(V3.head_parameters())
        + local_parameters(V3.mtp_parameters(), 64)
    )
    inner, outer = (state_bytes(local, Recipe(), RANK, copies=2).total for local in (both, both + ends))
    assert 18e9 < inner < 23e9
    fp8 = 17 * 4 * sum(items_mb(Recipe()).values()) * 1e6
    assert fp8 == pytest.approx(42.5e9, rel=0.002)
    assert outer + fp8 < 80e9  # also with embedding, head and the prediction module on one rank
    bf16 = 17 * 4 * sum(items_mb(store_all("bf16")).values()) * 1e6
    assert bf16 == pytest.approx(125e9, rel=0.002)


def test_one_copy_of_the_static_state_is_about_half() -> None:
    # 61 layers over 16 ranks: about 10.5 GB by hand.
    local = local_layers([MOE] * 61, 64)
    share = LocalParameters(local.non_expert / 16, local.expert / 16, local.high_precision / 16)
    assert state_bytes(share, Recipe(), RANK).total == pytest.approx(10.5e9, rel=0.01)


def test_small_items_by_hand() -> None:
    assert Job(V3, Recipe(), T).boundary_bytes == T * 7168 * 2
    assert sum(head_activations(V3, STACKS["deepseek"], BATCH, V3.vocabulary).values()) == T * 2 * (2 * 7168 + 129280)
    assert sum(mtp_activations(V3, BATCH).values()) == 4 * T * 7168 * 2
    tokens = 10 * (8 * 288 + 2 * 8 * 128)
    assert alltoall_buffer_bytes(GROUP, 7168, channels=10) == tokens * 7168 * 2


def test_a_group_of_one_needs_no_buffers() -> None:
    lite = model("deepseek-v2-lite")
    assert lite.experts is not None
    assert alltoall_buffer_bytes(expert_group(lite.experts, 1, 8), 2048, channels=10) == 0
    inside = alltoall_buffer_bytes(expert_group(lite.experts, 8, 8), 2048, channels=10)
    assert inside == 10 * 8 * 288 * 2048 * 2
