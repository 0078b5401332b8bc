"""Costs by layer: the order and the length of DeepSeek's overlapped pair, what stands alone, and what SMs are worth."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpipe_sim import build, simulate
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.costs.op_phases import op_phases, pair_phases
from dualpipe_sim.costs.parts import Measured
from dualpipe_sim.costs.phases import Phase
from dualpipe_sim.engine import discrete_event, longest_path
from dualpipe_sim.errors import ConfigError, UserError
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.model.layout import StageLayers
from dualpipe_sim.order.ops import B, F, I, Kind, W
from dualpipe_sim.schedules.registry import schedules
from tests.plays import asked_by

MICROSECONDS = 1e-6
SMALL: dict[str, Any] = {
    "pipeline": {"ranks": 4, "micro_batches": 8},
    "schedule": "dualpipe",
    "costs": {"kind": "layers"},
    "model": {"preset": "deepseek-v3", "layers": 13},
    "gpu": "h800",
    "cluster": "h800-ib",
    "parallel": {"expert": 64},
    "training": {"sequence_length": 4096, "precision": "fp8"},
}


def layer_costs(config: str | dict[str, Any] = "deepseek_v3", /, **overrides: object) -> LayerCosts:
    costs = load_experiment(config, overrides).costs
    assert isinstance(costs, LayerCosts)
    return costs


V3 = layer_costs()
"""DeepSeek-V3: layers 0 to 2 are dense, 3 to 60 have experts, 61 is multi-token prediction's."""


def names(phases: tuple[Phase, ...], lane: int) -> list[str]:
    return [f"{phase.name} {Kind(phase.kind)}" for phase in phases if phase.lane == lane]


def play_alone(phases: tuple[Phase, ...]) -> float:
    """Seconds from the first phase's start to the last one's end, played by hand: lanes in order, waits as said."""
    ends: list[float] = []
    free = [0.0, 0.0]
    for phase in phases:
        start = max([free[phase.lane], *(ends[waited] for waited in phase.after)])
        ends.append(start + phase.duration_s)
        free[phase.lane] = ends[-1]
    return max(ends)


def test_two_layers_overlap_in_the_order_of_deepseeks_trace() -> None:
    """Order of kernels in the published training trace (https://github.com/deepseek-ai/profile-data)."""
    pair = pair_phases(V3.parts, StageLayers((10,)), StageLayers((20,)))
    assert names(pair, Lane.COMPUTE) == ["attn F", "mlp I", "mlp W", "mlp F", "attn I", "attn W"]
    assert names(pair, Lane.ALLTOALL) == ["combine I", "dispatch F", "dispatch I", "combine F"]
    assert {phase.layer: phase.half for phase in pair} == {10: 0, 20: 1}


def test_the_forwards_first_layer_meets_the_backwards_last() -> None:
    pair = pair_phases(V3.parts, StageLayers((10, 11, 12)), StageLayers((20, 21)))
    order = [phase.layer for phase in pair if phase.lane == Lane.COMPUTE]
    assert order == [10, 21, 21, 10, 21, 21, 11, 20, 20, 11, 20, 20, 12, 12]


def test_the_pair_of_the_trace_is_its_compute_and_one_combine_that_nothing_hides() -> None:
    """Worked by hand from the trace's busy microseconds a layer, with gaps of 1.7 %.

    Compute fills every layer but for the wait at the very start: the first combine's gradient (3.41 + 2.36 ms) lasts
    longer than the attention that it runs beside.
    """
    compute_us = {
        "attn F": 4370, "mlp I": 5306, "mlp W": 5063, "mlp F": 4604, "attn I": 9341, "attn W": 2388,
    }  # fmt: skip
    busy_us = {name: 1.017 * kernels for name, kernels in compute_us.items()}
    by_hand_s = (4 * sum(busy_us.values()) + 3410 + 2360 - busy_us["attn F"]) * MICROSECONDS
    result = simulate("deepseek_v3_pair")
    assert result.overlapped_pair_s
    assert {"0F;3B", "3F;0B", "1F;2B", "2F;1B"} >= set(result.overlapped_pair_s)
    for seconds in result.overlapped_pair_s.values():
        assert seconds == pytest.approx(by_hand_s, rel=1e-4)


