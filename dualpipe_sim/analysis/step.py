"""What a timeline means for training, where a model is known: step time, throughput, MFU, hidden all-to-all.

The pipeline's timeline ends with its last op. A step goes on: gradients are reduced over the GPUs that hold the same
parameters, then the optimizer steps; where its states are shared out, the weights that each GPU updated are gathered
again, as the next step begins. Only what the reduction takes beyond the last op, and what of the gathering ops wait
for, makes the step longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.base.precision import BF16_BYTES
from dualpipe_sim.costs.asked import op_seconds
from dualpipe_sim.costs.phases import JobStageCosts
from dualpipe_sim.errors import UserError
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.hardware.gpu import Gpu
from dualpipe_sim.hardware.groups import Group
from dualpipe_sim.model.architecture import Parameters
from dualpipe_sim.model.flops import model_flops_per_token
from dualpipe_sim.model.footprint import State, state_by_rank
from dualpipe_sim.model.job import Job, Unit
from dualpipe_sim.model.recipe import Offload, Recipe
from dualpipe_sim.model.state import local_parameters
from dualpipe_sim.order.ops import B, F, W
from dualpipe_sim.order.placement import Placement

SECONDS_PER_HOUR = 3600.0
TRILLION = 1e12


@dataclass(frozen=True)
class TrainingStep:
    """One training step.

    Attributes:
        gathering_s: seconds that the pipeline starts later, since weights are not there yet.
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
    gathering_s: float = 0.0

    @property
    def time_s(self) -> float:
        """Seconds of the whole step."""
        return self.gathering_s + self.pipeline_s + self.reduction_s + self.optimizer_s

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
        tokens=timeline.graph.schedule.micro_batches * job.tokens * job.parallel.data,
        gpus=timeline.ranks * job.parallel.gpus,
        gathering_s=gathering_s(timeline, costs),
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
    recipe = costs.job.recipe
    if not recipe.offload.optimizer:
        return optimizer_s(state_by_rank(costs.job, costs.stage_layers, placement), recipe, costs.gpu)
    if not costs.gpu.host_bytes_per_s:
        raise UserError("gpu.host: is missing; the optimizer's states are updated in the host's memory")
    # Gradients go there and new weights come back, each on a way of its own; the host keeps up with them (assumed).
    here = replace(costs.job, recipe=replace(recipe, offload=Offload()))
    state = state_by_rank(here, costs.stage_layers, placement)
    moved = state.optimizer * max(recipe.optimizer.gradient_bytes, BF16_BYTES) / recipe.optimizer.state_bytes
    away = recipe.offload.optimizer
    on_gpu_s = optimizer_s(state, recipe, costs.gpu)
    return np.asarray(moved * away / costs.gpu.host_bytes_per_s + on_gpu_s * (1 - away))


def optimizer_s(state: State, recipe: Recipe, gpu: Gpu) -> FloatArray:
    """Seconds that the optimizer's step takes on GPUs with so much state, shape of the state's arrays.

    It reads and writes main weights (or weights) and moments, reads gradients and writes weights, and passes over
    gradients as the software does; of DeepSeek's stack it passes over the states once.
    """
    traffic, optimizer = recipe.stack.traffic, recipe.optimizer
    if traffic is None or not optimizer.state_bytes:
        return np.asarray(state.optimizer / gpu.hbm_bytes_per_s)
    parameters = state.optimizer / optimizer.state_bytes
    update = optimizer.gradient_bytes + 2 * optimizer.state_bytes + BF16_BYTES * (2 if optimizer.in_place else 1)
    own = update * traffic.update + optimizer.gradient_bytes * traffic.own_gradients
    return np.asarray((parameters * own + state.gradients * traffic.gradients) / gpu.hbm_bytes_per_s)


def reduction_end_s(timeline: Timeline, costs: JobStageCosts) -> FloatArray:
    """Return when each rank has its last op and its gradients' reduction behind it, shape ``(ranks,)``.

    Those of a layer (or embedding, or head) are there when its last W ends; with
    ``overlapped`` they leave in that order, one after the other, else all after the rank's last op. All-to-alls and
    transfers that use the same links are not in their way.

    The reduction of a rank is a queue of one server: each piece starts when it is there and the one before it is
    through. Pieces of 2 s that are there at 1 s and at 2 s are through at 3 s and at 5 s.
    """
    ends_s: FloatArray = np.maximum.reduceat(timeline.task_end_s, timeline.first_task_of_rank[:-1])
    job = costs.job
    if job.step_end.reduction == "none" or (job.parallel.shards_weights and job.parallel.gathers != "once"):
        return ends_s  # (each op, or the pipeline itself, reduces them)
    ready_s = unit_times(timeline, W, np.maximum, -1.0) if job.step_end.reduction == "overlapped" else {}
    passes = 2 if job.parallel.zero == 0 and not job.parallel.shards_weights else 1
    for rank, pieces in enumerate(_pieces(timeline, costs, job.recipe.optimizer.gradient_bytes * passes)):
        last_op_s = float(ends_s[rank])
        free_s, toll_s = 0.0, 0.0
        queue = sorted((ready_s.get(unit, last_op_s), *piece) for unit, piece in pieces.items())
        for there_s, seconds, toll in queue:
            hidden = min(1.0, max(0.0, last_op_s - max(free_s, there_s)) / seconds) if seconds else 0.0
            free_s = max(free_s, there_s) + seconds
            toll_s += hidden * toll
        ends_s[rank] = max(last_op_s, free_s) + toll_s
    return ends_s


