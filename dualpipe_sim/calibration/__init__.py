"""Costs out of real runs: traces of torch.profiler and timelines in, medians by stage and kind out.

Imports ``simulation``, which it compares runs with, and ``experiment``, ``costs``, ``graph``, ``order``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from dualpipe_sim.calibration.actions import Names
from dualpipe_sim.calibration.costs_file import format_costs, write_costs
from dualpipe_sim.calibration.files import is_json, parse_json, read_maybe_gzipped
from dualpipe_sim.calibration.fit import Calibration, Sample, Timed, fit
from dualpipe_sim.calibration.kineto import add_trace
from dualpipe_sim.calibration.recording import Recording
from dualpipe_sim.calibration.timeline_csv import add_timeline

__all__ = ["Calibration", "Recording", "Sample", "Timed", "calibrate", "format_costs", "read_recording", "write_costs"]


def calibrate(
    files: Sequence[str | Path], *, maps: Iterable[str] = (), warm_up: int = 1, pipes: int | None = None
) -> Calibration:
    r"""Measure costs in a run of a pipeline.

    >>> _ = Path("run.csv").write_text("rank,lane,task,start_s,end_s\n0,compute,0F0,0,1\n0,compute,0B0,1,3\n")
    >>> calibrate(["run.csv"]).ops[0]["B"].time.median_s
    2.0

    Args:
        files: traces of torch.profiler with ``PP:`` ranges, one a rank, or timelines as CSV; plain or gzipped.
        maps: names of other ranges, each ``REGEX=ACTION``, such as ``Forward (\d+)={rank}F\1``.
        warm_up: how many first steps to leave out, where there are more.
        pipes: how many equally long pipes the stages make up; None to find out.

    Raises:
        UserError: a file that is neither, or files without any op; one line that says what is wrong.

    """
    return fit(read_recording(files, maps), warm_up=warm_up, pipes=pipes)


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
        text = read_maybe_gzipped(path)
        if is_json(text):
            add_trace(recording, parse_json(text, source), source, names)
        else:
            add_timeline(recording, text, source)
    recording.check_any()
    return recording
