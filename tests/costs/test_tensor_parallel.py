"""Tensor parallelism: what a GPU holds and computes, and which collectives stand where, against published formulas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpipe_sim import simulate
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.costs.op_phases import op_phases, pair_phases
from dualpipe_sim.costs.phases import Phase, ends_s
from dualpipe_sim.costs.tensor_parallel import TensorGroup, ring
from dualpipe_sim.errors import ConfigError, UserError
from dualpipe_sim.hardware.cluster import Cluster, Link
from dualpipe_sim.hardware.collectives import RING_EFFICIENCY, RING_LAUNCH_S
from dualpipe_sim.hardware.groups import Group
from dualpipe_sim.model.activations import layer_activations
from dualpipe_sim.model.attention.softmax import SoftmaxAttention
from dualpipe_sim.model.flops import layer_flops
from dualpipe_sim.model.footprint import bytes_by_unit
from dualpipe_sim.model.job import Job
from dualpipe_sim.model.layout import StageLayers
from dualpipe_sim.model.micro_batch import MicroBatch
from dualpipe_sim.model.parallelism import Parallelism
from dualpipe_sim.model.recipe import Recipe, Recompute
from dualpipe_sim.order.ops import B, F, I, Kind, W
from dualpipe_sim.schedules.registry import schedules
from tests.plays import asked_by

LLAMA: dict[str, Any] = {
    "pipeline": {"ranks": 4, "micro_batches": 8},
    "schedule": "1f1b",
    "costs": {"kind": "layers"},
    "model": "llama3-70b",
    "gpu": "h100",
    "cluster": {"preset": "h100-ib", "collectives": ""},
    "parallel": {"tensor": 8},
    "training": {"sequence_length": 4096, "precision": "bf16"},
}
TWO = StageLayers((0, 1))


def costs_of(config: dict[str, Any] = LLAMA, /, **overrides: object) -> LayerCosts:
    costs = load_experiment(config, overrides).costs
    assert isinstance(costs, LayerCosts)
    return costs


EIGHT = costs_of()
PLAIN = costs_of(**{"parallel.sequence": False})
ALONE = costs_of(**{"parallel.tensor": 1})
V3 = costs_of({**LLAMA, "model": "deepseek-v3", "pipeline": {"ranks": 16, "micro_batches": 32}, "gpu": "h800",
               "parallel": {"tensor": 4, "expert": 64}})  # fmt: skip


def names(phases: tuple[Phase, ...], lane: int | None = None) -> list[str]:
    return [f"{phase.name} {Kind(phase.kind)}" for phase in phases if lane in (None, phase.lane)]


def length_s(phases: tuple[Phase, ...]) -> float:
    return max(ends_s(phases, [phase.duration_s for phase in phases]))


# What a GPU holds.


@pytest.mark.parametrize("name", ["gpt-1.5b", "gpt-6.2b", "llama3-70b", "deepseek-v2-lite", "deepseek-v3"])
@pytest.mark.parametrize("gpus", [2, 8])
def test_the_shares_of_all_gpus_are_the_model_and_copies_of_what_is_not_cut(name: str, gpus: int) -> None:
    model = costs_of(model=name, **{"parallel.tensor": 1}).job.model
    whole, share = model.parameters(), model.over(gpus).parameters()
    for part in ("dense", "shared", "embedding", "head"):
        assert getattr(share, part) * gpus == getattr(whole, part)
    for part in ("routed", "gate", "norms"):
        assert getattr(share, part) == getattr(whole, part)
    attention = model.attention
    assert isinstance(attention, SoftmaxAttention)
    latents = model.hidden * (attention.q_lora + attention.kv_lora + attention.rope_head) if attention.kv_lora else 0
    assert (share.attention - model.layers * latents) * gpus == whole.attention - model.layers * latents
    assert model.over(1) is model


def test_fewer_key_value_heads_than_gpus_are_there_in_copies() -> None:
    attention = costs_of(**{"parallel.tensor": 1}).job.model.attention  # 64 heads, 8 of keys and values
    assert isinstance(attention, SoftmaxAttention)
    assert [(one.heads, one.kv_heads) for one in map(attention.over, (2, 8, 16, 64))] == [
        (32, 4),
        (8, 1),
        (4, 1),
        (1, 1),
    ]


def test_a_vocabulary_that_is_not_divided_is_padded() -> None:
    model = costs_of(**{"parallel.tensor": 1}).job.model
    assert replace(model, vocabulary=50257).over(8).vocabulary == 6283  # Megatron-LM pads 50257 to 50264 at least


@pytest.mark.parametrize("gpus", [1, 2, 8])
@pytest.mark.parametrize("sequence", [True, False])
def test_a_layer_keeps_the_bytes_of_the_published_formulas(gpus: int, *, sequence: bool) -> None:
    """Korthikanti et al. 2022, https://arxiv.org/abs/2205.05198, table 2: bytes a layer of a GPT keeps, t GPUs."""
    model = costs_of(model="gpt-6.2b", **{"parallel.tensor": 1}).job.model
    s, b, h, a, t = 1024, 3, 4096, 32, gpus
    keep_all = Recipe("bf16", recompute=Recompute.of(()))
    batch = MicroBatch(s * b, s, shares=t if sequence else 1)
    found = sum(layer_activations(model.over(t), model.over(t).layer_kinds()[0], keep_all, batch).values())
    scores = 5 * a * s / h
    assert found == s * b * h * ((34 + scores) / t if sequence else 10 + (24 + scores) / t)


