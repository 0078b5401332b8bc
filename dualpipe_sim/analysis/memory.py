"""Memory of every rank over time: state, activations, deferred weight-gradient inputs, communication buffers.

It is counted layer by layer. A layer's activations are there from the start of its F to the end of its backward for the
input; what its deferred W needs is there from then to the end of the W. A layer that is recomputed keeps its input
alone, and has the rest while its backward runs. What a kernel needs only while it runs is not counted.

Everything that comes or goes is a row of :class:`_Changes`: a rank, a moment and bytes by component, more or less. They
are collected from phases and from the tensors between stages, sorted by rank and moment, and summed up from the first
on. The sum after a moment's changes is what is there until the next moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import ceil
from typing import NamedTuple

import numpy as np

from dualpipe_sim.analysis.step import unit_times
from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.base.precision import BF16_BYTES
from dualpipe_sim.base.show import Table, Tabular, line
from dualpipe_sim.base.units import in_gb, number_of
from dualpipe_sim.costs.phases import JobStageCosts, with_job
from dualpipe_sim.errors import UserError
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.model.footprint import (
    UnitBytes,
    bytes_by_unit,
    comes_later,
    gradients_on_rank,
    offloaded,
    state_by_rank,
)
from dualpipe_sim.model.job import Job
from dualpipe_sim.model.state import local_parameters
from dualpipe_sim.order.dependencies import dependencies
from dualpipe_sim.order.ops import RESHARD, UNSHARD, B, F, I, L, O, R, S, T, W
from dualpipe_sim.order.schedule import Schedule

COMPONENTS = (
    "weights",
    "gradients",
    "optimizer states",
    "communication buffers",
    "weight-gradient inputs",
    "activations",
)
"""What memory is used for, in the order of the columns of :attr:`Memory.size_bytes`."""

DOES_NOT_FIT = "does not fit"
"""What is said wherever a step that needs more memory than its GPUs have is shown."""

HEADINGS = ("rank", "weights", "gradients", "optimizer", "comm.", "W inputs", "act.", "peak", "left")
"""What memory's table shows of each rank: ``COMPONENTS``, their sum, and what is left on its GPU."""

_WEIGHTS, _GRADIENTS = range(2)
_COMMUNICATION, _DEFERRED, _ACTIVATIONS = range(3, 6)
_BEHIND = 1 + 1e-6  # of a makespan: when the optimizer steps

_TICK = 1e-9
"""Moments closer than this share of the makespan are one: what rounding parts ended and began together."""


class Excess(NamedTuple):
    """A rank that a step does not fit on, and by how much.

    Attributes:
        rank: the rank.
        excess_bytes: bytes at its peak beyond the GPU's memory.

    """

    rank: int
    excess_bytes: int


