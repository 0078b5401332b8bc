"""Costs at layer level: a model on GPUs of a cluster, each op as the phases of its layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np

from dualpipe_sim.arrays import FloatArray
from dualpipe_sim.costs.alltoall import AllToAll, AllToAllKernel, expert_group
from dualpipe_sim.costs.compute import Workload
from dualpipe_sim.costs.memory import boundary_bytes
from dualpipe_sim.costs.op_phases import op_phases, pair_phases
from dualpipe_sim.costs.parts import Measured, Overlap, Parts
from dualpipe_sim.costs.phases import Phase
from dualpipe_sim.errors import UserError
from dualpipe_sim.hardware.cluster import Cluster
from dualpipe_sim.hardware.gpu import Gpu
from dualpipe_sim.model.architecture import Model, Parameters
from dualpipe_sim.model.layout import BALANCED, EVEN, DepthTimes, LayoutChoice, StageLayers, explicit, lay_out
from dualpipe_sim.model.recipe import Recipe
from dualpipe_sim.order.ops import B, F, I, TaskShape, W
from dualpipe_sim.order.placement import Placement

Unit: TypeAlias = int | Literal["embedding", "head"]
"""A layer by number (those of multi-token prediction follow the model's), the embedding, or the head."""


@dataclass(frozen=True)
class LayerCosts:
    """Costs that come out of a model's shapes, a GPU's rates and a cluster's links.

    Attributes:
        model: the model.
        gpu: every rank's GPU.
        cluster: the links between GPUs.
        recipe: precision and recompute.
        sequence_length: tokens of a sequence.
        micro_batch_size: sequences of a micro-batch on one GPU.
        expert_parallel: GPUs that the routed experts are spread over.
        data_parallel: GPUs of a pipeline rank; each runs its own micro-batches, and the expert groups lie in them.
        layout: which stage holds which layers.
        kernel: what the all-to-all achieves; None only where experts are not spread.
        overlap: how compute and communication share a GPU.
        routing_skew: tokens that the busiest expert rank receives over the mean; it sets the pace.
        causal: whether attention skips the masked half.
        measured: times of an MoE layer in overlapped pairs that stand in for the formulas'.
        transfer_s: seconds that a stage boundary's tensor is under way; None for its bytes over the links.

    Raises:
        UserError: settings that do not fit each other.

    """

    model: Model
    gpu: Gpu
    cluster: Cluster
    recipe: Recipe
    sequence_length: int
    micro_batch_size: int = 1
    expert_parallel: int = 1
    data_parallel: int = 1
    layout: LayoutChoice = EVEN
    kernel: AllToAllKernel | None = None
    overlap: Overlap = field(default_factory=Overlap)
    routing_skew: float = 1.0
    causal: bool = True
    measured: Measured = field(default_factory=Measured)
    transfer_s: float | None = None

    def __post_init__(self) -> None:
        if self.data_parallel % self.expert_parallel:
            raise UserError(
                f"parallel.data: {self.data_parallel} GPUs a rank are not whole groups of {self.expert_parallel} "
                "(parallel.expert)"
            )
        if self.expert_parallel > 1 and self.model.experts is None:
            raise UserError(f"parallel.expert: model {self.model.name} has no experts to spread over GPUs; take 1")
        if self.routing_skew < 1:
            raise UserError(f"training.routing_skew: the busiest is at least the mean, 1, not {self.routing_skew}")
        if self.alltoall is not None:
            self._check_sms(self.alltoall.kernel)
        if self.layout not in (EVEN, BALANCED):
            explicit(self.layout, self.model.layers, self.model.mtp_depth)
        self.gpu.other_costs(self.recipe.precision)

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch on one GPU."""
        return self.sequence_length * self.micro_batch_size

    @cached_property
    def alltoall(self) -> AllToAll | None:
        """The all-to-all of an expert-parallel group; None where experts are not spread."""
        if self.model.experts is None or self.expert_parallel == 1:
            return None
        if self.kernel is None:
            raise UserError("cluster.alltoall: is missing, so the time of the all-to-all is not known")
        group = expert_group(self.model.experts, self.expert_parallel, self.cluster.gpus_per_node)
        return AllToAll(self.kernel, self.cluster, group)

    @cached_property
    def parts(self) -> Parts:
        """The parts that ops are made of."""
        load = Workload(
            self.gpu,
            self.recipe,
            self.tokens,
            self.sequence_length,
            causal=self.causal,
            routing_skew=self.routing_skew,
        )
        return Parts(self.model, load, self.alltoall, self.overlap, self.measured)

    def stage_layers(self, stages: int) -> tuple[StageLayers, ...]:
        """Return what each stage of a pipe of so many stages holds."""
        return lay_out(self.layout, stages, self.model.mtp_depth, self.depth_times)

    @cached_property
    def depth_times(self) -> DepthTimes:
        """Seconds of F and B of each part of the model that runs alone."""
        (whole,) = lay_out(EVEN, 1, self.model.mtp_depth, DepthTimes((0.0,) * self.model.layers))
        layers_s = tuple(self._alone_s(StageLayers((layer,))) for layer in whole.layers)
        before = StageLayers((), embedding=True)
        after = StageLayers((), mtp=whole.mtp, head=True)
        return DepthTimes(layers_s, self._alone_s(before), self._alone_s(after))

    def on(self, placement: Placement) -> LayerStageCosts:
        """Return the costs of each stage of a placement.

        Raises:
            ScheduleError: a layout for another number of stages.

        """
        held = tuple(stage for pipe in placement.pipes for stage in self.stage_layers(len(pipe)))
        return LayerStageCosts(self, held)

    def _alone_s(self, held: StageLayers) -> float:
        return sum(phase.duration_s for kind in (F, B) for phase in op_phases(self.parts, held, kind))

    def _check_sms(self, kernel: AllToAllKernel) -> None:
        sms = self.overlap.communication_sms
        kernel.channels(sms)
        if sms >= self.gpu.sms:
            raise UserError(
                f"overlap.communication_sms: {sms} SMs leave none of GPU {self.gpu.name}'s {self.gpu.sms} to compute"
            )


@dataclass(frozen=True)
class LayerStageCosts:
    """Layer costs laid on one placement.

    Attributes:
        costs: what they come from.
        held: what each stage holds, by global stage id.

    """

    costs: LayerCosts
    held: tuple[StageLayers, ...]

    @property
    def transfer_s(self) -> float | None:
        """Seconds of a transfer, or None where its bytes take the links."""
        return self.costs.transfer_s

    @property
    def transfer_bytes(self) -> float:
        """Bytes of a stage boundary's activation or gradient; 0 where a time is given."""
        return boundary_bytes(self.costs.model, self.costs.tokens) if self.costs.transfer_s is None else 0.0

    @cached_property
    def stage_s(self) -> dict[int, FloatArray]:
        """Seconds of each kind of op that runs alone, by kind code, each of shape ``(stages,)``."""
        return {kind: self._alone_s(kind) for kind in (F, B, I, W)}

    def parameters(self, stage: int) -> dict[Unit, Parameters]:
        """Return the parameters of a stage by unit, each of which gets its gradient at once."""
        held, model = self.held[stage], self.costs.model
        kinds = model.layer_kinds()
        units: dict[Unit, Parameters] = {layer: model.layer_parameters(kinds[layer]) for layer in held.layers}
        units |= {model.layers + module: model.mtp_parameters() for module in range(held.mtp)}
        if held.embedding:
            units["embedding"] = model.embedding_parameters()
        if held.head:
            units["head"] = model.head_parameters()
        return units

    def phases(self, task: TaskShape) -> tuple[Phase, ...]:
        """Return the task's phases."""
        (kind, stage), *backward = task
        if not backward:
            return op_phases(self.costs.parts, self.held[stage], kind)
        return pair_phases(self.costs.parts, self.held[stage], self.held[backward[0][1]])

    def _alone_s(self, kind: int) -> FloatArray:
        parts = self.costs.parts
        return np.array([sum(phase.duration_s for phase in op_phases(parts, held, kind)) for held in self.held])
