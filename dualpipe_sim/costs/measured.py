"""Costs measured in a real run: what each stage's ops took there.

A run whose pipes have as many stages as the measured ones takes their times as they are. Cut into another number of
stages, each stage takes its share: the measured stages' times, each weighted with how much of it lies in the new one.

That is one table, ``shares``, of shape ``(stages, measured stages)``. Two measured stages of 3 s and 5 s, cut into
four: ``[[0.5, 0], [0.5, 0], [0, 0.5], [0, 0.5]]``, and so 1.5, 1.5, 2.5 and 2.5 s. NaN stands for what was not
measured, and spreads to all stages that need it; the error comes when somebody asks for one of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.base.show import brief
from dualpipe_sim.costs.load import Load
from dualpipe_sim.costs.phases import ByBoundary, Phase
from dualpipe_sim.costs.registry import register
from dualpipe_sim.errors import ScheduleError, UnfitCostsError
from dualpipe_sim.order.ops import B, F, I, Kind, L, O, R, TaskShape, Vocabulary, W
from dualpipe_sim.order.placement import Placement

FIXED_HOST = 1.0
"""What the host takes for an op of no layers at all over what it takes between ops: ops of 4 and 8 layers, and of 2 and
4, in four models and six schedules differ by 0 to 2.3 in that, 1.0 in the middle (``validation/torch_runs``)."""


class OpTime(NamedTuple):
    """What an op took.

    Attributes:
        time_s: its work; with a ``load``, what it takes on an idle GPU.
        launch_s: what launching it added, on its rank's compute lane.
        host_s: how long the host took to issue it.
        host_after_s: how long the host then took until the next op, for messages and the like.

    """

    time_s: float
    launch_s: float = 0.0
    host_s: float = 0.0
    host_after_s: float = 0.0


_UNKNOWN = OpTime(*[np.nan] * 4)


class StageTimes(NamedTuple):
    """An :class:`OpTime` of each stage, shape ``(stages,)`` each; NaN where it was not measured."""

    time_s: FloatArray
    launch_s: FloatArray
    host_s: FloatArray
    host_after_s: FloatArray


class StageMemory(NamedTuple):
    """Bytes that a stage holds for each micro-batch and beside them, beyond what it holds at rest.

    Attributes:
        activation: from the start of F to the end of B or I.
        held_for_weight: from the end of I to the end of W.
        workspace: while a backward runs.
        gradients: from the stage's first B or W on.
        output: what the last stage keeps of each micro-batch to the end of the step, where joining them takes as much
            again.

    """

    activation: float = 0.0
    held_for_weight: float = 0.0
    workspace: float = 0.0
    gradients: float = 0.0
    output: float = 0.0


_SPARSE = 16
"""Stages for each of which there is a time."""


@register("measured")
@dataclass(frozen=True)
class MeasuredCosts:
    """Times of the stages of a run.

    >>> from dualpipe_sim import simulate
    >>> ops = {(kind, stage): OpTime(1.0 + stage) for kind in (F, B) for stage in range(2)}
    >>> costs = MeasuredCosts("by hand", stages=2, pipes=1, ops=ops)
    >>> simulate(schedule="1f1b", ranks=2, micro_batches=4, costs=costs).makespan_s
    18.0

    Attributes:
        source: the file they come from, for messages.
        stages: number of stages of each measured pipe.
        pipes: number of measured pipes; stage ids go on from one to the next.
        ops: what ops took, by (kind code, stage); B is I + W where only these were measured.
        pairs: what overlapped pairs took, by (stage of the forward, stage of the backward).
        transfer_s: seconds a tensor is under way between ranks; None where bytes are given.
        transfer_bytes: bytes of that tensor where no time is given.
        micro_batch_weights: how long each micro-batch of the step takes over these times, first pipe first, and how
            large its transfers are; None where all are alike.
        launch: whether ops take their launch overhead too.
        load: how much longer ops take on busy GPUs and beside messages; None where times are what they are.
        memory: what each measured stage holds, by stage; empty where nobody measured it.
        host: whether ops wait for their host to issue them.
        split: what I and W take together over a full backward, where only these were measured.

    """

    source: str
    stages: int
    pipes: int
    ops: Mapping[tuple[int, int], OpTime]
    pairs: Mapping[tuple[int, int], OpTime] = field(default_factory=dict)
    transfer_s: ByBoundary | None = 0.0
    transfer_bytes: ByBoundary = 0.0
    micro_batch_weights: tuple[float, ...] | None = None
    launch: bool = True
    load: Load | None = None
    memory: Mapping[int, StageMemory] = field(default_factory=dict)
    host: bool = True
    split: float = 1.0

    __repr__ = brief

    def on(self, placement: Placement) -> MeasuredStageCosts:
        """Return the costs of each stage of a placement.

        Raises:
            ScheduleError: hardly any stage up to the highest one has a time.

        """
        known = {stage for _, stage in self.ops} | {stage for pair in self.pairs for stage in pair}
        if self.stages * self.pipes > _SPARSE * len(known):  # and what is laid out below has a place for each
            missing = next(stage for stage in range(self.stages) if stage not in known)
            raise ScheduleError(
                f"{self.source} has no time for stage {missing}; calibrate with the traces of all ranks"
            )
        shares = self._shares(placement)
        whole = self._by_stage()
        forwards = self._with_heads(shares, placement, whole[F].time_s)
        backwards = self._with_heads(shares, placement, whole[B].time_s)
        # A launch belongs to an op however long: where stages are joined or cut, it is the mean of theirs.
        mean = shares / shares.sum(axis=1, keepdims=True)
        ops: dict[int, StageTimes] = {}
        for kind, (time_s, launch_s, host_s, host_after_s) in whole.items():
            # What the host takes grows with the layers, but for a part that an op of any size has.
            fixed_s = np.minimum(FIXED_HOST * host_after_s, host_s)
            layers_s, once_s = _weighted(shares, host_s - fixed_s), _weighted(mean, fixed_s)
            ops[kind] = StageTimes(
                _weighted(forwards if kind in (F, R) else backwards, time_s),
                _weighted(mean, launch_s) * self.launch,
                (layers_s + once_s) * self.host,
                _weighted(mean, host_after_s) * self.host,
            )
        return MeasuredStageCosts(
            self.source,
            ops,
            self._pairs_on(placement),
            self._gain({kind: times.time_s for kind, times in whole.items()}),
            self.transfer_s,
            self.transfer_bytes,
            self.micro_batch_weights,
            self.caveats,
            self.load,
            self._memory_on(shares, placement),
        )

    def _with_heads(self, shares: FloatArray, placement: Placement, amount: FloatArray) -> FloatArray:
        """Return the shares with what the last stage of a pipe has more than any other moved to its end.

        Layers are alike, so that is its head and the loss, which are behind all of them. It shows where a placement
        cuts the last stage; if that has more layers instead, nothing tells.

        Args:
            shares: from :meth:`_shares`.
            placement: what it is for.
            amount: what is shared out, of each measured stage, NaN where that is not known.

        """
        found: FloatArray = shares.copy()
        for last in range(self.stages - 1, len(amount), self.stages):
            most = amount[last - self.stages + 1 : last].max(initial=0.0)  # NaN where one is, which is not less
            if 0 < most < amount[last]:
                layers = most / amount[last]
                at_end = placement.is_last & (shares[:, last] > 0)
                found[:, last] = layers * shares[:, last] + (1 - layers) * at_end
        return found

    def on_fewer_ranks(self, shares: int) -> MeasuredCosts:  # noqa: ARG002 - a stage's span does not depend on ranks
        """Return the costs of the same model on fewer ranks: the same, since a stage takes its part of the depth."""
        return self

    def _shares(self, placement: Placement) -> FloatArray:
        """How much of each measured stage lies in each stage of a placement, shape ``(stages, measured stages)``.

        A pipe beyond the measured ones takes those from the first on again: all pipes hold the same model. Columns are
        the measured stages of all measured pipes; a row fills those of its own pipe, and 0 stands elsewhere.
        """
        shares = np.zeros((placement.stages, self.stages * self.pipes))
        columns = (placement.pipe_of_stage % self.pipes * self.stages)[:, None] + np.arange(self.stages)
        np.put_along_axis(shares, columns, placement.overlap(self.stages), axis=1)
        return shares

    def _by_stage(self) -> dict[int, StageTimes]:
        """Return what ops of all measured stages took by kind, NaN where that is not known, a column each.

        Each is of shape ``(measured stages,)``. A full backward that was not measured is I and W, launched once. Its
        host walks the layers once, as I's does, or W's where I has nothing to do (torch's first stage).
        """
        found: dict[int, StageTimes] = {}
        for kind in Kind:
            known = [self._known(kind, stage) for stage in range(self.stages * self.pipes)]
            found[kind] = StageTimes(*np.array(known, dtype=float).T)
        halves = StageTimes(
            (found[I].time_s + found[W].time_s) / self.split,
            found[I].launch_s,
            np.where(found[I].host_s > found[W].host_s / 2, found[I].host_s, found[W].host_s),
            (found[I].host_after_s + found[W].host_after_s) / 2,
        )
        # A forward that runs again takes what the first took, where nobody measured it.
        unseen = np.isnan(found[R].time_s)
        found[R] = StageTimes(*(np.where(unseen, *both) for both in zip(found[F], found[R], strict=True)))
        split = np.isnan(found[B].time_s)
        found[B] = StageTimes(*(np.where(split, *both) for both in zip(halves, found[B], strict=True)))
        return found

    def _known(self, kind: int, stage: int) -> OpTime:
        """Return what an op took, NaN where that is not known; of a stage that ran in pairs only a part of a pair."""
        if stage in self._only_in_pairs and kind != B:  # B is I + W
            pairs = np.array([time for pair, time in self.pairs.items() if stage in pair])
            time_s, launch_s, host_s, host_after_s = np.median(pairs, axis=0).tolist()
            return OpTime(time_s / 3, launch_s, host_s / 3, host_after_s)
        return self.ops.get((kind, stage), _UNKNOWN)

    @cached_property
    def _only_in_pairs(self) -> set[int]:
        """The stages of which no op was measured by itself, but pairs were."""
        alone = {stage for _, stage in self.ops}
        return {stage for pair in self.pairs for stage in pair} - alone

    def _asked(self, pair: OpTime) -> OpTime:
        """Return a pair's times without those that are not to count."""
        return OpTime(pair.time_s, pair.launch_s * self.launch, pair.host_s * self.host, pair.host_after_s * self.host)

    def _memory_on(self, shares: FloatArray, placement: Placement) -> tuple[StageMemory, ...] | None:
        """Return what each stage of a placement holds, given its shares of the measured ones; None if not known."""
        if set(self.memory) != set(range(self.stages * self.pipes)):
            return None
        activation, held_for_weight, workspace, gradients, output = np.array(
            [self.memory[stage] for stage in sorted(self.memory)]
        ).T
        there = (shares > 0).astype(float)
        held = self._with_heads(shares, placement, activation)
        # A workspace is there once at a time, however many layers follow each other.
        at_once = self._with_heads(there, placement, workspace)
        columns = [
            held @ activation,
            held @ held_for_weight,
            (at_once * workspace).max(axis=1),
            shares @ gradients,
            np.where(placement.is_last, (there * output).max(axis=1), 0.0),
        ]
        return tuple(StageMemory(*row) for row in np.stack(columns, axis=1).tolist())

    @property
    def caveats(self) -> tuple[str, ...]:
        """What must be said of numbers that these costs make, in sentences."""
        if not self._only_in_pairs:
            return ()
        which = ", ".join(map(str, sorted(self._only_in_pairs)))
        return (
            f"{self.source} has pairs only of stage{'s' * (len(self._only_in_pairs) > 1)} {which}: F, I and W by "
            "themselves are taken as a third of a pair each",
        )

    def _gain(self, time_s: dict[int, FloatArray]) -> float:
        """Return how long measured pairs last over their F + B, in sum; 1 where that is not known."""
        apart_s = {pair: time_s[F][pair[0]] + time_s[B][pair[1]] for pair in self.pairs}
        known = [pair for pair, seconds in apart_s.items() if seconds > 0]  # NaN is not
        return sum(self.pairs[pair].time_s for pair in known) / sum(apart_s[pair] for pair in known) if known else 1.0

    def _pairs_on(self, placement: Placement) -> dict[tuple[int, int], OpTime]:
        """Return what pairs of a placement's stages took, of those that are cut as the measured ones."""
        # (stage, the measured stage that it is) of all stages that are cut as the measured ones.
        stages = [
            (stage, pipe % self.pipes * self.stages + depth)
            for stage, (pipe, depth) in enumerate(
                zip(placement.pipe_of_stage.tolist(), placement.depth_of_stage.tolist(), strict=True)
            )
            if len(placement.pipes[pipe]) == self.stages
        ]
        return {
            (forward, backward): self._asked(self.pairs[own, other])
            for forward, own in stages
            for backward, other in stages
            if (own, other) in self.pairs
        }


@dataclass(frozen=True)
class MeasuredStageCosts:
    """Measured costs laid on one placement.

    Attributes:
        source: the file they come from.
        ops: what an op takes by kind code.
        pairs: what pairs that were measured take, by (stage of the forward, stage of the backward).
        gain: what other pairs last over their F + B.
        transfer_s: seconds of a transfer, or None where bytes are given.
        transfer_bytes: bytes of a transfer.
        micro_batch_weights: how long each micro-batch takes over these, or None where all are alike.
        caveats: what must be said of numbers that come of these, in sentences.
        load: how much longer ops take on busy GPUs, or None.
        memory: what each stage holds, or None where nobody measured it.

    """

    source: str
    ops: dict[int, StageTimes]
    pairs: dict[tuple[int, int], OpTime]
    gain: float
    transfer_s: ByBoundary | None
    transfer_bytes: ByBoundary
    micro_batch_weights: tuple[float, ...] | None = None
    caveats: tuple[str, ...] = ()
    load: Load | None = None
    memory: tuple[StageMemory, ...] | None = None

    __repr__ = brief

    def with_vocabulary_cut(self, how: Vocabulary) -> MeasuredStageCosts:  # noqa: ARG002 - whatever it is
        """Refuse an order whose ranks share the output layer out, which nobody measured.

        Raises:
            UnfitCostsError: always.

        """
        raise UnfitCostsError(
            f"{self.source} has no times of S and T, in which ranks share the output layer out; take costs of another "
            "kind, or a schedule without them"
        )

    def phases(self, task: TaskShape) -> tuple[Phase, ...]:
        """Return the task as a single phase on the compute lane.

        Raises:
            ScheduleError: an op that was not measured.

        """
        time_s, launch_s, *_ = self.task_time(task)
        return (Phase(Lane.COMPUTE, time_s + launch_s, task[0][0]),)

    def task_launch_s(self, task: TaskShape) -> float:
        """Return the seconds that launching a task adds before its work."""
        return self.task_time(task).launch_s

    def host_s(self, task: TaskShape) -> tuple[float, float]:
        """Return the seconds that the host takes to issue a task, and from then to the next one."""
        *_, host_s, host_after_s = self.task_time(task)
        return host_s, host_after_s

    def task_time(self, task: TaskShape) -> OpTime:
        """Return what a task takes; a pair that was not measured gains what the others gain on average.

        Raises:
            ScheduleError: an op that was not measured.

        """
        (kind, stage), *beside = task
        if not beside:
            return self._op_time(kind, stage)
        other_kind, other = beside[0]
        if other_kind == B and (stage, other) in self.pairs:
            return self.pairs[stage, other]
        forward, second = self._op_time(F, stage), self._op_time(other_kind, other)
        gain = self.gain if other_kind == B else 1.0  # (only such pairs are measured)
        return OpTime(
            gain * (forward.time_s + second.time_s),
            forward.launch_s,
            forward.host_s + second.host_s,
            second.host_after_s,
        )

    def _op_time(self, kind: int, stage: int) -> OpTime:
        found = OpTime(*(float(column[stage]) for column in self.ops[kind]))
        if np.isnan(found.time_s):
            raise ScheduleError(f"{self.source} has no time for {self._unmeasured(kind, stage)}")
        return found

    def _unmeasured(self, kind: int, stage: int) -> str:
        known = [str(other) for other in (F, B, I, W) if not np.isnan(self.ops[other].time_s[stage])]
        if not known:
            return f"stage {stage}; calibrate with the traces of all ranks"
        split, copies = "a split backward (I and W)", "copies to the host, which no trace is read for"
        way_out = {F: "F", R: "F", B: "B, or I and W", I: split, W: split, O: copies, L: copies}[Kind(kind)]
        return (
            f"{Kind(kind)} of stage {stage}, only for {', '.join(known)}; calibrate with a run that has {way_out}, or "
            "take a schedule without it"
        )


def _weighted(weights: FloatArray, seconds: FloatArray) -> FloatArray:
    """Return weighted sums, NaN only where something that counts is NaN; shape ``(stages,)``.

    A matrix product would not do: there 0 x NaN is NaN.

    >>> _weighted(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([2.0, np.nan]))
    array([ 2., nan])
    """
    counted: FloatArray = np.where(weights > 0, weights * seconds, 0.0).sum(axis=1)
    return counted
