"""Commands about orders, without any costs: schedule, schedules, check."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dualpipe_sim.cli.answer import print_answer
from dualpipe_sim.cli.app import app, example
from dualpipe_sim.cli.arguments import Json, Runtime, RuntimeOptions, pairs
from dualpipe_sim.cli.complete import config_names, schedule_names
from dualpipe_sim.cli.terminal import line, write
from dualpipe_sim.errors import ScheduleError

if TYPE_CHECKING:
    from dualpipe_sim.order.placement import PlacementName
    from dualpipe_sim.order.schedule import Schedule


class PlacementChoice(str, Enum):
    """Where stages are and how they chain; the same words as ``placement.PlacementName``."""

    loop = "loop"
    v = "v"
    bidirectional = "bidirectional"
    explicit = "explicit"


class OrderFormat(str, Enum):
    """Which of torch's forms of an order."""

    compute_only = "compute_only"
    compute_comms = "compute_comms"
    fsdp = "fsdp"


_WITHOUT_MESSAGES = (OrderFormat.compute_only, OrderFormat.fsdp)


@app.command(epilog=example("schedule dualpipe --ranks 8 --micro-batches 20"))
def schedule(  # noqa: PLR0913, PLR0917 - each is an option
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
            "--format",
            help="Tasks alone, which torch lowers itself (default), with every send and receive, or with FSDP's "
            "gathers and reductions.",
        ),
    ] = None,
    runtime: Runtime = None,
    runtime_options: RuntimeOptions = None,
    optimize_comms: Annotated[
        bool,
        typer.Option("--optimize-comms", help="Search for the fastest order of sends and receives."),
    ] = False,
    costs: Annotated[
        str | None,
        typer.Option(
            "--costs",
            metavar="CONFIG",
            help="Whose times --optimize-comms takes; default: F, I and W of 1, transfers of 0.1.",
            autocompletion=config_names,
        ),
    ] = None,
) -> None:
    """Print a schedule's order as torch's CSV: a row a rank, a cell a task."""
    from dualpipe_sim.order.text import format_order
    from dualpipe_sim.runtimes.registry import runtime_program
    from dualpipe_sim.runtimes.torch import format_program, format_sharded
    from dualpipe_sim.schedules.registry import build, spec

    chosen = spec(name)
    values = {key: chosen.parse_option(key, text) for key, text in pairs("-O", options, "stages_per_rank=2")}
    given = dict(pairs("--runtime-option", runtime_options, "version=2.11"))
    if costs is not None and not optimize_comms:
        raise ScheduleError("--costs needs --optimize-comms, which takes its times")
    if optimize_comms:
        if order_format in _WITHOUT_MESSAGES:
            raise ScheduleError(
                f"--format {order_format.value} has no sends and receives; leave --optimize-comms or it out"
            )
        order = build(name, ranks, micro_batches, **values)
        write(_with_best_comms(order, runtime or "torch", given, costs))
        return
    if runtime is None:
        if given:
            raise ScheduleError("--runtime-option needs --runtime, whose option it is")
        writers = {
            None: format_order,
            OrderFormat.compute_only: format_order,
            OrderFormat.compute_comms: format_program,
            OrderFormat.fsdp: format_sharded,
        }
        write(writers[order_format](build(name, ranks, micro_batches, **values)))
        return
    if order_format in _WITHOUT_MESSAGES:
        raise ScheduleError(
            f"--format {order_format.value}: a runtime's program has its messages; leave --runtime or it out"
        )
    program = runtime_program(name, ranks, micro_batches, runtime=runtime, runtime_options=given, **values)
    write(program)


def _with_best_comms(order: Schedule, runtime: str, given: dict[str, str], costs: str | None) -> str:
    """Return an order's program with the best order of messages, and say on stderr what that gains."""
    from dualpipe_sim.base.units import format_time
    from dualpipe_sim.comms import order_comms
    from dualpipe_sim.config.load import load_experiment
    from dualpipe_sim.order.text import format_rows
    from dualpipe_sim.runtimes.registry import RUNTIMES

    usual: dict[str, object] = {"forward": 1, "backward": 2, "transfer": 0.1}
    size = {"pipeline.ranks": order.ranks, "pipeline.micro_batches": order.micro_batches, "schedule": order}
    given_costs = {"costs": usual} if costs is None else {}
    experiment = load_experiment({} if costs is None else costs, {**size, **given_costs})
    use = RUNTIMES.get(runtime).with_options(given)
    found = order_comms(order, experiment.costs, use, experiment.topology(order.ranks))
    if found.schedule.program is None:
        line(f"no order was found that is faster than what {runtime} issues, which is printed", err=True)
        return format_rows(use.rows(order))
    unitless = costs is None
    before, after = (format_time(seconds, unitless=unitless) for seconds in (found.usual_s, found.makespan_s))
    gain = 1 - found.makespan_s / found.usual_s if found.usual_s else 0.0
    line(f"messages as {runtime} orders them: {before}; as here: {after}, {gain:.1%} less", err=True)
    return format_rows(found.schedule.program or ())


@app.command(epilog=example("schedules"))
def schedules(as_json: Json = False) -> None:
    """List the schedules there are, with what they need, their options and their source."""
    from dualpipe_sim.schedules.registry import schedules as registered

    if as_json:
        print_answer("schedules", {"schedules": [spec.to_dict() for spec in registered().values()]})
        return
    from dualpipe_sim.cli import tables

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
    barriers: Annotated[
        int, typer.Option("--barriers", min=1, max=2, help="Barriers from S to the backward behind it, of S and T.")
    ] = 1,
    as_json: Json = False,
) -> None:
    """Say all that is wrong with an order, in words; exit code 2 if anything is."""
    from dualpipe_sim.base.files import ORDER, read_text
    from dualpipe_sim.order.check import check_all

    stages: PlacementName = placement.value
    try:
        found = check_all(read_text(file, ORDER), stages, micro_batches, barriers)
    except ScheduleError as error:
        raise ScheduleError(f"{file}: {error}") from None
    if as_json:
        print_answer("check", found.to_dict())
    else:
        for finding in found.findings:
            line(f"{file}: {finding}", err=True)
    if found.findings:
        raise typer.Exit(2)
    if not as_json:
        line(f"{file}: nothing is wrong")
