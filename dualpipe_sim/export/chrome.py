"""A timeline as Chrome trace-event JSON, for https://ui.perfetto.dev and chrome://tracing.

A process is a rank, a thread is a lane; arrows (flow events) lead from the op that makes a tensor over its transfer to
the op that needs it, counters say what is in flight. The format: "Trace Event Format",
https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.

An event's ``ph`` says what it is: ``X`` a slice on a thread, ``M`` a name, ``s``, ``t`` and ``f`` the start, a step and
the end of an arrow, ``C`` a value of a counter. A thread's id is made of rank, lane and row, so that no other thread of
the trace has it: rank 2's second ``recv`` row is 34 001.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from dualpipe_sim.analysis.memory import COMPONENTS, Memory
from dualpipe_sim.analysis.occupancy import Occupancy, in_flight_over_time
from dualpipe_sim.base.arrays import IntArray
from dualpipe_sim.base.files import written_whole
from dualpipe_sim.export.spans import Span, has_phases, phases, tasks, transfers, whole_ns
from dualpipe_sim.graph.timeline import Timeline

Event: TypeAlias = "dict[str, Any]"

_CHANGING = COMPONENTS.index("communication buffers")
"""The first component of memory that changes during a step; those before it are a rank's state."""

_LANE_ORDER = ("op", "compute", "alltoall", "copy", "data", "send", "recv")
_THREADS_A_RANK = 10_000
_ROWS_A_LANE = 1_000


