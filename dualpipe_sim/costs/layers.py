"""Costs at layer level: a job on GPUs of a cluster, each op as the phases of its layers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from math import ceil
from typing import Literal

from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.base.show import brief
from dualpipe_sim.costs.alltoall import AllToAll
from dualpipe_sim.costs.context_parallel import ContextGroup
from dualpipe_sim.costs.load import USUAL, Load
from dualpipe_sim.costs.op_phases import PASSES, WORKS, op_phases, pair_phases, pass_phases
from dualpipe_sim.costs.parts import Groups, Measured, Overlap, Parts
from dualpipe_sim.costs.phases import ByBoundary, Phase, ends_s
from dualpipe_sim.costs.registry import register
from dualpipe_sim.costs.shared_weights import SharedWeights
from dualpipe_sim.costs.tensor_parallel import TensorGroup
from dualpipe_sim.costs.workload import Work, Workload
from dualpipe_sim.errors import UnfitCostsError, UserError
from dualpipe_sim.hardware.cluster import Cluster
from dualpipe_sim.hardware.collectives import AllToAllKernel
from dualpipe_sim.hardware.gpu import Gpu
from dualpipe_sim.hardware.groups import Group
from dualpipe_sim.model.job import Job
from dualpipe_sim.model.layout import (
    BALANCED,
    EVEN,
    DepthTimes,
    LayoutChoice,
    StageLayers,
    lay_out,
    vocabulary_shared_out,
)
from dualpipe_sim.model.slices import shares_of_even_slices
from dualpipe_sim.model.state import alltoall_buffer_bytes
from dualpipe_sim.order.ops import COPIES, UNSHARD, B, F, I, S, T, TaskShape, Vocabulary, W
from dualpipe_sim.order.placement import Placement


@register("layers")
@dataclass(frozen=True)
class LayerCosts:
    """Costs that come out of a model's shapes, a GPU's rates and a cluster's links.

    >>> from dualpipe_sim.config import load_experiment
    >>> costs = load_experiment("deepseek_v3").cost_model
    >>> costs.job.model.name, costs.gpu.name, costs.overlap.communication_sms
    ('deepseek-v3', 'h800', 20)

    Attributes:
        job: what is trained and how it is cut.
        gpu: every rank's GPU.
        cluster: the links between GPUs; None until :meth:`on_cluster`.
        kernel: what the all-to-all achieves; None only where experts are not spread.
        overlap: how compute and communication share a GPU.
        measured: times of an MoE layer in overlapped pairs that stand in for the formulas'.
        transfer_s: seconds that a stage boundary's tensor is under way, one for all or one for each boundary between
            two stages of a pipe; None for its bytes over the links.
        vocabulary: how ranks share the output layer out; None where the last stage has all of it.
        slices: where a schedule cuts micro-batches: into slices that take as long (``balanced``), or have as many
            tokens (``even``), of which a later one attends to more.

    Raises:
        UserError: settings that do not fit each other.

    """

    job: Job
    gpu: Gpu
    cluster: Cluster | None = None
    kernel: AllToAllKernel | None = None
    overlap: Overlap = field(default_factory=Overlap)
    measured: Measured = field(default_factory=Measured)
    transfer_s: ByBoundary | None = None
    vocabulary: Vocabulary | None = None
    slices: Literal["balanced", "even"] = "balanced"

    __repr__ = brief

    def __post_init__(self) -> None:
        if not self.job.recipe.stack.by_shape:
            self.gpu.other_costs(self.job.recipe.numbers.gemm)
            if own := self.gpu.kernels.of_own:
                stack = self.job.recipe.stack.name
                raise UserError(
                    f"gpu.kernels: {own[0]} counts for nothing: stack {stack} takes rates from gpu.gemm and "
                    "gpu.attention; leave it out, or name another stack"
                )
        if self.cluster is None:
            return
        _ = self.groups  # which says where GPUs do not fit the nodes
        if self.alltoall is not None:
            self._check_sms(self.alltoall.kernel)

    def on_cluster(self, cluster: Cluster) -> LayerCosts:
        """Return the same costs on a cluster's links."""
        return replace(self, cluster=cluster)

    def on_fewer_ranks(self, shares: int) -> LayerCosts:  # noqa: ARG002 - a stage's layers do not depend on ranks
        """Return the costs of the same model on fewer ranks: the same, since a stage takes what its layers take."""
        return self

    def of_smaller_micro_batches(self, share: float) -> LayerCosts:
        """Return the costs of a share of a micro-batch, which must have whole sequences.

        Raises:
            UnfitCostsError: it has not.

        """
        sequences = self.job.micro_batch_size * share
        if sequences != int(sequences):
            raise UnfitCostsError(
                f"training.micro_batch_size: {self.job.micro_batch_size} cannot be cut into {1 / share:g} micro-batches"
            )
        return replace(self, job=replace(self.job, micro_batch_size=int(sequences)))

    def in_layout(self, layout: LayoutChoice) -> LayerCosts:
        """Return the costs of the same layers on other stages; what does not depend on that is not found again."""
        other = replace(self, job=replace(self.job, layout=layout))
        vars(other).update(parts=self.parts, issue_s=self.issue_s, known_phases=self.known_phases)
        return other

    @cached_property
    def alltoall(self) -> AllToAll | None:
        """The all-to-all of an expert-parallel group; None where experts are not spread."""
        cluster = self.links
        group = self.job.expert_group(cluster.gpus_per_node)
        if group is None:
            return None
        if self.kernel is None:
            raise UserError("cluster.alltoall: is missing, so the time of the all-to-all is not known")
        experts, stack = self.job.model.experts, self.job.recipe.stack
        usual = "nccl" if stack.copy_for_each_expert else "deepep"
        copies = experts.active if experts and (self.job.parallel.dispatcher or usual) == "nccl" else 0
        return AllToAll(self.kernel, cluster, group, copies)

    @cached_property
    def groups(self) -> Groups:
        """The groups of GPUs that share layers out."""
        cut, cluster, stack = self.job.parallel, self.links, self.job.recipe.stack
        in_turn = stack.sums_in_turn if cut.tensor_overlap is None else not cut.tensor_overlap
        context = Group(cluster, cut.context, cut.tensor)
        return Groups(
            TensorGroup(cut.tensor, cluster, cut.sequence, cut.tensor_overlap is True, in_turn, stack.keeps_gathered)
            if cut.tensor > 1
            else None,
            ContextGroup(context, cut.context_exchange) if cut.context > 1 else None,
            Group(cluster, cut.expert_tensor) if cut.expert_tensor > 1 else None,
            self.job.micro_batch.arriving if cut.expert_tensor > 1 else 0.0,
            self.shared_weights if cut.shards_weights and cut.gathers == "each" else None,
        )

    @property
    def shared_weights(self) -> SharedWeights:
        """How weights and gradients are gathered and scattered where GPUs share them out."""
        return SharedWeights(self.job.parallel, self.links, self.job.recipe.optimizer.gradient_bytes)

    @property
    def gathers_stages(self) -> bool:
        """Whether weights are gathered a stage at a time."""
        return self.job.parallel.gathers == "stages"

    @cached_property
    def parts(self) -> Parts:
        """The parts that ops are made of."""
        job, cut = self.job, self.job.parallel
        run_of_each = job.causal and not cut.context_balanced and cut.context_exchange != "all-to-all"
        load = Workload(
            self.gpu,
            job.recipe,
            job.micro_batch.tokens,
            job.sequence_length,
            sequences=job.micro_batch_size,
            causal=job.causal,
            routing_skew=job.routing_skew,
            tensor_parallel=cut.tensor,
            sequence_parallel=cut.sequence,
            expert_parallel=cut.expert,
            expert_tensor=cut.expert_tensor,
            runs=cut.context if run_of_each else 1,
            added=1.0 if job.micro_batches is None else 1 - 1 / job.micro_batches,
        )
        return Parts(job.shard, load, self.alltoall, self.overlap, self.measured, self.groups, job.micro_batch)

    @cached_property
    def issue_s(self) -> dict[tuple[Work, ...], list[float]]:
        """Least seconds that the host takes to issue a layer of each kind, by its number, for works of an op."""
        issue, kinds = self.job.recipe.stack.issue, dict.fromkeys(self.job.model.layer_kinds())
        return {
            works: [issue.layer_s(works, kind.blocks, routed=kind.moe) for kind in kinds] for works in WORKS.values()
        }

    @cached_property
    def known_phases(self) -> dict[object, tuple[tuple[StageLayers, ...], tuple[Phase, ...]]]:
        """The phases of tasks that were asked for, with the layers they were put together of; grows."""
        return {}

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the all-to-all's buffers on a GPU with experts; 0 without all-to-all."""
        if self.alltoall is None:
            return 0
        channels = self.alltoall.kernel.channels(self.overlap.communication_sms)
        return ceil(alltoall_buffer_bytes(self.alltoall.group, self.job.model.hidden, channels))

    def stage_layers(self, stages: int) -> tuple[StageLayers, ...]:
        """Return what each stage of a pipe of so many stages holds."""
        if self.job.layout != BALANCED:  # which takes no time into account
            times = DepthTimes((0.0,) * self.job.model.layers)
            return lay_out(self.job.layout, stages, self.job.model.mtp_depth, times)
        times = self.depth_times
        if self.vocabulary is not None:
            first = StageLayers((), embedding=True, vocabulary_over=stages)
            last = StageLayers((), mtp=self.job.model.mtp_depth)
            times = replace(times, before_s=self._alone_s(first), after_s=self._alone_s(last))
        return lay_out(self.job.layout, stages, self.job.model.mtp_depth, times)

    @cached_property
    def depth_times(self) -> DepthTimes:
        """Seconds of F and B of each part of the model that runs alone."""
        model = self.job.model
        (whole,) = lay_out(EVEN, 1, model.mtp_depth, DepthTimes((0.0,) * model.layers))
        layers_s = self._of_layers(self._alone_s)
        before = StageLayers((), embedding=True)
        after = replace(whole, layers=(), embedding=False)
        return DepthTimes(layers_s, self._alone_s(before), self._alone_s(after))

    @cached_property
    def depth_times_in_pairs(self) -> DepthTimes:
        """Seconds of a layer's F beside another's B, where pairs overlap; what else there is runs alone."""

        def in_pair_s(layer: StageLayers) -> float:
            pair = pair_phases(self.parts, layer, layer)
            return max(ends_s(pair, [phase.duration_s for phase in pair]))

        return replace(self.depth_times, layers_s=self._of_layers(in_pair_s))

    def _of_layers(self, seconds: Callable[[StageLayers], float]) -> tuple[float, ...]:
        """Return the seconds of each layer of the model; those of a kind are asked for once."""
        numbers = self.job.model.kind_numbers()
        of_kind = {number: seconds(StageLayers((numbers.index(number),))) for number in dict.fromkeys(numbers)}
        return tuple(of_kind[number] for number in numbers)

    def on(self, placement: Placement) -> LayerStageCosts:
        """Return the costs of each stage of a placement.

        Raises:
            ScheduleError: a layout for another number of stages.

        """
        return self.of(placement, [stage for pipe in placement.pipes for stage in self.stage_layers(len(pipe))])

    def of(self, placement: Placement, stages: Sequence[StageLayers]) -> LayerStageCosts:
        """Return the costs of a placement's stages that hold such layers, the output layer shared out where it is."""
        if self.vocabulary is not None:
            stages = vocabulary_shared_out(stages, placement.first_stage_of_rank.tolist())
        return LayerStageCosts(self, tuple(stages), placement)

    @property
    def links(self) -> Cluster:
        """The cluster.

        Raises:
            UserError: there is none yet.

        """
        if self.cluster is None:
            raise UserError("layer costs need a cluster: its links carry the all-to-all; see on_cluster")
        return self.cluster

    def _alone_s(self, layers: StageLayers) -> float:
        return sum(phase.duration_s for kind in (F, B) for phase in op_phases(self.parts, layers, kind))

    def _check_sms(self, kernel: AllToAllKernel) -> None:
        sms = self.overlap.communication_sms
        kernel.channels(sms)
        if sms >= self.gpu.sms:
            raise UserError(
                f"overlap.communication_sms: {sms} SMs leave none of GPU {self.gpu.name}'s {self.gpu.sms} to compute"
            )