@pytest.mark.parametrize("gpus", [1, 4])
def test_selective_recomputation_keeps_the_bytes_of_the_published_formula(gpus: int) -> None:
    """The same table: 34 sbh / t a layer, without the scores; attention's core runs again in the backward."""
    model = costs_of(model="gpt-6.2b", **{"parallel.tensor": 1}).job.model
    s, b, h = 1024, 3, 4096
    selective = Recipe("bf16", recompute=Recompute.of(["core"]))
    share = model.over(gpus)
    (layer,) = set(share.layer_kinds())
    found = sum(layer_activations(share, layer, selective, MicroBatch(s * b, s, shares=gpus)).values())
    assert found == s * b * h * 34 / gpus
    kept, again = (layer_flops(model, model.layer_kinds()[0], one, s) for one in (Recipe("bf16"), selective))
    assert again["core"].input_gradient == kept["core"].input_gradient + kept["core"].forward


def test_case_of_a_70_b_model_over_four_gpus() -> None:
    """A layer of 8192 x (8192 + 2 x 1024) + 8192 x 8192 + 3 x 8192 x 28672 = 855.6 M; four GPUs have a quarter each."""
    job = costs_of(**{"parallel.tensor": 4}).job
    assert job.model.layer_parameters(job.model.layer_kinds()[0]).total == 855_638_016 + 2 * 8192
    assert job.shard.layer_parameters(job.shard.layer_kinds()[0]).total == 855_638_016 // 4 + 2 * 8192
    assert job.model.parameters().total == 70_553_706_496
    whole, quarter = (bytes_by_unit(one)[3] for one in (replace(job, parallel=Parallelism()), job))
    assert quarter.activations * 4 == whole.activations


def test_experts_see_the_tokens_of_their_gpus_share_and_have_more_copies() -> None:
    job = V3.job
    cut = job.parallel
    assert (cut.data, cut.gpus, cut.expert_holders) == (16, 64, 1)
    whole = replace(job, parallel=replace(cut, tensor=1, data=64))
    assert job.micro_batch.received_tokens == (whole.micro_batch.received_tokens or 0) / 4
    assert job.boundary_bytes == whole.boundary_bytes / 4
    assert replace(cut, data=32).expert_holders == 2


# What it computes, and what it waits for.


