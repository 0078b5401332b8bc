"""Traces of torch.profiler (Kineto), of a CPU or a GPU, as recordings.

Rules. An action is a range of category ``user_annotation``; its copy on the GPU (``gpu_user_annotation``) is not read,
lest it count twice. ``ts`` and ``dur`` are microseconds, ``ts`` after ``baseTimeNanoseconds`` where that is given. On a
GPU an op is its kernels (:mod:`dualpipe_sim.calibration.kernels`). On a CPU it is its range, from when its input was
there: torch waits for it inside the range, until the end of an event such as ``gloo:recv``.

Torch's GPipe names its ranges ``Forward 3`` and ``Backward 3``, with the messages inside; the stage is the rank's. Its
1F1B has none (:mod:`dualpipe_sim.calibration.unnamed`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

from dualpipe_sim.calibration.actions import Action, Names, inputs_of, kind_of_no_op, parse_action
from dualpipe_sim.calibration.kernels import add_gpu_work
from dualpipe_sim.calibration.recording import Occurrences, Ran, Recording
from dualpipe_sim.calibration.spans import Range, Span, holders
from dualpipe_sim.calibration.tables import MOST_RANKS
from dualpipe_sim.calibration.timeline_csv import LATEST_S
from dualpipe_sim.calibration.unnamed import Unnamed, is_message, named, segments_of
from dualpipe_sim.errors import ScheduleError, UserError, quoted

Event: TypeAlias = Mapping[str, Any]

_STEP = re.compile(r"ProfilerStep#(\d{1,18})", re.ASCII)
_RECEIVE = re.compile(r"\w+:recv\b.*")
_RANK_IN_NAME = re.compile(r"rank[-_ ]?(\d{1,6})(?!\d)", re.IGNORECASE | re.ASCII)
_LATEST_NS = 1 << 62


def add_trace(recording: Recording, data: object, source: str, names: Names) -> None:
    """Add what a trace says to a recording.

    Args:
        recording: what is added to.
        data: the trace's JSON.
        source: its file.
        names: which ranges are which actions.

    Raises:
        UserError: it is no trace, or one of a rank that the recording has from another file.

    """
    events = _events(data, source)
    header = data if isinstance(data, Mapping) else {}
    rank = _rank(header, source, len(recording.rank_source))
    recording.add_rank(rank, source)
    trace = _Trace.of(events, header, source)
    if recording.origin_ns is None:
        recording.origin_ns = min((span.start_ns for span in trace.annotations), default=0)
    ranges = list(_ranges(trace, names, rank, recording))
    if not any(one.action.cell for one in ranges) and any(is_message(span.name) for span in trace.annotations):
        recording.unnamed.append((_unnamed(events, trace, rank, source), partial(_add_work, recording, trace, rank)))
    else:
        _add_work(recording, trace, rank, ranges)


def add_unnamed(recording: Recording) -> None:
    """Add what ran in traces that name no op, once all ranks are read.

    Raises:
        UserError: it was not torch's 1F1B.

    """
    if recording.unnamed:
        ranges = named([unnamed for unnamed, _ in recording.unnamed])
        for unnamed, add in recording.unnamed:
            add(ranges[unnamed.rank], waits_inside=False)


def _add_work(
    recording: Recording, trace: _Trace, rank: int, ranges: list[Range], *, waits_inside: bool = True
) -> None:
    """Add the work of ranges; ``waits_inside`` says whether a CPU's may hold the wait for their inputs."""
    if trace.kernels:
        messages = sorted((span for span in trace.annotations if is_message(span.name)), key=lambda span: span.start_ns)
        add_gpu_work(recording, rank, ranges, trace.launches, trace.kernels, messages)
    else:
        recording.on_cpu = True
        _add_cpu_work(recording, rank, ranges, trace.annotations, waits_inside=waits_inside)


def _unnamed(events: Iterable[object], trace: _Trace, rank: int, source: str) -> Unnamed:
    """Return what ran in a trace that names no op."""
    operations, recorded_ns = [], []
    for position, event in enumerate(events):
        if isinstance(event, Mapping) and event.get("cat") == "cpu_op" and event.get("ph") == "X":
            operations.append(_span(event, trace.base_ns, f"{source}: event {position}"))
        elif isinstance(event, Mapping) and event.get("cat") == "fwdbwd" and event.get("ph") == "s":
            recorded_ns.append(_span(event, trace.base_ns, f"{source}: event {position}").start_ns)
    messages = [span for span in trace.annotations if is_message(span.name)]
    return Unnamed(rank, source, segments_of(operations, recorded_ns, messages, trace.steps))


@dataclass
class _Trace:
    """What counts of a trace's events."""

    annotations: list[Span] = field(default_factory=list)
    launches: list[Span] = field(default_factory=list)
    kernels: list[Span] = field(default_factory=list)
    base_ns: int = 0

    @classmethod
    def of(cls, events: Iterable[object], header: Event, source: str) -> _Trace:
        base_ns = _base_ns(header, source)
        trace = cls(base_ns=base_ns)
        for position, event in enumerate(events):
            if not isinstance(event, Mapping):
                raise UserError(f"{source}: event {position} is {quoted(event)}, not a mapping of keys")
            into = trace._into(event.get("cat")) if event.get("ph") == "X" else None
            if into is not None:
                into.append(_span(event, base_ns, f"{source}: event {position}"))
        return trace

    @property
    def steps(self) -> list[tuple[int, Span]]:
        """The profiler's ranges of steps, with their numbers."""
        return [(int(match[1]), span) for span in self.annotations if (match := _STEP.fullmatch(span.name))]

    def _into(self, category: object) -> list[Span] | None:
        if category == "user_annotation":
            return self.annotations
        if category == "kernel":
            return self.kernels
        return self.launches if str(category).endswith(("_runtime", "_driver")) else None


