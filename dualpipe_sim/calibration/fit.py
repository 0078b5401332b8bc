"""From a recording to costs: medians by stage and kind, of pairs and of transfers, and the mean that launching adds."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np

from dualpipe_sim.base.show import brief
from dualpipe_sim.calibration.actions import inputs_of
from dualpipe_sim.calibration.recording import Ran, Recording, Step, counted
from dualpipe_sim.costs.load import Load
from dualpipe_sim.costs.measured import MeasuredCosts, OpTime, StageMemory
from dualpipe_sim.errors import UserError
from dualpipe_sim.order.messages import output_of
from dualpipe_sim.order.ops import B, F, I, Kind, R, Tensor, W

PairOfStages: TypeAlias = tuple[int, int]


class Sample(NamedTuple):
    """Several measurements of the same thing, in seconds.

    >>> Sample.of([1.0, 2.0, 6.0]).median_s
    2.0

    Attributes:
        median_s: the one in the middle.
        p5_s: the one that 5 % are shorter than.
        p95_s: the one that 95 % are shorter than.
        samples: how many there are.

    """

    median_s: float
    p5_s: float
    p95_s: float
    samples: int

    @classmethod
    def of(cls, seconds: list[float]) -> Sample:
        """Sum up some measurements, at least one."""
        p5_s, median_s, p95_s = np.percentile(seconds, (5, 50, 95)).tolist()
        return cls(median_s, p5_s, p95_s, len(seconds))


class Timed(NamedTuple):
    """What an op or pair takes.

    >>> Timed(Sample.of([1.0, 2.0, 6.0]), launch_s=0.1).time.samples
    3

    Attributes:
        time: its work.
        launch_s: mean of what launching it adds, in seconds: most ops may have none, and what counts is the sum.
        cold_s: what it takes on an idle GPU with no message beside it; None where load is not told apart.
        host_s: how long the host takes to issue it.
        host_after_s: how long the host then takes until the next op.

    """

    time: Sample
    launch_s: float
    cold_s: float | None = None
    host_s: float = 0.0
    host_after_s: float = 0.0

    @property
    def op_time(self) -> OpTime:
        """What costs make of it."""
        work_s = self.time.median_s if self.cold_s is None else self.cold_s
        return OpTime(work_s, self.launch_s, self.host_s, self.host_after_s)

    def with_host(self, share: float) -> Timed:
        """Return the same with a host that takes a share of the time."""
        return self._replace(host_s=self.host_s * share, host_after_s=self.host_after_s * share)


@dataclass(frozen=True)
class Calibration:
    r"""Costs measured in a run.

    >>> from pathlib import Path
    >>> from dualpipe_sim.calibration import calibrate
    >>> _ = Path("run.csv").write_text("rank,lane,task,start_s,end_s\n0,compute,0F0,0,1\n0,compute,0B0,1,3\n")
    >>> calibration = calibrate(["run.csv"])
    >>> calibration.steps, calibration.pipes, list(calibration.ops[0])
    (1, 1, ['F', 'B'])

    Attributes:
        ops: what an op takes, by stage and kind's letter.
        pairs: what an overlapped pair takes, by stage of its forward and of its backward.
        pipes: how many pipes the stages make up.
        transfer: how long a tensor is under way between ranks; None where none was seen.
        transfer_rule: what was taken for it.
        steps: how many steps count.
        warm_up: how many first steps were left out.
        left_out: how many of what were left out.
        sources: the files that were read.
        load: how much longer ops are on busy GPUs, where ops have cold times; else None.
        memory: what each stage holds, where that was measured.
        split: what I and W together take over a full backward, for stages of which only these were measured.
        host_share: what the host takes without the profiler over what it took with it, where a step time says so.

    """

    ops: dict[int, dict[str, Timed]]
    pairs: dict[PairOfStages, Timed]
    pipes: int
    transfer: Sample | None
    transfer_rule: str
    steps: int
    warm_up: int
    left_out: Counter[str]
    sources: tuple[str, ...]
    load: Load | None = None
    memory: Mapping[int, StageMemory] = field(default_factory=dict)
    split: float = 1.0
    host_share: float | None = None

    __repr__ = brief

    @property
    def costs(self) -> MeasuredCosts:
        """What :func:`~dualpipe_sim.calibration.write_costs` writes, as a cost model."""
        stages = 1 + max([*self.ops, *(stage for pair in self.pairs for stage in pair)])
        return MeasuredCosts(
            ", ".join(self.sources),
            stages // self.pipes,
            self.pipes,
            {(Kind[kind], stage): timed.op_time for stage, kinds in self.ops.items() for kind, timed in kinds.items()},
            {pair: timed.op_time for pair, timed in self.pairs.items()},
            0.0 if self.transfer is None else self.transfer.median_s,
            load=self.load,
            memory=self.memory,
            split=self.split,
        )

    def with_host(self, share: float) -> Calibration:
        """Return the same with a host that takes a share of the time."""
        return replace(
            self,
            ops={
                stage: {kind: timed.with_host(share) for kind, timed in kinds.items()}
                for stage, kinds in self.ops.items()
            },
            pairs={pair: timed.with_host(share) for pair, timed in self.pairs.items()},
            host_share=share,
        )


TIMED = (F, B, I, W, R)
"""The kinds of ops whose times costs hold."""


class Chosen(NamedTuple):
    """The part of a recording that counts.

    Attributes:
        run: its ops, with what they waited for.
        steps: its steps.
        warm_up: how many steps before them were left out.
        left_out: how many of what were left out.

    """

    run: Run
    steps: list[Step]
    warm_up: int
    left_out: Counter[str]


def choose(recording: Recording, *, warm_up: int, pipes: int | None) -> Chosen:
    """Leave the first steps of a recording out; arguments and errors as for :func:`fit`."""
    left_out = Counter(recording.left_out)
    steps = sorted({ran.step for ran in recording.ops})
    first = min(warm_up, len(steps) - 1)
    if first:
        early = sum(ran.step < steps[first] for ran in recording.ops)
        left_out["ops in the first step" if first == 1 else f"ops in the first {first} steps"] += early
    return Chosen(Run(_from_step(recording, steps[first]), pipes), steps[first:], first, left_out)


def fit(recording: Recording, *, warm_up: int = 1, pipes: int | None = None) -> Calibration:
    """Return the costs that a recording holds, with lengths as they are.

    Args:
        recording: what ran, at least one op.
        warm_up: how many first steps to leave out, where there are more.
        pipes: how many pipes the stages make up, equally long; None to find out: where the forward of a stage starts
            before that of the stage before it, a pipe begins.

    Raises:
        UserError: no op is left, or their stages do not make up so many pipes.

    """
    run, steps, first, left_out = choose(recording, warm_up=warm_up, pipes=pipes)
    left_out.update(run.left_out)
    ops, pairs = run.timed()
    if not ops and not pairs:
        raise UserError(f"{', '.join(recording.sources)}: no op is left; left out were {counted(left_out)}")
    transfer, rule = run.transfer()
    sources = tuple(recording.sources)
    return Calibration(ops, pairs, run.pipes, transfer, rule, len(steps), first, left_out, sources)


def _from_step(recording: Recording, first: Step) -> Recording:
    """Return what ran from a step on."""
    kernels_s = {key: sides for key, sides in recording.kernels_s.items() if key[0] >= first}
    return replace(recording, ops=[ran for ran in recording.ops if ran.step >= first], kernels_s=kernels_s)


class Run:
    """Ops beside what they waited for; an op is named by its place in ``ops``."""

    def __init__(self, recording: Recording, pipes: int | None) -> None:
        self.recording = recording
        self.ops = recording.ops
        self.left_out: Counter[str] = Counter()
        self.makers: defaultdict[tuple[Step, Tensor], list[Ran]] = defaultdict(list)
        for ran in self.ops:
            for made in filter(None, map(output_of, ran.action.cell)):
                self.makers[ran.step, made].append(ran)
        self.stages = 1 + max(stage for ran in self.ops for _, stage, *_ in ran.action.cell)
        self.pipes = self._pipes() if pipes is None else pipes
        if self.stages % self.pipes:
            raise UserError(f"--pipes {pipes}: {self.stages} stages do not make up {pipes} equally long pipes")
        self.before_s = dict(_previous_ends(self.ops))
        self.unseen_waits = {index for index, ran in enumerate(self.ops) if self._may_have_waited(ran)}
        if self.unseen_waits:
            what = "ops that may have waited inside their range, with no receive to say until when"
            self.left_out[what] = len(self.unseen_waits)
        self.delays_s = self._delays_s()
        self.typical_delay_s = float(np.median(self.delays_s)) if self.delays_s else 0.0

    def timed(self) -> tuple[dict[int, dict[str, Timed]], dict[PairOfStages, Timed]]:
        """Return what ops take, by stage and kind, and what pairs take."""
        times_s: defaultdict[tuple[tuple[int, int], ...], list[float]] = defaultdict(list)
        launches_s: defaultdict[tuple[tuple[int, int], ...], list[float]] = defaultdict(list)
        for index, ran in enumerate(self.ops):
            strange = next((op.kind for op in ran.action.cell if op.kind not in TIMED), None)
            if strange is not None:
                self.left_out[f"ops of {strange}, whose times costs do not hold"] += 1
            elif index not in self.unseen_waits:
                shape: tuple[tuple[int, int], ...] = tuple((stage, kind) for kind, stage, *_ in ran.action.cell)
                times_s[shape].append(ran.compute_s)
                launches_s[shape] += self._launch_s(index)
        ops: dict[int, dict[str, Timed]] = {}
        pairs: dict[PairOfStages, Timed] = {}
        for shape in sorted(times_s):
            timed = Timed(Sample.of(times_s[shape]), float(np.mean(launches_s[shape] or [0.0])))
            if len(shape) == 1:
                ((stage, kind),) = shape
                ops.setdefault(stage, {})[str(Kind(kind))] = timed
            else:
                pairs[shape[0][0], shape[1][0]] = timed
        return ops, pairs

    def transfer(self) -> tuple[Sample | None, str]:
        """Return how long transfers take, and what was taken for that."""
        sides = self.recording.kernels_s.values()
        both_s = [min(map(min, side.values())) for side in sides if len(side) == 2]
        if both_s:
            return Sample.of(both_s), "the shorter of the sender's and the receiver's NCCL kernels"
        one_s = [min(map(min, side.values())) for side in sides]
        if one_s:
            return Sample.of([min(one_s)]), "the shortest NCCL kernel; of no tensor are both sides in the traces"
        if self.delays_s:
            return Sample.of(self.delays_s), "from the end of the op that made a tensor to its arrival on an idle rank"
        return None, "no transfer was seen, so it takes no time"

    def _pipes(self) -> int:
        """Return how many pipes there are."""
        found = [0, *self._begin_pipes()]
        if len({after - stage for stage, after in zip(found, [*found[1:], self.stages], strict=True)}) > 1:
            raise UserError(
                f"{', '.join(self.recording.sources)}: pipes seem to begin with stages {found} of {self.stages}, "
                "which are not equally long; say how many there are with --pipes"
            )
        return len(found)

    def _begin_pipes(self) -> list[int]:
        """Return the stages whose forwards mostly start before those of the stage before them.

        (Not: before they end. Out of a pair a forward's output leaves before the pair ends.)
        """
        early: defaultdict[int, list[bool]] = defaultdict(list)
        for ran in self.ops:
            for kind, stage, micro_batch, _ in ran.action.cell:
                if kind == F:
                    makers = self.makers.get((ran.step, Tensor("F", stage, micro_batch)), ())
                    early[stage] += [ran.start_s < maker.start_s for maker in makers]
        return sorted(stage for stage, each in early.items() if 2 * sum(each) > len(each))

    def _maker(self, ran: Ran, tensor: Tensor) -> Ran | None:
        """Return the op that made a tensor, where it is known and only one."""
        makers = self.makers.get((ran.step, tensor), ())
        return makers[0] if len(makers) == 1 and not math.isnan(makers[0].end_s) else None

    def _inputs(self, ran: Ran) -> Iterator[Tensor]:
        """Yield the tensors that an op needs from other stages."""
        for tensor in inputs_of(ran.action):
            edge = tensor.stage if tensor.direction == "F" else tensor.stage + 1
            inside_pipe = edge < self.stages and edge % (self.stages // self.pipes)
            if inside_pipe or (ran.rank, ran.step, tensor) in self.recording.arrived_s:
                yield tensor

    def _may_have_waited(self, ran: Ran) -> bool:
        """Return whether an op's time may hold a wait that nothing tells apart from its work."""
        makers = (self._maker(ran, tensor) for tensor in self._inputs(ran)) if ran.may_wait else ()
        return any(maker is None or (maker.rank != ran.rank and maker.end_s > ran.start_s) for maker in makers)

    def _delays_s(self) -> list[float]:
        """Return how long tensors took from their maker's end to a rank that was already idle."""
        delays_s = []
        for index, ran in enumerate(self.ops):
            for tensor in self._inputs(ran):
                maker = self._maker(ran, tensor)
                arrived_s = self._arrived_s(ran, tensor)
                if maker is None or maker.rank == ran.rank or math.isnan(arrived_s):
                    continue
                if arrived_s < maker.end_s:
                    self.left_out["tensors that came before they were sent; the clocks of ranks disagree"] += 1
                elif self.before_s.get(index, -math.inf) <= maker.end_s:
                    delays_s.append(arrived_s - maker.end_s)
        return delays_s

    def _arrived_s(self, ran: Ran, tensor: Tensor) -> float:
        """Return when a tensor was there, or else when the op that waited for it began; NaN where nothing says so."""
        began_s = math.nan if ran.may_wait else ran.start_s
        return self.recording.arrived_s.get((ran.rank, ran.step, tensor), began_s)

    def _launch_s(self, index: int) -> list[float]:
        """Return from when an op could start until it did, and its gaps; nothing where the former is not known."""
        ran = self.ops[index]
        could_s = [self._there_s(ran, tensor) for tensor in self._inputs(ran)]
        could_s += [self.before_s[index]] if index in self.before_s else []
        if math.isnan(ran.start_s) or not could_s or any(map(math.isnan, could_s)):
            return []
        gaps_s = max(0.0, ran.end_s - ran.start_s - ran.compute_s)
        return [max(0.0, ran.start_s - max(could_s)) + gaps_s]

    def _there_s(self, ran: Ran, tensor: Tensor) -> float:
        """Return when a tensor was there; NaN where nothing says so."""
        arrived_s = self.recording.arrived_s.get((ran.rank, ran.step, tensor))
        if arrived_s is not None:
            return arrived_s
        maker = self._maker(ran, tensor)
        if maker is None:
            return math.nan
        return maker.end_s + (0.0 if maker.rank == ran.rank else self.typical_delay_s)


def _previous_ends(ops: list[Ran]) -> Iterator[tuple[int, float]]:
    """Yield, for each op that is not the first of its rank and step, its place and when the one before it ended."""
    runs = [index for index, ran in enumerate(ops) if not math.isnan(ran.start_s)]
    runs.sort(key=lambda index: (ops[index].rank, ops[index].step, ops[index].start_s))
    for index, after in pairwise(runs):
        if (ops[index].rank, ops[index].step) == (ops[after].rank, ops[after].step):
            yield after, ops[index].end_s
