"""Layers in parts: the parts are all of an op, all that it keeps and all that there is of the model, each once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.breakdown import PARTS, Breakdown, LayerBreakdown, PartBreakdown, breakdown
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.costs.op_phases import op_phases
from dualpipe_sim.costs.phases import Phase, ends_s
from dualpipe_sim.model.flops import model_flops_per_token
from dualpipe_sim.model.footprint import bytes_by_unit
from dualpipe_sim.model.layout import StageLayers
from dualpipe_sim.order.ops import B, F, I, W

if TYPE_CHECKING:
    from tests.conftest import Calls

T = 4096
LLAMA: dict[str, Any] = {
    "pipeline": {"ranks": 2, "micro_batches": 8},
    "schedule": "1f1b",
    "stack": "torch-eager",
    "model": "llama3-8b",
    "gpu": "h100",
    "training": {"sequence_length": T, "precision": "bf16", "recompute": "none"},
}
DEEPSEEK = {**LLAMA, "stack": "deepseek"}
MOE = {**LLAMA, "model": "qwen3-30b-a3b", "parallel": {"expert": 8, "data": 8}}
V3 = {**DEEPSEEK, "model": "deepseek-v3", "parallel": {"expert": 8, "data": 8}}
V2_LITE = {**LLAMA, "model": "deepseek-v2-lite"}
TENSOR = {"parallel.tensor": 4}
PLAIN_TENSOR = {"parallel.tensor": 4, "parallel.sequence": False}
CUT_EXPERTS = {"parallel": {"tensor": 2, "context": 2, "expert": 4, "expert_tensor": 2, "data": 2}}


def costs_of(config: dict[str, Any] | str, **overrides: object) -> LayerCosts:
    costs = load_experiment(config, overrides).costs
    assert isinstance(costs, LayerCosts)
    return costs


def stages(costs: LayerCosts, found: Breakdown) -> Iterator[tuple[StageLayers, LayerBreakdown]]:
    """Each entry with a stage that holds nothing else."""
    layers = costs.job.shard.layer_kinds()
    for layer, entry in zip(dict.fromkeys(layers), found.layers, strict=True):
        yield StageLayers((layers.index(layer),)), entry
    yield StageLayers((), embedding=True), found.embedding
    yield StageLayers((), head=True), found.head


def part(layer: LayerBreakdown, name: str) -> PartBreakdown:
    return next(one for one in layer.parts if one.name == name)


def names(layer: LayerBreakdown) -> list[str]:
    return [one.name for one in layer.parts]


def seconds(phases: tuple[Phase, ...]) -> float:
    return sum(phase.duration_s for phase in phases)


# All of an op.


@pytest.mark.parametrize(
    "recompute", ["none", "full", "selective", ["mlp", "moe"], {"full": True, "layers": 1}], ids=str
)
@pytest.mark.parametrize(
    ("config", "overrides"),
    [
        (LLAMA, {}),
        (LLAMA, TENSOR),
        (LLAMA, PLAIN_TENSOR),
        (LLAMA, {**TENSOR, "parallel.tensor_overlap": True}),
        (LLAMA, {"parallel.context": 2}),
        (LLAMA, {"training.sequence_length": 256}),
        (DEEPSEEK, {}),
        (DEEPSEEK, TENSOR),
        (DEEPSEEK, PLAIN_TENSOR),
        (MOE, {}),
        (MOE, CUT_EXPERTS),
        (MOE, {"stack": "megatron", "training.precision": "fp8-block"}),
        (V3, {}),
        (V3, {"training.precision": "fp8", "parallel.tensor": 2}),
        (V2_LITE, {}),
        ({**LLAMA, "model": "nemotron-3-nano-30b-a3b"}, TENSOR | {"parallel.tensor": 2}),
        ("deepseek_v3_pair", {}),
    ],
    ids=lambda one: one if isinstance(one, str) else f"{one.get('model', '')}{one}"[:60],
)
def test_the_parts_are_the_phases_of_an_op_that_runs_alone(
    config: dict[str, Any] | str, overrides: dict[str, Any], recompute: object
) -> None:
    costs = costs_of(config, **overrides, **{"training.recompute": recompute})
    for stage, entry in stages(costs, breakdown(costs)):
        phases = {kind: seconds(op_phases(costs.parts, stage, kind)) for kind in (F, B, I, W)}
        backward_s = entry.input_gradient_s + entry.recompute_s
        assert entry.forward_s == pytest.approx(phases[F], abs=1e-9)
        assert backward_s == pytest.approx(phases[I], abs=1e-9)
        assert entry.weight_gradient_s == pytest.approx(phases[W], abs=1e-9)
        assert backward_s + entry.weight_gradient_s == pytest.approx(phases[B], abs=1e-9)
        assert min(one.forward_s for one in entry.parts) >= 0
        assert all(sum(one.seconds_by_source.values()) > 0 or one.source == "" for one in entry.parts)


@pytest.mark.parametrize("config", [LLAMA, DEEPSEEK, MOE, V3], ids=["dense", "deepseek", "moe", "v3"])
def test_where_nothing_hides_the_sums_are_how_long_ops_last(config: dict[str, Any]) -> None:
    costs = costs_of(config, **{"training.recompute": "full"})
    for stage, entry in stages(costs, breakdown(costs)):
        lasting = [op_phases(costs.parts, stage, kind) for kind in (F, B)]
        lasting_s = [max(ends_s(phases, [phase.duration_s for phase in phases])) for phases in lasting]
        assert lasting_s == pytest.approx([entry.forward_s, entry.seconds - entry.forward_s], abs=1e-9)


def test_collectives_and_all_to_alls_are_parts_of_their_own() -> None:
    costs = costs_of(MOE, **CUT_EXPERTS)
    (layer,) = breakdown(costs).layers
    assert names(layer)[-5:] == ["dispatch", "combine", "tensor_parallel", "context_parallel", "host"]
    phases = op_phases(costs.parts, StageLayers((0,)), F)
    for name, of_phases in (
        ("dispatch", {"dispatch"}),
        ("combine", {"combine"}),
        ("tensor_parallel", {"gather", "scatter"}),
        ("context_parallel", {"context"}),
    ):
        mine = [phase.duration_s for phase in phases if phase.name in of_phases and phase.lane == Lane.ALLTOALL]
        assert part(layer, name).forward_s == pytest.approx(sum(mine))
        assert part(layer, name).source == "links"
    plain = breakdown(costs_of(LLAMA, **PLAIN_TENSOR)).layers[0]
    assert part(plain, "tensor_parallel").weight_gradient_s == 0  # two all-reduces in F, two in I
    assert part(plain, "tensor_parallel").forward_s == pytest.approx(part(plain, "tensor_parallel").input_gradient_s)


# Where seconds come from.


def test_sources_of_stacks() -> None:
    (eager,), (deepseek,) = (breakdown(costs_of(config)).layers for config in (LLAMA, DEEPSEEK))
    assert {one.name: one.source for one in eager.parts} == {
        "attention": "table + roofline",
        "mlp": "table + roofline",
        "norms": "roofline",
    }
    assert {one.name: set(one.seconds_by_source) for one in deepseek.parts} == {
        "attention": {"rate", "trace"},
        "mlp": {"rate", "trace"},
        "norms": set(),  # whose time is in the others'
        "gaps": {"trace"},
    }
    head = breakdown(costs_of(LLAMA)).head
    assert {one.name: one.source for one in head.parts} == {
        "norms": "roofline",
        "head": "table + roofline",
        "loss": "roofline",
    }


def test_gaps_are_their_share_of_all_kernels() -> None:
    layer = breakdown(costs_of(DEEPSEEK)).layers[0]
    gaps = part(layer, "gaps")
    assert gaps.forward_s == pytest.approx(0.017 * (layer.forward_s - gaps.forward_s))
    assert gaps.weight_gradient_s == pytest.approx(0.017 * (layer.weight_gradient_s - gaps.weight_gradient_s))


def test_a_short_layer_waits_for_its_host() -> None:
    costs = costs_of(LLAMA, **{"training.sequence_length": 128})
    issue, layer = costs.job.recipe.stack.issue, breakdown(costs).layers[0]
    host = part(layer, "host")
    assert layer.forward_s == pytest.approx(issue.forward_s)
    assert layer.input_gradient_s + layer.weight_gradient_s == pytest.approx(issue.backward_s)
    computed_s = sum(one.forward_s for one in layer.parts if one is not host)
    assert host.forward_s == pytest.approx(issue.forward_s - computed_s)
    assert host.source == "host"
    assert "host" not in names(breakdown(costs_of(LLAMA)).layers[0])


def test_times_that_are_given_are_said_to_be() -> None:
    costs = costs_of("deepseek_v3_pair")
    (layer,) = breakdown(costs).layers
    assert {one.source for one in layer.parts if one.seconds_by_source} == {"measured", "links", "trace"}
    share = costs.parts.beside.share_of_sms
    given = costs.measured.compute["attn", "F"]
    attention_s = (given.gemm_s + given.attention_s) * share + given.other_s
    assert part(layer, "attention").forward_s + part(layer, "router").forward_s == pytest.approx(attention_s)


def test_the_source_of_most_seconds_comes_first() -> None:
    assert PartBreakdown("mlp", seconds_by_source={"table": 2.0, "roofline": 1.0}).source == "table + roofline"
    for layer in breakdown(costs_of(MOE)).layers:
        for one in layer.parts:
            assert list(one.seconds_by_source.values()) == sorted(one.seconds_by_source.values(), reverse=True)


# What runs again.


def test_what_runs_again_is_the_forward_up_to_the_last_map_that_is_needed() -> None:
    """A layer of torch's stops before its last map; Megatron-LM's does not."""
    eager, megatron = (
        breakdown(costs_of(LLAMA, stack=stack, **{"training.recompute": "full"})).layers[0]
        for stack in ("torch-eager", "megatron")
    )
    assert megatron.recompute_s == pytest.approx(megatron.forward_s)
    assert part(eager, "attention").recompute_s == part(eager, "attention").forward_s
    mlp = part(eager, "mlp")
    down = (mlp.forward_s - mlp.recompute_s) / mlp.forward_s
    assert 0.2 < down < 0.4  # one of three matrices, beside what memory bounds
    assert eager.recompute_s == pytest.approx(eager.forward_s - (mlp.forward_s - mlp.recompute_s))


def test_an_ffn_runs_again_with_its_all_to_alls() -> None:
    (layer,) = breakdown(costs_of(MOE, **{"training.recompute": ["moe"]})).layers
    again = {one.name for one in layer.parts if one.recompute_s}
    assert {"experts", "dispatch", "combine"} <= again
    assert "attention" not in again
    assert part(layer, "dispatch").recompute_s == part(layer, "dispatch").forward_s


def test_attentions_core_runs_again_inside_the_backward() -> None:
    kept, again = (breakdown(costs_of(LLAMA, **{"training.recompute": one})).layers[0] for one in ("none", "selective"))
    assert again.recompute_s == 0
    assert part(again, "attention").input_gradient_s > part(kept, "attention").input_gradient_s
    assert part(again, "mlp") == part(kept, "mlp")


# What is kept, and what there is.


@pytest.mark.parametrize("recompute", ["none", "full", ["mlp", "moe"], "selective"], ids=str)
@pytest.mark.parametrize(
    ("config", "overrides"),
    [(LLAMA, {}), (LLAMA, {"stack": "aleph-scaling", **TENSOR}), (MOE, {}), (V3, {"training.precision": "fp8"})],
)
def test_the_parts_keep_what_the_layer_keeps(
    config: dict[str, Any], overrides: dict[str, Any], recompute: object
) -> None:
    costs = costs_of(config, **overrides, **{"training.recompute": recompute})
    units, found = bytes_by_unit(costs.job), breakdown(costs)
    for stage, entry in stages(costs, found):
        unit = units["head" if stage.head else "embedding" if stage.embedding else stage.layers[0]]
        assert entry.saved_bytes == pytest.approx(unit.activations, abs=len(PARTS))


def test_a_gpt_keeps_the_published_bytes_by_part() -> None:
    """Korthikanti et al. 2022, https://arxiv.org/abs/2205.05198, section 4.1.

    11 sbh + 5 as²b of attention and 19 sbh of the MLP, with the norms' outputs, which they read, and the dropout's
    masks, which stand with the norms here; the norms' inputs are 4 sbh.
    """
    model = {"preset": "gpt-6.2b", "dropout": True}
    costs = costs_of(DEEPSEEK, model=model, **{"training.sequence_length": 1024})
    layer = breakdown(costs).layers[0]
    s, h, a = 1024, 4096, 32
    assert part(layer, "attention").saved_bytes == (11 - 2 - 1) * s * h + 5 * a * s * s
    assert part(layer, "mlp").saved_bytes == (19 - 2 - 1) * s * h
    assert part(layer, "norms").saved_bytes == (4 + 2 * 2 + 2 * 1) * s * h


def test_a_layer_that_runs_again_keeps_its_input() -> None:
    (layer,) = breakdown(costs_of(LLAMA, **{"training.recompute": "full"})).layers
    assert [(one.name, one.saved_bytes) for one in layer.parts if one.saved_bytes] == [("norms", T * 4096 * 2)]


@pytest.mark.parametrize("model", ["llama3-8b", "qwen3-30b-a3b", "deepseek-v3", "gemma-3-27b", "qwen3-next-80b-a3b"])
def test_all_parts_together_are_the_model(model: str) -> None:
    costs = costs_of(LLAMA, model=model)
    found = breakdown(costs)
    assert sum(one.count * one.parameters for one in found.all_of_it) == costs.job.model.parameters().total
    assert sum(layer.count for layer in found.layers) == costs.job.model.layers
    assert sum(one.count * one.flops for one in found.all_of_it) == pytest.approx(
        T * model_flops_per_token(costs.job.model, T)
    )


def test_what_is_shared_out_is_there_once() -> None:
    whole, spread, cut = (
        breakdown(costs_of(MOE, parallel=parallel)).layers[0]
        for parallel in ({}, {"expert": 8, "data": 8}, {"expert": 2, "expert_tensor": 2, "tensor": 2, "data": 2})
    )
    assert part(spread, "experts").parameters * 8 == part(whole, "experts").parameters
    assert part(cut, "experts").parameters * 4 == part(whole, "experts").parameters
    assert part(spread, "attention").parameters == part(whole, "attention").parameters
    assert part(spread, "router").parameters == part(cut, "router").parameters == 2048 * 128
    eighth = breakdown(costs_of(LLAMA, **{"parallel.tensor": 8})).layers[0]
    assert eighth.flops * 8 == pytest.approx(breakdown(costs_of(LLAMA)).layers[0].flops)


def test_tokens_are_those_of_the_gpus_share_of_sequences() -> None:
    changes = {"parallel.context": 4, "training.micro_batch_size": 2}
    assert breakdown(costs_of(LLAMA, **changes)).tokens == 2 * T // 4
    assert breakdown(costs_of(LLAMA, **TENSOR)).tokens == T


# What layers are called, and how they are shown.


@pytest.mark.parametrize(
    ("model", "labels"),
    [
        ("llama3-8b", ["dense × 32"]),
        ("deepseek-v3", ["dense × 3", "moe × 58"]),
        ("gpt-oss-20b", ["moe, window 128 × 12", "moe × 12"]),
        ("kimi-linear-48b-a3b", ["dense, kimi-delta", "moe, kimi-delta × 19", "moe, softmax × 7"]),
        ("nemotron-3-nano-30b-a3b", ["attention, mamba2 × 23", "moe × 23", "attention, softmax × 6"]),
        (
            {
                "preset": "llama3-8b",
                "layers": 4,
                "pattern": "abc",
                "kinds": {
                    "a": {"attention": {"kind": "softmax", "heads": 32, "qk_head": 128, "v_head": 128, "sinks": True}},
                    "b": {"attention": {"kind": "none"}},
                    "c": {"attention": {"kind": "softmax", "heads": 32, "qk_head": 128, "v_head": 128}},
                },
            },
            ["dense, sinks × 2", "dense", "dense (2)"],
        ),
    ],
    ids=str,
)
def test_kinds_have_names_of_their_own(model: object, labels: list[str]) -> None:
    found = breakdown(costs_of(LLAMA, model=model))
    assert [layer.label for layer in found.layers] == labels
    assert len({layer.kind for layer in found.layers}) == len(labels)


def test_a_dictionary_has_every_amount_of_layers_and_parts() -> None:
    found: dict[str, Any] = breakdown(costs_of(MOE, **{"training.recompute": "full"})).to_dict()
    amounts = ["forward_s", "input_gradient_s", "weight_gradient_s", "recompute_s", "saved_bytes", "parameters"]
    assert list(found) == ["stack", "gpu", "tokens", "layers", "embedding", "head"]
    (layer,) = found["layers"]
    for one in (layer, found["embedding"], found["head"]):
        assert list(one) == ["kind", "count", *amounts, "parts"]
        for each in one["parts"]:
            assert list(each) == ["name", *amounts, "source"]
        for name in amounts:
            assert sum(each[name] for each in one["parts"]) == pytest.approx(one[name], abs=1e-9)


def test_the_column_of_what_runs_again_is_there_where_anything_does() -> None:
    for recompute, there in (("none", False), ("full", True)):
        found = breakdown(costs_of(LLAMA, **{"training.recompute": recompute}))
        assert ("again" in found.to_table().headings) is there
        assert ("again" in found.layers[0].to_table().headings) is there
        assert {len(row) for row in found.layers[0].to_table().rows} == {len(found.layers[0].to_table().headings)}
        assert "again" not in found.head.to_table().headings


def test_it_takes_no_longer_for_more_layers(calls: Calls) -> None:
    few, many = (costs_of(LLAMA, model={"preset": "llama3-405b", "layers": layers}) for layers in (16, 126))
    breakdown(few)
    work = [calls(lambda costs=costs: breakdown(costs)) for costs in (few, many)]  # type: ignore[misc]
    assert work[1] < 3 * work[0] + 1000