def test_alltoall_beside_compute_is_as_long_as_in_the_trace() -> None:
    """Data kernels and waiting, milliseconds a layer: the slowdowns of the preset were taken from them."""
    exchanges = layer_costs("deepseek_v3_pair").parts.exchanges(0)
    measured_ms = {
        "dispatch F": 4.35 + 2.34, "combine F": 5.99 + 2.69, "combine I": 3.41 + 2.36, "dispatch I": 6.37 + 1.12,
    }  # fmt: skip
    assert {step: part.beside_s * 1e3 for step, part in exchanges.items()} == pytest.approx(measured_ms, rel=3e-3)


def test_measured_times_stand_in_for_the_formulas() -> None:
    measured = Measured(alltoall_s={"dispatch F": 5e-3, "combine F": 1e-3})
    parts = replace(V3, measured=measured).parts
    exchanges, formulas = parts.exchanges(5), V3.parts.exchanges(5)
    assert exchanges["dispatch F"].beside_s == pytest.approx(5e-3)
    assert exchanges["combine F"].beside_s == pytest.approx(1e-3)
    assert exchanges["combine I"] == formulas["combine I"]
    for step, part in exchanges.items():
        assert part.alone_s == formulas[step].alone_s


def test_measured_kernels_go_faster_alone_where_they_depend_on_sms() -> None:
    """The trace ran on 112 of 132 SMs: what is GEMM or attention shrinks by that, the rest stays."""
    part = layer_costs("deepseek_v3_pair").parts.layer(0)["attn", "I"]
    assert part.beside_s == pytest.approx((2360 + 3779 + 3202) * 1.017 * MICROSECONDS)
    assert part.alone_s == pytest.approx(((2360 + 3779) * 112 / 132 + 3202) * 1.017 * MICROSECONDS)


STAGES = st.builds(
    StageLayers,
    st.lists(st.sampled_from([0, 1, 2, 3, 4, 30, 59, 60]), max_size=4).map(tuple),
    embedding=st.booleans(),
    mtp=st.integers(0, 1),
    head=st.booleans(),
)


@given(STAGES, STAGES)
def test_a_pair_does_what_its_ops_do_in_less_time_than_one_after_the_other(
    forward: StageLayers, backward: StageLayers
) -> None:
    pair = pair_phases(V3.parts, forward, backward)
    alone = [(phase, half) for half, layers in enumerate((forward, backward)) for phase in op(layers, (F, B)[half])]
    works = Counter((phase.half, phase.name, phase.kind, phase.layer) for phase in pair)
    assert works == Counter((half, phase.name, phase.kind, phase.layer) for phase, half in alone)
    lanes_s = [sum(phase.duration_s for phase in pair if phase.lane == lane) for lane in (Lane.COMPUTE, Lane.ALLTOALL)]
    assert max(lanes_s) <= play_alone(pair) * (1 + 1e-12)
    assert play_alone(pair) <= sum(lanes_s) * (1 + 1e-12)
    assert all(waited < place for place, phase in enumerate(pair) for waited in phase.after)


def op(layers: StageLayers, kind: int) -> tuple[Phase, ...]:
    return op_phases(V3.parts, layers, kind)


@given(STAGES)
def test_alone_an_op_exposes_its_alltoall_and_b_is_i_and_w(layers: StageLayers) -> None:
    seconds = {kind: play_alone(op(layers, kind)) for kind in (F, B, I, W)}
    for kind in (F, B, I, W):
        assert seconds[kind] == pytest.approx(sum(phase.duration_s for phase in op(layers, kind)), abs=1e-15)
        assert Lane.COMPUTE in {phase.lane for phase in op(layers, kind)}
    assert seconds[B] == pytest.approx(seconds[I] + seconds[W], abs=1e-15)
    assert not [phase for phase in op(layers, W) if phase.lane == Lane.ALLTOALL]