def test_compute_is_shared_out_and_collectives_stand_around_blocks() -> None:
    assert (
        names(op_phases(EIGHT.parts, TWO, F))
        == ["gather F", "attn F", "scatter F", "gather F", "mlp F", "scatter F"] * 2
    )
    assert (
        names(op_phases(EIGHT.parts, TWO, I))
        == ["gather I", "mlp I", "scatter I", "gather I", "attn I", "scatter I"] * 2
    )
    assert names(op_phases(EIGHT.parts, TWO, W)) == ["gather W", "mlp W", "gather W", "attn W"] * 2
    for kind in (F, I, W):
        for one, eighth in zip(
            op_phases(ALONE.parts, TWO, kind),
            (phase for phase in op_phases(EIGHT.parts, TWO, kind) if phase.lane == Lane.COMPUTE),
            strict=True,
        ):
            assert eighth.duration_s == pytest.approx(one.duration_s / 8, rel=1e-12)


def test_without_sequence_parallelism_two_sums_in_f_and_two_in_b() -> None:
    """Megatron-LM, https://arxiv.org/abs/1909.08053, figure 4: two all-reduces in the forward, two in the backward."""
    assert names(op_phases(PLAIN.parts, TWO, F)) == ["attn F", "all-reduce F", "mlp F", "all-reduce F"] * 2
    assert names(op_phases(PLAIN.parts, TWO, B), Lane.ALLTOALL) == ["all-reduce I"] * 4
    assert names(op_phases(PLAIN.parts, TWO, W)) == ["mlp W", "attn W"] * 2
    shared, whole = (one.parts.layer(0)["attn", "F"].alone_s for one in (EIGHT, PLAIN))
    assert whole > shared  # every GPU has norms and residuals of all tokens


def test_in_a_full_backward_w_hides_what_it_gathers_and_what_i_scatters() -> None:
    phases = op_phases(EIGHT.parts, StageLayers((0,)), B)
    assert names(phases, Lane.ALLTOALL) == ["gather I", "gather W", "scatter I"] * 2
    by_name = dict(zip(names(phases), phases, strict=False))
    apart = sum(length_s(op_phases(EIGHT.parts, StageLayers((0,)), kind)) for kind in (I, W))
    # Of attention's W, which is short beside its collectives, not all is hidden.
    hidden = 2 * by_name["gather W"].duration_s + by_name["scatter I"].duration_s
    hidden += min(by_name["scatter I"].duration_s, by_name["attn W"].duration_s)
    assert apart - length_s(phases) == pytest.approx(hidden, rel=1e-9)


def test_embedding_and_head_have_one_half_each() -> None:
    first, last = StageLayers((), embedding=True), StageLayers((), head=True)
    assert names(op_phases(EIGHT.parts, first, F)) == ["embedding F", "scatter F"]
    assert names(op_phases(EIGHT.parts, last, F)) == ["gather F", "head F"]
    assert names(op_phases(EIGHT.parts, last, I)) == ["head I", "scatter I"]
    assert names(op_phases(PLAIN.parts, last, I)) == ["head I", "all-reduce I"]


def test_collectives_beside_gemms_expose_what_a_ring_takes_longer_than_their_pieces() -> None:
    """Of eight pieces a GPU's own has nothing beside it: max(0, ring - 7/8 GEMM), by hand for Llama 3 70B at 4096."""
    beside = costs_of(**{"parallel.tensor_overlap": True})
    whole = RING_LAUNCH_S + 4096 * 8192 * 2 * 7 / 8 / (360e9 * RING_EFFICIENCY)
    rates = beside.gpu.gemm_rates("bf16")
    maps = {  # FLOPs of a GPU's share of what reads a block's input, and of what writes its output
        "attn": (2 * 4096 * 8192 * (8192 + 2 * 1024) / 8, 2 * 4096 * 8192 * 8192 / 8),
        "mlp": (2 * 4096 * 8192 * 2 * 28672 / 8, 2 * 4096 * 8192 * 28672 / 8),
    }
    for block, (reading, writing) in maps.items():
        for work, order in {"F": (reading, writing), "I": (writing, reading)}.items():
            part, plain = (one.parts.layer(0)[block, work] for one in (beside, EIGHT))  # type: ignore[index]
            assert part.alone_s == plain.alone_s
            for around, flops in zip((part.before, part.after), order, strict=True):
                left = whole - 7 / 8 * flops / rates.dense_flops_per_s
                assert sum(one.alone_s for one in around) == pytest.approx(max(0.0, left), rel=1e-9, abs=1e-12)
    assert beside.parts.head == EIGHT.parts.head
    assert beside.parts.embedding == EIGHT.parts.embedding
    assert length_s(op_phases(beside.parts, TWO, F)) < length_s(op_phases(EIGHT.parts, TWO, F))