def _events(data: object, source: str) -> list[object]:
    events = data.get("traceEvents") if isinstance(data, Mapping) else data
    if not isinstance(events, list):
        raise UserError(f"{source}: has no list 'traceEvents', so it is no trace of torch.profiler")
    return events


def _base_ns(header: Event, source: str) -> int:
    base_ns = header.get("baseTimeNanoseconds", 0)
    if isinstance(base_ns, bool) or not isinstance(base_ns, int) or not 0 <= base_ns < _LATEST_NS:
        raise UserError(f"{source}: baseTimeNanoseconds must be a whole number, got {quoted(base_ns)}")
    return base_ns


def _span(event: Event, base_ns: int, where: str) -> Span:
    start_us, length_us = event.get("ts"), event.get("dur", 0)
    for key, value in (("ts", start_us), ("dur", length_us)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < LATEST_S * 1e6:
            raise UserError(f"{where} ({quoted(event.get('name'))}): {key} must be microseconds, got {quoted(value)}")
    start_ns = base_ns + round(cast("float", start_us) * 1000)
    arguments = event.get("args")
    return Span(
        str(event.get("name")),
        (str(event.get("pid")), str(event.get("tid"))),
        start_ns,
        start_ns + max(0, round(cast("float", length_us) * 1000)),
        arguments if isinstance(arguments, Mapping) else {},
    )


def _rank(header: Event, source: str, position: int) -> int:
    """Return the rank that a trace says it is of, or its file's name does, or its place among the traces."""
    info = header.get("distributedInfo")
    rank = info.get("rank") if isinstance(info, Mapping) else None
    if rank is not None:
        if isinstance(rank, bool) or not isinstance(rank, int) or not 0 <= rank < MOST_RANKS:
            raise UserError(f"{source}: distributedInfo: rank must be a whole number, got {quoted(rank)}")
        return rank
    named = _RANK_IN_NAME.search(Path(source).name)
    return int(named[1]) if named else position


def _ranges(trace: _Trace, names: Names, rank: int, recording: Recording) -> Iterator[Range]:
    """Yield the ranges of actions, those of ops inside another op's left out."""
    steps = trace.steps
    seen = Occurrences()
    op_until_ns: dict[object, int] = {}
    for span in sorted(trace.annotations, key=lambda span: (span.start_ns, -span.end_ns)):
        action = _action(span, names, rank, recording)
        if action is None:
            continue
        if action.cell and span.start_ns < op_until_ns.get(span.thread, span.start_ns):
            recording.left_out["ranges of ops inside another op's range, which counts as one"] += 1
            continue
        if action.cell:
            op_until_ns[span.thread] = span.end_ns
        number = next((number for number, step in steps if step.start_ns <= span.start_ns < step.end_ns), None)
        if steps and number is None:
            recording.left_out["actions outside of every ProfilerStep"] += 1
            continue
        step = number or 0, seen.next((number, action.text))
        yield Range(action, step, span)


def _action(span: Span, names: Names, rank: int, recording: Recording) -> Action | None:
    """Return the action that a range stands for; None where there is none to count."""
    text = names.action_text(span.name, rank)
    if text is None:
        return None
    if span.arguments.get("finished") is False:
        recording.left_out["ranges cut off by the end of the profile"] += 1
        return None
    try:
        return parse_action(text)
    except ScheduleError:
        no_op = kind_of_no_op(text)
        recording.left_out[f"ranges of {no_op}, which is no op" if no_op else "PP: ranges that name no action"] += 1
        return None


def _add_cpu_work(
    recording: Recording, rank: int, ranges: list[Range], annotations: list[Span], *, waits_inside: bool
) -> None:
    """Add ops as their ranges without the wait for their inputs."""
    origin_ns = recording.origin_ns or 0
    receives = [span for span in annotations if _RECEIVE.fullmatch(span.name)]
    arrived_s: dict[int, float] = {}  # by range
    for receive, holder in zip(receives, holders(ranges, receives), strict=True):
        if holder is not None:
            there_s = (receive.end_ns - origin_ns) / 1e9
            arrived_s[holder] = max(arrived_s.get(holder, there_s), there_s)
    for index, there_s in arrived_s.items():
        action = ranges[index].action
        for tensor in [action.tensor] if action.tensor and action.side == "RECV" else inputs_of(action):
            recording.arrived_s[rank, ranges[index].step, tensor] = there_s
    for one in ranges:
        if one.action.cell:
            ran = _cpu_op(recording, rank, one, origin_ns)
            recording.ops.append(ran if waits_inside else ran._replace(may_wait=False))


def _cpu_op(recording: Recording, rank: int, one: Range, origin_ns: int) -> Ran:
    start_s, end_s = (one.span.start_ns - origin_ns) / 1e9, (one.span.end_ns - origin_ns) / 1e9
    inputs = [(rank, one.step, tensor) for tensor in inputs_of(one.action)]
    arrived_s = [recording.arrived_s[key] for key in inputs if key in recording.arrived_s]
    start_s = min(max(start_s, *arrived_s), end_s) if arrived_s else start_s
    return Ran(rank, one.step, one.action, start_s, end_s, end_s - start_s, may_wait=not arrived_s)
