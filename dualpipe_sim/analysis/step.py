"""What a timeline means for training, where a model is known: step time, throughput, MFU, hidden all-to-all.

The pipeline's timeline ends with its last op. A step goes on: gradients are reduced, then the optimizer steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dualpipe_sim.arrays import FloatArray
from dualpipe_sim.costs.compute import optimizer_step_s
from dualpipe_sim.costs.layers import LayerCosts, LayerStageCosts, Unit
from dualpipe_sim.costs.memory import Hosted, hosted, reduced_gradient_bytes, static_bytes
from dualpipe_sim.experiment import Reduction, StepEnd
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.model.architecture import Parameters
from dualpipe_sim.model.flops import model_flops_per_token
from dualpipe_sim.order.ops import B, F, W
from dualpipe_sim.order.placement import Placement

SECONDS_PER_HOUR = 3600.0
TRILLION = 1e12


@dataclass(frozen=True)
class Step:
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


def step(timeline: Timeline, costs: LayerCosts, end: StepEnd) -> Step:
    """Return the step that a timeline is the pipeline of.

    After the last op of all ranks, what is left of the gradients' reduction takes its time; then, since gradients are
    clipped by their norm, all ranks' optimizers step together, each as long as its share of states takes.
    """
    pipeline_s = timeline.makespan_s
    reduced_s = reduction_end_s(timeline, costs, end.reduction)
    placement = timeline.graph.schedule.placement
    optimizer_s = float(optimizer_s_by_rank(placement, costs).max()) if end.optimizer else 0.0
    return Step(
        pipeline_s=pipeline_s,
        reduction_s=max(0.0, float(reduced_s.max()) - pipeline_s),
        optimizer_s=optimizer_s,
        tokens=timeline.graph.schedule.micro_batches * costs.tokens * costs.data_parallel,
        gpus=timeline.ranks * costs.data_parallel,
    )


def mfu(step: Step, costs: LayerCosts, *, causal: bool = True) -> float:
    """Return the model FLOPs of a step over what the GPUs' BF16 peak allows, as DeepSeek counts them.

    Papers differ in whether the masked half of attention counts; ``causal`` leaves it out.
    """
    flops = model_flops_per_token(costs.model, costs.sequence_length, causal=causal)
    return step.tokens_per_second_per_gpu * flops / costs.gpu.peak.bf16_flops_per_s


def slowest_stage(costs: LayerStageCosts) -> tuple[int, float]:
    """Return the stage whose F and B take longest where they run alone, and how long they take."""
    seconds = costs.stage_s[F] + costs.stage_s[B]
    stage = int(seconds.argmax())
    return stage, float(seconds[stage])


def optimizer_s_by_rank(placement: Placement, costs: LayerCosts) -> FloatArray:
    """Seconds of each rank's optimizer step, shape ``(ranks,)``."""
    stage_costs = costs.on(placement)
    seconds = np.zeros(placement.ranks)
    for stage, rank in enumerate(placement.rank_of_stage.tolist()):
        parts = stage_costs.parameters(stage).values()
        held = sum((hosted(one, costs.expert_parallel) for one in parts), start=Hosted())
        state = static_bytes(
            held,
            costs.recipe,
            data_parallel=costs.data_parallel,
            expert_parallel=costs.expert_parallel,
            copies=len(placement.pipes),
        )
        seconds[rank] += optimizer_step_s(state.optimizer, costs.gpu)
    return seconds


def reduction_end_s(timeline: Timeline, costs: LayerCosts, reduction: Reduction) -> FloatArray:
    """Return when each rank has its last op and its gradients' reduction behind it, shape ``(ranks,)``.

    A gradient is 4 bytes a parameter. Those of a layer (or embedding, or head) are there when its last W ends; with
    ``overlapped`` they leave in that order, one after the other, else all after the rank's last op. All-to-alls and
    transfers that use the same links are not in their way.
    """
    ends_s: FloatArray = np.maximum.reduceat(timeline.task_end_s, timeline.first_task_of_rank[:-1])
    if reduction == "none":
        return ends_s
    placement = timeline.graph.schedule.placement
    stage_costs = costs.on(placement)
    bytes_per_s = _reduction_bytes_per_s(timeline, costs)
    ready_s = _gradient_ready_s(timeline) if reduction == "overlapped" else {}
    for rank in range(timeline.ranks):
        last_op_s = float(ends_s[rank])
        queue = [
            (ready_s.get((stage, unit), last_op_s), _reduced_bytes(parameters, timeline, costs))
            for stage in placement.stages_of_rank(rank)
            for unit, parameters in stage_costs.parameters(stage).items()
        ]
        free_s = 0.0
        for there_s, size_bytes in sorted(queue):
            free_s = max(free_s, there_s) + size_bytes / bytes_per_s
        ends_s[rank] = max(last_op_s, free_s)
    return ends_s


def _gradient_ready_s(timeline: Timeline) -> dict[tuple[int, Unit], float]:
    """Return when the last W of each (stage, unit) ends."""
    graph = timeline.graph
    units = [_owner(phase.unit) for phase in graph.phases]
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    weights = np.flatnonzero(np.array([phase.kind == W for phase in graph.phases])[graph.phase])
    stage = graph.schedule.stage[graph.op_of_node[weights]]
    number = np.array([numbers[unit] for unit in units])[graph.phase[weights]]
    last_s = np.full((graph.schedule.placement.stages, len(numbers)), -1.0)
    np.maximum.at(last_s, (stage, number), timeline.end_s[weights])
    return {
        (int(stage), unit): float(last_s[stage, number])
        for unit, number in numbers.items()
        if unit is not None
        for stage in np.flatnonzero(last_s[:, number] >= 0)
    }


def _owner(unit: int | str) -> Unit | None:
    """Return whose weights a unit's phases work on; multi-token prediction shares the head."""
    if isinstance(unit, int):
        return unit
    owners: dict[str, Unit] = {"embedding": "embedding", "head": "head", "mtp head": "head"}
    return owners.get(unit)


def _copies(timeline: Timeline) -> int:
    return len(timeline.graph.schedule.placement.pipes)


def _reduced_bytes(parameters: Parameters, timeline: Timeline, costs: LayerCosts) -> float:
    return reduced_gradient_bytes(
        hosted(parameters, costs.expert_parallel),
        data_parallel=costs.data_parallel,
        expert_parallel=costs.expert_parallel,
        copies=_copies(timeline),
    )


def _reduction_bytes_per_s(timeline: Timeline, costs: LayerCosts) -> float:
    """Return the bandwidth of the slowest links among those that hold the same parameters."""
    gpus = costs.data_parallel * (timeline.ranks if _copies(timeline) > 1 else 1)
    cluster = costs.cluster
    return (cluster.nvlink if gpus <= cluster.gpus_per_node else cluster.infiniband).bytes_per_s