def gathering_s(timeline: Timeline, costs: JobStageCosts) -> float:
    """Return by how much the pipeline starts later because weights are gathered first.

    It is the reduction's queue the other way: pieces leave in the order in which their first F needs them, and if one
    comes after that, all ops are later by as much. With ``after`` nothing starts before all are there.
    """
    job, cut = costs.job, costs.job.parallel
    whole = cut.zero == 0 and not cut.shards_weights
    if whole or job.step_end.reduction == "none" or (cut.shards_weights and cut.gathers != "once"):
        return 0.0
    needed_s = unit_times(timeline, F, np.minimum, np.inf) if job.step_end.gathering == "overlapped" else {}
    late_s = 0.0
    for pieces in _pieces(timeline, costs, BF16_BYTES):
        free_s = 0.0
        for first_s, seconds, _ in sorted((needed_s.get(unit, 0.0), *piece) for unit, piece in pieces.items()):
            free_s += seconds
            late_s = max(late_s, free_s - first_s)
    return late_s


def _pieces(
    timeline: Timeline, costs: JobStageCosts, bytes_of_parameter: float
) -> Iterator[dict[tuple[int, Unit], tuple[float, float]]]:
    """Yield, for each rank, how long a collective of each unit's parameters over those that hold them takes.

    With it comes what it and compute beside it lose to each other.
    """
    placement, job = timeline.graph.schedule.placement, costs.job
    copies = len(placement.pipes)
    groups = _groups(timeline.ranks, copies, costs)
    known: dict[tuple[float, float], tuple[float, float]] = {}  # most layers have as many parameters as others

    def moved_s(parameters: Parameters) -> tuple[float, float]:
        held = _held(parameters, job)
        if held not in known:
            moved = ((group, one * bytes_of_parameter) for group, one in zip(groups, held, strict=True))
            known[held] = _moved_s(moved, job)
        return known[held]

    for rank in range(timeline.ranks):
        yield {
            (stage, unit): moved_s(unit_parameters)
            for stage in placement.stages_of_rank(rank)
            for unit, unit_parameters in job.parameters(costs.stage_layers[stage]).items()
        }


def _moved_s(moved: Iterable[tuple[Group, float]], job: Job) -> tuple[float, float]:
    """Return the seconds of collectives of tensors of some bytes, and what they and compute beside them lose."""
    stack, seconds, toll_s = job.recipe.stack, 0.0, 0.0
    for group, size_bytes in moved:
        if group.gpus > 1 and size_bytes:
            bucket = stack.bucket_bytes if stack.bucket_bytes and job.parallel.zero == 0 else size_bytes
            by_tier = group.ring(min(bucket, size_bytes))
            taken_s = group.seconds(by_tier) * max(1.0, size_bytes / bucket)
            seconds += taken_s
            toll_s += taken_s * group.toll(by_tier) if stack.by_shape else 0.0
    return seconds, toll_s


def _held(parameters: Parameters, job: Job) -> tuple[float, float]:
    local = local_parameters(parameters, job.parallel.expert)
    return local.non_expert, local.expert


def _groups(ranks: int, copies: int, costs: JobStageCosts) -> tuple[Group, Group]:
    """Return the GPUs that hold the same non-expert parameters, and the same experts.

    These lie in a rank's GPUs. Where several pipes hold a copy of the model each, a stage's copies are on different
    ranks, so that the group reaches over all of them: as many members of it are in a node as are of one rank, unless
    all ranks are in one.
    """
    cut, cluster = costs.job.parallel, costs.cluster
    strides = cut.tensor, cut.expert * cut.expert_tensor
    holders = cut.holders, cut.expert_holders
    if copies > 1 and ranks * cut.gpus > cluster.gpus_per_node:
        inside = [Group(cluster, one, stride).inside for one, stride in zip(holders, strides, strict=True)]
        strides = tuple(max(1, cluster.gpus_per_node // one) for one in inside)  # type: ignore[assignment]
    first, second = (Group(cluster, one * copies, stride) for one, stride in zip(holders, strides, strict=True))
    return first, second


def unit_times(timeline: Timeline, kind: int, pick: np.ufunc, without: float) -> dict[tuple[int, Unit], float]:
    """Return when the last W of each (stage, unit) ends, or when its first F starts.

    A table of shape ``(stages, units)`` takes the latest end or the earliest start over all phases of a kind at once;
    ``without`` is where a stage has no such unit. The W part of a full backward is a phase of kind W too.
    """
    graph = timeline.graph
    when_s = timeline.end_s if kind == W else timeline.start_s
    units = [_owner(phase.unit) for phase in graph.phases]
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    nodes = np.flatnonzero(np.array([phase.kind == kind for phase in graph.phases])[graph.phase])
    stage = graph.schedule.stage[graph.op_of_node[nodes]]
    number = np.array([numbers[unit] for unit in units])[graph.phase[nodes]]
    table_s = np.full((graph.schedule.placement.stages, len(numbers)), without)
    pick.at(table_s, (stage, number), when_s[nodes])  # ``at``: a place is there for each micro-batch
    return {
        (int(stage), unit): float(table_s[stage, number])
        for unit, number in numbers.items()
        if unit is not None
        for stage in np.flatnonzero(table_s[:, number] != without)
    }


def _owner(unit: int | str) -> Unit | None:
    """Return whose weights a unit's phases work on, None for no weights; multi-token prediction shares the head."""
    if isinstance(unit, int):
        return unit
    if unit == "embedding":
        return "embedding"
    return "head" if unit == "head" or unit.startswith("mtp head") else None