FULL = layer_costs("deepseek_v3", **{"training.recompute": "full"})
NONE = layer_costs("deepseek_v3", **{"training.recompute": "none"})


@pytest.mark.parametrize("kind", [I, B])
def test_with_whole_layers_recomputed_a_backward_takes_a_forward_longer(kind: int) -> None:
    layers = StageLayers((2, 30))  # one dense, one with experts
    longer, stored = (play_alone(op_phases(costs.parts, layers, kind)) for costs in (FULL, NONE))
    assert longer - stored == pytest.approx(play_alone(op(layers, F)), rel=1e-12)
    for same in (F, W):
        assert op_phases(FULL.parts, layers, same) == op_phases(NONE.parts, layers, same)


def test_a_recomputed_layer_runs_its_forward_before_its_backward() -> None:
    again = ["attn F", "mlp F", "mlp I", "attn I"]
    assert names(op_phases(FULL.parts, StageLayers((0, 30)), I), Lane.COMPUTE) == again * 2
    back = op_phases(FULL.parts, StageLayers((30,), embedding=True), B)
    assert names(back, Lane.COMPUTE) == [
        "attn F",
        "mlp F",
        "mlp I",
        "mlp W",
        "attn I",
        "attn W",
        "embedding I",
        "embedding W",
    ]
    assert names(back, Lane.ALLTOALL) == ["dispatch F", "combine F", "combine I", "dispatch I"]


def test_in_a_pair_the_second_forward_takes_turns_with_the_other_layers_own() -> None:
    pair = pair_phases(FULL.parts, StageLayers((10,)), StageLayers((20,)))
    compute = [(phase.layer, f"{phase.name} {Kind(phase.kind)}") for phase in pair if phase.lane == Lane.COMPUTE]
    assert compute == [
        (20, "attn F"), (10, "attn F"), (20, "mlp F"), (20, "mlp I"), (20, "mlp W"), (10, "mlp F"), (20, "attn I"),
        (20, "attn W"),
    ]  # fmt: skip
    assert [phase.half for phase in pair if phase.layer == 20] == [1] * 10
    # It waits for nothing of the forward, and its MLP for its own dispatch.
    mlp_again = next(phase for phase in pair if (phase.layer, phase.name, phase.kind) == (20, "mlp", F))
    assert [(pair[place].layer, pair[place].name) for place in mlp_again.after] == [(20, "dispatch")]
    kept = pair_phases(NONE.parts, StageLayers((10,)), StageLayers((20,)))
    assert play_alone(pair) > play_alone(kept)


def test_what_sits_at_the_ends_of_the_model() -> None:
    last = StageLayers((60,), mtp=1, head=True, mtp_heads=1)
    layer = ["attn", "dispatch", "mlp", "combine"]
    assert [phase.name for phase in op(last, F)] == [*layer, "mtp", *layer, "head", "mtp head"]
    assert [phase.layer for phase in op(last, F)] == [60] * 4 + [61] * 5 + [-1] * 2
    back = ["combine", "mlp", "mlp", "dispatch", "attn", "attn"]
    assert [phase.name for phase in op(last, B)] == ["head"] * 2 + ["mtp head"] * 2 + back + ["mtp"] * 2 + back
    first = StageLayers((0,), embedding=True)
    assert [phase.name for phase in op(first, F)] == ["embedding", "attn", "mlp"]
    assert names(op(first, W), Lane.COMPUTE) == ["mlp W", "attn W", "embedding W"]


def test_dense_layers_have_no_alltoall() -> None:
    pair = pair_phases(V3.parts, StageLayers((0, 1)), StageLayers((1, 2)))
    assert names(pair, Lane.ALLTOALL) == []
    alone = sum(phase.duration_s for ids, kind in (((0, 1), F), ((1, 2), B)) for phase in op(StageLayers(ids), kind))
    assert play_alone(pair) == pytest.approx(alone)  # nothing communicates, so compute has all SMs
    mixed = pair_phases(V3.parts, StageLayers((0,)), StageLayers((30,)))
    assert names(mixed, Lane.ALLTOALL) == ["combine I", "dispatch I"]


