"""ZeRO and FSDP: what is gathered and scattered beside which layer, how long it takes, and what a step has of it."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim import build, simulate
from dualpipe_sim.analysis.memory import COMPONENTS
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.costs.op_phases import op_phases, pair_phases
from dualpipe_sim.costs.phases import GRADIENTS, WEIGHTS, Phase, ends_s
from dualpipe_sim.errors import UnfitCostsError
from dualpipe_sim.hardware import groups
from dualpipe_sim.hardware.collectives import RING_EFFICIENCY, RING_LAUNCH_S
from dualpipe_sim.model.layout import StageLayers
from dualpipe_sim.model.parallelism import Zero
from dualpipe_sim.order.ops import B, F, I, Kind, W
from dualpipe_sim.result import Result
from dualpipe_sim.schedules.registry import schedules
from tests.plays import asked_by

LLAMA: dict[str, Any] = {
    "pipeline": {"ranks": 1, "micro_batches": 4},
    "schedule": "1f1b",
    "model": {"preset": "llama3-8b", "layers": 4},
    "gpu": "h100",
    "cluster": {"preset": "h100-ib", "collectives": ""},
    "parallel": {"data": 8, "fsdp": 8},
    "training": {"sequence_length": 4096},
}
ALL = StageLayers((0, 1, 2, 3), embedding=True, head=True)
LAYER = 4096 * (4096 + 2 * 1024) + 4096**2 + 3 * 4096 * 14336 + 2 * 4096
"""Parameters of a layer of Llama 3 8B (https://arxiv.org/abs/2407.21783, table 3)."""
MATRIX = 128256 * 4096
"""Parameters of its embedding, and of its head."""

NVLINK, NIC = 360e9 * RING_EFFICIENCY, 50e9 * RING_EFFICIENCY
WEIGHTS_OF, GRADIENTS_OF, OPTIMIZER_OF, BUFFERS = range(4)
assert COMPONENTS[:4] == ("weights", "gradients", "optimizer states", "communication buffers")

PAIRED = [name for name in sorted(schedules()) if (build(name, 4, 8).partner >= 0).any()]
ALONE = [name for name in sorted(schedules()) if name not in PAIRED]


def costs_of(config: dict[str, Any] = LLAMA, /, **overrides: object) -> LayerCosts:
    costs = load_experiment(config, overrides).costs
    assert isinstance(costs, LayerCosts)
    return costs


EACH = costs_of()
WHOLE = costs_of(parallel={"data": 8})


def moments(phases: tuple[Phase, ...]) -> tuple[list[float], list[float]]:
    """Return when each phase of an op starts and ends."""
    ends = ends_s(phases, [phase.duration_s for phase in phases])
    return [end - phase.duration_s for phase, end in zip(phases, ends, strict=True)], ends


def length_s(phases: tuple[Phase, ...]) -> float:
    return max(moments(phases)[1])


def computed(phases: tuple[Phase, ...]) -> list[tuple[str, int, float]]:
    return [(phase.name, phase.kind, phase.duration_s) for phase in phases if phase.lane == Lane.COMPUTE]


def spans(phases: tuple[Phase, ...]) -> list[tuple[float, float]]:
    """Return when each unit of an op begins and ends to compute, in their order."""
    starts, ends = moments(phases)
    units: dict[int | str, tuple[float, float]] = {}
    for phase, start, end in zip(phases, starts, ends, strict=True):
        if phase.lane == Lane.COMPUTE:
            units[phase.unit] = units.get(phase.unit, (start, end))[0], end
    return list(units.values())


def collectives(phases: tuple[Phase, ...], name: str) -> list[int]:
    return [place for place, phase in enumerate(phases) if phase.name == name]


# Where they stand.


@pytest.mark.parametrize("kind", [F, I, B])
@pytest.mark.parametrize("bandwidth", [1e9, 30e9, 360e9, 1e15])
def test_weights_are_there_before_each_unit_and_gathered_no_more_than_one_ahead(kind: int, bandwidth: float) -> None:
    """The first unit's before anything else; each other one's while the unit before it computes, not earlier."""
    cluster = {"preset": "h100-ib", "nvlink": {"bandwidth": bandwidth}}
    phases = op_phases(costs_of(cluster=cluster).parts, ALL, kind)
    starts, ends = moments(phases)
    gathers, units = collectives(phases, WEIGHTS), spans(phases)
    assert len(gathers) == len(units) == 6  # embedding, four layers, head
    assert gathers[0] == 0
    assert starts[0] == 0.0
    for number, place in enumerate(gathers):
        begins_s, _ = units[number]
        assert begins_s >= ends[place] * (1 - 1e-12)
        if number >= 2:
            assert starts[place] >= units[number - 2][1] * (1 - 1e-12)  # so that two units are whole at most


@pytest.mark.parametrize("kind", [B, W])
def test_gradients_are_scattered_behind_the_backward_of_each_unit(kind: int) -> None:
    phases = op_phases(EACH.parts, ALL, kind)
    starts, _ = moments(phases)
    scatters = collectives(phases, GRADIENTS)
    assert len(scatters) == 6
    for (_, ended_s), place in zip(spans(phases), scatters, strict=True):
        assert starts[place] >= ended_s * (1 - 1e-12)
    assert all(str(Kind(phases[place].kind)) == "W" for place in scatters)
    assert (collectives(phases, WEIGHTS) == []) is (kind == W)  # W needs gradients and inputs, and no weights


def test_forwards_and_input_gradients_scatter_nothing() -> None:
    for kind in (F, I):
        assert not collectives(op_phases(EACH.parts, ALL, kind), GRADIENTS)


@pytest.mark.parametrize("kind", [F, I, W, B])
def test_compute_is_the_same(kind: int) -> None:
    assert computed(op_phases(EACH.parts, ALL, kind)) == computed(op_phases(WHOLE.parts, ALL, kind))


@pytest.mark.parametrize("kind", [F, I, W, B])
def test_on_boundless_links_an_op_takes_what_it_takes_without(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "RING_LAUNCH_S", 0.0)
    boundless = {"preset": "h100-ib", "nvlink": {"bandwidth": 1e24}, "collectives": ""}
    found = length_s(op_phases(costs_of(cluster=boundless).parts, ALL, kind))
    assert found == pytest.approx(length_s(op_phases(WHOLE.parts, ALL, kind)), rel=1e-12)


@given(st.floats(1e8, 1e12), st.floats(1.0, 100.0), st.sampled_from([F, I, W, B]))
def test_an_op_takes_no_less_than_compute_or_links_and_faster_links_never_longer(
    bandwidth: float, more: float, kind: int
) -> None:
    def phases(bytes_per_s: float) -> tuple[Phase, ...]:
        return op_phases(costs_of(cluster=LLAMA["cluster"] | {"nvlink": {"bandwidth": bytes_per_s}}).parts, ALL, kind)

    slow = phases(bandwidth)
    for lane in (Lane.COMPUTE, Lane.ALLTOALL):
        assert length_s(slow) >= sum(phase.duration_s for phase in slow if phase.lane == lane) * (1 - 1e-12)
    assert length_s(slow) <= sum(phase.duration_s for phase in slow) * (1 + 1e-12)
    assert length_s(phases(bandwidth * more)) <= length_s(slow) * (1 + 1e-12)


# What they send.


def test_a_layer_is_gathered_in_bf16_and_scattered_as_its_gradients_are() -> None:
    """Seven eighths of 2 bytes a parameter in, and of 4 out: 436 MB and 873 MB of a layer."""
    shared = EACH.parts.shared(0, "attn")
    assert shared is not None
    assert shared.gather.alone_s == pytest.approx(RING_LAUNCH_S + 2 * LAYER * 7 / 8 / NVLINK)
    assert shared.scatter.alone_s == pytest.approx(RING_LAUNCH_S + 4 * LAYER * 7 / 8 / NVLINK)
    head = EACH.parts.shared(-1, "head")
    assert head is not None
    assert head.gather.alone_s == pytest.approx(RING_LAUNCH_S + 2 * (MATRIX + 4096) * 7 / 8 / NVLINK)
    bf16 = costs_of(**{"training.optimizer": {"gradients": "bf16"}}).parts.shared(0, "attn")
    assert bf16 is not None
    assert bf16.scatter.alone_s == pytest.approx(bf16.gather.alone_s)


def test_groups_that_hold_copies_sum_their_shares_of_the_gradients() -> None:
    """HSDP (https://arxiv.org/abs/2304.11277, section 3.2.2): two nodes, weights in each, an eighth summed over both.

    An all-reduce of an eighth over two NICs passes it once in all: 2 x 4 bytes x 1/8 x 1/2.
    """
    shared = costs_of(parallel={"data": 16, "fsdp": 8}).parts.shared(0, "attn")
    assert shared is not None
    assert shared.gather.alone_s == pytest.approx(RING_LAUNCH_S + 2 * LAYER * 7 / 8 / NVLINK)
    within, between = 4 * LAYER * 7 / 8 / NVLINK, 4 * LAYER / 8 / NIC
    assert shared.scatter.alone_s == pytest.approx(2 * RING_LAUNCH_S + within + between)
    sent = {flow.tier: flow.size_bytes * RING_EFFICIENCY for flow in shared.scatter.alone_flows}
    assert sent == pytest.approx({"nvlink": 4 * LAYER * 7 / 8, "infiniband": 4 * LAYER / 8})


def test_experts_are_shared_out_over_those_that_hold_the_same() -> None:
    """16 GPUs, experts spread over eight of them: two hold the same, on two nodes; of the rest all 16 do."""
    costs = costs_of(model={"preset": "deepseek-v2-lite", "layers": 4}, parallel={"data": 16, "expert": 8, "zero": 3})
    shared = costs.parts.shared(3, "attn")
    assert shared is not None
    parameters = costs.job.model.layer_parameters(costs.job.model.layer_kinds()[3])
    assert parameters.routed == 64 * 3 * 2048 * 1408
    rest = parameters.total - parameters.routed
    all_of_them = max(2 * rest * 15 / 16 / NVLINK, 2 * rest / 2 / 8 / NIC)
    two = 2 * parameters.routed / 8 / 2 / NIC
    assert shared.gather.alone_s == pytest.approx(2 * RING_LAUNCH_S + all_of_them + two)


def test_a_lone_gpu_gathers_in_no_time() -> None:
    phases = op_phases(costs_of(parallel={"zero": 3}).parts, ALL, B)
    assert sum(phase.duration_s for phase in phases if phase.lane == Lane.ALLTOALL) == 0.0


# Memory.


def state(result: Result, rank: int = 0) -> list[int]:
    assert result.memory is not None
    return [int(size) for size in result.memory.over_time(rank)[1][0, :4]]


@pytest.mark.parametrize(
    ("cut", "weights", "gradients", "optimizer"),
    [  # bytes a parameter of weights and gradients; shares of 8 bytes of states
        ({"zero": 0}, 2, 4, 8),
        ({"zero": 1}, 2, 4, 1),
        ({"zero": 2}, 2, 0.5, 1),
        ({"zero": 3}, 0, 0.5, 1),
        ({"fsdp": 4}, 0, 1, 2),
        ({"zero": 3, "gathers": "once"}, 2, 4, 1),
        ({"fsdp": 4, "gathers": "once"}, 2, 4, 2),
    ],
)
def test_state_by_hand(cut: dict[str, Any], weights: float, gradients: float, optimizer: float) -> None:
    """ZeRO's stages (https://arxiv.org/abs/1910.02054, figure 1) over eight GPUs; between ops main weights are all."""
    found = state(simulate(LLAMA, parallel={"data": 8, **cut}))
    all_of_them = 4 * LAYER + 2 * MATRIX + 4096
    expected = [each * all_of_them for each in (weights, gradients, optimizer)]
    assert found[:3] == pytest.approx(expected, rel=1e-6)
    whole = found[WEIGHTS_OF] > 0
    # Two units' weights and one's gradients, in BF16: the largest are head and embedding.
    assert found[BUFFERS] == (0 if whole else 2 * (MATRIX + 4096 + MATRIX) + 2 * (MATRIX + 4096))


def test_weights_without_a_main_copy_are_what_lies_there() -> None:
    found = state(simulate(LLAMA, **{"training.optimizer.main_weights": "none"}))
    all_of_them = 4 * LAYER + 2 * MATRIX + 4096
    assert found[:3] == pytest.approx([2 * all_of_them / 8, 4 * all_of_them / 8, 4 * all_of_them / 8], rel=1e-6)


# Steps.


def test_gathered_once_there_are_no_phases_but_a_start_that_waits() -> None:
    once = {"data": 8, "fsdp": 8, "gathers": "once"}
    costs = costs_of(parallel=once)
    for kind in (F, I, W, B):
        assert op_phases(costs.parts, ALL, kind) == op_phases(WHOLE.parts, ALL, kind)
    run = {"training.optimizer": False, "training.gradient_reduction": "after"}
    result = simulate(LLAMA, parallel=once, **run)
    assert result.step_time_s is not None
    assert result.makespan_s is not None
    sizes = [LAYER] * 4 + [MATRIX, MATRIX + 4096]
    hand_s = sum(2 * RING_LAUNCH_S + (2 + 4) * size * 7 / 8 / NVLINK for size in sizes)
    assert result.step_time_s - result.makespan_s == pytest.approx(hand_s)


def test_gathered_for_each_op_nothing_is_left_behind_the_last() -> None:
    result = simulate(LLAMA, **{"training.optimizer": False})
    assert result.step_time_s == result.makespan_s


def test_a_pipeline_gathers_once_and_one_rank_for_each_op_unless_it_is_said() -> None:
    four = {"pipeline": {"ranks": 4, "micro_batches": 8}}
    assert EACH.job.parallel.gathers == "each"
    assert costs_of(**four).job.parallel.gathers == "once"
    assert costs_of(**four, parallel={"data": 8, "fsdp": 8, "gathers": "each"}).groups.weights is not None


@pytest.mark.parametrize("zero", get_args(Zero))
def test_each_stage_of_zero_runs_on_one_rank(zero: Zero) -> None:
    result = simulate(LLAMA, parallel={"data": 8, "zero": zero})
    exposed_s = result.exposed_tensor_parallel_s_by_rank
    assert (exposed_s is not None and max(exposed_s) > 0) is (zero == 3)


FOUR: dict[str, Any] = {
    **LLAMA,
    "pipeline": {"ranks": 4, "micro_batches": 8},
    "model": {"preset": "llama3-8b", "layers": 16},
}


@pytest.mark.parametrize("schedule", ALONE)
def test_schedules_run_and_both_engines_agree(schedule: str) -> None:
    parallel = {"data": 16, "fsdp": 8, "gathers": "each"}
    asked = asked_by(schedule)
    fast, slow = (
        simulate(FOUR, schedule=schedule, parallel=parallel, engine=engine, **asked)
        for engine in ("longest-path", "simpy")
    )
    whole = simulate(FOUR, schedule=schedule, parallel={"data": 16}, **asked)
    assert fast.makespan_s is not None
    assert whole.makespan_s is not None
    assert slow.makespan_s == pytest.approx(fast.makespan_s, rel=1e-9)
    assert fast.peak_memory_bytes_by_rank == slow.peak_memory_bytes_by_rank
    assert fast.makespan_s >= whole.makespan_s


SAID = r"parallel\.gathers: an overlapped pair has no place for weights that are gathered for each op; take once"


@pytest.mark.parametrize("schedule", PAIRED)
def test_overlapped_pairs_refuse_each_and_take_once(schedule: str) -> None:
    with pytest.raises(UnfitCostsError, match=SAID):
        simulate(FOUR, schedule=schedule, parallel={"data": 8, "fsdp": 8, "gathers": "each"})
    once = simulate(FOUR, schedule=schedule, parallel={"data": 8, "fsdp": 8, "gathers": "once"})
    assert once.makespan_s == simulate(FOUR, schedule=schedule, parallel={"data": 8}).makespan_s


def test_a_pair_alone_refuses_too() -> None:
    assert "dualpipe" in PAIRED
    with pytest.raises(UnfitCostsError, match=SAID):
        pair_phases(EACH.parts, StageLayers((0,)), StageLayers((1,)))