@dataclass(frozen=True, eq=False)
class Memory(Tabular):
    """Bytes on a GPU of every rank, from each moment until the next one of its rank.

    >>> from dualpipe_sim import simulate
    >>> memory = simulate("deepseek_v3_pair").memory
    >>> memory.ranks, memory.fullest_rank, memory.over
    (2, 0, [])

    Attributes:
        gpu_bytes: memory of a GPU.
        makespan_s: seconds until the last op ends.
        rank: rank of each moment, shape ``(moments,)``, ascending; each rank's first moment is at time 0.
        time_s: the moments, ascending on each rank, shape ``(moments,)``; from a rank's last one on all its activations
            are gone.
        size_bytes: bytes of each of ``COMPONENTS``, shape ``(moments, components)``.
        reserved_bytes: what contexts and communicators take of each GPU beside that.
        fragmentation: what is lost of all but weights, gradients and optimizer states, as a share of it.

    """

    gpu_bytes: int
    makespan_s: float
    rank: IntArray
    time_s: FloatArray
    size_bytes: IntArray
    reserved_bytes: float = 0.0
    fragmentation: float = 0.0

    def __repr__(self) -> str:
        return line(self, f"{number_of(self.ranks, 'rank')}, {len(self.time_s):,} moments", self.verdict())

    @property
    def ranks(self) -> int:
        """Number of pipeline ranks."""
        return int(self.rank[-1]) + 1

    @cached_property
    def peak_by_rank(self) -> IntArray:
        """Moment at which each rank holds most, the first one of several, shape ``(ranks,)``."""
        total = self.size_bytes.sum(axis=1)
        return np.array([begin + int(total[begin:end].argmax()) for begin, end in self._spans], dtype=np.int64)

    @cached_property
    def peak_bytes_by_rank(self) -> IntArray:
        """Most bytes of each rank, shape ``(ranks,)``."""
        return np.asarray(self.size_bytes[self.peak_by_rank].sum(axis=1))

    @cached_property
    def needed_bytes_by_rank(self) -> IntArray:
        """Bytes that a GPU of each rank must have: its peak, and what is reserved and lost; shape ``(ranks,)``."""
        live = self.size_bytes[self.peak_by_rank, _COMMUNICATION:].sum(axis=1)
        overhead = np.ceil(self.reserved_bytes + self.fragmentation * live).astype(np.int64)
        return np.asarray(self.peak_bytes_by_rank + overhead)

    @property
    def fullest_rank(self) -> int:
        """The rank that holds most, the first one of several."""
        return int(self.peak_bytes_by_rank.argmax())

    @property
    def over(self) -> list[Excess]:
        """The ranks that do not fit on their GPU, the fullest first."""
        excess = (self.needed_bytes_by_rank - self.gpu_bytes).tolist()
        over = [Excess(rank, more) for rank, more in enumerate(excess) if more > 0]
        return sorted(over, key=lambda one: (-one.excess_bytes, one.rank))

    @property
    def fits(self) -> bool:
        """Whether every rank fits on its GPU."""
        return not self.over

    def verdict(self) -> str:
        """Return in words whether the step fits, and if not, on which rank and by how much."""
        lost = " with what is reserved and lost" if self.reserved_bytes or self.fragmentation else ""
        if self.fits:
            needed_gb = f"{in_gb(self.needed_bytes_by_rank[self.fullest_rank])} of {in_gb(self.gpu_bytes)} GB"
            return f"fits: rank {self.fullest_rank} is fullest, {needed_gb}{lost}"
        rank, excess_bytes = self.over[0]
        peak_gb = in_gb(self.needed_bytes_by_rank[rank])
        others = len(self.over) - 1
        more = f"; {others} more rank{'s do' if others > 1 else ' does'} not fit" if others else ""
        too_much = f"{peak_gb} GB{lost}, {in_gb(excess_bytes)} GB more than its GPU has"
        return f"{DOES_NOT_FIT}: rank {rank} needs {too_much}{more}"

    def over_time(self, rank: int) -> tuple[FloatArray, IntArray]:
        """Return one rank's ``time_s`` and ``size_bytes``.

        Raises:
            UserError: there is no such rank.

        """
        if not 0 <= rank < self.ranks:
            raise UserError(f"there is no rank {rank}; ranks are 0 to {self.ranks - 1}")
        begin, end = self._spans[rank]
        return self.time_s[begin:end], self.size_bytes[begin:end]

    def to_table(self) -> Table:
        """Return what each rank holds at its peak, in GB, as the table that memory shows itself as."""
        rows = []
        for rank, moment in enumerate(self.peak_by_rank.tolist()):
            parts = self.size_bytes[moment].tolist()
            rows.append([f"{rank}", *map(in_gb, (*parts, sum(parts), self.gpu_bytes - sum(parts)))])
        return Table(HEADINGS, rows, title="GB at each rank's peak", notes=[self.verdict()])

    def to_dict(self) -> dict[str, object]:
        """Return every rank's peak and what it is made of, ready for JSON."""
        return {
            "gpu_memory_bytes": self.gpu_bytes,
            "over_memory": [one._asdict() for one in self.over],
            "by_rank": [self._rank_to_dict(rank) for rank in range(self.ranks)],
        }

    def _rank_to_dict(self, rank: int) -> dict[str, object]:
        peak_bytes = int(self.peak_bytes_by_rank[rank])
        moment = self.peak_by_rank[rank]
        names = [component.replace("-", "_").replace(" ", "_") for component in COMPONENTS]
        _, size_bytes = self.over_time(rank)
        return {
            "rank": rank,
            "peak_bytes": peak_bytes,
            "needed_bytes": int(self.needed_bytes_by_rank[rank]),
            "peak_time_s": float(self.time_s[moment]),
            "headroom_bytes": self.gpu_bytes - int(self.needed_bytes_by_rank[rank]),
            "at_peak_bytes": dict(zip(names, self.size_bytes[moment].tolist(), strict=True)),
            "most_bytes": dict(zip(names, size_bytes.max(axis=0).tolist(), strict=True)),
        }

    @cached_property
    def _spans(self) -> list[tuple[int, int]]:
        """Each rank's first moment and, past its last one, the next rank's first."""
        bounds = np.searchsorted(self.rank, np.arange(self.ranks + 1)).tolist()
        return list(pairwise(bounds))