def test_an_empty_stage_passes_on_at_once() -> None:
    empty = StageLayers(())
    assert [phase.duration_s for kind in (F, B, I, W) for phase in op(empty, kind)] == [0.0] * 4
    pair = pair_phases(V3.parts, empty, StageLayers((30,)))
    assert (pair[0].half, pair[0].duration_s) == (0, 0.0)
    assert simulate(SMALL, **{"pipeline.layout": "E|t*13||mL", "schedule": "1f1b"}).error is None


def test_a_stage_of_the_zero_bubble_papers_model_takes_the_times_that_it_measured() -> None:
    """6.2B on A100s, a stage of four layers: F 29.7-29.9, I 29.4-29.6, W 19.4-19.9 ms (arXiv 2401.10241, table 5)."""
    costs = layer_costs("no_alltoall")
    stage = StageLayers((4, 5, 6, 7))
    for kind, low_ms, high_ms in ((F, 29.6, 30.0), (I, 29.3, 29.7), (W, 19.3, 20.0)):
        assert low_ms < play_alone(op_phases(costs.parts, stage, kind)) * 1e3 < high_ms


def test_compute_in_a_pair_has_the_sms_that_communication_leaves() -> None:
    """The attention block's weight gradient is all GEMM (the fit leaves nothing else), so it scales with SMs."""
    part = V3.parts.layer(30)["attn", "W"]
    assert part.beside_s / part.alone_s == pytest.approx(132 / 112)
    pair = pair_phases(V3.parts, StageLayers((30,)), StageLayers((30,)))
    assert pair[-1].duration_s == part.beside_s
    assert op(StageLayers((30,)), W)[-1].duration_s == part.alone_s


def test_fewer_communication_sms_slow_the_alltoall_only_below_saturation() -> None:
    def dispatch_s(sms: int) -> float:
        return (
            layer_costs("deepseek_v3", **{"overlap.communication_sms": sms}).parts.exchanges(30)["dispatch F"].alone_s
        )

    launch_s = 35e-6
    assert dispatch_s(10) - launch_s == pytest.approx(2 * (dispatch_s(20) - launch_s))
    assert dispatch_s(24) == dispatch_s(20)


def test_the_busiest_expert_rank_sets_the_pace() -> None:
    """12 % more tokens: 12 % more bytes, GEMM and everything else in routed experts, none in attention."""
    skewed, even = (layer_costs("deepseek_v3", **{"training.routing_skew": skew}).parts for skew in (1.12, 1.0))
    launch_s = 35e-6
    alone = [parts.exchanges(30)["combine F"].alone_s - launch_s for parts in (skewed, even)]
    assert alone[0] / alone[1] == pytest.approx(1.12)
    assert skewed.layer(30)["attn", "F"] == even.layer(30)["attn", "F"]
    assert 1.0 < skewed.layer(30)["mlp", "F"].alone_s / even.layer(30)["mlp", "F"].alone_s <= 1.12


def test_on_demand_compute_has_all_sms_while_nothing_communicates() -> None:
    reserved, on_demand = (simulate(SMALL, overlap={"sharing": sharing}) for sharing in ("reserved", "on-demand"))
    assert on_demand.engine == "simpy"
    assert reserved.overlapped_pair_s
    assert on_demand.overlapped_pair_s
    for stages, seconds in reserved.overlapped_pair_s.items():
        assert on_demand.overlapped_pair_s[stages] < seconds


