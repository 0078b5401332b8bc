"""What others measured, and how far the formulas are from it. Nothing here enters a simulation by itself."""

from __future__ import annotations

from typing import NamedTuple

from dualpipe_sim.costs.alltoall import AllToAll, payload_bytes
from dualpipe_sim.costs.compute import Compute, layer_compute
from dualpipe_sim.costs.workload import Block, Work, Workload
from dualpipe_sim.hardware.cluster import Cluster
from dualpipe_sim.hardware.collectives import AllToAllKernel, AllToAllStep
from dualpipe_sim.hardware.gpu import Gpu
from dualpipe_sim.model.architecture import Experts, Layer, Model
from dualpipe_sim.model.recipe import Recipe
from dualpipe_sim.model.routing import expert_group

DEEPEP_TOKENS, DEEPEP_HIDDEN = 4096, 7168
DEEPEP_GB_PER_S: dict[tuple[int, AllToAllStep], float] = {
    (8, "dispatch F"): 153, (8, "combine F"): 158,
    (16, "dispatch F"): 43, (16, "combine F"): 43,
    (32, "dispatch F"): 58, (32, "combine F"): 57,
    (64, "dispatch F"): 51, (64, "combine F"): 50,
}  # fmt: skip
"""DeepEP's table of normal kernels on H800s, by GPUs and step (https://github.com/deepseek-ai/DeepEP, V1): 4096
tokens, width 7168, top 8 of 256 experts in at most 4 nodes, FP8 dispatch, BF16 combine. Over NVLink for 8 GPUs,
else over InfiniBand; both count tokens that stay on their own GPU or node."""

TRACE_SMS = 112
TRACE_TOKENS = 4096
TRACE_COMPUTE_US: dict[tuple[Block, Work], tuple[float, float, float]] = {
    ("attn", "F"): (1720, 1237, 1413),
    ("mlp", "F"): (3295, 0, 1309),
    ("mlp", "I"): (3200, 0, 2106),
    ("attn", "I"): (2360, 3779, 3202),
    ("mlp", "W"): (4485, 0, 578),
    ("attn", "W"): (2388, 0, 0),
}
"""GEMM, attention and other kernels of an MoE layer of DeepSeek-V3, microseconds, in DeepSeek's training trace
(https://github.com/deepseek-ai/profile-data): H800, 112 SMs for compute, 64-way expert parallelism, 4096 tokens."""

TRACE_ALLTOALL_MS: dict[AllToAllStep, tuple[float, float]] = {
    "dispatch F": (4.35, 2.34),
    "combine F": (5.99, 2.69),
    "combine I": (3.41, 2.36),
    "dispatch I": (6.37, 1.12),
}
"""Data kernels, then waiting and casts, of each all-to-all of a layer in the same trace, milliseconds."""


class Deviation(NamedTuple):
    """A published number beside the formula's.

    Attributes:
        name: what it is.
        published: the published number.
        predicted: the formula's.

    """

    name: str
    published: float
    predicted: float

    @property
    def error(self) -> float:
        """The prediction's relative error."""
        return self.predicted / self.published - 1


def deepep_deviations(kernel: AllToAllKernel, cluster: Cluster) -> list[Deviation]:
    """Return the all-to-all's predicted bandwidth in GB/s beside each entry of DeepEP's table."""
    return [
        Deviation(f"EP{gpus} {step.split()[0]}", published, _deepep_gb_per_s(kernel, cluster, gpus, step))
        for (gpus, step), published in DEEPEP_GB_PER_S.items()
    ]


def compute_deviations(model: Model, gpu: Gpu) -> list[Deviation]:
    """Return the predicted busy microseconds of DeepSeek-V3's compute phases beside the trace's."""
    predicted = trace_compute(model, gpu)
    return [
        Deviation(f"{block} {work}", sum(measured), predicted[block, work].busy_s * 1e6)
        for (block, work), measured in TRACE_COMPUTE_US.items()
    ]


def trace_compute(model: Model, gpu: Gpu) -> dict[tuple[Block, Work], Compute]:
    """Return the compute phases of an MoE layer as predicted for the trace's setting."""
    return layer_compute(
        model, Layer(model.attention, "moe"), Workload(gpu, Recipe(), TRACE_TOKENS, TRACE_TOKENS, sms=TRACE_SMS)
    )


def measured_compute() -> dict[tuple[Block, Work], Compute]:
    """Return the compute phases of an MoE layer of DeepSeek-V3 as the trace has them, without gaps."""
    return {
        phase: Compute(gemm * 1e-6, attention * 1e-6, other * 1e-6, 0.0)
        for phase, (gemm, attention, other) in TRACE_COMPUTE_US.items()
    }


def _deepep_gb_per_s(kernel: AllToAllKernel, cluster: Cluster, gpus: int, step: AllToAllStep) -> float:
    nodes = max(1, gpus // cluster.gpus_per_node)
    # The benchmark's groups are nodes, of which a token takes at most four.
    experts = Experts(routed=256, active=8, ffn=2048, groups=nodes, group_limit=min(4, nodes))
    group = expert_group(experts, gpus, cluster.gpus_per_node)
    token_bytes = DEEPEP_HIDDEN * payload_bytes(step, Recipe())
    duration_s = AllToAll(kernel, cluster, group).exchange(DEEPEP_TOKENS, token_bytes).duration_s
    counted = group.distinct_gpus if nodes == 1 else group.distinct_nodes
    return DEEPEP_TOKENS * counted * token_bytes / duration_s / 1e9
