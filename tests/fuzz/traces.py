"""Traces of one rank as torch's profiler writes them, on a GPU, on a CPU, and without names of ops: damaged.

An event loses a key, or has a number where none can be; clocks run backwards, ops lie inside each other, everything is
there twice; and the file is cut off, packed, packed twice, or a bomb. The other rank's trace is whole.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

from dualpipe_sim import simulate
from tests.fuzz.damage import STRANGE, damaged
from tests.fuzz.kind import Kind
from tests.fuzz.recorded import RAN, used

Event: TypeAlias = dict[str, Any]

_BASE_NS = 1_790_857_026_000_000_000
_STEP_US, _STEPS = 60_000_000.0, 2


@cache
def _rows() -> tuple[tuple[int, str, str, float, float], ...]:
    played = simulate(RAN).played
    return tuple((int(rank), str(lane), str(task), float(at), float(to)) for rank, lane, task, at, to in played.rows())


def _event(name: str, at: float, to: float, category: str = "user_annotation", **more: object) -> Event:
    return {"ph": "X", "cat": category, "name": name, "pid": 9, "tid": 1, "ts": at, "dur": to - at, **more}


def _on_gpu(rank: int, begin: float, events: list[Event]) -> None:
    for one, lane, task, start_s, end_s in _rows():
        if one == rank and lane in ("compute", "recv", "send"):
            at, number = begin + start_s * 1e6, {"correlation": len(events) + 1000 * rank}
            events.append(_event(f"PP:{task}", at, at + 20, args={}))
            events.append(_event("cudaLaunchKernel", at + 5, at + 6, "cuda_runtime", args=number))
            name = "gemm" if lane == "compute" else "ncclDevKernel_SendRecv"
            events.append(_event(name, at + 10, begin + end_s * 1e6, "kernel", pid=0, tid=7, args=number))


def _on_cpu(rank: int, begin: float, events: list[Event]) -> None:
    for one, lane, task, start_s, end_s in _rows():
        at, to = begin + start_s * 1e6, begin + end_s * 1e6
        if one == rank and lane == "compute":
            events.append(_event(f"PP:{task}", at, to))
        elif one == rank and lane == "recv":
            events += [_event(f"PP:{task}", at, at + 5), _event("gloo:recv 1<-0", at + 1, to)]


def _unnamed(rank: int, begin: float, events: list[Event]) -> None:
    for one, lane, task, start_s, end_s in _rows():
        at, to = begin + start_s * 1e6, begin + end_s * 1e6
        if one == rank and lane == "compute":
            name = "aten::linear" if "F" in task else "autograd::engine::evaluate_function: X"
            events.append(_event(name, at, to, "cpu_op"))
            events += [_event("fwdbwd", at + 1, at + 1, "fwdbwd", ph="s")] * ("F" in task)
            events.append(_event("gloo:send 0->1", to, to + 1))


@cache
def _whole(form: Callable[[int, float, list[Event]], None], rank: int) -> str:
    events: list[Event] = []
    for step in range(_STEPS):
        events.append(_event(f"ProfilerStep#{step}", step * _STEP_US, (step + 1) * _STEP_US))
        form(rank, step * _STEP_US, events)
    header = {"schemaVersion": 1, "distributedInfo": {"rank": rank, "world_size": 2}, "baseTimeNanoseconds": _BASE_NS}
    return json.dumps({**header, "traceEvents": events})


_FORMS = (_on_gpu, _on_cpu, _unnamed)


def _make(chance: Random) -> bytes:
    trace: dict[str, Any] = json.loads(_whole(chance.choice(_FORMS), 0))
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        events = trace["traceEvents"]
        if isinstance(events, list) and all(isinstance(event, dict) and event for event in events or [None]):
            chance.choice(_DAMAGES)(trace, events, chance)
    content = _text(trace, chance).encode("utf-8", "surrogatepass")
    if chance.random() < 0.25:
        content = damaged(content, chance)
    return _packed(content, chance)


def _text(trace: object, chance: Random) -> str:
    text = json.dumps(trace)
    kind = chance.random()
    if kind < 0.02:
        return "[" * chance.choice((10, 1_000, 100_000)) + text
    if kind < 0.04:
        return '{"traceEvents": ' + "[" * 300 + "]" * 300 + "}"
    return text


def _packed(content: bytes, chance: Random) -> bytes:
    kind = chance.random()
    if kind < 0.15:
        packed = gzip.compress(content, 1)
        return damaged(packed, chance) if kind < 0.05 else packed[: len(packed) // 2] if kind < 0.06 else packed
    if kind < 0.17:
        return gzip.compress(gzip.compress(content))
    return _bomb() * 40 if kind < 0.1725 else content


@cache
def _bomb() -> bytes:
    return gzip.compress(bytes(2**24))


# --- damage ----------------------------------------------------------------------------------------------------------

_ODD: tuple[object, ...] = (
    None, True, [], {}, [[]], "", "1", -1, 0, 1e300, -1e300, 5e-324, float("nan"), float("inf"), 10**17, 10**30,
    10**400, {"a": {"b": {"c": {"d": {"e": [1]}}}}}, "x" * 5_000, 2.0, *STRANGE,
)  # fmt: skip
_NAMES = (
    "PP:0F0", "PP:1F2", "PP:(0F1;0B0)OVERLAP_F_B", "PP:99F0", "PP:1048575F0", "PP:0F99999999999999999999",
    "PP:0RECV_B1", "PP:0UNSHARD", "PP:", "PP:0F0.1", "PP:0R1", "PP:0O1", "PP:0S1", "PP:0I0", "PP:0W0", "Forward 1",
    "Backward 7", "ProfilerStep#1",
    f"ProfilerStep#{'9' * 5_000}", f"Forward {'9' * 5_000}", "nccl:recv 0<-1", "gloo:send", "nccl:coalesced",
)  # fmt: skip


def _a_value(_trace: Event, events: list[Any], chance: Random) -> None:
    event = chance.choice(events)
    event[chance.choice(("ts", "dur", "name", "cat", "ph", "pid", "tid", "args"))] = chance.choice(_ODD)


def _an_argument(_trace: Event, events: list[Any], chance: Random) -> None:
    event = chance.choice(events)
    key = chance.choice(("correlation", "finished", "stream"))
    event["args"] = {key: chance.choice((*_ODD, False, 1, 2, 3))}


def _a_key_less(_trace: Event, events: list[Any], chance: Random) -> None:
    event = chance.choice(events)
    event.pop(chance.choice(list(event)), None)


def _a_name(_trace: Event, events: list[Any], chance: Random) -> None:
    for event in chance.sample(events, min(len(events), chance.randint(1, 4))):
        event["name"] = chance.choice(_NAMES)


def _the_header(trace: Event, _events: list[Any], chance: Random) -> None:
    key = chance.choice(("distributedInfo", "baseTimeNanoseconds", "traceEvents", "distributedInfo.rank"))
    if key == "distributedInfo.rank":
        trace["distributedInfo"] = {"rank": chance.choice((*_ODD, 1, 2, 2**40, -1))}
    else:
        trace[key] = chance.choice(_ODD)


def _an_event(_trace: Event, events: list[Any], chance: Random) -> None:
    place = chance.randrange(len(events))
    kind = chance.randrange(4)
    if kind == 0:
        del events[place]
    elif kind == 1:
        events.insert(place, deepcopy(chance.choice(events)))
    elif kind == 2:
        chance.shuffle(events)
    else:
        del events[place : place + chance.randint(1, 20)]


def _clocks(_trace: Event, events: list[Any], chance: Random) -> None:
    """Let the time of some events be another: all later, backwards, stretched, or all at once."""
    kind, by = chance.randrange(4), chance.choice((1.0, 1e3, 1e6, -1e6, 1e9, 1e12, 1e17))
    for event in events[chance.randrange(len(events)) :]:
        at = event.get("ts")
        if isinstance(at, float):
            event["ts"] = (at + by, -at, at * by, by)[kind]


def _lengths(_trace: Event, events: list[Any], chance: Random) -> None:
    by = chance.choice((0.0, -1.0, 10.0, 1e6, 1e12, 1e-9))
    for event in events[chance.randrange(len(events)) :]:
        if isinstance(event.get("dur"), float):
            event["dur"] *= by


def _twice(_trace: Event, events: list[Any], chance: Random) -> None:
    shift = chance.choice((0.0, 1.0, 1e6, _STEP_US))
    more = deepcopy([event for event in events if isinstance(event.get("ts"), float)])
    for event in more:
        event["ts"] += shift
    events += more


def _one_thing(_trace: Event, events: list[Any], chance: Random) -> None:
    events[:] = [chance.choice(_ODD)]


_DAMAGES = (
    _a_value, _a_value, _a_value, _an_argument, _a_key_less, _a_name, _a_name, _the_header, _an_event, _an_event,
    _clocks, _clocks, _lengths, _twice, _one_thing,
)  # fmt: skip


def _attempt(path: Path) -> float:
    content = path.read_bytes()
    form = _unnamed if b"aten::" in content else _on_cpu if b"gloo:" in content else _on_gpu
    return used({"case.json": content, "other_rank1.json": _whole(form, 1).encode()})


KIND = Kind("traces", ".json", _make, _attempt, in_tests=50, in_long=10_000)
