"""What is done with a recorded run, whatever kind of file it is in: costs out of it, used, and a comparison with it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from zlib import crc32

from dualpipe_sim import simulate
from dualpipe_sim.calibration import Calibration, calibrate, write_costs
from dualpipe_sim.calibration.compare_run import compare_run
from dualpipe_sim.config import load_experiment
from dualpipe_sim.config.measured import read_measured
from dualpipe_sim.errors import UserError

RAN: dict[str, object] = {
    "pipeline": {"ranks": 2, "micro_batches": 3},
    "schedule": "1f1b",
    "costs": {"forward": 1.0, "backward": 2.0, "transfer": 0.25},
}
"""The configuration of what ran."""


def used(contents: Mapping[str, bytes]) -> float:
    """Return the makespan of a run with the costs that some files hold, all numbers on the way being numbers.

    Args:
        contents: what the files hold, by name.

    Raises:
        UserError: what is wrong with the files, said by whoever reads them first.

    """
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in contents]
        for file, content in zip(files, contents.values(), strict=True):
            file.write_bytes(content)
        return _used(files, crc32(next(iter(contents.values()))))


def _used(files: list[Path], way: int) -> float:
    runtime = ("torch", "megatron", None, None, None, None)[way % 6]
    step_time_s = 20.0 if runtime and way % 7 == 0 else None
    refused = None
    try:
        _sound(load_experiment(RAN), files)
    except UserError as error:
        refused = error
    measured = calibrate(files, runtime=runtime, warm_up=way % 3, step_time_s=step_time_s)
    _are_times(measured)
    costs = files[0].with_name("costs.yaml")
    write_costs(measured, costs)
    try:
        read_measured(costs)
    except UserError as error:
        raise AssertionError("costs that were written cannot be read") from error
    makespan_s = simulate({**RAN, "costs": {"kind": "measured", "file": str(costs)}}).makespan_s
    assert makespan_s is not None
    assert isfinite(makespan_s)
    assert makespan_s >= 0
    if refused is not None:
        raise refused
    return makespan_s


def _sound(experiment: object, files: list[Path]) -> None:
    compared = compare_run(experiment, files).to_dict()  # type: ignore[arg-type]
    _all_finite(compared)


def _are_times(measured: Calibration) -> None:
    timed = [one for kinds in measured.ops.values() for one in kinds.values()] + list(measured.pairs.values())
    for one in timed:
        for seconds in (*one.time[:3], one.launch_s, one.cold_s or 0.0, one.host_s, one.host_after_s):
            assert isfinite(seconds), one
            assert seconds >= 0, one
    if measured.transfer is not None:
        assert all(isfinite(seconds) and seconds >= 0 for seconds in measured.transfer[:3]), measured.transfer
    assert all(map(isfinite, measured.load or ()))


def _all_finite(data: object) -> None:
    if isinstance(data, dict):
        for key, value in data.items():
            _all_finite(value)
            if key in ("makespan_s", "busy_s_by_rank", "length_s", "median_s") and isinstance(value, dict):
                assert min(value["simulated"], value["measured"]) >= 0, (key, value)
    elif isinstance(data, (list, tuple)):
        for one in data:
            _all_finite(one)
    elif isinstance(data, float):
        assert isfinite(data), data