@given(st.floats(1e9, 1e12), st.booleans(), st.sampled_from(["llama3-70b", "deepseek-v2-lite"]))
def test_beside_gemms_nothing_takes_longer_and_no_less_than_compute(
    bandwidth: float, sequence: bool, model: str
) -> None:
    cluster = {"preset": "h100-ib", "nvlink": {"bandwidth": bandwidth}}
    cut = {"parallel.sequence": sequence or model != "llama3-70b", "cluster": cluster, "model": model}
    beside, plain = (costs_of(**cut, **{"parallel.tensor_overlap": flag}) for flag in (True, False))
    for kind in (F, I, W, B):
        one, other = (op_phases(costs.parts, StageLayers((0, 1)), kind) for costs in (beside, plain))
        computed = sum(phase.duration_s for phase in one if phase.lane == Lane.COMPUTE)
        assert computed * (1 - 1e-12) <= length_s(one) <= length_s(other) * (1 + 1e-12)


@pytest.mark.parametrize("sequence", [True, False])
@pytest.mark.parametrize("kind", [F, I, W, B])
def test_in_turn_nothing_goes_beside_compute(kind: int, sequence: bool) -> None:
    """Where autograd makes both gradients of a map first, as in Megatron-LM before its sums were asynchronous."""
    cut = {"parallel.sequence": sequence}
    beside, in_turn = (op_phases(costs_of(**cut, **own).parts, TWO, kind) for own in ({}, {"overlap.tp_comm": False}))
    assert sorted(names(beside)) == sorted(names(in_turn))
    assert length_s(in_turn) == pytest.approx(sum(phase.duration_s for phase in in_turn), rel=1e-12)
    if kind == B:
        weighed_s = [EIGHT.parts.layer(0)[block, "W"].alone_s for block in ("attn", "mlp")]
        summed = [min(ring_s("scatter" if sequence else "all-reduce"), seconds) for seconds in weighed_s]
        hidden_s = 2 * sum(summed) + (4 * ring_s("gather") if sequence else 0.0)
        assert length_s(in_turn) - length_s(beside) == pytest.approx(hidden_s, rel=1e-9)
    else:
        assert length_s(in_turn) == length_s(beside)


def ring_s(name: str) -> float:
    """Return what a collective of the whole hidden state takes by itself."""
    return ring(Group(EIGHT.links, 8), name, 4096 * 8192 * 2).duration_s


@pytest.mark.parametrize(
    ("stack", "beside"),
    [("megatron", True), ("megatron-2022", True), ("megatron-2021", False), ("transformer-engine", True),
     ("torch-eager", False), ("torch-compile", False), ("aleph-scaling", False)],
)  # fmt: skip
def test_what_sums_go_beside_is_the_stacks_affair_unless_it_is_said(stack: str, beside: bool) -> None:
    backward = {said: op_phases(costs_of(**{"stack": stack, **said_as(said)}).parts, TWO, B) for said in (None, False)}
    assert (length_s(backward[None]) < length_s(backward[False]) * (1 - 1e-9)) == beside


def said_as(tensor_overlap: bool | None) -> dict[str, object]:
    return {} if tensor_overlap is None else {"parallel.tensor_overlap": tensor_overlap}


def test_routed_experts_have_no_collective_but_shared_ones_do() -> None:
    forward = ["gather F", "attn F", "scatter F", "dispatch F", "gather F", "mlp F", "scatter F", "combine F"]
    assert names(op_phases(V3.parts, StageLayers((30,)), F)) == forward
    routed_only = costs_of(
        {**LLAMA, "model": {"preset": "deepseek-v3", "experts": {"shared": 0}}, "gpu": "h800",
         "parallel": {"tensor": 4, "expert": 64}}
    )  # fmt: skip
    rest = ["gather F", "attn F", "scatter F", "dispatch F", "mlp F", "combine F"]
    assert names(op_phases(routed_only.parts, StageLayers((30,)), F)) == rest


