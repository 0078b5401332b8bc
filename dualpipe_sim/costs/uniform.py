"""Costs at stage level: one time for each kind of op, for one rank's share of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.base.lanes import ALLTOALL, COMPUTE, COPY, DATA
from dualpipe_sim.base.show import brief
from dualpipe_sim.costs.phases import ALL_REDUCE, ByBoundary, Phase
from dualpipe_sim.costs.registry import register
from dualpipe_sim.errors import UnfitCostsError
from dualpipe_sim.order.ops import COPIES, REDUCE_GRAD, UNSHARD, B, F, I, L, O, R, S, T, TaskShape, Vocabulary, W
from dualpipe_sim.order.placement import Placement

Cost = float | tuple[float, ...]
"""Seconds for 1/ranks of the model: one number, or one for each 1/ranks of its depth, shallowest first."""


_OF_OPS = (
    *("forward", "backward_input", "backward_weight", "overlapped"),
    *("recompute", "vocab_s", "vocab_t", "offload", "all_reduce"),
)
"""The fields that are times of ops of a micro-batch."""
_OF_WEIGHTS = ("unshard", "reduce_grad")
"""Those that are times of a stage's weights, however large micro-batches are."""


class UniformTimes(NamedTuple):
    """Seconds of one rank's share of the model, the same for all ranks.

    Attributes:
        forward: F.
        backward_input: I.
        backward_weight: W.
        overlapped: an overlapped pair, or None for F + B.
        transfers: whether transfers take time, which papers leave out.
        offload: O and L, a copy to the host and back.

    """

    forward: float
    backward_input: float
    backward_weight: float
    overlapped: float | None
    transfers: bool
    offload: float = 0.0

    def __repr__(self) -> str:
        return brief(self)