def write_chrome(timeline: Timeline, path: str | Path, memory: Memory | None = None) -> None:
    """Write a timeline as Chrome trace-event JSON, event by event.

    >>> import json
    >>> from pathlib import Path
    >>> from dualpipe_sim import simulate
    >>> write_chrome(simulate("figure5").played, "trace.json")
    >>> len(json.loads(Path("trace.json").read_text(encoding="utf-8"))["traceEvents"]) > 300
    True

    Args:
        timeline: what ran when.
        path: the file.
        memory: the memory of every rank over time, if it is to be shown too.

    Raises:
        UserError: the place cannot be written to.

    """
    with written_whole(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"displayTimeUnit":"ms","traceEvents":[')
        separator = "\n"
        for event in events(timeline, memory):
            file.write(separator + json.dumps(event, separators=(",", ":")))
            separator = ",\n"
        file.write("\n]}\n")


def events(timeline: Timeline, memory: Memory | None = None) -> Iterator[Event]:
    """Yield the events of a trace; ``ts`` and ``dur`` are in microseconds, exact to the nanosecond."""
    under_way = transfers(timeline)
    shown = [span for both in under_way for span in both if span.end_ns > span.start_ns]
    threads: dict[tuple[int, str, int], None] = {}
    running = chain(tasks(timeline), phases(timeline)) if has_phases(timeline) else phases(timeline)
    for span in chain(running, shown):
        threads[span.rank, span.lane, span.row] = None
        yield _slice(span)
    yield from _names(timeline, sorted(threads, key=_thread))
    yield from _flows(timeline, under_way)
    for rank, live in enumerate(in_flight_over_time(timeline)):
        yield from _in_flight(live, rank)
        yield from _memory(memory, rank) if memory else ()


def us(ns: int) -> float:
    """Return nanoseconds as microseconds that read back as the same nanoseconds, even cut off and not rounded.

    Perfetto multiplies by 1000 and cuts off (trace processor, ``json_utils.cc``): 1.001 would become 1000 ns, so it is
    written as the next larger number.

    >>> us(1000), us(1001)
    (1.0, 1.0010000000000001)
    """
    value = ns / 1000
    while int(value * 1000.0) < ns:
        value = math.nextafter(value, math.inf)
    return value


def _pid(rank: int) -> int:
    """Return a rank's process id; they count from 1."""
    return rank + 1


def _tid(rank: int, lane: str, row: int) -> int:
    return _pid(rank) * _THREADS_A_RANK + _LANE_ORDER.index(lane) * _ROWS_A_LANE + row


def _thread(key: tuple[int, str, int]) -> int:
    return _tid(*key)


def _slice(span: Span) -> Event:
    return {
        "ph": "X",
        "pid": _pid(span.rank),
        "tid": _tid(span.rank, span.lane, span.row),
        "ts": us(span.start_ns),
        "dur": us(span.end_ns - span.start_ns),
        "name": span.name,
        "cat": span.lane,
        "args": _arguments(span),
    }


def _arguments(span: Span) -> Event:
    arguments: Event = {"action": span.action}
    if len(span.ops) == 1:
        (op,) = span.ops
        arguments |= {"stage": op.stage, "micro_batch": op.micro_batch, "kind": str(op.kind)}
        arguments |= {} if op.slice is None else {"slice": op.slice}
    else:
        forward, beside = span.ops
        arguments |= {"kind": f"OVERLAP_F_{beside.kind}", "forward": str(forward), "backward": str(beside)}
    return arguments | ({"layer": span.layer} if span.layer >= 0 else {})


def _names(timeline: Timeline, threads: list[tuple[int, str, int]]) -> Iterator[Event]:
    """Yield the names of ranks and lanes, and the order that they stand in."""
    for rank in range(timeline.ranks):
        yield _meta(rank, 0, "process_name", {"name": f"rank {rank}"})
        yield _meta(rank, 0, "process_sort_index", {"sort_index": rank})
    for rank, lane, row in threads:
        tid = _tid(rank, lane, row)
        yield _meta(rank, tid, "thread_name", {"name": f"{lane} {row + 1}" if row else lane})
        yield _meta(rank, tid, "thread_sort_index", {"sort_index": tid})


def _meta(rank: int, tid: int, name: str, arguments: Event) -> Event:
    return {"ph": "M", "pid": _pid(rank), "tid": tid, "name": name, "args": arguments}


def _flows(timeline: Timeline, under_way: list[tuple[Span, Span]]) -> Iterator[Event]:
    """Yield an arrow for each transfer: producer, send and receive where they take time, consumer."""
    graph = timeline.graph
    starts, ends = whole_ns(timeline.start_s).tolist(), whole_ns(timeline.end_s).tolist()
    consumers = _first_consumers(timeline).tolist()
    for flow, (producer, consumer, both) in enumerate(zip(graph.sender.tolist(), consumers, under_way, strict=True)):
        common = {"cat": "transfer", "name": both[0].action, "id": flow}
        # An arrow starts inside the slice that it leaves: a nanosecond before the end.
        leaves = max(starts[producer], ends[producer] - 1)
        yield {"ph": "s", **_place(timeline, producer), "ts": us(leaves), **common}
        for span in both:
            if span.end_ns > span.start_ns:
                place = {"pid": _pid(span.rank), "tid": _tid(span.rank, span.lane, span.row)}
                yield {"ph": "t", "bp": "e", **place, "ts": us(span.start_ns), **common}
        yield {"ph": "f", "bp": "e", **_place(timeline, consumer), "ts": us(starts[consumer]), **common}


def _first_consumers(timeline: Timeline) -> IntArray:
    """Return the phase that each transfer lets start, the earliest of several, shape ``(transfers,)``.

    A transfer has an edge to the first phase on each lane of the task that needs it. The edges are sorted by transfer
    and then by start; where the transfer changes, its earliest one stands.
    """
    graph = timeline.graph
    source, target = graph.edges[:, (graph.edges[0] >= graph.first_transfer) & (graph.edges[1] < graph.first_transfer)]
    by_start = np.lexsort((timeline.start_s[target], source))
    first: IntArray = target[by_start[np.diff(source[by_start], prepend=-1) != 0]]
    return first


def _place(timeline: Timeline, node: int) -> Event:
    """Return the process and thread of a phase."""
    lane = timeline.graph.lane_name(node)
    rank = int(timeline.rank[timeline.graph.task[node]])
    return {"pid": _pid(rank), "tid": _tid(rank, lane, 0)}


def _in_flight(live: Occupancy, rank: int) -> Iterator[Event]:
    """Yield how many (stage, micro-batch) pairs are live on a rank, whenever that changes."""
    # Of several changes in one nanosecond only what is there after the last of them counts.
    at_ns, before = whole_ns(live.at_s), 0
    last_of_moment = np.append(np.diff(at_ns) > 0, True)
    for ns, count in zip(at_ns[last_of_moment].tolist(), live.total[last_of_moment].tolist(), strict=True):
        if count != before:
            yield {"ph": "C", "pid": _pid(rank), "name": "in flight", "ts": us(ns), "args": {"pairs": int(count)}}
        before = count


def _memory(memory: Memory, rank: int) -> Iterator[Event]:
    """Yield the bytes on a rank's GPU whenever they change, what does not change as one."""
    times, size_bytes = memory.over_time(rank)
    names = ["state", *COMPONENTS[_CHANGING:]]
    columns = np.column_stack([size_bytes[:, :_CHANGING].sum(axis=1), size_bytes[:, _CHANGING:]]).tolist()
    for ns, sizes in zip(whole_ns(times).tolist(), columns, strict=True):
        yield {
            "ph": "C",
            "pid": _pid(rank),
            "name": "memory (bytes)",
            "ts": us(ns),
            "args": dict(zip(names, sizes, strict=True)),
        }
