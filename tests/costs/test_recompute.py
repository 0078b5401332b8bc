"""What the backward runs again: its phases, the seconds they add and the bytes that are not kept, worked by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim import simulate
from dualpipe_sim.analysis.memory import COMPONENTS
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.costs.op_phases import op_phases, pair_phases
from dualpipe_sim.costs.phases import Phase, ends_s
from dualpipe_sim.errors import ConfigError
from dualpipe_sim.model.flops import layer_flops
from dualpipe_sim.model.footprint import UnitBytes, bytes_by_unit
from dualpipe_sim.model.layout import StageLayers
from dualpipe_sim.model.recipe import Recompute
from dualpipe_sim.order.ops import B, F, I, Kind, W
from dualpipe_sim.schedules.registry import schedules
from tests.plays import asked_by

T = 4096
LLAMA: dict[str, Any] = {
    "pipeline": {"ranks": 4, "micro_batches": 8},
    "schedule": "1f1b",
    "model": {"preset": "llama3-8b", "layers": 16},
    "gpu": "h100",
    "training": {"sequence_length": T, "recompute": "none"},
}
MOE: dict[str, Any] = {
    **LLAMA,
    "model": {"preset": "deepseek-v3", "layers": 16, "mtp_depth": 0},
    "parallel": {"expert": 8, "data": 8},
}
DENSE_LAYER, MOE_LAYER = StageLayers((0,)), StageLayers((5,))
GAP = 1.017
"""What gaps between kernels make of a phase on an H100."""
DENSE_RATE = 724e12
"""FLOP/s of its GEMMs in BF16."""

Names = list[str]


def costs_of(config: dict[str, Any] = LLAMA, /, recompute: object = "none", **overrides: object) -> LayerCosts:
    costs = load_experiment(config, {"training.recompute": recompute, **overrides}).costs
    assert isinstance(costs, LayerCosts)
    return costs


def names(phases: tuple[Phase, ...]) -> Names:
    return [f"{phase.name} {Kind(phase.kind)}" for phase in phases]


def seconds(phases: tuple[Phase, ...]) -> float:
    return max(ends_s(phases, [phase.duration_s for phase in phases]))


def unit(recompute: object, layer: int, config: dict[str, Any] = MOE) -> UnitBytes:
    return bytes_by_unit(costs_of(config, recompute).job)[layer]


DENSE_BACK, MOE_BACK = ["mlp I", "mlp W"], ["combine I", "mlp I", "mlp W", "dispatch I"]
ATTENTION = ["attn I", "attn W"]
EXPERTS = ["dispatch F", "mlp F", "combine F"]


# Which phases come again.


@pytest.mark.parametrize(
    ("recompute", "dense", "moe"),
    [
        ("none", [], []),
        (["mlp"], ["mlp F"], []),
        (["moe"], [], EXPERTS),
        (["mlp", "moe"], ["mlp F"], EXPERTS),
        (["shared"], [], []),
        (["core"], [], []),
        ("selective", [], []),
        (["routed_activation"], [], []),
        ("full", ["attn F", "mlp F"], ["attn F", *EXPERTS]),
        ({"full": True, "layers": 1}, ["attn F", "mlp F"], ["attn F", *EXPERTS]),
    ],
    ids=str,
)
def test_phases_of_the_forward_come_before_those_of_the_backward(recompute: object, dense: Names, moe: Names) -> None:
    parts = costs_of(MOE, recompute).parts
    assert names(op_phases(parts, DENSE_LAYER, B)) == [*dense, *DENSE_BACK, *ATTENTION]
    assert names(op_phases(parts, MOE_LAYER, B)) == [*moe, *MOE_BACK, *ATTENTION]
    for held, again in ((DENSE_LAYER, dense), (MOE_LAYER, moe)):
        split = names(op_phases(parts, held, I))
        assert split[: len(again)] == again
        assert not [name for name in split[len(again) :] if name.endswith("F")]
        assert names(op_phases(parts, held, W)) == ["mlp W", "attn W"]  # of what I left


def test_the_first_layers_of_each_stage_are_recomputed() -> None:
    parts = costs_of(LLAMA, {"full": True, "layers": 2}).parts
    for first in (0, 4, 12):
        stage = StageLayers(tuple(range(first, first + 4)))
        again = [phase.layer for phase in op_phases(parts, stage, B) if phase.kind == F and phase.name == "attn"]
        assert again == [first + 1, first]
    whole = costs_of(LLAMA, {"full": True, "layers": 16}).parts
    last = StageLayers((12, 13, 14, 15))
    assert op_phases(whole, last, B) == op_phases(costs_of(LLAMA, "full").parts, last, B)


def test_names_words_and_keys_say_the_same() -> None:
    nothing = {"norms": False, "up_projections": False, "activation": False}

    def said(recompute: object) -> Recompute:
        return costs_of(LLAMA, recompute).job.recipe.recompute

    assert said(["core", "mlp"]) == said({**nothing, "core": True, "mlp": True}) == Recompute.of(["core", "mlp"])
    assert said("none") == said([]) == said(nothing) == Recompute.of(())
    assert said("selective") == said(["core"])
    assert said("full") == said(["full"]) == said({"full": True})
    assert said({}) == said(["norms", "up_projections", "activation"]) == Recompute()
    some = said({**nothing, "full": True, "layers": 3})
    assert some == Recompute.of(some.names)
    assert Recompute.of(["full", "layers 3", "norms"]) == said({**nothing, "norms": True, "full": True, "layers": 3})


@pytest.mark.parametrize(
    ("recompute", "message"),
    [
        ({"layers": 2}, r"training\.recompute\.layers: says how many layers are recomputed whole; give full: true too"),
        (["moes"], r"training\.recompute"),
        ("selectiv", r"training\.recompute: must be 'full', 'selective', 'none', a list of names"),
        ({"full": True, "layers": -1}, r"training\.recompute\.layers"),
        ({"full": True, "together": 0}, r"training\.recompute\.together"),
        ({"together": 2}, r"training\.recompute\.together: is of layers that are recomputed whole; give full: true"),
    ],
)
def test_what_is_no_way_to_recompute_is_refused(recompute: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        costs_of(LLAMA, recompute)


# Seconds.


@pytest.mark.parametrize(
    ("recompute", "stage", "again"),
    [
        (["mlp"], DENSE_LAYER, ["mlp F"]),
        (["moe"], MOE_LAYER, EXPERTS),
        ("full", DENSE_LAYER, ["attn F", "mlp F"]),
        ("full", MOE_LAYER, ["attn F", *EXPERTS]),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [B, I])
def test_a_backward_grows_by_just_the_forward_of_what_runs_again(
    recompute: object, stage: StageLayers, again: Names, kind: int
) -> None:
    plain, redone = (op_phases(costs_of(MOE, one).parts, stage, kind) for one in ("none", recompute))
    forward = op_phases(costs_of(MOE).parts, stage, F)
    more_s = sum(phase.duration_s for phase, name in zip(forward, names(forward), strict=True) if name in again)
    assert seconds(redone) - seconds(plain) == pytest.approx(more_s, rel=1e-9)


@pytest.mark.parametrize(
    ("recompute", "block", "flops"),
    [  # of a token of DeepSeek-V3: one shared expert, three maps; queries and keys and values from their latents
        (["shared"], "mlp", 2 * 3 * 7168 * 2048),
        (["up_projections"], "attn", 2 * (1536 * 128 * 192 + 512 * 128 * 256)),
        (["norms", "activation", "routed_activation"], "mlp", 0),  # which memory bounds, and is not counted
    ],
    ids=str,
)
def test_i_grows_by_the_flops_of_the_maps_that_are_redone(recompute: object, block: Any, flops: float) -> None:  # noqa: ANN401
    plain, redone = (costs_of(MOE, one).parts.layer(5) for one in ("none", recompute))
    more_s = redone[block, "I"].alone_s - plain[block, "I"].alone_s
    assert more_s == pytest.approx(T * flops / DENSE_RATE * GAP, rel=1e-9, abs=1e-15)
    same = [key for key in plain if key != (block, "I")]
    assert [redone[key] for key in same] == [plain[key] for key in same]


@pytest.mark.parametrize("recompute", ["selective", ["core"]])
def test_i_grows_by_the_core_of_attention(recompute: object) -> None:
    """4096 / 2 keys a query, 128 heads of 192 and 128 dimensions: both products once more.

    It takes what it takes in F, at the forward's rate.
    """
    plain, redone = costs_of(MOE), costs_of(MOE, recompute)
    model, layer = plain.job.model, plain.job.model.layer_kinds()[5]
    of = [layer_flops(model, layer, one.job.recipe, T)["core"] for one in (plain, redone)]
    core = 2 * (T / 2) * 128 * (192 + 128)
    assert of[0].forward == of[1].forward == core
    assert of[1].input_gradient - of[0].input_gradient == core
    more_s = redone.parts.layer(5)["attn", "I"].alone_s - plain.parts.layer(5)["attn", "I"].alone_s
    assert more_s == pytest.approx(T * core / 581e12 * GAP)
    assert redone.parts.layer(5)["attn", "F"] == plain.parts.layer(5)["attn", "F"]


@given(st.sets(st.sampled_from(["norms", "up_projections", "activation", "core", "shared", "mlp", "moe"])))
def test_more_is_kept_or_more_is_computed_and_never_more_of_both(again: set[str]) -> None:
    plain, redone = costs_of(MOE), costs_of(MOE, sorted(again))
    kept, less = bytes_by_unit(plain.job), bytes_by_unit(redone.job)
    for layer, stage in ((0, DENSE_LAYER), (5, MOE_LAYER)):
        assert less[layer].activations <= kept[layer].activations
        assert less[layer].weight_gradient_inputs == kept[layer].weight_gradient_inputs
        at_once = less[layer].activations + less[layer].while_backward
        assert at_once <= kept[layer].activations
        assert op_phases(redone.parts, stage, F) == op_phases(plain.parts, stage, F)
        assert op_phases(redone.parts, stage, W) == op_phases(plain.parts, stage, W)
        assert seconds(op_phases(redone.parts, stage, B)) >= seconds(op_phases(plain.parts, stage, B))


# Bytes.


def test_a_dense_ffn_keeps_nothing_but_its_norms_input() -> None:
    """18432 wide, in BF16: what goes into SwiGLU, which is twice as wide, and what comes out."""
    kept, again = unit("none", 0), unit(["mlp"], 0)
    ffn = T * 3 * 18432 * 2
    assert kept.activations - again.activations == ffn == again.while_backward
    assert unit(["mlp"], 5) == unit("none", 5)
    assert (kept.while_forward, kept.while_backward) == (0, 0)


def test_experts_keep_nothing_but_their_norms_input() -> None:
    """What arrives, SwiGLU's in and out of eight experts a token and of the shared one, scores and choice."""
    kept, again = unit("none", 5), unit(["moe"], 5)
    received = costs_of(MOE).job.micro_batch.received_tokens
    assert received is not None
    assert T < received < 8 * T
    swiglu = T * 9 * 3 * 2048 * 2
    router = T * (256 * 4 + 8 * 12)
    expected = received * 7168 * 2 + swiglu + router
    assert kept.activations - again.activations == pytest.approx(expected, abs=2)
    assert again.while_backward == pytest.approx(expected, abs=2)
    assert unit(["moe"], 0) == unit("none", 0)


