"""Memory of whole steps as software stacks have it, against peaks that others published and that were measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dualpipe_sim import simulate
from dualpipe_sim.analysis.memory import COMPONENTS, Memory
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.model.footprint import bytes_by_unit
from dualpipe_sim.model.optimizer import Optimizer
from dualpipe_sim.model.stacks import STACKS, StackName
from dualpipe_sim.result import Result

GIB = 2.0**30
WEIGHTS, GRADIENTS, OPTIMIZER, COMMUNICATION, DEFERRED, ACTIVATIONS = range(len(COMPONENTS))


def memory(result: Result) -> Memory:
    assert result.memory is not None
    return result.memory


def peaks_gib(result: Result) -> list[float]:
    assert result.peak_memory_bytes_by_rank is not None
    return [size / GIB for size in result.peak_memory_bytes_by_rank]


# Megatron-LM.

B200: dict[str, Any] = {
    "pipeline": {"micro_batches": 8},
    "schedule": "1f1b",
    "gpu": {"preset": "b200", "memory": "180 GB"},
    "cluster": "b200-ib",
    "stack": "megatron",
    "training": {"sequence_length": 4096, "precision": "bf16", "recompute": "none"},
}
V2 = {"preset": "deepseek-v2", "layers": 4}
LLAMA = {"preset": "llama3-70b", "layers": 12}


@pytest.mark.parametrize(
    ("model", "parallel", "published_gib"),
    [
        (V2, {"pipeline": 1, "expert": 8, "data": 8}, [45.63]),
        (V2, {"pipeline": 2, "expert": 4, "data": 4}, [31.59, 44.70]),
        (LLAMA, {"pipeline": 2, "data": 4}, [66.55, 62.97]),
    ],
    ids=["deepseek-v2 ep8", "deepseek-v2 ep4 pp2", "llama pp2"],
)
def test_peaks_of_megatron_on_eight_b200(
    model: dict[str, Any], parallel: dict[str, int], published_gib: list[float]
) -> None:
    """What Megatron-LM 0.14 reports of each stage, as SimuMax published it.

    https://github.com/MooreThreads/SimuMax, ``docs/b200/b200_release_v1.2_summary.json``, commit 4dcaae5.
    """
    assert peaks_gib(simulate(B200, model=model, parallel=parallel)) == pytest.approx(published_gib, rel=0.03)


@pytest.mark.parametrize("data", [1, 2, 8])
def test_megatrons_bytes_a_parameter(data: int) -> None:
    """Weights in BF16, gradients in FP32, main weights and moments in FP32 over d GPUs: 6 + 12/d.

    Megatron-Core's guide to its distributed optimizer,
    https://docs.nvidia.com/megatron-core/developer-guide/latest/api-guide/dist_optimizer.html.
    """
    result = simulate(B200, model=LLAMA, parallel={"pipeline": 2, "data": data})
    layer = 8192 * (8192 + 2 * 1024) + 8192**2 + 3 * 8192 * 28672 + 2 * 8192
    parameters = 6 * layer + 128256 * 8192
    found = memory(result).over_time(0)[1][0, :3].tolist()
    assert found == pytest.approx([2 * parameters, 4 * parameters, 12 * parameters / data], rel=1e-9)


# PyTorch.

H100: dict[str, Any] = {
    "pipeline": {"ranks": 1, "micro_batches": 1},
    "schedule": "1f1b",
    "model": {
        "name": "llama-3b",
        "hidden": 3072,
        "layers": 28,
        "vocabulary": 128256,
        "ffn": 8192,
        "attention": {"heads": 24, "kv_heads": 8, "qk_head": 128, "v_head": 128},
        "positions": "none",
        "tied_embedding": True,
    },
    "gpu": "h100",
    "stack": "torch-eager",
    "training": {"sequence_length": 4096, "precision": "bf16", "recompute": "none"},
}
PARAMETERS = 28 * (3072 * (3072 + 2 * 1024) + 3072**2 + 3 * 3072 * 8192 + 2 * 3072) + 128256 * 3072 + 3072


@pytest.mark.parametrize(
    ("stack", "micro_batch", "recompute", "parallel", "measured_gib"),
    [
        ("torch-eager", 1, "none", {}, 35.32),
        ("torch-eager", 2, "none", {}, 52.624),
        ("torch-eager", 2, "full", {}, 31.164),
        ("torch-eager", 4, "full", {}, 44.313),
        ("torch-compile", 1, "none", {}, 33.57),
        ("torch-compile", 2, "none", {}, 49.124),
        ("torch-eager", 1, "none", {"zero": 0, "data": 2}, 41.304),  # DDP
        ("torch-eager", 1, "none", {"fsdp": 2, "data": 2, "gathers": "each"}, 27.288),  # FSDP2
    ],
)
def test_peaks_of_steps_measured_on_h100(
    stack: StackName, micro_batch: int, recompute: str, parallel: dict[str, Any], measured_gib: float
) -> None:
    """Measured on one and two H100 of 80 GB with PyTorch 2.11: ``torch.cuda.max_memory_allocated`` of a whole step.

    28 layers of RMSNorm, projections, causal attention, RMSNorm and SwiGLU, no positions, no biases; AdamW with BF16
    moments on BF16 weights; one micro-batch a step.
    """
    settings = {"training.micro_batch_size": micro_batch, "training.recompute": recompute}
    found = peaks_gib(simulate(H100, stack=stack, parallel=parallel, **settings))
    assert found == pytest.approx([measured_gib], rel=0.03)


def test_state_of_plain_pytorch_by_hand() -> None:
    """BF16 weights and gradients, two moments in BF16, no main weights; 32 MiB for cuBLAS."""
    (state,) = {tuple(row) for row in memory(simulate(H100)).over_time(0)[1][:, [0, 2]].tolist()}
    assert list(state) == pytest.approx([2 * PARAMETERS, 4 * PARAMETERS], rel=1e-9)
    assert memory(simulate(H100)).over_time(0)[1][0, COMMUNICATION] == 32 * 2**20
    assert STACKS["torch-eager"].optimizer == Optimizer(main_weights="none", moments="bf16", gradients="bf16")


def test_each_micro_batch_more_is_as_much_more() -> None:
    one, two, three = (peaks_gib(simulate(H100, **{"training.micro_batch_size": size}))[0] for size in (1, 2, 3))
    assert two - one == pytest.approx(three - two, rel=1e-6)
    # As measured, 52.624 - 35.32.
    assert two - one == pytest.approx(17.304, rel=0.005)


# Gradients that come as they are made.


def gradients(result: Result) -> list[int]:
    column: list[int] = memory(result).over_time(0)[1][:, GRADIENTS].tolist()
    return column


def test_gradients_come_with_the_first_backward_and_stay_until_the_optimizer_steps() -> None:
    """From nothing to 2 bytes a parameter; the next micro-batch's are added to them. The peak is at its forward."""
    one, two = (gradients(simulate(H100, **{"pipeline.micro_batches": number})) for number in (1, 2))
    for column in (one, two):
        assert column[0] == 0
        assert max(column) == pytest.approx(2 * PARAMETERS, rel=1e-9)
        assert column[:-1] == sorted(column[:-1])  # the last moment is behind the optimizer's step
    peaks = [peaks_gib(simulate(H100, **{"pipeline.micro_batches": number}))[0] for number in (1, 2, 3)]
    assert peaks[1] - peaks[0] == pytest.approx(2 * PARAMETERS / GIB, rel=0.01)
    assert peaks[2] == peaks[1]