def test_nccls_alltoall_gets_sms_when_a_kernel_ends() -> None:
    """Two H200: compute takes 1.17 times as long beside an all-to-all, which takes 2.3 to 4.6 times as long."""
    none, on_demand = (layer_costs("deepseek_v3", overlap={"sharing": way}).parts for way in ("none", "on-demand"))
    for key, part in none.layer(30).items():
        assert part == on_demand.layer(30)[key]._replace(kernels=part.kernels)
    # V3's latents, queries, keys and values, output, gate and attention's core; up and down, routed and shared.
    assert {key: part.kernels for key, part in none.layer(30).items()} == {
        ("attn", "F"): 6, ("attn", "I"): 6, ("attn", "W"): 5, ("mlp", "F"): 4, ("mlp", "I"): 4, ("mlp", "W"): 4,
    }  # fmt: skip
    for step, part in none.exchanges(30).items():
        assert part.alone_s == pytest.approx(on_demand.exchanges(30)[step].alone_s)
        assert part.beside_s == pytest.approx(1.5 * part.alone_s)
    slow = layer_costs("deepseek_v3", overlap={"sharing": "none", "alltoall_beside": 4.6}).parts
    assert slow.exchanges(30)["dispatch F"].beside_s == pytest.approx(4.6 * slow.exchanges(30)["dispatch F"].alone_s)


def test_an_alltoall_of_a_pair_waits_for_one_kernel_at_most() -> None:
    result = simulate(SMALL, overlap={"sharing": "none"})
    assert result.engine == "simpy"
    played, graph = result.played, result.played.graph
    longest_kernel_s = max(phase.alone_s / phase.kernels for phase in graph.phases if phase.alone_s and phase.kernels)
    exchanges = np.flatnonzero(graph.on(Lane.ALLTOALL))
    waited_s = (played.end_s - played.start_s - graph.duration_s)[exchanges]
    assert waited_s.min() > -1e-12
    assert 0.9 * longest_kernel_s < waited_s.max() < (1 + 1e-9) * longest_kernel_s


def test_a_gpu_at_its_power_limit_is_faster_after_a_rest_and_as_fast_as_ever_when_busy() -> None:
    base = {"schedule": "1f1b", "pipeline.ranks": 2, "pipeline.micro_batches": 32}
    usual, limited = (simulate("deepseek_v3_pair", **base, **{"gpu.power_limited": flag}) for flag in (False, True))
    on_compute = usual.played.graph.on(Lane.COMPUTE)
    lengths = [(one.played.end_s - one.played.start_s)[: len(on_compute)][on_compute] for one in (usual, limited)]
    ratio = lengths[1] / lengths[0]
    assert ratio.min() == pytest.approx(1 / 1.22)
    # Its all-to-alls leave the GPU idle now and then, so that it is never busy all the time.
    assert 0.95 < ratio.max() < 1
    assert (limited.makespan_s or 0) < (usual.makespan_s or 0)


def test_flows_that_nobody_shares_take_as_long_as_without_contention() -> None:
    alone, shared = (simulate("deepseek_v3_pair", contention=contention) for contention in ("none", "fair"))
    assert alone.makespan_s is not None
    assert shared.makespan_s == pytest.approx(alone.makespan_s, rel=1e-9)
    assert shared.overlapped_pair_s == pytest.approx(alone.overlapped_pair_s, rel=1e-9)


def test_transfers_that_share_the_nic_slow_it_down() -> None:
    """GPipe's last rank sends a gradient over the NIC while its next backward begins with an all-to-all on it."""
    alone, shared = (simulate(SMALL, schedule="gpipe", contention=contention) for contention in ("none", "fair"))
    assert alone.makespan_s is not None
    assert shared.makespan_s is not None
    assert shared.makespan_s > alone.makespan_s


def test_a_boundary_is_one_micro_batchs_hidden_states() -> None:
    stage_costs = V3.on(build("1f1b", 16, 16).placement)
    assert (stage_costs.transfer_s, stage_costs.transfer_bytes) == (None, 4096 * 7168 * 2)


@pytest.mark.parametrize("name", sorted(schedules()))
def test_every_schedule_plays_layers_the_same_on_both_engines(name: str) -> None:
    costs = layer_costs(SMALL, **asked_by(name))
    order = build(name, 4, 8)
    graph = lower(order, costs, costs.links.topology(4))
    timeline, other = discrete_event.play(graph), longest_path.play(graph)
    np.testing.assert_allclose(timeline.end_s, other.end_s, rtol=1e-9)