@pytest.mark.parametrize(
    ("recompute", "layer", "freed"),
    [
        (["shared"], 5, T * 3 * 2048 * 2),
        (["shared"], 0, 0),
        (["routed_activation"], 5, T * 8 * 2048 * 2),
        (["activation"], 5, T * 9 * 2048 * 2),
        (["activation"], 0, T * 18432 * 2),
        (["core"], 5, T * 128 * 4),  # the softmax's statistics
        (["norms"], 0, T * (2 * 7168 + 1536 + 512) * 2),
        (["up_projections"], 0, T * 128 * (192 + 192 + 128) * 2),
    ],
    ids=str,
)
def test_what_is_not_kept_by_hand(recompute: object, layer: int, freed: int) -> None:
    kept, again = unit("none", layer), unit(recompute, layer)
    assert kept.activations - again.activations == pytest.approx(freed, abs=2)
    if recompute == ["shared"] and freed:
        assert again.while_backward == pytest.approx(freed, abs=2)


def test_a_whole_layer_keeps_its_input_and_all_of_it_while_it_runs_again() -> None:
    for layer in (0, 5):
        kept, again = unit("none", layer), unit("full", layer)
        assert again.activations == T * 7168 * 2
        assert again.activations + again.while_backward == kept.activations


def test_stored_scores_are_not_kept_by_selective_recomputation() -> None:
    """5 a s^2 b of a layer's 34 s b h + 5 a s^2 b (https://arxiv.org/abs/2205.05198, section 4.1 and equation 6).

    While its backward runs they are there again, as with ``full``.
    """
    gpt = {**LLAMA, "model": {"preset": "gpt-6.2b", "layers": 16}, "gpu": "a100"}
    s, h, a = T, 4096, 32
    assert unit("none", 3, gpt).activations == s * (34 * h + 5 * a * s)
    assert unit("selective", 3, gpt).activations == 34 * s * h
    assert unit("full", 3, gpt).while_backward == s * (32 * h + 5 * a * s)
    assert unit("selective", 3, gpt).while_backward == 5 * a * s * s


