"""What a step means: its time, tokens, MFU and GPU-hours, gradients reduced beside the pipeline, hidden all-to-all."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pytest

from dualpipe_sim import Result, build, simulate
from dualpipe_sim.analysis.alltoall import collective_times, overlapped_pair_s
from dualpipe_sim.analysis.memory import COMPONENTS
from dualpipe_sim.analysis.step import TrainingStep, optimizer_s_by_rank, step
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.costs.phases import Phase, with_job
from dualpipe_sim.engine import longest_path
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.hardware.collectives import RING_EFFICIENCY, RING_LAUNCH_S
from dualpipe_sim.order.ops import B, F, TaskShape
from dualpipe_sim.order.placement import Placement

GPT: dict[str, Any] = {
    "pipeline": {"ranks": 2, "micro_batches": 4},
    "schedule": "1f1b",
    "costs": {"kind": "layers", "transfer": "0 s"},
    "model": {"preset": "gpt-6.2b", "layers": 4},
    "gpu": "a100",
    "cluster": {"preset": "a100-ib", "collectives": ""},
    "training": {"sequence_length": 1024, "precision": "bf16"},
}

OPTIMIZER = COMPONENTS.index("optimizer states")


def with_step(result: Result) -> TrainingStep:
    costs = with_job(result.played.graph.costs)
    assert costs is not None
    return step(result.played, costs)


@pytest.fixture(scope="module")
def v3() -> Result:
    return simulate("deepseek_v3")


@dataclass(frozen=True)
class ByHand:
    """F: 1 s of compute, 2 s of all-to-all. B: 3 s of compute. A pair: 4 s of compute beside 3 s, which start late."""

    transfer_s: float = 0.0
    transfer_bytes: float = 0.0

    def on(self, placement: Placement) -> ByHand:
        assert placement.stages == 1
        return self

    def phases(self, task: TaskShape) -> tuple[Phase, ...]:
        if len(task) == 2:
            wait = Phase(Lane.COMPUTE, 2.0, B, half=1)
            return wait, Phase(Lane.ALLTOALL, 3.0, F, after=(0,)), Phase(Lane.COMPUTE, 2.0, B, half=1)
        if task[0][0] == F:
            return Phase(Lane.COMPUTE, 1.0, F), Phase(Lane.ALLTOALL, 2.0, F, after=(0,))
        return (Phase(Lane.COMPUTE, 3.0, B),)


def test_alltoall_is_hidden_where_compute_runs_beside_it() -> None:
    """One rank of 1F1B with overlapped pairs, two micro-batches: F, F with B, B.

    F exposes its 2 s. The pair computes for 4 s; its 3 s of all-to-all start after 2, so 2 are hidden and 1 is not.
    """
    timeline = longest_path.play(lower(build("1f1b-overlap", 1, 2), ByHand()))
    assert timeline.makespan_s == 3.0 + 5.0 + 3.0
    assert collective_times(timeline).alltoall.exposed_s.tolist() == [2.0 + 1.0]
    assert collective_times(timeline).alltoall.hidden_ratio == pytest.approx(2 / 5)
    assert overlapped_pair_s(timeline) == {"0F;0B": 5.0}


def test_a_step_of_v3_trains_15360_sequences_on_2048_gpus(v3: Result) -> None:
    tokens = 15360 * 4096
    assert v3.step_time_s
    assert v3.tokens_per_second_per_gpu == pytest.approx(tokens / v3.step_time_s / 2048)
    assert v3.gpu_hours_per_trillion_tokens == pytest.approx(1e12 / tokens * v3.step_time_s / 3600 * 2048)


def test_mfu_counts_250_gflop_a_token_against_the_bf16_peak(v3: Result) -> None:
    """250.4 GFLOP a token causal and 281.2 non-causal, over 989 TFLOPS (arXiv 2412.19437, 2505.09343)."""
    assert v3.tokens_per_second_per_gpu
    assert v3.mfu == pytest.approx(v3.tokens_per_second_per_gpu * 250.4e9 / 989e12, rel=5e-3)
    assert v3.mfu_noncausal == pytest.approx(v3.tokens_per_second_per_gpu * 281.2e9 / 989e12, rel=5e-3)


def test_a_step_is_no_faster_than_its_compute(v3: Result) -> None:
    """The bound that no schedule beats: every phase of a rank on all SMs, with nothing else in the way."""
    costs = load_experiment("deepseek_v3").costs
    assert isinstance(costs, LayerCosts)
    placement = build("1f1b", 16, 120).placement
    compute_s = [
        sum(
            phase.duration_s
            for kind in (F, B)
            for phase in costs.on(placement).phases(((kind, stage),))
            if not phase.lane
        )
        for stage in range(16)
    ]
    assert v3.step_time_s
    assert v3.step_time_s > 120 * sum(compute_s) / 16


def test_numbers_of_training_are_none_without_a_model() -> None:
    keys = (
        "step_time_s", "tokens_per_second_per_gpu", "mfu", "mfu_noncausal", "gpu_hours_per_trillion_tokens",
        "alltoall_hidden_ratio", "exposed_alltoall_s_by_rank", "overlapped_pair_s", "slowest_stage",
    )  # fmt: skip
    run = simulate("figure5").to_dict()
    assert {key: run[key] for key in keys} == dict.fromkeys(keys)
    layered = simulate("deepseek_v3_pair").to_dict()
    assert None not in {key: layered[key] for key in keys}.values()


def test_a_lone_alltoall_is_exposed_and_a_pairs_is_hidden() -> None:
    lone = simulate("deepseek_v3_pair", schedule="1f1b")
    assert lone.alltoall_hidden_ratio == 0.0
    assert lone.alltoall_hidden_in_pairs_ratio is None
    assert lone.overlapped_pair_s == {}
    paired = simulate("deepseek_v3_pair", schedule="1f1b-overlap", micro_batches=400)
    assert paired.alltoall_hidden_ratio
    assert paired.alltoall_hidden_ratio > 0.9
    assert paired.alltoall_hidden_in_pairs_ratio
    assert paired.alltoall_hidden_in_pairs_ratio > paired.alltoall_hidden_ratio


def test_gradients_of_one_gpu_need_no_reduction() -> None:
    result = simulate(GPT)
    assert result.makespan_s
    assert result.step_time_s
    # the optimizer alone: 8 bytes of state a parameter over the memory bandwidth (1.83 TB/s); both ranks hold the tied
    # embedding, and half of its states each, rank 1 the final norm too
    parameters = 2 * 12 * 4096**2 + 2 * 2 * 4096 + 32000 * 4096 // 2 + 4096
    assert result.step_time_s - result.makespan_s == pytest.approx(8 * parameters / 1.83e12)


@pytest.mark.parametrize("schedule", ["1f1b", "dualpipe", "dualpipev"])
def test_the_optimizer_passes_over_just_the_states_that_memory_counts(schedule: str) -> None:
    # 1F1B's prediction module needs a copy of the embedding: rank 0's share of the states is 3.4 % less than without it
    result = simulate("deepseek_v3", schedule=schedule)
    assert result.timeline is not None
    assert result.memory is not None
    costs = with_job(result.timeline.graph.costs)
    assert costs is not None
    optimizer_bytes = [result.memory.over_time(rank)[1][0, OPTIMIZER] for rank in range(result.ranks)]
    seconds = optimizer_s_by_rank(result.timeline.graph.schedule.placement, costs)
    assert seconds.tolist() == pytest.approx([size / 3.01e12 for size in optimizer_bytes])


def test_a_reduction_after_the_pipeline_is_4_bytes_a_parameter_over_the_nics_of_a_node() -> None:
    """16 GPUs a rank lie on two nodes: half of all crosses, through eight NICs side by side (or 15/16 over NVLink).

    Rank 0 holds two layers of 12 h^2 + 2 h and the embedding. Each is one reduce-scatter. Weights, 2 bytes each, are
    gathered before the first op.
    """
    result = simulate(
        GPT, parallel={"data": 16}, **{"training.gradient_reduction": "after", "training.optimizer": False}
    )
    assert result.makespan_s
    assert result.step_time_s
    last_op_s = {rank: end for rank, lane, _, _, end in result.played.rows() if lane == "compute"}
    layers = 2 * (12 * 4096**2 + 2 * 4096)
    embedding, norm = 32000 * 4096, 4096

    def ring_s(parameters: int, each: int) -> float:
        slowest_s = max(parameters * each / 2 / 8 / 25e9, parameters * each * 15 / 16 / 240e9)
        return RING_LAUNCH_S + slowest_s / RING_EFFICIENCY

    rank_0, rank_1 = [layers // 2, layers // 2, embedding], [layers // 2, layers // 2, norm]
    ends_s = (last_op_s[rank] + sum(ring_s(unit, 4) for unit in units) for rank, units in enumerate((rank_0, rank_1)))
    begins_s = max(sum(ring_s(unit, 2) for unit in units) for units in (rank_0, rank_1))
    assert result.step_time_s == pytest.approx(begins_s + max(ends_s))


def test_an_overlapped_reduction_waits_for_the_last_gradient_only() -> None:
    def besides_s(reduction: str) -> float:
        settings = {"training.gradient_reduction": reduction, "training.optimizer": False}
        result = simulate(GPT, parallel={"data": 16}, **settings)
        assert result.makespan_s
        assert result.step_time_s
        return result.step_time_s - result.makespan_s

    embedding_s = 4 * 32000 * 4096 / 2 / 8 / 25e9  # the last gradient of rank 0, which ends last
    assert besides_s("none") == 0.0
    assert embedding_s <= besides_s("overlapped") < besides_s("after")


def test_gradients_of_whole_optimizers_pass_twice_and_nothing_is_gathered() -> None:
    run = {"training.gradient_reduction": "after", "training.optimizer": False}
    sharded, whole = (with_step(simulate(GPT, parallel={"data": 16, "zero": zero}, **run)) for zero in (1, 0))
    assert whole.gathering_s == 0 < sharded.gathering_s
    assert whole.reduction_s == pytest.approx(2 * sharded.reduction_s, rel=0.01)


def test_the_second_copy_of_dualpipe_is_reduced_even_without_data_parallelism() -> None:
    one, two = (simulate(GPT, schedule=schedule, **{"training.optimizer": False}) for schedule in ("1f1b", "dualpipe"))
    assert one.step_time_s == one.makespan_s
    assert two.step_time_s
    assert two.makespan_s
    assert two.step_time_s > two.makespan_s


def test_the_slowest_stage_is_the_one_that_is_given_most() -> None:
    result = simulate(GPT, **{"pipeline.layout": [1, 3]})
    assert result.slowest_stage
    assert result.slowest_stage["stage"] == 1


def test_dualpipes_activations_do_not_grow_with_micro_batches() -> None:
    peaks = {
        micro_batches: simulate("deepseek_v3", micro_batches=micro_batches).peak_activations_by_rank
        for micro_batches in (32, 60, 120)
    }
    assert peaks[32] == peaks[60] == peaks[120] == [17.0] * 16


def test_dualpipe_pays_without_heavy_communication() -> None:
    """The DeepSeek-V3 report's claim, section 3.2.1: its pipeline is shorter than those of 1F1B and ZB1P (ZB-H1)."""
    makespan_s = {
        name: simulate("no_alltoall", schedule=name).makespan_s or 0.0 for name in ("1f1b", "zb-h1", "dualpipe")
    }
    assert makespan_s["dualpipe"] < makespan_s["zb-h1"] < makespan_s["1f1b"]


def test_a_whole_step_of_v3_plays_on_simpy_in_seconds() -> None:
    begin = time.perf_counter()
    result = simulate("deepseek_v3", engine="simpy")
    assert result.engine == "simpy"
    assert len(result.played.graph.task) > 16 * 120 * 35  # every phase of 61 layers is there
    assert time.perf_counter() - begin < 20
