"""Costs out of real runs: traces of torch.profiler and timelines in, medians by stage and kind out.

Imports ``simulation``, which it compares runs with, and ``experiment``, ``costs``, ``graph``, ``order``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dualpipe_sim.base.files import read_unpacked
from dualpipe_sim.base.json_text import is_json, parse_json
from dualpipe_sim.calibration.actions import Names
from dualpipe_sim.calibration.costs_file import format_costs, write_costs
from dualpipe_sim.calibration.fit import Calibration, Sample, Timed, fit
from dualpipe_sim.calibration.kineto import add_trace, add_unnamed
from dualpipe_sim.calibration.loaded import fit_replayed
from dualpipe_sim.calibration.memory_csv import is_memory, read_memory
from dualpipe_sim.calibration.recording import Recording
from dualpipe_sim.calibration.timeline_csv import add_timeline
from dualpipe_sim.errors import UserError
from dualpipe_sim.runtimes.registry import IDEAL, RUNTIMES

__all__ = ["Calibration", "Recording", "Sample", "Timed", "calibrate", "format_costs", "read_recording", "write_costs"]


def calibrate(
    files: Sequence[str | Path],
    *,
    maps: Iterable[str] = (),
    warm_up: int = 1,
    pipes: int | None = None,
    runtime: str | None = None,
    runtime_options: Mapping[str, object] | None = None,
    step_time_s: float | None = None,
) -> Calibration:
    r"""Measure costs in a run of a pipeline.

    >>> _ = Path("run.csv").write_text("rank,lane,task,start_s,end_s\n0,compute,0F0,0,1\n0,compute,0B0,1,3\n")
    >>> calibrate(["run.csv"]).ops[0]["B"].time.median_s
    2.0

    Args:
        files: traces of torch.profiler, one a rank, or timelines as CSV, and memory as CSV; plain or gzipped.
        maps: names of other ranges, each ``REGEX=ACTION``, such as ``Forward (\d+)={rank}F\1``.
        warm_up: how many first steps to leave out, where there are more.
        pipes: how many equally long pipes the stages make up; None to find out.
        runtime: the runtime that ran it (``torch``, ``megatron``, ``deepseek``): its program is replayed, so that
            waiting for other ranks counts as nobody's time, and what load and the host add is told apart.
        runtime_options: that runtime's options.
        step_time_s: what a step takes where nothing records it; what a profiler adds to the host's time is taken out.

    Raises:
        UserError: a file that is neither, or files without any op, or a runtime that has no such program; one line
            that says what is wrong.

    """
    recording = read_recording(files, maps)
    if runtime is None or runtime == IDEAL:
        if step_time_s is not None:
            raise UserError("--step-time needs --runtime: only a replayed program tells the host's time apart")
        return fit(recording, warm_up=warm_up, pipes=pipes)
    use = RUNTIMES.get(runtime).with_options(runtime_options or {})
    return fit_replayed(recording, use, warm_up=warm_up, pipes=pipes, step_time_s=step_time_s)


def read_recording(files: Sequence[str | Path], maps: Iterable[str] = ()) -> Recording:
    r"""Return what traces and timelines say; arguments and errors as for :func:`calibrate`.

    >>> _ = Path("run.csv").write_text("rank,lane,task,start_s,end_s\n0,compute,0F0,0,1\n0,compute,0B0,1,3\n")
    >>> [(ran.action.text, ran.end_s) for ran in read_recording(["run.csv"]).ops]
    [('0F0', 1.0), ('0B0', 3.0)]
    """
    names, recording = Names.of(maps), Recording()
    for path in files:
        source = str(path)
        recording.sources.append(source)
        text = read_unpacked(path)
        if is_json(text):
            add_trace(recording, parse_json(text, source), source, names)
        elif is_memory(text):
            recording.memory += read_memory(text, source)
        else:
            add_timeline(recording, text, source)
    add_unnamed(recording)
    recording.check_any()
    return recording
