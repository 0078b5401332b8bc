"""The command calibrate: costs out of real runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dualpipe_sim.cli.app import app, example
from dualpipe_sim.cli.arguments import Maps, Output

if TYPE_CHECKING:
    from dualpipe_sim.calibration import Calibration


@app.command(epilog=example("calibrate rank0.json rank1.json -o costs.yaml"))
def calibrate(
    files: Annotated[
        list[str],
        typer.Argument(metavar="TRACE", help="Traces of torch.profiler, one a rank, or timelines as CSV; also .gz."),
    ],
    output: Output,
    maps: Maps = None,
    warm_up: Annotated[
        int, typer.Option("--warm-up", min=0, help="First steps to leave out, where there are more.")
    ] = 1,
    pipes: Annotated[
        int | None, typer.Option("--pipes", min=1, help="Pipes that the stages make up; default: found out.")
    ] = None,
) -> None:
    """Measure costs in a real run: medians by stage and kind, transfers, launch overhead, as commented YAML."""
    from dualpipe_sim import calibration

    measured = calibration.calibrate(files, maps=maps or (), warm_up=warm_up, pipes=pipes)
    calibration.write_costs(measured, output)
    _print_calibration(measured)
    typer.echo(f"{output}: use it by costs: {{kind: measured, file: {output}}}")


def _print_calibration(measured: Calibration) -> None:
    """Print a row for each stage and kind, and below it transfers and what was left out."""
    from dualpipe_sim.base.show import Table
    from dualpipe_sim.base.units import format_seconds
    from dualpipe_sim.cli.tables import print_table

    timed = {f"{stage}{kind}": one for stage, kinds in measured.ops.items() for kind, one in kinds.items()}
    timed |= {f"{forward}F;{backward}B": one for (forward, backward), one in measured.pairs.items()}
    rows = []
    for name, (time, launch_s) in timed.items():
        seconds = (time.median_s, time.p5_s, time.p95_s, launch_s)
        rows.append([name, *map(format_seconds, seconds), f"{time.samples}"])
    if measured.transfer is not None:
        median_s, p5_s, p95_s, samples = measured.transfer
        rows.append(["transfer", *map(format_seconds, (median_s, p5_s, p95_s)), "", f"{samples}"])
    print_table(Table(("op", "median", "p5", "p95", "launch", "samples"), rows, ["op"]))
    typer.echo(f"transfer: {measured.transfer_rule}")
    for what, count in sorted(measured.left_out.items()):
        typer.echo(f"left out: {count} {what}")