@given(
    st.lists(st.integers(0, 60), max_size=3, unique=True).map(sorted),
    st.lists(st.integers(0, 60), min_size=1, max_size=3, unique=True).map(sorted),
    st.sampled_from([V3, EIGHT, PLAIN, costs_of(**{"training.recompute": "full"})]),
)
def test_a_pair_holds_all_phases_of_its_ops_and_never_takes_longer(
    down: list[int], up: list[int], costs: LayerCosts
) -> None:
    forward, backward = StageLayers(tuple(down)), StageLayers(tuple(up))
    pair = pair_phases(costs.parts, forward, backward)
    alone = [op_phases(costs.parts, forward, F), op_phases(costs.parts, backward, B)]
    assert sorted(names(pair)) == sorted(names(alone[0]) + names(alone[1]))
    assert all(waited < place for place, phase in enumerate(pair) for waited in phase.after)
    assert all(pair[waited].lane != phase.lane for phase in pair for waited in phase.after)
    if costs is not V3:  # whose compute beside an all-to-all has fewer SMs
        assert length_s(pair) <= sum(map(length_s, alone)) * (1 + 1e-12)


def test_a_ring_passes_every_share_but_one_and_nodes_use_all_their_nics() -> None:
    cluster = Cluster(8, Link(300e9), Link(50e9))
    size, achieved = 80e6, 300e9 * RING_EFFICIENCY
    four, eight, sixteen = (Group(cluster, gpus) for gpus in (4, 8, 16))
    assert ring(four, "gather", size).duration_s == pytest.approx(RING_LAUNCH_S + size * 3 / 4 / achieved)
    assert ring(eight, "all-reduce", size).duration_s == pytest.approx(RING_LAUNCH_S + 2 * size * 7 / 8 / achieved)
    # Over two nodes, half of the tensor crosses through eight NICs: 80 MB / 2 / 8 at 50 GB/s, less than NVLink's 15/16.
    flows = {flow.tier: flow.size_bytes * RING_EFFICIENCY for flow in ring(sixteen, "scatter", size).flows}
    assert flows == pytest.approx({"nvlink": size * 15 / 16, "infiniband": size / 2 / 8})


@pytest.mark.parametrize(
    ("gpu", "bandwidth", "gpus", "collective", "megabytes", "measured_us"),
    [  # NCCL 2.29, public tables of https://github.com/ai-dynamo/aiconfigurator; MB are 2^20 bytes
        ("h100", 360e9, 8, "gather", 64, 208), ("h100", 360e9, 8, "scatter", 64, 201),
        ("h100", 360e9, 4, "gather", 64, 195), ("h200", 360e9, 8, "gather", 256, 726),
        ("h200", 360e9, 8, "gather", 16, 67), ("h100", 360e9, 4, "all-reduce", 64, 330),
    ],
)  # fmt: skip
def test_rings_take_what_was_measured_within_an_eighth(
    gpu: str, bandwidth: float, gpus: int, collective: str, megabytes: int, measured_us: float
) -> None:
    group = TensorGroup(gpus, load_experiment(LLAMA, {"gpu": gpu, "cluster.collectives": "h100"}).cluster)
    assert group.cluster.nvlink.bytes_per_s == bandwidth
    taken_s = ring(group.group, collective, megabytes * 2**20).duration_s - RING_LAUNCH_S
    assert taken_s * 1e6 == pytest.approx(measured_us, rel=0.125)


