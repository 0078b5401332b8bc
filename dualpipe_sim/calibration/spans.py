"""Events of a trace with a start and an end, and which range of an action each falls into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from dualpipe_sim.calibration.actions import Action
from dualpipe_sim.calibration.recording import Step


class Span(NamedTuple):
    """An event of a trace.

    Attributes:
        name: its name.
        thread: process and thread (of a kernel: GPU and stream).
        start_ns: nanoseconds since 1970, or since the profiler's own zero in traces of old.
        end_ns: likewise.
        arguments: its ``args``.

    """

    name: str
    thread: tuple[str, str]
    start_ns: int
    end_ns: int
    arguments: Mapping[str, Any] = {}

    @property
    def correlation(self) -> int | None:
        """What joins a launch to its kernels."""
        number = self.arguments.get("correlation")
        return number if isinstance(number, int) else None


class Range(NamedTuple):
    """The range of an action.

    Attributes:
        action: what the range stands for.
        step: the training step.
        span: the range itself.

    """

    action: Action
    step: Step
    span: Span


def holders(ranges: Sequence[Range], spans: Sequence[Span]) -> list[int | None]:
    """Return the range that each span starts in, by its place in ``ranges``.

    Of several it is the innermost of the span's own thread, or else the one that started last: autograd runs the
    backward on a thread of its own.
    """
    starts = sorted(range(len(ranges)), key=lambda i: ranges[i].span.start_ns)
    found: list[int | None] = [None] * len(spans)
    open_ranges: list[int] = []
    coming = 0
    for place in sorted(range(len(spans)), key=lambda i: spans[i].start_ns):
        at_ns = spans[place].start_ns
        while coming < len(starts) and ranges[starts[coming]].span.start_ns <= at_ns:
            open_ranges.append(starts[coming])
            coming += 1
        open_ranges = [index for index in open_ranges if ranges[index].span.end_ns >= at_ns]
        own = [index for index in open_ranges if ranges[index].span.thread == spans[place].thread]
        inside = own or open_ranges
        found[place] = inside[-1] if inside else None
    return found


def merged_ns(intervals: Iterable[tuple[int, int]]) -> int:
    """Return how long at least one of some intervals (start, end) lasts."""
    total_ns, until_ns = 0, None
    for start_ns, end_ns in sorted(intervals):
        if until_ns is None or start_ns > until_ns:
            total_ns, until_ns = total_ns + end_ns - start_ns, end_ns
        elif end_ns > until_ns:
            total_ns, until_ns = total_ns + end_ns - until_ns, end_ns
    return total_ns
