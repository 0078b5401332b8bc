"""What a timeline means for training, where a model is known: step time, throughput, MFU, hidden all-to-all.

The pipeline's timeline ends with its last op. A step goes on: gradients are reduced over the GPUs that hold the same
parameters, then the optimizer steps. Only what the reduction takes beyond the last op makes the step longer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.costs.asked import op_seconds
from dualpipe_sim.costs.phases import JobStageCosts
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.hardware.gpu import Gpu
from dualpipe_sim.model.architecture import Parameters
from dualpipe_sim.model.flops import model_flops_per_token
from dualpipe_sim.model.footprint import state_by_rank
from dualpipe_sim.model.job import Job, Unit
from dualpipe_sim.model.state import local_parameters, reduced_gradient_bytes
from dualpipe_sim.order.ops import B, F, W
from dualpipe_sim.order.placement import Placement

SECONDS_PER_HOUR = 3600.0
TRILLION = 1e12


@dataclass(frozen=True)
class TrainingStep:
    """One training step.

    Attributes:
        pipeline_s: seconds until the last op ends.
        reduction_s: seconds of gradient reduction after that.
        optimizer_s: seconds of the optimizer's step.
        tokens: tokens that all GPUs trained on.
        gpus: GPUs.

    """

    pipeline_s: float
    reduction_s: float
    optimizer_s: float
    tokens: int
    gpus: int

    @property
    def time_s(self) -> float:
        """Seconds of the whole step."""
        return self.pipeline_s + self.reduction_s + self.optimizer_s

    @property
    def tokens_per_second_per_gpu(self) -> float:
        """Tokens a second and GPU."""
        return self.tokens / self.time_s / self.gpus

    @property
    def gpu_hours_per_trillion_tokens(self) -> float:
        """GPU-hours that 10^12 tokens take."""
        return TRILLION / self.tokens_per_second_per_gpu / SECONDS_PER_HOUR


def step(timeline: Timeline, costs: JobStageCosts) -> TrainingStep:
    """Return the step that a timeline is the pipeline of.

    After the last op of all ranks, what is left of the gradients' reduction takes its time; then, since gradients are
    clipped by their norm, all ranks' optimizers step together, each as long as its share of states takes.
    """
    job, pipeline_s = costs.job, timeline.makespan_s
    placement = timeline.graph.schedule.placement
    reduced_s = reduction_end_s(timeline, costs)
    return TrainingStep(
        pipeline_s=pipeline_s,
        reduction_s=max(0.0, float(reduced_s.max()) - pipeline_s),
        optimizer_s=float(optimizer_s_by_rank(placement, costs).max()) if job.step_end.optimizer else 0.0,
        tokens=timeline.graph.schedule.micro_batches * job.tokens * job.data_parallel,
        gpus=timeline.ranks * job.gpus_per_rank,
    )


def mfu(step: TrainingStep, costs: JobStageCosts, *, causal: bool = True) -> float:
    """Return the model FLOPs of a step over what the GPUs' BF16 peak allows, as DeepSeek counts them.

    Papers differ in whether the masked half of attention counts; ``causal`` leaves it out.
    """
    flops = model_flops_per_token(costs.job.model, costs.job.sequence_length, causal=causal)
    return step.tokens_per_second_per_gpu * flops / costs.gpu.peak.bf16_flops_per_s


def slowest_stage(costs: JobStageCosts) -> tuple[int, float]:
    """Return the stage whose F and B take longest where they run alone, and how long they take."""
    stages = len(costs.stage_layers)
    seconds = op_seconds(costs, F, stages) + op_seconds(costs, B, stages)
    stage = int(seconds.argmax())
    return stage, float(seconds[stage])


def optimizer_s_by_rank(placement: Placement, costs: JobStageCosts) -> FloatArray:
    """Seconds of each rank's optimizer step, shape ``(ranks,)``: its share of states, as memory counts it."""
    state = state_by_rank(costs.job, costs.stage_layers, placement)
    return optimizer_s(state.optimizer, costs.gpu)