@register("uniform")
@dataclass(frozen=True)
class UniformCosts:
    """Times of one micro-batch through one rank's share of the model, that is 1/ranks of it.

    A stage that holds a share s of the model takes ``cost x ranks x s``, so schedules that cut the model
    into more stages are compared on the same work.

    >>> from dualpipe_sim import simulate
    >>> costs = UniformCosts(forward=1.0, backward_input=1.0, backward_weight=1.0)
    >>> simulate(schedule="zb-h1", ranks=4, micro_batches=8, costs=costs).makespan_s
    27.0

    Attributes:
        forward: seconds of F.
        backward_input: seconds of I.
        backward_weight: seconds of W; a full backward B lasts I + W.
        overlapped: seconds of an overlapped pair of two whole-rank stages; None for F + B, no gain.
        transfer_s: seconds a stage boundary's tensor is under way, a pure delay; None where bytes are given. One for
            all boundaries, or one for each between two stages of a pipe.
        transfer_bytes: bytes of that tensor, sent over the cluster's links, where no time is given; likewise.
        micro_batch_weights: how long each micro-batch of the step takes over these times, first pipe first, and how
            large its transfers are; None where all are alike. Sequences of different lengths are such.
        slices: shares of a micro-batch's time that its slices take, where schedules cut it; None for the same each.
        recompute: seconds of an R; None for those of F.
        vocab_s: seconds of S on one rank: one number for all, or one for each.
        vocab_t: seconds of T, likewise; a pass of all ranks at once lasts S + T.
        offload: seconds of an O, the copy of what F leaves out to the host, and of an L, the copy back.
        all_reduce: seconds of the all-reduces of tensor parallelism in F, and again in the backward for the input. They
            come behind what they sum; a full backward has them beside its W, a pair all of both beside its compute.
        unshard: seconds to gather the weights of 1/ranks of the model, where GPUs share them out and gather them a
            stage at a time (FSDP under torch's pipelining); None, and ``reduce_grad`` too, where they do not.
        reduce_grad: seconds to reduce and scatter the gradients of 1/ranks of the model, likewise.
        unitless: whether times are units of no clock, as in papers' figures, and are shown without "s".

    """

    forward: Cost
    backward_input: Cost
    backward_weight: Cost
    overlapped: Cost | None = None
    transfer_s: ByBoundary | None = 0.0
    transfer_bytes: ByBoundary = 0.0
    micro_batch_weights: tuple[float, ...] | None = None
    slices: tuple[float, ...] | None = None
    recompute: Cost | None = None
    vocab_s: Cost = 0.0
    vocab_t: Cost = 0.0
    offload: Cost = 0.0
    all_reduce: Cost = 0.0
    unshard: Cost | None = None
    reduce_grad: Cost | None = None
    unitless: bool = False

    __repr__ = brief

    @property
    def gathers_stages(self) -> bool:
        """Whether weights are gathered a stage at a time: where it is said how long that takes."""
        return self.unshard is not None or self.reduce_grad is not None

    def on(self, placement: Placement) -> UniformStageCosts:
        """Return the costs of each stage of a placement.

        Raises:
            UnfitCostsError: a list that is neither as long as there are ranks nor as a pipe has stages.

        """
        stage_s: dict[int, FloatArray] = {
            F: _per_stage(self.forward, placement, "forward"),
            I: _per_stage(self.backward_input, placement, "backward_input"),
            W: _per_stage(self.backward_weight, placement, "backward_weight"),
        }
        stage_s[B] = stage_s[I] + stage_s[W]
        stage_s[S] = _per_rank(self.vocab_s, placement, "vocab_s")
        stage_s[T] = _per_rank(self.vocab_t, placement, "vocab_t")
        stage_s[R] = stage_s[F] if self.recompute is None else _per_stage(self.recompute, placement, "recompute")
        stage_s[O] = stage_s[L] = _per_stage(self.offload, placement, "offload")
        stage_s[UNSHARD] = _per_stage(self.unshard or 0.0, placement, "unshard")
        stage_s[REDUCE_GRAD] = _per_stage(self.reduce_grad or 0.0, placement, "reduce_grad")
        overlapped = None if self.overlapped is None else _per_stage(self.overlapped, placement, "overlapped")
        return UniformStageCosts(
            stage_s,
            overlapped,
            self.transfer_s,
            self.transfer_bytes,
            self.micro_batch_weights,
            self.slices,
            self.unitless,
            _per_stage(self.all_reduce, placement, "all_reduce") if self.all_reduce else None,
        )

    @property
    def uniform_times(self) -> UniformTimes | None:
        """The times where all ranks' shares take the same, for papers' formulas; None where they do not."""
        times = (self.forward, self.backward_input, self.backward_weight, self.overlapped, self.offload)
        uneven = self.micro_batch_weights is not None or self.slices is not None
        if uneven or any(isinstance(time, tuple) for time in (*times, self.vocab_s, self.vocab_t)):
            return None
        forward, backward_input, backward_weight, overlapped, offload = cast(
            "tuple[float, float, float, float | None, float]", times
        )
        transfers = bool(np.any(self.transfer_s or 0.0) or np.any(self.transfer_bytes))
        return UniformTimes(forward, backward_input, backward_weight, overlapped, transfers, offload)

    def of_smaller_micro_batches(self, share: float) -> UniformCosts:
        """Return the costs of a share of a micro-batch: that share of each time, and of a transfer's bytes."""
        return replace(
            self,
            **self._each(_OF_OPS, partial(scaled, factor=share)),
            transfer_s=None if self.transfer_s is None else scaled(self.transfer_s, share),
            transfer_bytes=scaled(self.transfer_bytes, share),
        )

    def on_fewer_ranks(self, shares: int) -> UniformCosts:
        """Return the costs of the same model on fewer ranks, each holding as much as ``shares`` ranks did."""
        return replace(self, **self._each((*_OF_OPS, *_OF_WEIGHTS), partial(_joined, shares=shares)))

    def _each(self, names: Sequence[str], change: Callable[[Cost], Cost]) -> dict[str, Any]:
        """Return those of these times that are given, changed, by their names."""
        given = {name: getattr(self, name) for name in names}
        return {name: change(cost) for name, cost in given.items() if cost is not None}


