"""A timeline as one trace a rank for Holistic Trace Analysis, https://github.com/facebookresearch/HolisticTraceAnalysis.

HTA is made for torch.profiler's traces of GPUs: here a lane is a CUDA stream, a phase a kernel, and each kernel has its
launch on the CPU, where a range named as torch names it (``PP:0F7``) stands around what a task launches. Communication
kernels are named as NCCL's are. HTA counts in whole microseconds.

A launch and its kernel belong together by their ``correlation``, a number that both have and no other. A task's range
is what its host takes to issue it, and its phases are launched where that begins. A host that takes no time issues the
whole step before it begins, a task each microsecond. A transfer is launched when it starts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from dualpipe_sim.base.files import made_folder, written_together
from dualpipe_sim.errors import UserError
from dualpipe_sim.export.spans import Span, phases, tasks, transfers
from dualpipe_sim.graph.timeline import Timeline

Event: TypeAlias = "dict[str, Any]"

_STREAMS = {"compute": 7, "alltoall": 20, "copy": 21, "data": 22, "send": 1000, "recv": 2000}
_MARK_STREAM = 6
_GPU, _CPU = 0, 1
_ISSUES_TASKS, _ISSUES_TRANSFERS = 1, 2
_FIRST_CORRELATION = 1_000_000
"""HTA shrinks these numbers' type to what they need, then puts places of events beside them (0.5 with pandas 3)."""
_HEAD_START_US = 2
"""The CPU has this long, and a microsecond for each task, before time 0: a host that takes no time is so far ahead."""


class _Kernel(NamedTuple):
    """A kernel and when it is launched, in microseconds of the timeline."""

    name: str
    stream: int
    launch_us: int
    start_us: int
    end_us: int
    thread: int = _ISSUES_TASKS


class _Range(NamedTuple):
    """What the CPU is busy issuing, in microseconds of the timeline."""

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
    head_us = _HEAD_START_US + int(np.diff(timeline.first_task_of_rank).max())
    ranges = _ranges(timeline, head_us)
    kernels = _kernels(timeline, ranges, end_us)
    with written_together(*(target / _name(rank) for rank in range(timeline.ranks))) as parts:
        for rank, part in enumerate(parts):
            with part.open("w", encoding="utf-8", newline="\n") as file:
                # HTA finds the rank by its text, with the space before the number.
                file.write(f'{{"schemaVersion": 1, "distributedInfo": {{"rank": {rank}}}, "traceEvents": [\n')
                step = _Range("ProfilerStep#0", -head_us, end_us + 1)
                events = _events([step, *ranges[rank]], kernels[rank])
                file.write(",\n".join(json.dumps(event | {"ts": event["ts"] + head_us}) for event in events))
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
    """Return a moment in whole microseconds; what touches still touches."""
    return (ns + 500) // 1000


def _ranges(timeline: Timeline, head_us: int) -> list[list[_Range]]:
    """Return what the CPU of each rank is busy issuing, and when, ahead by the head start that it has."""
    issue = timeline.graph.issue_of_task
    issued_s = np.zeros((2, len(timeline.rank))) if issue is None else np.stack(issue)
    issued_us = np.rint(1e6 * issued_s).astype(np.int64) - head_us + 1
    ranges: list[list[_Range]] = [[] for _ in range(timeline.ranks)]
    for span, begin_us, end_us in zip(tasks(timeline), *issued_us.tolist(), strict=True):
        ours = ranges[span.rank]
        start_us = max(begin_us, ours[-1].end_us) if ours else begin_us
        ours.append(_Range(f"PP:{span.action}", start_us, max(end_us, start_us + 1)))
    return ranges


def _kernels(timeline: Timeline, ranges: list[list[_Range]], end_us: int) -> list[list[_Kernel]]:
    """Return each rank's kernels: phases, transfers, and a mark at either end, where HTA would cut idle time off."""
    kernels = [
        [_Kernel("Memset (Device)", _MARK_STREAM, at, at, at + 1) for at in (_us(0), end_us)]
        for _ in range(timeline.ranks)
    ]
    launches = [issued.start_us for of_rank in ranges for issued in of_rank]
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
    kinds = {"compute": "", "alltoall": "ncclKernel_AllToAll ", "copy": "Memcpy "}
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