def test_some_layers_of_each_stage_keep_their_input_alone() -> None:
    costs = costs_of(LLAMA, {"norms": False, "activation": False, "full": True, "layers": 1})
    units = bytes_by_unit(costs.job, costs.stage_layers(4))
    whole, others = unit("full", 0, LLAMA), unit("none", 0, LLAMA)
    assert [units[layer] for layer in range(16)] == [others if layer % 4 else whole for layer in range(16)]


def test_layers_that_run_again_together_keep_one_input_and_are_all_there_while_they_do() -> None:
    """Of four layers of a stage in twos: two inputs; at a backward both of a pair are there, then one.

    Megatron-LM's ``uniform`` (``--recompute-num-layers``); it takes as long as layers on their own.
    """
    kept, layer_input = unit("none", 0, LLAMA).activations, T * 4096 * 2
    settings: dict[str, Any] = {"pipeline": {"ranks": 4, "micro_batches": 1, "layout": "tttt|tttt|tttt|tttt"}}
    alone, twos, all_four = (
        simulate(LLAMA, **settings, **{"training.recompute": {"full": True, "together": together}})
        for together in (1, 2, 4)
    )
    assert alone.makespan_s == twos.makespan_s == all_four.makespan_s
    most = {}
    for together, result in ((1, alone), (2, twos), (4, all_four)):
        assert result.memory is not None
        column = result.memory.over_time(0)[1][:, COMPONENTS.index("activations")]
        assert column[-1] == 0
        most[together] = int(column.max())
    assert most == {1: 3 * layer_input + kept, 2: layer_input + 2 * kept, 4: 4 * kept}
    assert Recompute.of(["full", "together 2"]) == Recompute(full=True, together=2)
    assert Recompute(full=True, together=2).names == ("full", "together 2")


