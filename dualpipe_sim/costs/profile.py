"""Costs by a profile: what each layer of a model takes, one after the other, laid on stages as a layout says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.base.show import brief
from dualpipe_sim.base.units import number_of
from dualpipe_sim.costs.phases import ByBoundary, Phase
from dualpipe_sim.costs.registry import register
from dualpipe_sim.costs.uniform import UniformStageCosts, scaled
from dualpipe_sim.errors import UnfitCostsError
from dualpipe_sim.model.layout import DepthTimes, LayoutChoice, lay_out
from dualpipe_sim.order.ops import B, F, I, Kind, R, TaskShape, Vocabulary, W
from dualpipe_sim.order.placement import Placement


@dataclass(frozen=True)
class LayerTime:
    """Seconds of one layer for one micro-batch; embedding and head are layers as any other.

    >>> LayerTime(forward=2.68e-3, backward_input=4.30e-3, backward_weight=1.76e-3).forward
    0.00268

    Attributes:
        forward: F.
        backward_input: I.
        backward_weight: W; a full backward B lasts I + W.

    """

    forward: float
    backward_input: float
    backward_weight: float

    __repr__ = brief


@register("profile")
@dataclass(frozen=True)
class ProfileCosts:
    """Times of each layer of a model for one micro-batch, of which a stage holds some in a row.

    A micro-batch's activations are taken to be the same in every layer.

    >>> from dualpipe_sim import simulate
    >>> light, heavy = LayerTime(1.0, 1.0, 1.0), LayerTime(3.0, 3.0, 3.0)
    >>> costs = ProfileCosts((light, light, light, heavy), layout=(3, 1))
    >>> simulate(schedule="1f1b", ranks=2, micro_batches=2, costs=costs).makespan_s
    27.0

    Attributes:
        layers: the times of each, in the order of the forward pass.
        layout: how many each stage of a pipe holds: ``even``, ``balanced``, or a number for each stage.
        transfer_s: seconds a stage boundary's tensor is under way; None where bytes are given. One for all boundaries,
            or one for each between two stages of a pipe.
        transfer_bytes: bytes of that tensor, sent over the cluster's links, where no time is given; likewise.
        unitless: whether times are units of no clock, as in papers' figures, and are shown without "s".

    """

    layers: tuple[LayerTime, ...]
    layout: LayoutChoice = "even"
    transfer_s: ByBoundary | None = 0.0
    transfer_bytes: ByBoundary = 0.0
    unitless: bool = False

    __repr__ = brief

    @cached_property
    def by_kind_s(self) -> dict[int, FloatArray]:
        """Seconds of F, I and W of each layer, by kind code, each of shape ``(layers,)``."""
        seconds = np.array([(one.forward, one.backward_input, one.backward_weight) for one in self.layers], dtype=float)
        return dict(zip((F, I, W), seconds.T, strict=True))

    def partition(self, stages: int) -> tuple[int, ...]:
        """Return how many layers each of so many stages of a pipe holds.

        Raises:
            UnfitCostsError: fewer layers than stages.

        """
        if stages > len(self.layers):
            raise UnfitCostsError(
                f"costs.layers: {number_of(len(self.layers), 'layer')} cannot be cut into {number_of(stages, 'stage')}"
            )
        times = DepthTimes(tuple(np.sum(list(self.by_kind_s.values()), axis=0).tolist()))
        return tuple(len(stage.layers) for stage in lay_out(self.layout, stages, 0, times))

    def on(self, placement: Placement) -> ProfileStageCosts:
        """Return the costs of each stage of a placement.

        Raises:
            UnfitCostsError: fewer layers than stages.
            ScheduleError: a layout for another number of stages.

        """
        counts = np.array(self.partition(len(placement.pipes[0])))
        cuts = np.append(0, np.cumsum(counts))
        depth = placement.depth_of_stage
        stage_s: dict[int, FloatArray] = {
            kind: np.diff(np.append(0.0, np.cumsum(seconds))[cuts])[depth] for kind, seconds in self.by_kind_s.items()
        }
        stage_s[B], stage_s[R] = stage_s[I] + stage_s[W], stage_s[F]
        return ProfileStageCosts(
            stage_s,
            None,
            self.transfer_s,
            self.transfer_bytes,
            unitless=self.unitless,
            activations_of_stage=counts[depth] * (placement.ranks / len(self.layers)),
        )

    def on_fewer_ranks(self, shares: int) -> ProfileCosts:  # noqa: ARG002 - a layer's times do not depend on ranks
        """Return the costs of the same model on fewer ranks."""
        return self

    def of_smaller_micro_batches(self, share: float) -> ProfileCosts:
        """Return the costs of a share of a micro-batch: that share of each time, and of a transfer's bytes."""
        return replace(
            self,
            layers=tuple(
                LayerTime(one.forward * share, one.backward_input * share, one.backward_weight * share)
                for one in self.layers
            ),
            transfer_s=None if self.transfer_s is None else scaled(self.transfer_s, share),
            transfer_bytes=scaled(self.transfer_bytes, share),
        )


@dataclass(frozen=True)
class ProfileStageCosts(UniformStageCosts):
    """Costs of a profile laid on one placement.

    Attributes:
        activations_of_stage: what each stage holds of a micro-batch, in activations of 1/ranks of the layers, shape
            ``(stages,)``.

    """

    activations_of_stage: FloatArray | None = None

    __repr__ = brief

    def with_vocabulary_cut(self, how: Vocabulary) -> ProfileStageCosts:  # noqa: ARG002 - of none of them
        """Refuse: a layer's times do not say what a share of the output layer takes.

        Raises:
            UnfitCostsError: always.

        """
        raise UnfitCostsError("costs of kind 'profile' know no time of S and T; those of kind 'uniform' have vocab_s")

    def phases(self, task: TaskShape) -> tuple[Phase, ...]:
        """Return the task as a single phase.

        Raises:
            UnfitCostsError: a kind of op that a profile has no time of.

        """
        for kind, _ in task:
            if kind not in self.stage_s:
                raise UnfitCostsError(f"costs of kind 'profile' know no time of {Kind(kind)}")
        return super().phases(task)
