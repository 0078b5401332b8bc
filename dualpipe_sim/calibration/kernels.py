"""A GPU's work: launches inside an action's range, joined to kernels by their correlation.

An op is the merged length of its kernels; between them the GPU waits for launches. NCCL's kernels inside its range are
its own all-to-alls and the like, since tensors between stages have ranges of their own. There a kernel of NCCL holds
the wait for its peer and the transfer, so that of both peers the shorter one is nearer to the transfer.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from dualpipe_sim.calibration.actions import PREFIX
from dualpipe_sim.calibration.recording import Ran, Recording
from dualpipe_sim.calibration.spans import Range, Span, holders, merged_ns
from dualpipe_sim.errors import UserError

_LAUNCHES = ("LaunchKernel", "GraphLaunch", "LaunchCooperativeKernel")


def add_gpu_work(
    recording: Recording,
    rank: int,
    ranges: list[Range],
    launches: list[Span],
    kernels: list[Span],
    messages: Sequence[Span] = (),
) -> None:
    """Add the ops and messages of a rank to a recording.

    Args:
        recording: what is added to.
        rank: the rank.
        ranges: its ops and messages.
        launches: what launches kernels.
        kernels: what ran on the GPU.
        messages: ranges of sends and receives by the process group's own name; where a range that is not torch's own
            of an op (``PP:``) holds one, that is a message between stages and no part of the op.

    Raises:
        UserError: no kernel can be joined to any launch.

    """
    kernels_of_launch: defaultdict[int, list[Span]] = defaultdict(list)
    for kernel in kernels:
        if kernel.correlation is not None:
            kernels_of_launch[kernel.correlation].append(kernel)
    launches = [launch for launch in launches if launch.correlation is not None]
    if ranges and not any(launch.correlation in kernels_of_launch for launch in launches):
        raise UserError(
            f"{recording.rank_source[rank]}: no kernel has the args.correlation of a launch; profile with "
            "ProfilerActivity.CPU and ProfilerActivity.CUDA"
        )
    launches_of_range: list[list[Span]] = [[] for _ in ranges]
    for launch, holder in zip(launches, holders(ranges, launches), strict=True):
        if holder is not None:
            launches_of_range[holder].append(launch)
    for one, launched in zip(ranges, _without_messages(ranges, launches_of_range, messages), strict=True):
        if any(_is_lost(launch, kernels_of_launch) for launch in launched):
            what = "ops" if one.action.cell else "messages"
            recording.left_out[f"{what} with launches whose kernels are not in the trace"] += 1
            continue
        work = [kernel for launch in launched for kernel in kernels_of_launch.get(launch.correlation or 0, ())]
        if one.action.cell:
            recording.ops.append(_op(rank, one, work, recording))
        else:
            _add_message(recording, rank, one, [kernel for kernel in work if _is_nccl(kernel)])


def _without_messages(
    ranges: list[Range], launched: list[list[Span]], messages: Sequence[Span]
) -> Iterator[list[Span]]:
    """Yield the launches of each range, without those of messages between stages."""
    starts = [message.start_ns for message in messages]
    for one, launches in zip(ranges, launched, strict=True):
        inside = messages[bisect_left(starts, one.span.start_ns) : bisect_left(starts, one.span.end_ns)]
        if one.span.name.startswith(PREFIX) or not inside:
            yield launches
            continue
        yield [
            launch
            for launch in launches
            if not any(
                message.thread == launch.thread and message.start_ns <= launch.start_ns <= message.end_ns
                for message in inside
            )
        ]


def _is_lost(launch: Span, kernels_of_launch: Mapping[int, list[Span]]) -> bool:
    return any(word in launch.name for word in _LAUNCHES) and launch.correlation not in kernels_of_launch


def _is_nccl(kernel: Span) -> bool:
    return kernel.name.startswith("nccl")


def _is_alltoall(kernel: Span) -> bool:
    """Whether a kernel inside an op's range is its all-to-all, which NCCL makes of sends and receives."""
    return _is_nccl(kernel) and ("SendRecv" in kernel.name or "AllToAll" in kernel.name)


def _op(rank: int, one: Range, work: Sequence[Span], recording: Recording) -> Ran:
    """Return an op as its kernels: compute and its own all-to-alls, and what other NCCL kernels make it wait inside.

    What other ones do after its last kernel, as gradients' reductions, nobody waits for.
    """
    origin_ns = recording.origin_ns or 0
    host_s = (one.span.start_ns - origin_ns) / 1e9, (one.span.end_ns - origin_ns) / 1e9
    own = [(kernel.start_ns, kernel.end_ns) for kernel in work if not _is_nccl(kernel) or _is_alltoall(kernel)]
    if not own:
        return Ran(rank, one.step, one.action, math.nan, math.nan, 0.0, host_s=host_s)
    start_ns, end_ns = min(start for start, _ in own), max(end for _, end in own)
    if any(kernel.end_ns > end_ns for kernel in work):
        recording.left_out["ops whose last NCCL kernels, after all others, do not count as their time"] += 1
    inside = [(max(kernel.start_ns, start_ns), min(kernel.end_ns, end_ns)) for kernel in work]
    busy_ns = merged_ns((begin, end) for begin, end in inside if begin < end)
    start_s, end_s = (start_ns - origin_ns) / 1e9, (end_ns - origin_ns) / 1e9
    return Ran(rank, one.step, one.action, start_s, end_s, busy_ns / 1e9, host_s=host_s)


def _add_message(recording: Recording, rank: int, one: Range, work: Sequence[Span]) -> None:
    tensor, side = one.action.tensor, one.action.side
    if not work or tensor is None or side is None:
        return
    length_s = merged_ns((kernel.start_ns, kernel.end_ns) for kernel in work) / 1e9
    recording.kernels_s.setdefault((one.step, tensor), {}).setdefault(side, []).append(length_s)
    if side == "RECV":
        there_ns = max(kernel.end_ns for kernel in work)
        recording.arrived_s[rank, one.step, tensor] = (there_ns - (recording.origin_ns or 0)) / 1e9