@dataclass(frozen=True)
class UniformStageCosts:
    """Uniform costs laid on one placement.

    Attributes:
        stage_s: seconds by kind code, each of shape ``(stages,)``.
        overlapped_s: seconds of a pair of two such stages, shape ``(stages,)``, or None for F + B.
        transfer_s: seconds of a transfer, or None where bytes are given.
        transfer_bytes: bytes of a transfer.
        micro_batch_weights: how long each micro-batch takes over these, or None where all are alike.
        slices: shares of a micro-batch's time that its slices take, or None where all are alike.
        unitless: whether times are shown without a unit.
        all_reduce_s: seconds of all-reduces in each stage's F, and in its I, shape ``(stages,)``, or None for none.

    """

    stage_s: dict[int, FloatArray]
    overlapped_s: FloatArray | None
    transfer_s: ByBoundary | None
    transfer_bytes: ByBoundary
    micro_batch_weights: tuple[float, ...] | None = None
    slices: tuple[float, ...] | None = None
    unitless: bool = False
    all_reduce_s: FloatArray | None = None

    __repr__ = brief

    def with_vocabulary_cut(self, how: Vocabulary) -> UniformStageCosts:
        """Return the costs of an order whose ranks share the output layer out; one pass of all is S and T at once."""
        if how != "together":
            return self
        return replace(self, stage_s={**self.stage_s, S: self.stage_s[S] + self.stage_s[T]})

    def phases(self, task: TaskShape) -> tuple[Phase, ...]:
        """Return the task as a single phase, a copy on its own lane; with all-reduces as one phase or two more."""
        (kind, stage), *beside = task
        if beside:
            return self._pair((kind, stage), beside[0])
        seconds, summed_s = self.stage_s[kind].item(stage), self._summed_s(kind, stage)
        if kind in COPIES or not summed_s:
            return (Phase(COPY if kind in COPIES else COMPUTE, seconds, kind),)
        if kind != B:
            return Phase(COMPUTE, seconds, kind), Phase(ALLTOALL, summed_s, kind, ALL_REDUCE, after=(0,))
        return (
            Phase(COMPUTE, self.stage_s[I].item(stage), I),
            Phase(ALLTOALL, summed_s, I, ALL_REDUCE, after=(0,)),
            Phase(COMPUTE, self.stage_s[W].item(stage), W),
            Phase(COMPUTE, 0.0, W, after=(1,)),  # its output is there with the last of both
        )

    def _pair(self, forward: tuple[int, int], beside: tuple[int, int]) -> tuple[Phase, ...]:
        """Return a pair as one phase, and its all-reduces beside that: a layer at a time they are hidden."""
        (_, stage), (kind, other) = forward, beside
        if kind == B and self.overlapped_s is not None:
            seconds = (self.overlapped_s.item(stage) + self.overlapped_s.item(other)) / 2
        else:
            seconds = self.stage_s[F].item(stage) + self.stage_s[kind].item(other)
        summed_s = self._summed_s(F, stage) + self._summed_s(kind, other)
        if not summed_s:
            return (Phase(COMPUTE, seconds, F),)
        summed = Phase(ALLTOALL, summed_s, F, ALL_REDUCE)
        return summed, Phase(COMPUTE, seconds, F), Phase(COMPUTE, 0.0, F, after=(0,))

    def _summed_s(self, kind: int, stage: int) -> float:
        """Return the seconds of an op's all-reduces."""
        if self.all_reduce_s is None or kind not in (F, R, B, I):
            return 0.0
        return self.all_reduce_s.item(stage)

    def weights_moved(self, kind: int, stage: int) -> Phase:
        """Return the gathering of a stage's weights, or the reduction of its gradients, on its lane."""
        return Phase(DATA, self.stage_s[kind].item(stage) if kind in self.stage_s else 0.0, kind)


def scaled(cost: Cost, factor: float) -> Cost:
    """Return an amount, or a list of them, times a factor."""
    return tuple(one * factor for one in cost) if isinstance(cost, tuple) else cost * factor


def _joined(cost: Cost, shares: int) -> Cost:
    if isinstance(cost, tuple):
        return tuple(sum(cost[start : start + shares]) for start in range(0, len(cost), shares))
    return cost * shares


def _per_rank(cost: Cost, placement: Placement, key: str) -> FloatArray:
    """Return what a pass takes on each stage's rank, shape ``(stages,)``, whatever the stage holds of the model."""
    if isinstance(cost, (int, float)):
        return np.full(placement.stages, float(cost))
    if len(cost) != placement.ranks:
        raise UnfitCostsError(
            f"costs.{key}: a list needs one time for each of the {placement.ranks} ranks, got {len(cost)}"
        )
    return np.asarray(cost, dtype=float)[placement.rank_of_stage]


def _per_stage(cost: Cost, placement: Placement, key: str) -> FloatArray:
    """Integrate a cost over each stage's span of the model's depth, shape ``(stages,)``.

    A list has one time for each rank's share of the depth, or one for each stage of a pipe.
    """
    if isinstance(cost, (int, float)):
        return cost * placement.activations_of_stage
    ranks, stages = placement.ranks, len(placement.pipes[0])
    if len(cost) not in (ranks, stages):
        or_stages = "" if stages == ranks else f", or of the {stages} stages of a pipe"
        raise UnfitCostsError(
            f"costs.{key}: a list needs one time for each of the {ranks} ranks' shares of the model{or_stages}, "
            f"got {len(cost)}"
        )
    seconds: FloatArray = placement.overlap(len(cost)) @ np.asarray(cost, dtype=float)
    return seconds
