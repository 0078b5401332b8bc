"""A timeline as bytes for a browser: columns of integers, deflated.

Times are whole ticks, 2^30 of them to the makespan, so that any moment and any distance fits into 32 bits. Starts are
told by the distance to the one before: 5, 8, 11, 14 is 5, 3, 3, 3. In a schedule distances repeat from micro-batch to
micro-batch, and what repeats deflates well. The browser adds them up again.

All columns are packed one after the other into one piece of bytes. ``columns`` says of each its type, the offset of its
first byte and its length; every column begins at a multiple of 4, as a browser's typed arrays demand.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dualpipe_sim.analysis.alltoall import alltoall_pieces, collectives_word, has_alltoall
from dualpipe_sim.analysis.critical_path import CriticalPath, critical_path
from dualpipe_sim.analysis.gaps import gaps_of
from dualpipe_sim.analysis.memory import Memory
from dualpipe_sim.analysis.metrics import bubble_ratio, idle_s_by_cause
from dualpipe_sim.analysis.occupancy import Occupancy, activations_over_time, bytes_over_time
from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.base.show import brief
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import BESIDE, Kind
from dualpipe_sim.pictures.op_boxes import op_boxes_s, shade_of_stage
from dualpipe_sim.pictures.palette import fill, words_of

_TICKS = 2**30
_ALIGNED = 4

Json = dict[str, Any]


class Run(NamedTuple):
    """One schedule's run, as far as a report shows it.

    >>> from dualpipe_sim import simulate
    >>> result = simulate("figure5")
    >>> Run(result.label, result.played).label
    'dualpipe'

    Attributes:
        label: the schedule, with its options.
        timeline: when everything ran.
        memory: what the ranks hold, where a model is known.

    """

    label: str
    timeline: Timeline
    memory: Memory | None = None

    def __repr__(self) -> str:
        return brief(self)


def run_data(run: Run, effort: int = 9) -> Json:
    """Return all that a report shows of a run, ready for JSON; ``effort`` is zlib's, from 1 to 9."""
    timeline = run.timeline
    schedule = timeline.graph.schedule
    shade = shade_of_stage(schedule.placement)
    shades = int(shade.max()) + 1
    occupancies = activations_over_time(timeline) if run.memory is None else bytes_over_time(run.memory)
    path = critical_path(timeline)
    columns = {
        **_op_columns(timeline),
        **_path_columns(timeline, path),
        **_copy_columns(timeline),
        **_transfer_columns(timeline),
        **_occupancy_columns(occupancies, timeline.makespan_s),
    }
    lanes = has_alltoall(timeline)
    if lanes:
        columns |= _phase_columns(timeline)
    return {
        "label": run.label,
        "makespan_s": timeline.makespan_s,
        "unitless": timeline.unitless,
        "ranks": timeline.ranks,
        "micro_batches": schedule.micro_batches,
        "slices": schedule.slices,
        "bubble_ratio": bubble_ratio(timeline),
        "pipe_of_stage": schedule.placement.pipe_of_stage.tolist(),
        "shade_of_stage": shade.tolist(),
        "fills": [[fill(kind, one, shades) for one in range(shades)] for kind in Kind],
        "words": [words_of(kind, schedule.vocabulary) for kind in Kind],
        "causes": {cause: _rounded(seconds) for cause, seconds in idle_s_by_cause(timeline).items()},
        "path": {part: float(f"{seconds:.9g}") for part, seconds in path.seconds_by_part().items()},
        "collectives": collectives_word([timeline]),
        "looks": _looks(timeline.graph) if lanes else [],
        "kinds": list(occupancies[0].amounts),
        "in_bytes": run.memory is not None,
        "limit": None if run.memory is None else run.memory.gpu_bytes,
        **_packed(columns, effort),
    }


def _op_columns(timeline: Timeline) -> dict[str, NDArray[Any]]:
    """Ops in the schedule's order, the halves of a pair one after the other; and what each task waits for."""
    schedule = timeline.graph.schedule
    start, end = (_ticks(timeline, times) for times in op_boxes_s(timeline))
    gaps = gaps_of(timeline)
    causes = {"exposed_gather": np.zeros(len(timeline.rank)), **gaps.seconds_by_cause}
    return {
        "rank": schedule.rank.astype(np.uint16),
        "kind": schedule.kind.astype(np.uint8),
        "paired": (schedule.partner >= 0).astype(np.uint8),
        "stage": np.diff(schedule.stage, prepend=0).astype(np.int32),
        "micro_batch": np.diff(schedule.unit, prepend=0).astype(np.int32),
        "op_start": np.diff(start, prepend=0).astype(np.int32),
        "op_length": (end - start).astype(np.int32),
        "waits_for": gaps.op.astype(np.int32),
        **{cause: _ticks(timeline, seconds).astype(np.int32) for cause, seconds in causes.items()},
    }


def _path_columns(timeline: Timeline, path: CriticalPath) -> dict[str, NDArray[Any]]:
    """The critical path's stretches, each of which begins where the one before ends."""
    return {
        "path_length": np.diff(_ticks(timeline, path.end_s), prepend=0).astype(np.int32),
        "path_rank": path.rank.astype(np.uint16),
        "path_to_rank": path.to_rank.astype(np.uint16),
        "path_part": path.part.astype(np.uint8),
    }