@settings(max_examples=15)
@given(st.data())
def test_any_layout_plays_without_deadlock(data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, 13), min_size=7, max_size=7)))
    counts = np.diff([0, *cuts, 13]).tolist()
    costs = layer_costs(SMALL, **{"pipeline.layout": counts})
    graph = lower(build("dualpipev", 4, 8), costs, costs.links.topology(4))
    assert np.isfinite(longest_path.play(graph).makespan_s)


@settings(max_examples=10)
@given(st.floats(1.0, 8.0))
def test_more_bandwidth_never_hurts(factor: float) -> None:
    def makespan_s(bytes_per_s: float) -> float:
        costs = layer_costs(SMALL, **{"cluster.infiniband.bandwidth": bytes_per_s})
        return longest_path.play(lower(build("dualpipe", 4, 8), costs, costs.links.topology(4))).makespan_s

    assert makespan_s(factor * 50e9) <= makespan_s(50e9) * (1 + 1e-12)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"model": "deepsek-v3"}, "model: there is no preset 'deepsek-v3'; did you mean 'deepseek-v3'?"),
        ({"gpu": "b100"}, "gpu: there is no preset 'b100'; did you mean 'b300'?"),
        ({"model": 3}, "model: must be a preset's name, or a mapping of keys, got 3"),
        ({"model.layer": 3}, "model.layer: unknown key; did you mean 'layers'?"),
        ({"model.experts.active": 300}, "model.experts.active: 300 experts a token do not fit"),
        ({"gpu.hbm": "3 parsec"}, "gpu.hbm: must be a bandwidth like 160 GB/s, got '3 parsec'"),
        ({"gpu": "a100"}, "GPU a100 has no times for FP8 training (gpu.other.fp8); use precision bf16"),
        (
            {"training.precision": "fp4"},
            "must be 'bf16', 'fp16', 'fp8', 'fp8-tensor', 'fp8-block', 'mxfp8' or 'nvfp4', got 'fp4'",
        ),
        ({"training.routing_skew": 0.5}, "training.routing_skew: must be a number from 1 (even routing) up"),
        ({"training.recompute": {"norm": True}}, "training.recompute.norm: unknown key; did you mean 'norms'?"),
        ({"training.recompute": {"norms": 1}}, "training.recompute.norms: must be true or false, got 1"),
        (
            {"training.global_batch": 15361},
            "15361 sequences are no whole micro-batches of 1 on each of 128 (parallel.data)",
        ),
        (
            {"training.global_batch": 7680},
            "pipeline.micro_batches is 120, but training.global_batch makes it 60; give one of them, or make them",
        ),
        ({"pipeline.micro_batches": None}, "pipeline.micro_batches: is missing, and so is training.global_batch"),
        ({"parallel.pipeline": 8}, "pipeline.ranks is 16, but parallel.pipeline makes it 8"),
        ({"parallel.data": 100}, "parallel.data: 100 GPUs a rank are not whole groups of 64 (parallel.expert)"),
        ({"parallel.expert": 12, "parallel.data": 12}, "parallel.expert: 12 GPUs do not fill whole nodes of 8"),
        ({"model": {"preset": "gpt-6.2b"}}, "parallel.expert: model gpt-6.2b has no experts to spread over GPUs"),
        ({"overlap.communication_sms": 1}, "1 SMs for communication: one channel of the all-to-all takes 2"),
        ({"overlap.communication_sms": 132}, "overlap.communication_sms: 132 SMs leave none of GPU h800's 132"),
        ({"overlap.sharing": "all"}, "overlap.sharing: must be 'reserved', 'on-demand' or 'none', got 'all'"),
        ({"cluster.alltoall.launch": "-1 s"}, "cluster.alltoall.launch: must be a time like 5 us, finite"),
        ({"costs.kind": "layer"}, "costs: kind must be 'uniform', 'profile', 'layers' or 'measured'"),
        ({"costs.measured": {"attention": 1}}, "costs.measured.attention: unknown key"),
        ({"costs.measured": {"mlp_forward": {"gem": 1}}}, "costs.measured.mlp_forward: must be a time, or times of"),
        ({"costs.transfer": "58 MB"}, "costs.transfer: costs of kind 'layers' know the bytes; give times"),
        ({"costs.forward": 1}, "costs.forward: unknown key (known: kind, transfer, slices, measured)"),
        ({"training": None}, "training: is missing; costs of kind 'layers' need its sequence_length"),
        ({"gpu": None}, "gpu: is missing; costs of kind 'layers' need a preset's name, or a mapping"),
        ({"pipeline.layout": [4, 4]}, "pipeline.layout holds 8 layers, but the model has 61"),
        ({"pipeline.layout": 4}, "pipeline.layout: must be 'even', 'balanced', a list with the number of layers"),
    ],
)
def test_a_mistake_is_one_line_with_the_key(overrides: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_experiment("deepseek_v3", overrides)
    message = str(caught.value)
    assert said in message
    assert "deepseek_v3.yaml: " in message
    assert "\n" not in message


def test_what_only_layers_read_is_refused_beside_uniform_costs() -> None:
    with pytest.raises(UserError, match=r"gpu: is only for costs of kind 'layers', but costs\.kind is"):
        load_experiment("figure5", {"gpu": "h800"})


def test_a_layout_of_other_stages_refuses_the_schedule_alone() -> None:
    comparison = load_experiment("deepseek_v3_pair", {"compare": ["1f1b", "zb-v"]})
    from dualpipe_sim.simulation import run_all

    errors = [run.error for run in run_all(comparison)]
    assert errors[0] is None
    assert errors[1]
    assert "pipeline.layout has 2 stages, but this schedule cuts the model into 4" in errors[1]


def test_a_preset_is_a_start_that_other_keys_change() -> None:
    costs = layer_costs(
        SMALL,
        model={"preset": "deepseek-v3", "layers": 8, "experts": {"active": 4}},
        gpu={"preset": "h800", "hbm": "4 TB/s", "peak": {"bf16": "500 TFLOPS"}},
        cluster={"preset": "h800-ib", "infiniband": {"bandwidth": "100 GB/s"}, "alltoall": {"launch": "50 us"}},
    )
    assert (costs.job.model.layers, costs.job.model.hidden) == (8, 7168)
    assert costs.job.model.experts
    assert (costs.job.model.experts.active, costs.job.model.experts.routed) == (4, 256)
    assert (costs.gpu.hbm_bytes_per_s, costs.gpu.peak.bf16_flops_per_s, costs.gpu.sms) == (4e12, 500e12, 132)
    assert (costs.links.infiniband.bytes_per_s, costs.links.infiniband.latency_s) == (100e9, 3.7e-6)
    assert costs.kernel
    assert costs.kernel.launch_s == pytest.approx(50e-6)
    assert costs.kernel.saturating_sms == 20


def test_the_examples_in_the_docs_run() -> None:
    page = (Path(__file__).parents[2] / "docs" / "costs.md").read_text(encoding="utf-8")
    example, model = (yaml.safe_load(one) for one in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL))
    assert simulate(example, schedule="1f1b").step_time_s
    own = simulate(example, schedule="1f1b", **model, **{"parallel.expert": 32, "parallel.data": 32})
    assert own.model is not None
    assert own.model["parameters"] == 20_914_757_184


def test_the_global_batch_says_how_many_micro_batches() -> None:
    """V3: 15360 sequences on 128 GPUs a rank are 120 micro-batches of one."""
    experiment = load_experiment(
        "deepseek_v3", {"pipeline": {"layout": "even"}, "parallel.pipeline": 16, "training.global_batch": 15360}
    )
    assert (experiment.choice.ranks, experiment.choice.micro_batches) == (16, 120)