def memory_of(timeline: Timeline) -> Memory:
    """Return the memory of every rank of a timeline.

    Raises:
        UserError: costs that know of no job, and so of no bytes.

    """
    costs = with_job(timeline.graph.costs)
    if costs is None:
        raise UserError("memory needs a model, so costs of kind 'layers'; these costs know no bytes")
    placement = timeline.graph.schedule.placement
    state = state_by_rank(costs.job, costs.stage_layers, placement, costs.buffer_bytes)
    fixed = np.zeros((timeline.ranks, len(COMPONENTS)), dtype=np.int64)
    fixed[:, : len(state)] = np.stack(state, axis=1)  # the state's parts are the first of COMPONENTS
    # A change of nothing at time 0 gives every rank a first moment there, with its state alone.
    beginning = _Changes(np.arange(timeline.ranks), np.zeros(timeline.ranks), np.zeros_like(fixed))
    changes = [beginning, *_of_phases(timeline, costs), *_of_boundaries(timeline, costs.job)]
    changes += _of_gathers(timeline, costs)
    if comes_later(costs.job):
        fixed[:, _GRADIENTS] = 0
        changes += _of_gradients(timeline, costs)
    rank, time_s, live = _summed(changes, timeline.makespan_s)
    stack = costs.job.recipe.stack
    gpu_bytes, size_bytes = int(costs.gpu.memory_bytes), live + fixed[rank]
    return Memory(gpu_bytes, timeline.makespan_s, rank, time_s, size_bytes, stack.reserved_bytes, stack.fragmentation)


class _Changes(NamedTuple):
    """Bytes that come or go: on which rank, when, and how many of each component; one row a change.

    Attributes:
        rank: rank of each change, shape ``(changes,)``.
        time_s: when it happens, same shape.
        size_bytes: bytes that come, or with a minus go, of each of ``COMPONENTS``, shape ``(changes, components)``.

    """

    rank: IntArray
    time_s: FloatArray
    size_bytes: IntArray


def _summed(changes: list[_Changes], makespan_s: float) -> tuple[IntArray, FloatArray, IntArray]:
    """Return rank, time and bytes of each moment at which anything comes or goes, one row a moment.

    Moments are whole ticks while they are compared. Two ops that touch end and start at one moment, and rounding must
    not put a peak between them: what the first frees and what the second takes are one sum.
    """
    rank, time_s, size_bytes = (np.concatenate(column) for column in zip(*changes, strict=True))
    tick = np.rint(time_s / (makespan_s * _TICK or 1.0)).astype(np.int64)
    # By rank, then by tick: lexsort sorts by the last key first.
    by_time = np.lexsort((tick, rank))
    rank, tick, time_s = rank[by_time], tick[by_time], time_s[by_time]
    new = np.flatnonzero((np.diff(rank, prepend=-1) != 0) | (np.diff(tick, prepend=-1) != 0))
    # ``reduceat`` sums the changes of each moment. Whatever comes goes again, so every rank's changes sum to 0, and one
    # running sum may pass over all ranks.
    return rank[new], time_s[new], np.cumsum(np.add.reduceat(size_bytes[by_time], new, axis=0), axis=0)


def _of_phases(timeline: Timeline, costs: JobStageCosts) -> Iterator[_Changes]:
    """Yield what units keep, as their phases start and end.

    What a phase changes depends on its row in the templates only; few rows change anything, and only nodes of those
    are taken.
    """
    graph = timeline.graph
    phases = graph.first_transfer
    for when_s, change in zip((timeline.start_s, timeline.end_s), _by_phase(graph, costs), strict=True):
        changing = np.any(change, axis=1, keepdims=True)[:, 0]
        nodes = np.flatnonzero(changing[graph.phase])
        yield _Changes(graph.rank[nodes], when_s[:phases][nodes], change[graph.phase[nodes]])