def test_all_gradients_are_there_when_the_optimizer_steps() -> None:
    """Beside weights and states nothing is left then, so a peak is never less than all three of them."""
    tiny = simulate(H100, **{"training.sequence_length": 128})
    assert peaks_gib(tiny)[0] * GIB >= (2 + 2 + 4) * PARAMETERS
    at_last, behind = gradients(tiny)[-2:]
    assert at_last == pytest.approx(2 * PARAMETERS, rel=1e-9)
    assert behind == 0


@pytest.mark.parametrize(
    ("settings", "there"),
    [
        ({"parallel": {"zero": 0, "data": 2}}, True),  # buckets of plain data parallelism
        ({"parallel": {"data": 2}}, False),
        ({"parallel": {"zero": 3, "data": 2}}, False),
        ({"stack": "megatron"}, True),
        ({"stack": "aleph-scaling"}, True),
        ({"stack": "deepseek"}, True),
        ({"stack": "torch-compile"}, False),
    ],
    ids=str,
)
def test_buckets_and_other_stacks_have_them_for_the_whole_step(settings: dict[str, Any], *, there: bool) -> None:
    column = gradients(simulate(H100, **settings))
    assert (column[0] > 0) is there
    assert (len(set(column)) == 1) is there


@pytest.mark.parametrize("schedule", ["1f1b", "zb-h1", "dualpipe", "interleaved-1f1b", "zb-v"])
def test_gradients_of_any_schedule_come_to_what_others_have_all_the_time(schedule: str) -> None:
    run = {"pipeline": {"ranks": 2, "micro_batches": 4}, "schedule": schedule}
    eager, whole = memory(simulate(H100, **run)), memory(simulate(H100, stack="aleph-scaling-fused", **run))
    for rank in (0, 1):
        column = eager.over_time(rank)[1][:, GRADIENTS]
        assert column[0] == 0
        # (Whole numbers of bytes are rounded up unit by unit.)
        assert column.max() == pytest.approx(whole.over_time(rank)[1][0, GRADIENTS], abs=200)


# What else stacks keep.


def units(stack: StackName, **overrides: object) -> Any:  # noqa: ANN401
    costs = load_experiment(H100, {"stack": stack, **overrides}).costs
    assert isinstance(costs, LayerCosts)
    return bytes_by_unit(costs.job)