def _copy_columns(timeline: Timeline) -> dict[str, NDArray[Any]]:
    """Copies to the host and back, and what is done about weights, by the rows of their ops: when they run."""
    schedule = timeline.graph.schedule
    copies = np.flatnonzero(schedule.of_kinds(*BESIDE))
    task = schedule.task_of_op[copies]
    start, end = (_ticks(timeline, times[task]) for times in (timeline.first_phase_start_s, timeline.last_phase_end_s))
    return {
        "copy": np.diff(copies, prepend=0).astype(np.int32),
        "copy_start": np.diff(start, prepend=0).astype(np.int32),
        "copy_length": (end - start).astype(np.int32),
    }


def _transfer_columns(timeline: Timeline) -> dict[str, NDArray[Any]]:
    """Transfers, by the rows of the ops that make and need them."""
    graph = timeline.graph
    start, end = (_ticks(timeline, times[graph.first_transfer :]) for times in (timeline.start_s, timeline.end_s))
    return {
        "transfer_from": graph.transfers.producer.astype(np.int32),
        "transfer_to": graph.transfers.consumer.astype(np.int32),
        "transfer_start": np.diff(start, prepend=0).astype(np.int32),
        "transfer_length": (end - start).astype(np.int32),
    }


def _phase_columns(timeline: Timeline) -> dict[str, NDArray[Any]]:
    """Phases task by task, and the parts of all-to-alls beside which nothing computes."""
    graph = timeline.graph
    phases = graph.first_transfer
    start, end = _ticks(timeline, timeline.start_s[:phases]), _ticks(timeline, timeline.end_s[:phases])
    pieces = alltoall_pieces(timeline)
    begin, until = _ticks(timeline, pieces.begin_s)[pieces.exposed], _ticks(timeline, pieces.end_s)[pieces.exposed]
    return {
        # As many phases as each task has, not a task for each phase: tasks of a shape have the same, so it repeats.
        "phases_of_task": np.bincount(graph.task, minlength=len(timeline.rank)).astype(np.uint16),
        "look": _look_of_phase(graph)[graph.phase].astype(np.uint16),
        "phase_start": np.diff(start, prepend=0).astype(np.int32),
        "phase_length": (end - start).astype(np.int32),
        "exposed_rank": timeline.rank[graph.task[pieces.node[pieces.exposed]]].astype(np.uint16),
        "exposed_start": np.diff(begin, prepend=0).astype(np.int32),
        "exposed_length": (until - begin).astype(np.int32),
    }


def _occupancy_columns(occupancies: Sequence[Occupancy], makespan_s: float) -> dict[str, NDArray[Any]]:
    """Moments rank after rank, and what is held from each on: all moments of the first kind, then of the next."""
    at = np.concatenate([_scaled(one.at_s, makespan_s) for one in occupancies])
    amounts = [np.concatenate([one.amounts[kind] for one in occupancies]) for kind in occupancies[0].amounts]
    return {
        "moments_of_rank": np.array([len(one.at_s) for one in occupancies], dtype=np.int32),
        "moment": np.diff(at, prepend=0).astype(np.int32),
        "occupancy": np.concatenate(amounts).astype(np.float32),
    }


def _looks(graph: TaskGraph) -> list[list[object]]:
    """Return what distinguishes phases for a reader: name, kind, layer, lane, half of the task."""
    return [list(look) for look in dict.fromkeys(_look(graph, row) for row in range(len(graph.phases)))]


def _look_of_phase(graph: TaskGraph) -> IntArray:
    """Return the place of each phase's look in :func:`_looks`, by row of the templates."""
    places = {tuple(look): place for place, look in enumerate(_looks(graph))}
    return np.array([places[_look(graph, row)] for row in range(len(graph.phases))])


def _look(graph: TaskGraph, row: int) -> tuple[object, ...]:
    phase = graph.phases[row]
    return phase.name, phase.kind, phase.layer, phase.lane, phase.half


def _packed(columns: Mapping[str, NDArray[Any]], effort: int) -> Json:
    """Return columns as one deflated text, and where each begins and what it holds."""
    parts, places, offset = [], {}, 0
    for name, column in columns.items():
        content = np.ascontiguousarray(column, dtype=column.dtype.newbyteorder("<")).tobytes()
        places[name] = [column.dtype.name, offset, len(column)]
        parts.append(content + bytes(-len(content) % _ALIGNED))
        offset += len(parts[-1])
    return {"columns": places, "bytes": base64.b64encode(zlib.compress(b"".join(parts), effort)).decode("ascii")}


def _ticks(timeline: Timeline, times_s: FloatArray) -> IntArray:
    return _scaled(times_s, timeline.makespan_s)


def _scaled(times_s: FloatArray, makespan_s: float) -> IntArray:
    """Return times as whole ticks."""
    return np.rint(times_s * (_TICKS / makespan_s if makespan_s else 0.0)).astype(np.int64)


def _rounded(seconds: FloatArray) -> list[float]:
    return [float(f"{one:.9g}") for one in seconds.tolist()]