def test_gradients_on_their_way_count_once_for_layers_that_run_again_together() -> None:
    settings: dict[str, Any] = {"pipeline": {"ranks": 4, "micro_batches": 1}, "stack": "megatron"}
    alone, four = (
        simulate(LLAMA, **settings, **{"training.recompute": {"full": True, "together": together}})
        for together in (1, 4)
    )
    assert alone.peak_memory_bytes_by_rank is not None
    assert four.peak_memory_bytes_by_rank is not None
    megatron = {**LLAMA, "stack": "megatron"}
    kept, layer_input = unit("none", 0, megatron).activations, T * 4096 * 2
    more = four.peak_memory_bytes_by_rank[1] - alone.peak_memory_bytes_by_rank[1]
    assert more == 3 * (kept - layer_input)


def test_a_deferred_w_waits_with_all_that_it_reads_whatever_runs_again() -> None:
    whole = unit("none", 5)
    for recompute in (["moe"], "full", ["shared", "core"]):
        assert unit(recompute, 5).weight_gradient_inputs == whole.weight_gradient_inputs


# Pairs and whole runs.


CHOICES: list[object] = [["mlp"], ["moe"], ["shared", "core"], ["mlp", "moe"], "full", {"full": True, "layers": 1}]


@pytest.mark.parametrize("recompute", CHOICES, ids=str)
@given(down=st.integers(1, 3), up=st.integers(1, 3), dense=st.booleans())
def test_a_pair_holds_all_phases_of_its_ops(recompute: object, down: int, up: int, *, dense: bool) -> None:
    parts = costs_of(MOE, recompute).parts
    forward, backward = StageLayers(tuple(range(4, 4 + down))), StageLayers(tuple(range(1 if dense else 8, 8 + up)))
    pair = pair_phases(parts, forward, backward)
    apart = [*names(op_phases(parts, forward, F)), *names(op_phases(parts, backward, B))]
    assert sorted(names(pair)) == sorted(apart)
    assert all(pair[waited].lane != phase.lane for phase in pair for waited in phase.after)
    # Of each layer, what runs again has run before its backward for the input begins.
    ends = ends_s(pair, [phase.duration_s for phase in pair])
    for place, phase in enumerate(pair):
        if phase.half == 1 and phase.name == "mlp" and phase.kind == I:
            again = [
                ends[other]
                for other, one in enumerate(pair)
                if one.half == 1 and one.layer == phase.layer and one.kind == F and one.lane == Lane.COMPUTE
            ]
            assert all(end <= ends[place] - phase.duration_s + 1e-12 for end in again)


