"""Measured costs as a YAML file that says where each number comes from; ``config`` reads it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dualpipe_sim.base.files import written_whole
from dualpipe_sim.base.show import on_one_line
from dualpipe_sim.base.units import NUMBER, SECONDS, number_of
from dualpipe_sim.calibration.fit import Calibration, Sample, Timed

_UNITS = (("s", 1.0), ("ms", 1e3), ("us", 1e6))


def write_costs(calibration: Calibration, path: str | Path) -> None:
    r"""Write what ``costs: {kind: measured, file: …}`` reads.

    >>> from dualpipe_sim import simulate
    >>> from dualpipe_sim.calibration import calibrate
    >>> _ = Path("run.csv").write_text("rank,lane,task,start_s,end_s\n0,compute,0F0,0,1\n0,compute,0B0,1,3\n")
    >>> write_costs(calibrate(["run.csv"]), "costs.yaml")
    >>> costs = {"kind": "measured", "file": "costs.yaml"}
    >>> simulate(schedule="gpipe", ranks=1, micro_batches=4, costs=costs).makespan_s
    12.0

    Raises:
        UserError: the place cannot be written to.

    """
    with written_whole(path) as part:
        part.write_text(format_costs(calibration, Path(path).name), encoding="utf-8", newline="\n")


def format_costs(calibration: Calibration, name: str) -> str:
    r"""Return the file's text; ``name`` is what the file is called.

    >>> from dualpipe_sim.calibration import calibrate
    >>> _ = Path("run.csv").write_text("rank,lane,task,start_s,end_s\n0,compute,0F0,0,1\n0,compute,0B0,1,3\n")
    >>> text = format_costs(calibrate(["run.csv"]), "costs.yaml")
    >>> print(text[text.index("stages:") :], end="")
    stages:
      0:
        F: {time: 1 s, launch: 0 s, p5: 1 s, p95: 1 s, samples: 1}
        B: {time: 2 s, launch: 0 s, p5: 2 s, p95: 2 s, samples: 1}
    """
    return "".join(f"{line}\n" for line in (*map(on_one_line, _comments(calibration, name)), *_values(calibration)))


def _comments(calibration: Calibration, name: str) -> Iterator[str]:
    yield f"# Measured by `dualpipe-sim calibrate`. To use them: costs: {{kind: measured, file: {name}}}"
    yield f"# From {', '.join(' '.join(Path(source).name.split()) for source in calibration.sources)}"
    yield "#"
    yield f"# Medians over {_steps(calibration)}; 90 % of samples lie from p5 to p95."
    if calibration.load is None:
        yield "# launch: what an op takes beside its work, from when it could start: the host's time, gaps between"
        yield "# kernels; the mean, since most ops may have none and what counts is the sum."
    else:
        yield "# cold: on an idle GPU. Load makes it cold x (1 + beta x u) x (1 + gamma x q): u is how busy its GPU was"
        yield "# before, the last tau counting most, and q the share of it that a message stood beside."
        yield "# host: how long the host took to issue it; host_after: from then until the next one."
    if calibration.host_share is not None:
        yield f"# Without the profiler the host takes {calibration.host_share:.1%} of what was recorded, by the step"
        yield "# time that was given; these are its times without."
    if calibration.left_out:
        yield "#"
        yield "# Left out:"
        for what, count in sorted(calibration.left_out.items()):
            yield f"#   {count} {what}"


def _steps(calibration: Calibration) -> str:
    steps = number_of(calibration.steps, "step")
    before = calibration.warm_up
    return f"{steps} after {before} for warm-up" if before else steps


def _values(calibration: Calibration) -> Iterator[str]:
    yield ""
    yield "# chains of stages, equally long, each holding the whole model"
    yield f"pipes: {calibration.pipes}"
    if calibration.load is not None:
        beta, tau_s, gamma = calibration.load
        yield f"load: {{beta: {_factor(beta)}, tau: {_time(tau_s, 6)}, gamma: {_factor(gamma)}}}"
        yield "# what I and W take together over a full backward, where only these were measured"
        yield f"split: {calibration.split:.4g}"
    yield f"# {calibration.transfer_rule}"
    yield f"transfer: {_sample(calibration.transfer)}" if calibration.transfer else "transfer: {time: 0 s}"
    yield "stages:" if calibration.ops else "stages: {}"
    for stage, kinds in calibration.ops.items():
        yield f"  {stage}:"
        for kind, timed in kinds.items():
            yield f"    {kind}: {_timed(timed)}"
        if stage in calibration.memory:
            held = calibration.memory[stage]._asdict().items()
            yield f"    memory: {{{', '.join(f'{name}: {size_bytes:.0f}' for name, size_bytes in held)}}}"
    if calibration.pairs:
        yield "# overlapped pairs, by stage of the forward and of the backward"
        yield "pairs:"
        for (forward, backward), timed in calibration.pairs.items():
            yield f"  {forward}F;{backward}B: {_timed(timed)}"


def _timed(timed: Timed) -> str:
    if timed.cold_s is None:
        return _sample(timed.time, f", launch: {_time(timed.launch_s, 6)}")
    parts = {"cold": timed.cold_s, "host": timed.host_s, "host_after": timed.host_after_s}
    return _sample(timed.time, "".join(f", {key}: {_time(seconds, 12)}" for key, seconds in parts.items()))


def _sample(sample: Sample, more: str = "") -> str:
    spread = f"p5: {_time(sample.p5_s, 6)}, p95: {_time(sample.p95_s, 6)}, samples: {sample.samples}"
    return f"{{time: {_time(sample.median_s, 12)}{more}, {spread}}}"


def _factor(number: float) -> str:
    """Return a factor, none where it is smaller than any that is computed with."""
    return f"{number if number >= NUMBER.least else 0.0:.4g}"


def _time(seconds: float, digits: int) -> str:
    """Return a time in a fitting unit that reads back as the same to so many digits; none where it is too short."""
    seconds = seconds if seconds >= SECONDS.least else 0.0
    unit, size = next(((unit, size) for unit, size in _UNITS if seconds * size >= 1), _UNITS[-1 if seconds else 0])
    return f"{seconds * size:.{digits}g} {unit}"