# Whole runs.


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(sorted(schedules())),
    st.sampled_from([1, 2, 4]),
    st.booleans(),
    st.sampled_from(["none", "full", {}]),
)
def test_both_engines_agree_and_no_more_gpus_take_longer(
    schedule: str,
    tensor: int,
    sequence: bool,
    recompute: object,
) -> None:
    config = {
        **LLAMA,
        "schedule": schedule,
        "model": {"preset": "llama3-8b", "layers": 16},
        "parallel": {"tensor": tensor, "sequence": sequence},
        "training": {"sequence_length": 1024, "precision": "bf16", "recompute": recompute},
    }
    fast = simulate(config, **asked_by(schedule))
    slow = simulate(config, engine="simpy", **asked_by(schedule))
    assert slow.makespan_s == pytest.approx(fast.makespan_s, rel=1e-12)
    assert fast.peak_memory_bytes_by_rank == slow.peak_memory_bytes_by_rank
    exposed_s = fast.exposed_tensor_parallel_s_by_rank
    assert exposed_s is not None
    assert (max(exposed_s) > 0) is (tensor > 1)
    assert fast.alltoall_hidden_ratio is None


def test_where_links_are_shared_a_collective_takes_no_less() -> None:
    alone, shared = (simulate(LLAMA, contention=contention, schedule="dualpipe") for contention in ("none", "fair"))
    assert alone.makespan_s is not None
    assert shared.makespan_s is not None
    assert shared.makespan_s >= alone.makespan_s * (1 - 1e-12)


def test_a_run_says_what_tensor_parallelism_costs(command_line: Any) -> None:  # noqa: ANN401
    done = command_line("run", "deepseek_v3", "--set", "parallel={tensor: 4, expert: 64}")
    assert "tensor parallelism: the rank with the most waits" in done.stdout
    assert "all-to-all: " in done.stdout
    assert "tensor parallelism" not in command_line("run", "deepseek_v3").stdout


HEADS = r"parallel\.tensor: 6 GPUs cannot share model\.attention\.heads out evenly, 64; take 4 or 8"
NODES = r"parallel\.tensor: 16 GPUs neither divide a node of 12 nor fill whole ones"
TOKENS = r"training\.sequence_length: 8 GPUs \(parallel\.tensor\) cannot share 4100 tokens out evenly"
GROUPS = r"parallel\.data: 3 x 4 \(parallel\.tensor\) GPUs a rank are not whole groups of 8 \(parallel\.expert\)"
SENT = r"parallel\.sequence: false would send every token to its experts from each GPU"
SEQUENCES = r"33 sequences are no whole micro-batches of 1 on each of 2 \(parallel\.data\)"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"parallel.tensor": 6}, HEADS),
        ({"parallel.tensor": 16, "cluster.gpus_per_node": 12}, NODES),
        ({"training.sequence_length": 4100}, TOKENS),
        ({"parallel": {"tensor": 4, "expert": 8, "data": 3}, "model": "deepseek-v2-lite"}, GROUPS),
        ({"parallel": {"tensor": 4, "expert": 8, "sequence": False}, "model": "deepseek-v2-lite"}, SENT),
        ({"training.global_batch": 33, "parallel.data": 2}, SEQUENCES),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        simulate(LLAMA, **overrides)


def test_data_is_as_small_as_the_experts_allow() -> None:
    job = costs_of(model="deepseek-v2-lite", parallel={"tensor": 4, "expert": 8}).job
    assert (job.parallel.data, job.parallel.gpus, job.parallel.expert_holders) == (2, 8, 1)
    wide = costs_of(model="deepseek-v2-lite", parallel={"tensor": 8, "expert": 2}).job
    assert (wide.parallel.data, wide.parallel.expert_holders) == (1, 4)


def test_a_micro_batch_is_the_groups_not_the_gpus() -> None:
    result = simulate(LLAMA, **{"parallel.data": 2})
    assert result.step_time_s is not None
    tokens = 8 * 4096 * 2
    assert result.tokens_per_second_per_gpu == pytest.approx(tokens / result.step_time_s / (4 * 8 * 2))


def test_a_job_alone_says_what_its_gpus_cannot_share() -> None:
    model = ALONE.job.model
    with pytest.raises(UserError, match=r"model\.ffn out evenly"):
        Job(replace(model, ffn=28673), Recipe("bf16"), 4096, parallel=Parallelism(tensor=2))