def _of_gradients(timeline: Timeline, costs: JobStageCosts) -> list[_Changes]:
    """Return parameters' gradients, from the end of the first backward that makes them until the optimizer has them.

    It steps behind the last op, with all of them there.
    """
    job, placement = costs.job, timeline.graph.schedule.placement
    first_s = unit_times(timeline, W, np.minimum, np.inf)
    rows: list[tuple[int, float, int]] = []
    for rank in range(timeline.ranks):
        made_s: dict[object, float] = {}
        for (stage, unit), when_s in first_s.items():
            if int(placement.rank_of_stage[stage]) == rank:
                made_s[unit] = min(when_s, made_s.get(unit, np.inf))
        if "head" in made_s and (job.model.tied_embedding or "embedding" not in made_s):  # one matrix, or a copy
            made_s["embedding"] = min(made_s["head"], made_s.get("embedding", np.inf))
        for key, size_bytes in gradients_on_rank(job, costs.stage_layers, placement, rank).items():
            rows.append((rank, made_s.get(key[-1], 0.0), size_bytes))
    change = np.zeros((len(rows), len(COMPONENTS)), dtype=np.int64)
    change[:, _GRADIENTS] = [size_bytes for _, _, size_bytes in rows]
    ranks, made = np.array([rank for rank, _, _ in rows]), np.array([when_s for _, when_s, _ in rows])
    return [_Changes(ranks, made, change), _Changes(ranks, np.full(len(rows), timeline.makespan_s * _BEHIND), -change)]


def _of_gathers(timeline: Timeline, costs: JobStageCosts) -> Iterator[_Changes]:
    """Yield stages' weights that are gathered, from the start of each UNSHARD to its RESHARD, or to the end."""
    schedule, job = timeline.graph.schedule, costs.job
    held = np.array(
        [
            ceil(
                sum(local_parameters(one, job.parallel.expert).total for one in job.parameters(layers).values())
                * BF16_BYTES
            )
            for layers in costs.stage_layers
        ]
    )
    comes, goes = (np.flatnonzero(schedule.of_kinds(kind)) for kind in (UNSHARD, RESHARD))
    task = schedule.task_of_op
    # Those of one stage alternate, so that the next RESHARD of a stage behind an UNSHARD is the one that frees it.
    rows = len(schedule.rank)
    freed_s = np.append(timeline.last_phase_end_s[task[goes]], timeline.makespan_s)
    by_stage = np.argsort(schedule.stage[goes] * rows + goes)
    places = (schedule.stage[goes] * rows + goes)[by_stage]
    behind = np.searchsorted(places, schedule.stage[comes] * rows + comes)
    found = np.append(by_stage, len(goes))[behind]
    known = np.append(schedule.stage[goes], -1)[found] == schedule.stage[comes]
    change = np.zeros((len(comes), len(COMPONENTS)), dtype=np.int64)
    change[:, _WEIGHTS] = held[schedule.stage[comes]]
    rank = schedule.rank[comes]
    yield _Changes(rank, timeline.first_phase_start_s[task[comes]], change)
    yield _Changes(rank, np.where(known, freed_s[found], timeline.makespan_s), -change)


