"""Torch's own 1F1B in a trace: it marks none of its ops, so they are found by what they are.

Between messages, a run of operations that autograd recorded is a forward, with the loss behind it, and a run of what
autograd evaluates is a backward (``torch.distributed.pipelining.schedules.Schedule1F1B``). Two forwards or two
backwards in a row have a message between them. So the order is read off, and must be that of 1F1B.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from dualpipe_sim.calibration.actions import parse_action
from dualpipe_sim.calibration.spans import Range, Span
from dualpipe_sim.errors import UserError

_EVALUATED = "autograd::engine::evaluate_function"
_MESSAGE = re.compile(r"\w+:(coalesced|send|recv)\b.*")


class Segment(NamedTuple):
    """A forward or backward without a name.

    Attributes:
        step: the profiler's number of its step, or None where it gave none.
        kind: ``F`` or ``B``.
        span: what it spans on the host.

    """

    step: int | None
    kind: str
    span: Span


class Unnamed(NamedTuple):
    """What a rank did, as far as a trace without marks says, in the order in which it was issued."""

    rank: int
    source: str
    segments: list[Segment]


def is_message(name: str) -> bool:
    """Return whether a range is that of messages between ranks, as torch's process groups name them."""
    return _MESSAGE.fullmatch(name) is not None


def segments_of(
    operations: Sequence[Span],
    recorded_ns: Iterable[int],
    messages: Iterable[Span],
    steps: Sequence[tuple[int, Span]],
) -> list[Segment]:
    """Return the forwards and backwards that operations make up.

    Args:
        operations: CPU operations of all threads.
        recorded_ns: when an operation of a forward was recorded that a backward belongs to.
        messages: ranges of sends and receives.
        steps: the profiler's ranges of steps, with their numbers; what is outside of them is left out.

    """
    recorded = sorted(recorded_ns)
    found: list[Segment] = []
    cut = True
    events = [(span.start_ns, 1, span) for span in _outermost(operations)]
    events += [(span.start_ns, 0, span) for span in messages]
    for at_ns, is_operation, span in sorted(events, key=lambda event: event[:2]):
        if not is_operation:
            cut = True
            continue
        kind = "B" if span.name.startswith(_EVALUATED) else "F"
        if kind == "F" and bisect(recorded, span.end_ns) == bisect(recorded, span.start_ns - 1):
            continue  # nothing that a gradient goes through: it prepares a message, or adds up a loss
        step = next((number for number, one in steps if one.start_ns <= at_ns < one.end_ns), None)
        if steps and step is None:
            continue
        if cut or found[-1].kind != kind:
            found.append(Segment(step, kind, span))
            cut = False
        else:
            found[-1] = found[-1]._replace(span=found[-1].span._replace(end_ns=span.end_ns))
    return found


def _outermost(operations: Sequence[Span]) -> list[Span]:
    """Return the operations that are not part of another one of their thread."""
    found: list[Span] = []
    until_ns: dict[tuple[str, str], int] = {}
    for span in sorted(operations, key=lambda span: (span.start_ns, -span.end_ns)):
        if span.start_ns >= until_ns.get(span.thread, 0):
            until_ns[span.thread] = span.end_ns
            found.append(span)
    return found


def named(ranks: Sequence[Unnamed]) -> dict[int, list[Range]]:
    """Return the ranges of ops, by rank.

    Raises:
        UserError: ranks that did not run 1F1B.

    """
    first = min(ranks, key=lambda one: one.rank)
    if not first.segments:
        raise UserError(f"{first.source}: {_NOT_FOUND}; nothing in it has a backward")
    micro_batches = _micro_batches(first, alone=len(ranks) == 1)
    return {one.rank: list(_ranges(one, micro_batches)) for one in ranks}


_NOT_FOUND = "no range of an op was found, and what ran is not torch's 1F1B"


def _micro_batches(one: Unnamed, *, alone: bool) -> int:
    """Return the micro-batches of a step; where nothing marks steps, one is over when nothing is in flight any more.

    On a last rank that is so after each micro-batch: one that is alone is taken for a single step.
    """
    forwards = ahead = 0
    of_first = [segment.kind for segment in one.segments if segment.step == one.segments[0].step]
    last = alone and of_first[:2] == ["F", "B"]
    for kind in of_first:
        ahead += 1 if kind == "F" else -1
        forwards += kind == "F"
        if not (ahead or last):
            break
    return forwards


def _ranges(one: Unnamed, micro_batches: int) -> Iterator[Range]:
    """Yield the ranges of a rank: as many forwards as it runs ahead, then backwards and forwards in turn, and the rest.

    Raises:
        UserError: the rank ran them otherwise.

    """
    kinds = "".join(segment.kind for segment in one.segments)
    ahead = min(micro_batches, len(kinds) - len(kinds.lstrip("F")))
    expected = "F" * ahead + "BF" * (micro_batches - ahead) + "B" * ahead
    if not expected or kinds != expected * (len(kinds) // len(expected)):
        raise UserError(
            f"{one.source}: {_NOT_FOUND}; rank {one.rank} of {micro_batches} micro-batches would run "
            f"{expected[:40]}, but ran {kinds[:40]}"
        )
    for place, (step, kind, span) in enumerate(one.segments):
        number, within = divmod(place, len(expected))
        text = f"{one.rank}{kind}{expected[:within].count(kind)}"
        yield Range(parse_action(text), (number if step is None else step, 0), span._replace(name=text))
