"""A timeline as one trace a rank for Holistic Trace Analysis, https://github.com/facebookresearch/HolisticTraceAnalysis.

HTA is made for torch.profiler's traces of GPUs: here a lane is a CUDA stream, a phase a kernel, and each kernel has its
launch on the CPU, where a range named as torch names it (``PP:0F7``) stands around what a task launches. Communication
kernels are named as NCCL's are. HTA counts in whole microseconds.

A launch and its kernel belong together by their ``correlation``, a number that both have and no other. In a simulation
nothing is launched, so launches are made up: a phase's at the beginning of its task's range, a transfer's at its start.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from dualpipe_sim.base.files import made_folder, written_whole
from dualpipe_sim.errors import UserError
from dualpipe_sim.export.spans import Span, phases, tasks, transfers
from dualpipe_sim.graph.timeline import Timeline

Event: TypeAlias = "dict[str, Any]"

_STREAMS = {"compute": 7, "alltoall": 20, "send": 1000, "recv": 2000}
_MARK_STREAM = 6
_GPU, _CPU = 0, 1
_ISSUES_TASKS, _ISSUES_TRANSFERS = 1, 2
_FIRST_CORRELATION = 1_000_000
"""HTA shrinks these numbers' type to what they need, then puts places of events beside them (0.5 with pandas 3)."""
_HEAD_START_US = 2
"""The CPU launches a task when the one before it starts, and the first one this long before time 0."""


class _Kernel(NamedTuple):
    """A kernel and when it is launched, in microseconds of the trace."""

    name: str
    stream: int
    launch_us: int
    start_us: int
    end_us: int
    thread: int = _ISSUES_TASKS


class _Range(NamedTuple):
    """What the CPU is busy issuing, in microseconds of the trace."""

    name: str
    start_us: int
    end_us: int


def write_hta(timeline: Timeline, folder: str | Path) -> None:
    """Write ``rank0.json``, ``rank1.json``, … into a folder, which is made if need be.

    >>> from pathlib import Path
    >>> from dualpipe_sim import simulate
    >>> write_hta(simulate("figure5", micro_batches=16).played, "traces")
    >>> len(list(Path("traces").iterdir()))
    8

    Raises:
        UserError: the folder cannot be written to, or it holds other traces, which HTA would read with these.

    """
    target = _folder_for(timeline, Path(folder))
    end_us = _us(max(span.end_ns for span in tasks(timeline)))
    kernels = _kernels(timeline, end_us)
    ranges = _ranges(timeline)
    for rank in range(timeline.ranks):
        with written_whole(target / _name(rank)) as part, part.open("w", encoding="utf-8", newline="\n") as file:
            # HTA finds the rank by its text, with the space before the number.
            file.write(f'{{"schemaVersion": 1, "distributedInfo": {{"rank": {rank}}}, "traceEvents": [\n')
            step = _Range("ProfilerStep#0", 0, end_us + 1)
            file.write(",\n".join(json.dumps(event) for event in _events([step, *ranges[rank]], kernels[rank])))
            file.write("\n]}\n")


def _name(rank: int) -> str:
    return f"rank{rank}.json"


def _folder_for(timeline: Timeline, folder: Path) -> Path:
    ours = {_name(rank) for rank in range(timeline.ranks)}
    try:
        there = sorted(path.name for path in made_folder(folder).iterdir() if path.suffix in (".json", ".gz"))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror or error}") from error
    for name in there:
        if name not in ours:
            raise UserError(f"{folder}: holds {name}, which HTA would read with these traces; name another folder")
    return folder


def _us(ns: int) -> int:
    """Return a moment in whole microseconds of the trace; what touches still touches."""
    return (ns + 500) // 1000 + _HEAD_START_US


def _ranges(timeline: Timeline) -> list[list[_Range]]:
    """Return what the CPU of each rank is busy issuing: a task from the start of the one before it on."""
    ranges: list[list[_Range]] = [[] for _ in range(timeline.ranks)]
    for span in tasks(timeline):
        ours = ranges[span.rank]
        start = ours[-1].end_us if ours else 0
        ours.append(_Range(f"PP:{span.action}", start, _us(span.start_ns)))
    return ranges


def _kernels(timeline: Timeline, end_us: int) -> list[list[_Kernel]]:
    """Return each rank's kernels: phases, transfers, and a mark at either end, where HTA would cut idle time off."""
    kernels = [
        [_Kernel("Memset (Device)", _MARK_STREAM, at, at, at + 1) for at in (_us(0), end_us)]
        for _ in range(timeline.ranks)
    ]
    launches = [issued.start_us for of_rank in _ranges(timeline) for issued in of_rank]
    for task, span in zip(timeline.graph.task.tolist(), phases(timeline), strict=True):
        # HTA adds up what has the same name. A phase is named by what it does, a whole task by stages and kinds.
        whole = span.name == span.action
        name = "+".join(f"{op.stage}{op.kind}" for op in span.ops) if whole else span.name
        kernels[span.rank].append(_kernel(span, name, launches[task], _ISSUES_TASKS))
    for span in (span for both in transfers(timeline) for span in both):
        # Likewise, ``0SEND_F7`` is named without its micro-batch.
        name = span.action.rstrip("0123456789")
        kernels[span.rank].append(_kernel(span, name, _us(span.start_ns), _ISSUES_TRANSFERS))
    return kernels


def _kernel(span: Span, name: str, launch_us: int, thread: int) -> _Kernel:
    # As NCCL's own kernels are named, so that HTA takes them for communication, and calibration an op's own for its.
    kinds = {"compute": "", "alltoall": "ncclKernel_AllToAll "}
    name = f"{kinds.get(span.lane, 'ncclKernel ')}{name}"
    return _Kernel(name, _STREAMS[span.lane] + span.row, launch_us, _us(span.start_ns), _us(span.end_ns), thread)


def _events(ranges: list[_Range], kernels: list[_Kernel]) -> Iterator[Event]:
    """Yield the CPU's ranges first (HTA takes the event at index 0 for none), then each launch and its kernel."""
    for name, start, end in ranges:
        yield _event(name, "user_annotation", _CPU, _ISSUES_TASKS, start, end, {})
    for correlation, kernel in enumerate(kernels, start=_FIRST_CORRELATION):
        is_mark = kernel.stream == _MARK_STREAM
        ids = {"correlation": correlation}
        launch = "cudaMemsetAsync" if is_mark else "cudaLaunchKernel"
        yield _event(launch, "cuda_runtime", _CPU, kernel.thread, kernel.launch_us, kernel.launch_us, ids)
        ids = {"device": _GPU, "stream": kernel.stream, **ids}
        category = "gpu_memset" if is_mark else "kernel"
        yield _event(kernel.name, category, _GPU, kernel.stream, kernel.start_us, kernel.end_us, ids)


def _event(name: str, category: str, process: int, thread: int, start_us: int, end_us: int, arguments: Event) -> Event:
    return {
        "ph": "X",
        "cat": category,
        "name": name,
        "pid": process,
        "tid": thread,
        "ts": start_us,
        "dur": end_us - start_us,
        "args": arguments,
    }