def _by_phase(graph: TaskGraph, costs: JobStageCosts) -> tuple[IntArray, IntArray]:
    """Bytes that come or go at the start and at the end of each phase in the templates, shape ``(phases, components)``.

    A unit (a layer, the embedding, the head) has several phases in an op; what it keeps comes with the first of them
    and goes with the last. F brings activations, and for its own length what ``while_forward`` says (the head's
    logits). B or I frees the activations; a recomputed layer brings what its second forward leaves, for that length,
    or from the R on where that is an op of its own, or from the backward of the last layer that runs again with it.
    An O takes activations away as its copy of a layer ends, and an L needs room for them as that begins. An I leaves
    the inputs of the weight gradients, and the W frees them. What a share of the head keeps is there from S to T.
    """
    slices = graph.schedule.slices
    units = {  # of a slice; rounded up, each alike, so that what comes goes
        unit: UnitBytes(*(-(-size // slices) for size in stored))
        for unit, stored in bytes_by_unit(costs.job, costs.stage_layers).items()
    }
    away = offloaded(costs.job, costs.stage_layers)
    spans = list(_unit_spans(graph))
    again = {unit for kind, unit, _, _ in spans if kind == R}
    at_start = np.zeros((len(graph.phases), len(COMPONENTS)), dtype=np.int64)
    at_end = np.zeros_like(at_start)
    for kind, unit, first, last in spans:
        stored = units.get(unit, UnitBytes())
        if kind == F:
            at_start[first, _ACTIVATIONS] += stored.activations + stored.while_forward
            at_end[last, _ACTIVATIONS] -= stored.while_forward
        if unit in away and kind in (F, B, I):
            at_end[last, _ACTIVATIONS] -= stored.activations * (kind == F)
            at_start[first, _ACTIVATIONS] += stored.activations * (kind != F)
        if kind == O:
            at_end[last, _ACTIVATIONS] -= stored.activations
        if kind == L:
            at_start[first, _ACTIVATIONS] += stored.activations
        if kind == R or (kind in (B, I) and unit not in again):
            at_start[first, _ACTIVATIONS] += stored.while_backward - stored.earlier
        if kind in (B, I):
            at_end[last, _ACTIVATIONS] -= stored.activations + stored.while_backward
        if kind in (S, T):
            how = graph.schedule.vocabulary
            made = stored.while_backward * ((kind == T) == (how == "two barriers"))  # beside the input's gradient
            at_start[first, _ACTIVATIONS] += (stored.activations + stored.while_forward) * (kind == S) + made
            at_end[last, _ACTIVATIONS] -= stored.while_forward * (kind == S) + made
            at_end[last, _ACTIVATIONS] -= stored.activations * (kind == T or how == "together")
        if kind in (I, W):
            at_end[last, _DEFERRED] += stored.weight_gradient_inputs * (1 if kind == I else -1)
    return at_start, at_end


def _unit_spans(graph: TaskGraph) -> Iterator[tuple[int, int | str, int, int]]:
    """Yield kind, unit, and first and last phase of each unit that an op works on, for tasks of each shape.

    Phases are rows in the templates, of which each shape has a block. A block begins at the first phase of any task of
    the shape, and one such task says which kind its ops are.
    """
    schedule, phases = graph.schedule, graph.phases
    begins, shown_by = np.unique(graph.phase[graph.first_phase_of_task], return_index=True)
    ends = np.append(begins[1:], len(phases))
    for begin, end, task in zip(begins.tolist(), ends.tolist(), shown_by.tolist(), strict=True):
        rows_of: dict[tuple[int, int | str], list[int]] = {}
        for row in range(begin, end):
            rows_of.setdefault((phases[row].half, phases[row].unit), []).append(row)
        first = int(schedule.first_op[task])
        kinds = schedule.kind[first : first + 2].tolist()  # of a lone op there is no second half
        for (half, unit), rows in rows_of.items():
            yield kinds[half], unit, rows[0], rows[-1]


def _of_boundaries(timeline: Timeline, job: Job) -> Iterator[_Changes]:
    """Yield stage boundaries' tensors, from the end of the op that makes them to the start of the op that takes them.

    On its way to another rank a tensor is in two buffers: the sender's until the transfer ends, the receiver's from
    when it starts. Between two stages of one rank it is in one buffer, and no transfer stands for it.
    """
    graph, schedule = timeline.graph, timeline.graph.schedule
    size_bytes = ceil(job.boundary_bytes)
    start_s, end_s = _op_times(timeline)
    producer, consumer = _handed_over(schedule)
    yield from _buffered(schedule.rank[producer], end_s[producer], start_s[consumer], size_bytes)
    producer, consumer = graph.transfers.producer, graph.transfers.consumer
    leaves_s, arrives_s = timeline.start_s[graph.first_transfer :], timeline.end_s[graph.first_transfer :]
    yield from _buffered(schedule.rank[producer], timeline.end_s[graph.sender], arrives_s, size_bytes)
    yield from _buffered(schedule.rank[consumer], leaves_s, start_s[consumer], size_bytes)


def _buffered(rank: IntArray, from_s: FloatArray, to_s: FloatArray, size_bytes: int) -> Iterator[_Changes]:
    """Yield buffers of one size that are there from one moment to another: all that come, then all that go."""
    change = np.zeros((len(rank), len(COMPONENTS)), dtype=np.int64)
    change[:, _COMMUNICATION] = size_bytes
    yield _Changes(rank, from_s, change)
    yield _Changes(rank, to_s, -change)


def _op_times(timeline: Timeline) -> tuple[FloatArray, FloatArray]:
    """Start of each op's first phase and end of its last, each of shape ``(ops,)``."""
    graph = timeline.graph
    phases, ops = graph.first_transfer, len(graph.schedule.rank)
    op = graph.op_of_node[:phases]
    start_s, end_s = np.full(ops, np.inf), np.zeros(ops)
    np.minimum.at(start_s, op, timeline.start_s[:phases])  # ``at``, since an op of many phases is there many times
    np.maximum.at(end_s, op, timeline.end_s[:phases])
    return start_s, end_s


def _handed_over(schedule: Schedule) -> tuple[IntArray, IntArray]:
    """Return (producer row, consumer row) of the boundaries between stages of one rank.

    A backward that waits for the F of its own stage, or a W for its I, is a dependency too, but hands no tensor on.
    """
    producer, consumer = dependencies(schedule)
    between_stages = schedule.stage[producer] != schedule.stage[consumer]
    here = between_stages & (schedule.rank[producer] == schedule.rank[consumer])
    return producer[here], consumer[here]
