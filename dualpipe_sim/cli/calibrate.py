"""The command calibrate: costs out of real runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dualpipe_sim.cli.app import app, example
from dualpipe_sim.cli.arguments import Maps, Output, Runtime, RuntimeOptions, pairs
from dualpipe_sim.cli.terminal import line, print_table
from dualpipe_sim.errors import UserError

if TYPE_CHECKING:
    from dualpipe_sim.calibration import Calibration


@app.command(epilog=example("calibrate rank0.json rank1.json -o costs.yaml"))
def calibrate(  # noqa: PLR0913, PLR0917 - each is an option
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="TRACE", help="Traces of torch.profiler, one a rank, or timelines and memory as CSV; also .gz."
        ),
    ],
    output: Output,
    maps: Maps = None,
    warm_up: Annotated[
        int, typer.Option("--warm-up", min=0, help="First steps to leave out, where there are more.")
    ] = 1,
    pipes: Annotated[
        int | None, typer.Option("--pipes", min=1, help="Pipes that the stages make up; default: found out.")
    ] = None,
    step_time: Annotated[
        str | None,
        typer.Option("--step-time", metavar="TIME", help="A step without the profiler, whose share is taken out."),
    ] = None,
    runtime: Runtime = None,
    runtime_options: RuntimeOptions = None,
) -> None:
    """Measure costs in a real run: medians by stage and kind, transfers, launch overhead, as commented YAML."""
    from dualpipe_sim import calibration

    given = dict(pairs("--runtime-option", runtime_options, "version=2.11"))
    measured = calibration.calibrate(
        files,
        maps=maps or (),
        warm_up=warm_up,
        pipes=pipes,
        runtime=runtime,
        runtime_options=given,
        step_time_s=None if step_time is None else _seconds(step_time),
    )
    calibration.write_costs(measured, output)
    _print_calibration(measured)
    line(f"{output}: use it by costs: {{kind: measured, file: {output}}}")


def _seconds(text: str) -> float:
    from dualpipe_sim.base.units import SECONDS, quantity

    try:
        seconds = quantity(text, SECONDS, "a time like 434 ms")
    except ValueError as error:
        raise UserError(f"--step-time: {error}") from error
    if not seconds:
        raise UserError(f"--step-time: must be more than zero, like 434 ms, got {text!r}")
    return seconds


def _print_calibration(measured: Calibration) -> None:
    """Print a row for each stage and kind, and below it transfers and what was left out."""
    from dualpipe_sim.base.show import Table
    from dualpipe_sim.base.units import format_seconds

    timed = {f"{stage}{kind}": one for stage, kinds in measured.ops.items() for kind, one in kinds.items()}
    timed |= {f"{forward}F;{backward}B": one for (forward, backward), one in measured.pairs.items()}
    replayed = measured.load is not None
    rows = []
    for name, one in timed.items():
        added = (one.cold_s or 0.0, one.host_s) if replayed else (one.launch_s,)
        seconds = (one.time.median_s, one.time.p5_s, one.time.p95_s, *added)
        rows.append([name, *map(format_seconds, seconds), f"{one.time.samples}"])
    if measured.transfer is not None:
        median_s, p5_s, p95_s, samples = measured.transfer
        none = [""] * (2 if replayed else 1)
        rows.append(["transfer", *map(format_seconds, (median_s, p5_s, p95_s)), *none, f"{samples}"])
    added_headings = ("cold", "host") if replayed else ("launch",)
    print_table(Table(("op", "median", "p5", "p95", *added_headings, "samples"), rows, ["op"]))
    line(f"transfer: {measured.transfer_rule}")
    if measured.load is not None:
        beta, tau_s, gamma = measured.load
        line(
            f"load: an op takes {beta:.0%} longer on a GPU that was busy before it (the last {format_seconds(tau_s)} "
            f"count most), {gamma:.0%} longer beside a message"
        )
    if measured.host_share is not None:
        line(f"host: takes {measured.host_share:.1%} of what was recorded where nothing records it")
    for what, count in sorted(measured.left_out.items()):
        line(f"left out: {count} {what}")