@pytest.mark.parametrize("tensor", [1, 2, 4])
def test_whole_logits_are_on_each_gpu(tensor: int) -> None:
    """Where a head's outputs are gathered each GPU has all 128256 logits of a token, elsewhere its share.

    6 bytes a logit kept beside the norm's input and output; 4 more while F runs, 8 while the backward does.
    """
    cut = {"parallel": {"tensor": tensor}}
    head = units("aleph-scaling", **cut)["head"]
    logits, norms = 4096 * 128256, 2 * 4096 // tensor * 3072 * 2
    assert head.activations == 6 * logits + norms
    assert (head.while_forward, head.while_backward) == (4 * logits, 8 * logits)
    eager = units("torch-eager", **cut)["head"]
    assert eager.activations == 4 * logits // tensor + norms
    assert (eager.while_forward, eager.while_backward) == (6 * logits // tensor, 8 * logits // tensor)


def test_what_a_layer_keeps_more_by_hand() -> None:
    """Of a token of 3072: a compiled layer keeps no activated gate; Scaling's norms their input without the gain.

    And attention's output in another order of dimensions.
    """
    eager, compiled, scaling, fused = (
        units(stack)[3].activations
        for stack in ("torch-eager", "torch-compile", "aleph-scaling", "aleph-scaling-fused")
    )
    assert eager - compiled == 4096 * 8192 * 2
    assert scaling - fused == 4096 * 2 * 3072 * 2
    assert fused - eager == 4096 * 3072 * 2


def test_rotated_queries_and_keys_lie_beside_the_tensor_that_they_come_from() -> None:
    """Queries, keys and values are one tensor whose values stay, so all of it: 3072 + 1024 elements more."""
    plain, rotary = (units("torch-eager", **{"model.positions": one})[3].activations for one in ("none", "rotary"))
    assert rotary - plain == 4096 * (3072 + 1024) * 2
    mathematics = (units("deepseek", **{"model.positions": one})[3].activations for one in ("none", "rotary"))
    assert len(set(mathematics)) == 1


def test_gradients_on_their_way_through_a_layer_count() -> None:
    """Of SwiGLU's FFN: its output's, what its last map reads, and both that its first one makes."""
    assert units("torch-eager")[3].while_backward == 4096 * (3072 + 3 * 8192) * 2
    assert units("deepseek")[3].while_backward == 0


# What is reserved and lost.


@pytest.mark.parametrize("stack", sorted(STACKS))
def test_what_is_reserved_and_lost_is_needed_and_no_part_of_the_peak(stack: StackName) -> None:
    found = memory(simulate(H100, stack=stack))
    at_peak = found.size_bytes[found.peak_by_rank[0]]
    assert found.peak_bytes_by_rank.tolist() == [at_peak.sum()]
    comes_and_goes = int(at_peak[[COMMUNICATION, DEFERRED, ACTIVATIONS]].sum())
    lost = STACKS[stack].reserved_bytes + STACKS[stack].fragmentation * comes_and_goes
    assert found.needed_bytes_by_rank.tolist() == [pytest.approx(at_peak.sum() + lost, abs=1)]
    row: dict[str, Any]
    (row,) = found.to_dict()["by_rank"]  # type: ignore[misc]
    assert row["needed_bytes"] == found.needed_bytes_by_rank[0]
    assert row["peak_bytes"] == found.peak_bytes_by_rank[0]
    assert row["headroom_bytes"] == found.gpu_bytes - found.needed_bytes_by_rank[0]


def test_a_gpu_with_room_for_the_peak_alone_does_not_fit() -> None:
    peak, needed = (
        int(getattr(memory(simulate(H100)), name)[0]) for name in ("peak_bytes_by_rank", "needed_bytes_by_rank")
    )
    assert needed > peak + 2**30
    for room, fits in ((peak, False), (needed - 1, False), (needed, True)):
        result = simulate(H100, **{"gpu.memory": room})
        assert memory(result).fits is result.fits is fits
        assert result.peak_memory_bytes_by_rank == [peak]
        assert result.over_memory == ([] if fits else [{"rank": 0, "excess_bytes": needed - room}])
        assert "with what is reserved and lost" in memory(result).verdict()


def test_without_either_the_peak_is_what_is_needed() -> None:
    found = memory(simulate(H100, stack="deepseek"))
    assert found.needed_bytes_by_rank.tolist() == found.peak_bytes_by_rank.tolist()
    assert "reserved" not in found.verdict()
    lost = replace(found, reserved_bytes=10.0, fragmentation=0.5)
    live = found.size_bytes[found.peak_by_rank[0], COMMUNICATION:].sum()
    assert lost.needed_bytes_by_rank.tolist() == [int(np.ceil(found.peak_bytes_by_rank[0] + 10 + live / 2))]


@pytest.mark.parametrize("stack", sorted(STACKS))
def test_both_engines_peak_alike(stack: StackName) -> None:
    run = {"pipeline": {"ranks": 2, "micro_batches": 4}, "stack": stack}
    fast, slow = (simulate(H100, engine=engine, **run) for engine in ("longest-path", "simpy"))
    assert fast.peak_memory_bytes_by_rank == slow.peak_memory_bytes_by_rank