@pytest.mark.parametrize("recompute", CHOICES, ids=str)
@pytest.mark.parametrize("schedule", ["1f1b", "zb-h1", "dualpipe", "dualpipev", "1f1b-overlap", "interleaved-1f1b"])
def test_both_engines_agree(schedule: str, recompute: object) -> None:
    settings: dict[str, Any] = {"schedule": schedule, "training.recompute": recompute}
    fast, slow = (simulate(MOE, engine=engine, **settings) for engine in ("longest-path", "simpy"))
    assert slow.makespan_s == pytest.approx(fast.makespan_s, rel=1e-9)
    assert fast.peak_memory_bytes_by_rank == slow.peak_memory_bytes_by_rank


@pytest.mark.parametrize("schedule", [name for name in sorted(schedules()) if not asked_by(name)])
def test_any_schedule_takes_longer_and_needs_less(schedule: str) -> None:
    plain, ffn, full = (
        simulate(LLAMA, schedule=schedule, **{"training.recompute": one}) for one in ("none", ["mlp"], "full")
    )
    assert plain.makespan_s is not None
    assert ffn.makespan_s is not None
    assert full.makespan_s is not None
    assert plain.makespan_s < ffn.makespan_s < full.makespan_s
    assert plain.peak_memory_bytes_by_rank is not None
    assert ffn.peak_memory_bytes_by_rank is not None
    assert max(ffn.peak_memory_bytes_by_rank) < max(plain.peak_memory_bytes_by_rank)


def test_1f1b_takes_longer_by_a_forward_for_each_backward_in_a_row() -> None:
    """Of equal stages and without transfers, m + p - 1 forwards and backwards follow each other."""
    config: dict[str, Any] = {
        **LLAMA,
        "pipeline": {"ranks": 4, "micro_batches": 8, "layout": "tttt|tttt|tttt|tttt"},
        "costs": {"kind": "layers", "transfer": "0 s"},
        "gpu": {"preset": "h100", "power_limited": False},
    }
    plain, full = (simulate(config, **{"training.recompute": one}).makespan_s for one in ("none", "full"))
    forward_s = seconds(op_phases(costs_of(LLAMA).parts, StageLayers((0, 1, 2, 3)), F))
    assert plain is not None
    assert full is not None
    assert full - plain == pytest.approx((8 + 4 - 1) * forward_s, rel=1e-9)