def optimizer_s(state_bytes: IntArray, gpu: Gpu) -> FloatArray:
    """Seconds that passing over optimizer states of so many bytes takes on GPUs, same shape."""
    return np.asarray(state_bytes / gpu.hbm_bytes_per_s)


def reduction_end_s(timeline: Timeline, costs: JobStageCosts) -> FloatArray:
    """Return when each rank has its last op and its gradients' reduction behind it, shape ``(ranks,)``.

    Those of a layer (or embedding, or head) are there when its last W ends; with
    ``overlapped`` they leave in that order, one after the other, else all after the rank's last op. All-to-alls and
    transfers that use the same links are not in their way.

    The reduction of a rank is a queue of one server: each piece starts when it is there and the one before it is
    through. Pieces of 2 s that are there at 1 s and at 2 s are through at 3 s and at 5 s.
    """
    ends_s: FloatArray = np.maximum.reduceat(timeline.task_end_s, timeline.first_task_of_rank[:-1])
    reduction = costs.job.step_end.reduction
    if reduction == "none":
        return ends_s
    placement = timeline.graph.schedule.placement
    copies = len(placement.pipes)
    bytes_per_s = _reduction_bytes_per_s(timeline.ranks, copies, costs)
    ready_s = _gradient_ready_s(timeline) if reduction == "overlapped" else {}
    for rank in range(timeline.ranks):
        last_op_s = float(ends_s[rank])
        queue = [
            (ready_s.get((stage, unit), last_op_s), _reduced_bytes(parameters, costs.job, copies))
            for stage in placement.stages_of_rank(rank)
            for unit, parameters in costs.job.parameters(costs.stage_layers[stage]).items()
        ]
        free_s = 0.0
        for there_s, size_bytes in sorted(queue):
            free_s = max(free_s, there_s) + size_bytes / bytes_per_s
        ends_s[rank] = max(last_op_s, free_s)
    return ends_s


def _gradient_ready_s(timeline: Timeline) -> dict[tuple[int, Unit], float]:
    """Return when the last W of each (stage, unit) ends.

    A table ``last_s`` of shape ``(stages, units)`` takes the latest end over all W phases at once; -1 is where a stage
    has no such unit. The W part of a full backward is a phase of kind W too.
    """
    graph = timeline.graph
    units = [_owner(phase.unit) for phase in graph.phases]
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    weights = np.flatnonzero(np.array([phase.kind == W for phase in graph.phases])[graph.phase])
    stage = graph.schedule.stage[graph.op_of_node[weights]]
    number = np.array([numbers[unit] for unit in units])[graph.phase[weights]]
    last_s = np.full((graph.schedule.placement.stages, len(numbers)), -1.0)
    np.maximum.at(last_s, (stage, number), timeline.end_s[weights])  # ``at``: a place is there for each micro-batch
    return {
        (int(stage), unit): float(last_s[stage, number])
        for unit, number in numbers.items()
        if unit is not None
        for stage in np.flatnonzero(last_s[:, number] >= 0)
    }


def _owner(unit: int | str) -> Unit | None:
    """Return whose weights a unit's phases work on, None for no weights; multi-token prediction shares the head."""
    if isinstance(unit, int):
        return unit
    if unit == "embedding":
        return "embedding"
    return "head" if unit == "head" or unit.startswith("mtp head") else None


def _reduced_bytes(parameters: Parameters, job: Job, copies: int) -> float:
    return reduced_gradient_bytes(
        local_parameters(parameters, job.expert_parallel),
        job.recipe,
        data_parallel=job.data_parallel,
        expert_copies=job.expert_copies,
        copies=copies,
    )


def _reduction_bytes_per_s(ranks: int, copies: int, costs: JobStageCosts) -> float:
    """Return the bandwidth of the slowest links among the GPUs that hold the same parameters.

    These lie in a rank's GPUs. Where several pipes hold a copy of the model each, a stage's copies are on
    different ranks, and the group reaches over all ranks.
    """
    gpus = costs.job.gpus_per_rank * (ranks if copies > 1 else 1)
    cluster = costs.cluster
    return (cluster.nvlink if gpus <= cluster.gpus_per_node else cluster.infiniband).bytes_per_s