_BESIDE_LAYERS = tuple(one.name for one in fields(StageLayers) if one.name != "layers")
"""What a stage holds beside layers, by the names of it."""


@dataclass(frozen=True)
class LayerStageCosts:
    """Layer costs laid on one placement.

    Attributes:
        costs: what they come from.
        stage_layers: what each stage holds, by global stage id.
        placement: where the stages are.
        again: whether layers' second forwards are ops of their own (R), and no part of the backward.

    """

    costs: LayerCosts
    stage_layers: tuple[StageLayers, ...]
    placement: Placement
    again: bool = False

    __repr__ = brief

    def with_forwards_again(self) -> LayerStageCosts:
        """Return the costs of an order in which layers' second forwards are ops of their own.

        Raises:
            UnfitCostsError: layers that are not recomputed.

        """
        if not self.job.recipe.recompute.full:
            raise UnfitCostsError(
                "training.recompute: the order runs forwards again (R), which takes layers that are recomputed: full"
            )
        return replace(self, again=True)

    def with_vocabulary_cut(self, how: Vocabulary) -> LayerStageCosts:
        """Return the costs of an order whose ranks share the output layer out."""
        if how == self.costs.vocabulary:
            return self
        return replace(replace(self.costs, vocabulary=how).on(self.placement), again=self.again)

    @property
    def parts(self) -> Parts:
        """The parts that ops are made of."""
        return self.costs.parts.without_recompute if self.again else self.costs.parts

    @property
    def job(self) -> Job:
        """What is trained and how it is cut."""
        return self.costs.job

    @property
    def gpu(self) -> Gpu:
        """Every rank's GPU."""
        return self.costs.gpu

    @property
    def cluster(self) -> Cluster:
        """The links between GPUs."""
        return self.costs.links

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the all-to-all's buffers on a GPU with experts."""
        return self.costs.buffer_bytes

    @property
    def transfer_s(self) -> ByBoundary | None:
        """Seconds of a transfer, or None where its bytes take the links."""
        return self.costs.transfer_s

    @property
    def transfer_bytes(self) -> float:
        """Bytes of a stage boundary's activation or gradient; 0 where a time is given."""
        return self.job.boundary_bytes if self.costs.transfer_s is None else 0.0

    @cached_property
    def alike(self) -> list[tuple[object, ...]]:
        """What the times of each stage depend on: equal for stages that hold the same kinds of layers."""
        number = self.job.model.kind_numbers()
        return [
            (tuple(number[layer] for layer in one.layers), *(getattr(one, key) for key in _BESIDE_LAYERS))
            for one in self.stage_layers
        ]

    @property
    def slices(self) -> Callable[[int], tuple[float, ...]] | None:
        """The shares of a micro-batch's time that so many slices take; None where all take as long."""
        if self.costs.slices == "balanced" or not self.job.causal:
            return None
        return partial(shares_of_even_slices, self.job.model, self.job.sequence_length)

    @property
    def load(self) -> Load | None:
        """How much longer compute takes on busy GPUs and beside messages; None where clocks do not depend on that."""
        return USUAL if self.gpu.power_limited else None

    def phases(self, task: TaskShape) -> tuple[Phase, ...]:
        """Return the task's phases, compute as it is on an idle GPU where that is faster.

        Times by shape are those of a GPU that was busy all the time, with no message beside. Stages that hold the same
        kinds of layers have the same phases but for the layers' numbers, so they are put together once.
        """
        alike, held = self.alike, tuple([self.stage_layers[stage] for _, stage in task])
        question = self.again, len(self.stage_layers) > 1, tuple([(kind, alike[stage]) for kind, stage in task])
        known = self.costs.known_phases
        if question not in known:
            known[question] = held, self._put_together(task)
            return known[question][1]
        others, phases = known[question]
        moved = [(other.layers, _first(one) - _first(other)) for one, other in zip(held, others, strict=True)]
        if not any(by for _, by in moved):
            return phases
        return tuple(_moved(phase, *moved[phase.half]) for phase in phases)

    def _put_together(self, task: TaskShape) -> tuple[Phase, ...]:
        (kind, stage), *beside = task
        if beside:
            ((other_kind, other),) = beside
            phases = pair_phases(self.parts, self.stage_layers[stage], self.stage_layers[other], other_kind)
        elif kind in (S, T) and self.costs.vocabulary is not None:
            layers, works = self.stage_layers[stage], PASSES[self.costs.vocabulary][kind]
            phases = pass_phases(self.parts.with_vocabulary_over(layers.vocabulary_over), layers, works)
            phases = self._issued(phases, kind, StageLayers(()))
        else:
            phases = op_phases(self.parts, self.stage_layers[stage], kind)
            if kind not in COPIES:
                phases = self._issued(phases, kind, self.stage_layers[stage])
        return phases if self.load is None else tuple(_times(phase, 1 / (1 + self.load.beta)) for phase in phases)

    def weights_moved(self, kind: int, stage: int) -> Phase:
        """Return the gathering of a stage's weights, layer after layer, or the reduction of its gradients."""
        shared, units = self.costs.shared_weights, self.job.parameters(self.stage_layers[stage]).values()
        moved = shared.gather_all(units) if kind == UNSHARD else shared.scatter_all(units)
        return Phase(Lane.DATA, moved.duration_s, kind, flows=moved.flows)

    def _issued(self, phases: tuple[Phase, ...], kind: int, layers: StageLayers) -> tuple[Phase, ...]:
        """Return an op's phases, no shorter than the host takes to issue them; I and W apart take longer than in B."""
        stack = self.job.recipe.stack
        apart = stack.split_backward if kind in (I, W) else 1.0
        phases = tuple(_times(phase, apart) for phase in phases)
        number = self.job.model.kind_numbers()
        of_kind_s = self.costs.issue_s[WORKS[kind]] if layers.layers else []  # (S and T have none)
        least_s = sum(of_kind_s[number[layer]] for layer in layers.layers)
        least_s += stack.issue.op_s * (len(self.stage_layers) > 1)
        late_s = least_s - sum(phase.duration_s for phase in phases)
        computed_s = sum(phase.duration_s for phase in phases if phase.lane == Lane.COMPUTE)
        if late_s <= 0 or not computed_s:
            return phases
        return tuple(_times(phase, 1 + late_s / computed_s) for phase in phases)


def _first(held: StageLayers) -> int:
    return min(held.layers, default=0)


def _moved(phase: Phase, layers: Collection[int], by: int) -> Phase:
    """Return a phase of one of some layers with the number of another layer, so many behind; any other as it is."""
    return phase._replace(layer=phase.layer + by) if phase.layer in layers else phase


def _times(phase: Phase, factor: float) -> Phase:
    """Return a phase, compute so many times as long."""
    if phase.lane != Lane.COMPUTE:
        return phase
    alone_s = None if phase.alone_s is None else phase.alone_s * factor
    return phase._replace(duration_s=phase.duration_s * factor, alone_s=alone_s)
