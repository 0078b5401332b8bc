"""Context parallelism and cut experts: what each GPU has and computes, and what groups send, by hand and by papers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim import simulate
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.costs.op_phases import op_phases, pair_phases
from dualpipe_sim.costs.parts import Part
from dualpipe_sim.costs.phases import Phase
from dualpipe_sim.costs.rates import attention_s
from dualpipe_sim.costs.workload import Work
from dualpipe_sim.errors import ConfigError, UserError
from dualpipe_sim.hardware.collectives import RING_EFFICIENCY, RING_LAUNCH_S
from dualpipe_sim.model.architecture import Model
from dualpipe_sim.model.footprint import bytes_by_unit
from dualpipe_sim.model.job import Job
from dualpipe_sim.model.layout import StageLayers
from dualpipe_sim.model.parallelism import Parallelism
from dualpipe_sim.model.recipe import Recipe
from dualpipe_sim.order.ops import B, F, I, Kind, W
from dualpipe_sim.schedules.registry import schedules
from tests.plays import asked_by

LLAMA: dict[str, Any] = {
    "pipeline": {"ranks": 4, "micro_batches": 8},
    "schedule": "1f1b",
    "model": {"preset": "llama3-8b", "layers": 16},
    "gpu": "h100",
    "cluster": {"preset": "h100-ib", "collectives": ""},
    "training": {"sequence_length": 8192},
}
MOE: dict[str, Any] = {**LLAMA, "model": {"preset": "deepseek-v2-lite", "layers": 9}}
NVLINK = 360e9 * RING_EFFICIENCY
"""What a ring achieves on the cluster of the H100s."""

EXCHANGES = ("ring", "gather", "all-to-all")
WORKS: tuple[Work, ...] = ("F", "I", "W")
ONE = StageLayers((0,))


def costs_of(config: dict[str, Any] = LLAMA, /, **overrides: object) -> LayerCosts:
    costs = load_experiment(config, overrides).costs
    assert isinstance(costs, LayerCosts)
    return costs


def cut(
    context: int,
    exchange: str = "ring",
    overrides: Mapping[str, object] | None = None,
    *,
    balanced: bool = True,
    tensor: int = 1,
) -> LayerCosts:
    """Return the costs of a model whose sequences so many GPUs share out."""
    parallel = {"context": context, "context_exchange": exchange, "context_balanced": balanced, "tensor": tensor}
    return costs_of(parallel=parallel, **(overrides or {}))


ALONE = costs_of()


def attention(costs: LayerCosts, work: Work) -> Part:
    return costs.parts.layer(0)["attn", work]


def names(phases: tuple[Phase, ...]) -> list[str]:
    return [f"{phase.name} {Kind(phase.kind)}" for phase in phases]


def sent(parts: tuple[Part, ...]) -> list[dict[str, float]]:
    """Bytes that collectives put on links, as if NCCL achieved all of them."""
    return [{flow.tier: flow.size_bytes * RING_EFFICIENCY for flow in part.alone_flows} for part in parts]


# What a GPU has and computes.


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("gpus", [2, 4, 8])
def test_each_gpu_has_and_computes_its_share(gpus: int, exchange: str) -> None:
    costs = cut(gpus, exchange)
    assert costs.job.micro_batch.tokens * gpus == costs.job.tokens == 8192
    assert costs.job.boundary_bytes * gpus == ALONE.job.boundary_bytes
    whole, share = bytes_by_unit(ALONE.job), bytes_by_unit(costs.job)
    assert share[0].activations * gpus == whole[0].activations
    assert share[0].weight_gradient_inputs * gpus == whole[0].weight_gradient_inputs
    assert share["head"].activations * gpus == whole["head"].activations
    for block, work in product(("attn", "mlp"), WORKS):
        one, all_ = (which.parts.layer(0)[block, work] for which in (costs, ALONE))  # type: ignore[index]
        assert one.alone_s * gpus == pytest.approx(all_.alone_s, rel=1e-12)
    for work in WORKS:
        assert costs.parts.head[work].alone_s * gpus == pytest.approx(ALONE.parts.head[work].alone_s, rel=1e-12)


@pytest.mark.parametrize("gpus", [2, 4, 8, 16])
def test_the_start_and_the_end_of_a_sequence_are_as_much_for_all(gpus: int) -> None:
    """2c pieces, of which each GPU has one from the start and one from the end: the keys of its queries, counted."""
    keys = np.arange(1, 8192 + 1).reshape(2 * gpus, -1).sum(axis=1)
    assert len(set((keys[:gpus] + keys[gpus:][::-1]).tolist())) == 1
    (layer,) = set(ALONE.job.model.layer_kinds())
    share = attention_s(layer, "F", cut(gpus).parts.load)
    assert share * gpus == pytest.approx(attention_s(layer, "F", ALONE.parts.load), rel=1e-12)


@pytest.mark.parametrize("work", ["F", "I"])
@pytest.mark.parametrize("gpus", [2, 4, 8, 16])
def test_of_runs_of_a_sequence_the_last_takes_longest(gpus: int, work: Work) -> None:
    """A query sees itself and all before it; the last of c runs sees (2 - 1/c) / c of all keys that are seen."""
    keys = np.arange(1, 8192 + 1)
    slowest = keys[-8192 // gpus :].sum() / keys.sum()
    assert slowest == pytest.approx((2 - 1 / gpus) / gpus, rel=2e-4)
    (layer,) = set(ALONE.job.model.layer_kinds())
    found = attention_s(layer, work, cut(gpus, balanced=False).parts.load)
    assert found / attention_s(layer, work, ALONE.parts.load) == pytest.approx(slowest, rel=2e-4)


def test_runs_are_even_where_nothing_is_masked_or_heads_are_shared_out() -> None:
    (layer,) = set(ALONE.job.model.layer_kinds())
    unmasked = cut(4, overrides={"training.causal": False}, balanced=False)
    for one in (unmasked, cut(4, "all-to-all", balanced=False)):
        whole = replace(ALONE.parts.load, causal=one.parts.load.causal)
        assert attention_s(layer, "F", one.parts.load) * 4 == pytest.approx(attention_s(layer, "F", whole))


def test_of_a_window_each_run_but_the_first_has_as_much_to_do_and_of_a_recurrence_all() -> None:
    """A query of a window of w sees min(t, w) keys before it; a state passes each token once."""
    window, sequence, gpus = 1024, 8192, 4
    keys = np.minimum(np.arange(1, sequence + 1), window)
    slowest = keys[-sequence // gpus :].sum() / keys.sum() * gpus
    assert 1 < slowest < 1.1
    state = {"kind": "mamba2", "heads": 64, "head": 64, "state": 128, "groups": 8}
    windowed = {"heads": 32, "kv_heads": 8, "qk_head": 128, "v_head": 128, "window": window}
    for kind, expected in ((windowed, slowest), (state, 1.0)):
        model = {"name": "m", "hidden": 4096, "layers": 16, "vocabulary": 32000, "ffn": 8192, "attention": kind}
        even, uneven = (cut(gpus, overrides={"model": model}, balanced=one).parts.load for one in (True, False))
        (layer,) = set(cut(gpus, overrides={"model": model}).job.model.layer_kinds())
        ratio = attention_s(layer, "F", uneven) / attention_s(layer, "F", even)
        assert ratio == pytest.approx(expected, rel=1e-3)


# What they send.


@pytest.mark.parametrize("work", ["F", "I"])
@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("gigabytes", [1, 5, 20, 360])
def test_a_ring_exposes_what_its_steps_take_longer_than_attention(
    work: Work, gigabytes: int, *, balanced: bool
) -> None:
    """(c - 1) max(0, transfer - attention / c), https://arxiv.org/abs/2310.01889, section 3: overlapped if it fits.

    A token has 2 x 8 heads x 128 elements of keys and values in BF16, 4 KB; in I as much of their gradients.
    """
    cluster = {"preset": "h100-ib", "nvlink": {"bandwidth": gigabytes * 1e9}, "collectives": ""}
    costs = cut(4, overrides={"cluster": cluster}, balanced=balanced)
    (layer,) = set(costs.job.model.layer_kinds())
    passed = 2048 * 4096 * (2 if work == "I" else 1)
    step_s = RING_LAUNCH_S + passed / (gigabytes * 1e9 * RING_EFFICIENCY)
    exposed_s = 3 * max(0.0, step_s - attention_s(layer, work, costs.parts.load) / 4)
    part = attention(costs, work)
    assert part.after == ()
    assert sum(one.alone_s for one in part.before) == pytest.approx(exposed_s, rel=1e-9)
    assert bool(part.before) is (exposed_s > 0)


@pytest.mark.parametrize("gpus", [2, 4, 8])
def test_fast_links_and_long_sequences_hide_a_ring(gpus: int) -> None:
    fast = cut(gpus, overrides={"training.sequence_length": 65536})
    for kind in (F, I, W):
        assert names(op_phases(fast.parts, ONE, kind)) == names(op_phases(ALONE.parts, ONE, kind))


@pytest.mark.parametrize(("gpus", "nodes"), [(2, 1), (4, 1), (8, 1), (16, 2)])
def test_a_gather_brings_the_keys_and_values_of_the_whole_sequence(gpus: int, nodes: int) -> None:
    """8192 tokens of 4 KB, of which a GPU has one share already; in I their gradients are scattered as well."""
    costs = cut(gpus, "gather")
    whole = 8192 * 4096
    expected = {"nvlink": whole * (gpus - 1) / gpus}
    if nodes > 1:
        expected["infiniband"] = whole * (nodes - 1) / nodes / 8
    forward, backward = attention(costs, "F"), attention(costs, "I")
    assert sent(forward.before) == sent(backward.before) == sent(backward.after) == [pytest.approx(expected)]
    assert forward.after == ()
    assert forward.before[0].alone_s == pytest.approx(RING_LAUNCH_S + expected["nvlink"] / NVLINK)


@pytest.mark.parametrize("gpus", [2, 4, 8])
def test_an_all_to_all_sends_ulysses_four_tensors(gpus: int) -> None:
    """N h elements a tensor, of which each GPU has N h / P and sends all but 1 / P of that: queries, keys, values, out.

    https://arxiv.org/abs/2309.14509, section 3.2; there with as many key-value heads as queries, 4 N h / P in all.
    """
    plain = cut(gpus, "all-to-all", {"model.attention.kv_heads": 0})
    each = 8192 * 4096 * 2 / gpus * (gpus - 1) / gpus
    for work, (first, then) in {"F": (3, 1), "I": (1, 3)}.items():
        part = attention(plain, work)  # type: ignore[arg-type]
        assert sent(part.before) == [{"nvlink": pytest.approx(first * each)}]
        assert sent(part.after) == [{"nvlink": pytest.approx(then * each)}]
    # With 8 heads of keys and values for 32 of queries, these are a quarter each.
    grouped = attention(cut(gpus, "all-to-all"), "F")
    assert sent(grouped.before) == [{"nvlink": pytest.approx(1.5 * each)}]


def test_ulysses_needs_heads_that_divide() -> None:
    with pytest.raises(ConfigError, match=r"6 GPUs cannot share model\.attention\.heads out evenly, 32; take 4 or 8"):
        cut(6, "all-to-all", {"training.sequence_length": 6144})
    assert cut(6, overrides={"training.sequence_length": 6144}).job.micro_batch.tokens == 1024
    cut_heads = costs_of(parallel={"tensor": 8, "context": 4, "context_exchange": "all-to-all"})
    with pytest.raises(ConfigError, match="heads out evenly, 4"):  # of the 32 a tensor group leaves 4
        costs_of(parallel={"tensor": 8, "context": 8, "context_exchange": "all-to-all"})
    assert cut_heads.job.shard.attention == costs_of(parallel={"tensor": 8}).job.shard.attention


@pytest.mark.parametrize(
    ("exchange", "forward", "backward"),
    [
        ("gather", ["context F", "attn F"], ["context I", "attn I", "context I"]),
        ("all-to-all", ["context F", "attn F", "context F"], ["context I", "attn I", "context I"]),
    ],
)
def test_exchanges_stand_around_attention_and_w_has_none(
    exchange: str, forward: list[str], backward: list[str]
) -> None:
    costs = cut(4, exchange)
    assert names(op_phases(costs.parts, ONE, F)) == [*forward, "mlp F"]
    assert names(op_phases(costs.parts, ONE, I)) == ["mlp I", *backward]
    assert names(op_phases(costs.parts, ONE, W)) == ["mlp W", "attn W"]
    for kind in (F, I):
        phases = op_phases(costs.parts, ONE, kind)
        place = next(place for place, phase in enumerate(phases) if phase.name == "attn")
        assert phases[place].after == (place - 1,)
        assert phases[place - 1].lane == Lane.ALLTOALL


def test_with_tensor_parallelism_exchanges_are_the_inner_ones() -> None:
    costs = costs_of(parallel={"tensor": 2, "context": 4, "context_exchange": "gather"})
    assert names(op_phases(costs.parts, ONE, F))[:4] == ["gather F", "context F", "attn F", "scatter F"]
    # Each GPU has half the heads: 2 KB a token of all of them.
    assert sent(attention(costs, "F").before[1:]) == [{"nvlink": pytest.approx(8192 * 2048 * 3 / 4)}]


def test_recomputed_attention_sees_the_others_again() -> None:
    costs = cut(4, "gather", {"training.recompute": "full"})
    assert names(op_phases(costs.parts, ONE, B)).count("context F") == 1


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_kinds_without_keys_exchange_nothing(exchange: str) -> None:
    kind = {"kind": "mamba2", "heads": 64, "head": 64, "state": 128, "groups": 8}
    model = {"name": "states", "hidden": 4096, "layers": 16, "vocabulary": 32000, "ffn": 8192, "attention": kind}
    slow = {"preset": "h100-ib", "nvlink": {"bandwidth": 1e6}, "collectives": ""}
    costs = cut(4, exchange, {"model": model, "cluster": slow})
    for work in WORKS:
        assert attention(costs, work).before == attention(costs, work).after == ()


@given(
    st.sampled_from([2, 4, 8, 16]), st.sampled_from(EXCHANGES), st.booleans(), st.floats(1e8, 1e12), st.floats(1, 100)
)
def test_more_bandwidth_is_never_slower(
    gpus: int, exchange: str, balanced: bool, bandwidth: float, more: float
) -> None:
    def lengths(bytes_per_s: float) -> list[float]:
        tier = {"bandwidth": bytes_per_s}
        cluster = {"preset": "h100-ib", "nvlink": tier, "infiniband": tier, "collectives": ""}
        costs = cut(gpus, exchange, {"cluster": cluster}, balanced=balanced)
        return [sum(phase.duration_s for phase in op_phases(costs.parts, ONE, kind)) for kind in (F, I, W)]

    slow, fast = lengths(bandwidth), lengths(bandwidth * more)
    assert all(one <= other * (1 + 1e-12) for one, other in zip(fast, slow, strict=True))
    assert fast[2] == slow[2]


@given(st.sampled_from(EXCHANGES), st.sampled_from([1, 2, 4]), st.booleans())
def test_a_pair_holds_all_phases_of_its_ops(exchange: str, tensor: int, full: bool) -> None:
    costs = cut(4, exchange, {"training.recompute": "full" if full else "none"}, tensor=tensor)
    down, up = StageLayers((0, 1)), StageLayers((2, 3, 4))
    apart = [*op_phases(costs.parts, down, F), *op_phases(costs.parts, up, B)]
    assert sorted(names(pair_phases(costs.parts, down, up))) == sorted(names(tuple(apart)))


# Cut experts.


def test_cut_experts_compute_as_much_as_spread_ones() -> None:
    """Eight GPUs: each has eight experts whole, or sixteen halves, or all of them an eighth wide."""
    spread = costs_of(MOE, parallel={"expert": 8})
    for expert, tensor in ((4, 2), (2, 4), (1, 8)):
        other = costs_of(MOE, parallel={"expert": expert, "expert_tensor": tensor, "data": 8})
        for work in WORKS:
            one, whole = (which.parts.layer(5)["mlp", work].alone_s for which in (other, spread))
            assert one == pytest.approx(whole, rel=1e-12)
        of_gpu = [
            costs.job.shard.layer_parameters(costs.job.shard.layer_kinds()[5]).routed / costs.job.parallel.expert
            for costs in (other, spread)
        ]
        assert of_gpu[0] == of_gpu[1] == 64 * 3 * 2048 * 1408 / 8


def test_tokens_are_gathered_and_results_scattered_around_experts_alone() -> None:
    costs = costs_of(MOE, parallel={"expert": 4, "expert_tensor": 2})
    moe, dense = StageLayers((5,)), StageLayers((0,))
    assert names(op_phases(costs.parts, moe, F)) == [
        "attn F", "dispatch F", "gather F", "mlp F", "scatter F", "combine F",
    ]  # fmt: skip
    backward = ["combine I", "gather I", "mlp I", "scatter I", "dispatch I", "attn I"]
    assert names(op_phases(costs.parts, moe, I)) == backward
    assert names(op_phases(costs.parts, moe, W)) == ["mlp W", "attn W"]
    assert "gather F" not in names(op_phases(costs.parts, dense, F))


def test_what_is_gathered_by_hand() -> None:
    """A token's 6 of 64 experts are on 4 (1 - C(48, 6) / C(64, 6)) of four pairs of GPUs, which get it there.

    Each of a pair of 8192 tokens, 2048 elements in BF16, half of which come from the other one.
    """
    pairs = 4 * (1 - 12_271_512 / 74_974_368)
    costs = costs_of(MOE, parallel={"expert": 4, "expert_tensor": 2})
    gathered, scattered = (costs.parts.layer(5)["mlp", "F"].before, costs.parts.layer(5)["mlp", "F"].after)
    together = 2 * 8192 * pairs * 2048 * 2
    assert sent(gathered) == sent(scattered) == [{"nvlink": pytest.approx(together / 2)}]
    # Not spread, each has all tokens of its own and of the other one.
    lone = costs_of(MOE, parallel={"expert_tensor": 2}).parts.layer(5)["mlp", "F"]
    assert sent(lone.before) == [{"nvlink": pytest.approx(8192 * 2048 * 2)}]


def test_cut_experts_keep_a_share_of_all_tokens_of_their_group() -> None:
    """Rows of half the width, twice as many: of what goes into SwiGLU and comes out a GPU keeps the same."""
    whole, halves = (
        costs_of(MOE, parallel={"expert": expert, "expert_tensor": 8 // expert}, **{"training.recompute": "none"}).job
        for expert in (8, 4)
    )
    assert halves.micro_batch.passing(6) * halves.shard.experts.ffn == whole.micro_batch.passing(6) * 1408  # type: ignore[union-attr]
    assert halves.micro_batch.arriving > whole.micro_batch.arriving


# Whole runs.


CUTS = [
    {"context": 2},
    {"context": 2, "context_balanced": False},
    {"context": 4, "context_exchange": "gather"},
    {"context": 4, "context_exchange": "all-to-all", "tensor": 2},
]


@pytest.mark.thorough
@pytest.mark.parametrize("parallel", CUTS, ids=str)
@pytest.mark.parametrize("schedule", sorted(schedules()))
def test_every_schedule_runs_and_both_engines_agree(schedule: str, parallel: dict[str, Any]) -> None:
    slow = {"preset": "h100-ib", "nvlink": {"bandwidth": 2e9}, "collectives": ""}
    config = {**LLAMA, "schedule": schedule, "parallel": parallel, "cluster": slow}
    fast, slow_engine = (simulate(config, engine=engine, **asked_by(schedule)) for engine in ("longest-path", "simpy"))
    assert fast.makespan_s == pytest.approx(slow_engine.makespan_s, rel=1e-9)
    assert fast.peak_memory_bytes_by_rank == slow_engine.peak_memory_bytes_by_rank
    assert fast.exposed_tensor_parallel_s_by_rank is not None
    assert max(fast.exposed_tensor_parallel_s_by_rank) > 0


def test_a_step_trains_whole_sequences() -> None:
    result = simulate(LLAMA, parallel={"context": 4, "data": 2})
    assert result.step_time_s is not None
    tokens = 8 * 8192 * 2
    assert result.tokens_per_second_per_gpu == pytest.approx(tokens / result.step_time_s / (4 * 4 * 2))


def test_a_job_alone_says_what_its_gpus_cannot_share() -> None:
    model: Model = ALONE.job.model
    with pytest.raises(UserError, match=r"training\.sequence_length: 4 GPUs \(parallel\.context\) .* multiple of 8"):
        Job(model, Recipe("bf16"), 4100, parallel=Parallelism(context=4))
    assert Job(model, Recipe("bf16"), 4100, parallel=Parallelism(context=4, context_balanced=False)).own_tokens == 1025
