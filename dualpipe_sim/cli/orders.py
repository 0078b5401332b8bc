"""Commands about orders, without any costs: schedule, schedules, check."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dualpipe_sim.cli.app import app, example
from dualpipe_sim.cli.arguments import Runtime, RuntimeOptions, pairs
from dualpipe_sim.cli.complete import schedule_names
from dualpipe_sim.errors import ScheduleError

if TYPE_CHECKING:
    from dualpipe_sim.order.placement import PlacementName


class PlacementChoice(str, Enum):
    """Where stages are and how they chain; the same words as ``placement.PlacementName``."""

    loop = "loop"
    v = "v"
    bidirectional = "bidirectional"
    explicit = "explicit"


class OrderFormat(str, Enum):
    """Which of torch's two forms of an order."""

    compute_only = "compute_only"
    compute_comms = "compute_comms"


@app.command(epilog=example("schedule dualpipe --ranks 8 --micro-batches 20"))
def schedule(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A registered schedule; see `dualpipe-sim schedules`.",
            autocompletion=schedule_names,
        ),
    ],
    ranks: Annotated[int, typer.Option("--ranks", help="Pipeline ranks.")],
    micro_batches: Annotated[int, typer.Option("--micro-batches", help="Micro-batches of a step, all pipes together.")],
    options: Annotated[
        list[str] | None,
        typer.Option("--option", "-O", metavar="KEY=VALUE", help="An option of the schedule (repeatable)."),
    ] = None,
    order_format: Annotated[
        OrderFormat | None,
        typer.Option(
            "--format", help="Tasks alone, which torch lowers itself (default), or with every send and receive."
        ),
    ] = None,
    runtime: Runtime = None,
    runtime_options: RuntimeOptions = None,
) -> None:
    """Print a schedule's order as torch's CSV: a row a rank, a cell a task."""
    from dualpipe_sim.order.text import format_order
    from dualpipe_sim.runtimes.registry import runtime_program
    from dualpipe_sim.runtimes.torch import format_program
    from dualpipe_sim.schedules.registry import build, spec

    chosen = spec(name)
    values = {key: chosen.parse_option(key, text) for key, text in pairs("-O", options, "stages_per_rank=2")}
    given = dict(pairs("--runtime-option", runtime_options, "version=2.11"))
    if runtime is None:
        if given:
            raise ScheduleError("--runtime-option needs --runtime, whose option it is")
        write = format_program if order_format is OrderFormat.compute_comms else format_order
        typer.echo(write(build(name, ranks, micro_batches, **values)), nl=False)
        return
    if order_format is OrderFormat.compute_only:
        raise ScheduleError("--format compute_only: a runtime's program has its messages; leave --runtime or it out")
    program = runtime_program(name, ranks, micro_batches, runtime=runtime, runtime_options=given, **values)
    typer.echo(program, nl=False)


@app.command(epilog=example("schedules"))
def schedules() -> None:
    """List the schedules there are, with what they need, their options and their source."""
    from dualpipe_sim.cli import tables
    from dualpipe_sim.schedules.registry import schedules as registered

    tables.print_schedules(registered())


@app.command(epilog=example("check order.csv --placement v"))
def check(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="An order as torch's CSV, compute_only or compute_comms: a row a rank, a cell a task."
        ),
    ],
    placement: Annotated[
        PlacementChoice,
        typer.Option("--placement", help="Where stages are: explicit takes the rank whose row names a stage."),
    ] = PlacementChoice.explicit,
    micro_batches: Annotated[
        int | None, typer.Option("--micro-batches", help="Micro-batches there must be; default: those the file has.")
    ] = None,
) -> None:
    """Say all that is wrong with an order, in words; exit code 2 if anything is."""
    from dualpipe_sim.base.files import read_text
    from dualpipe_sim.order.check import check_lines, read_order

    stages: PlacementName = placement.value
    try:
        findings, order = read_order(read_text(file), stages, micro_batches)
    except ScheduleError as error:
        raise ScheduleError(f"{file}: {error}") from None
    findings += [] if order is None else check_lines(order)
    for finding in findings:
        typer.echo(f"{file}: {finding}", err=True)
    if findings:
        raise typer.Exit(2)
    typer.echo(f"{file}: nothing is wrong")
