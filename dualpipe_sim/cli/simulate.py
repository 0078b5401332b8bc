"""Commands that run a configuration: run, compare, gantt, timeline."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Annotated

import typer

from dualpipe_sim.cli.app import app
from dualpipe_sim.cli.arguments import Config, Json, Output, Settings
from dualpipe_sim.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from dualpipe_sim.experiment import Experiment
    from dualpipe_sim.result import Comparison


@app.command()
def run(config: Config, settings: Settings = None, as_json: Json = False) -> None:
    """Run one schedule: makespan, bubbles and their causes, what is in flight, rank by rank."""
    from dualpipe_sim.simulation import run as run_choice

    experiment = _load(config, settings)
    result = run_choice(experiment, experiment.choice)
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=2))
        return
    from dualpipe_sim.cli import tables

    tables.print_run(result)


@app.command()
def compare(
    config: Config,
    limit: Annotated[float | None, typer.Argument(help="Most activations of a rank, with --by memory.")] = None,
    settings: Settings = None,
    plot: Annotated[
        str | None,
        typer.Option("--plot", metavar="FILE", help="Draw all Gantt charts on one time axis (png, svg, pdf)."),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="TERMS",
            help="On equal terms of ranks, of stages (more stages a rank, fewer ranks) or of memory (each schedule at "
            "its best options within LIMIT activations).",
        ),
    ] = "ranks",
    chart: Annotated[
        str | None,
        typer.Option("--chart", metavar="FILE", help="Draw the bubble against peak activations (png, svg, pdf)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the schedules that the configuration compares, fastest first."""
    comparison = _compare(_load(config, settings), by, limit)
    if plot or chart:
        from dualpipe_sim.plot import bubble_against_activations, save

        if plot:
            save(comparison.gantt(), plot)
        if chart:
            save(bubble_against_activations(comparison).figure, chart)
    if as_json:
        typer.echo(json.dumps(comparison.to_dict(), indent=2))
        return
    from dualpipe_sim.cli import tables

    tables.print_comparison(comparison)


@app.command()
def gantt(
    config: Config,
    output: Output,
    settings: Settings = None,
    transfers: Annotated[bool, typer.Option("--transfers", help="Draw the transfers between ranks too.")] = False,
) -> None:
    """Draw the Gantt chart of one schedule (png, svg, pdf)."""
    from dualpipe_sim.plot import save
    from dualpipe_sim.simulation import run as run_choice

    experiment = _load(config, settings)
    axes = run_choice(experiment, experiment.choice).gantt(transfers=transfers)
    save(axes.figure, output)


@app.command()
def timeline(config: Config, output: Output, settings: Settings = None) -> None:
    """Write when every op and transfer ran, as CSV: rank,lane,task,start_s,end_s."""
    from dualpipe_sim.files import written_whole
    from dualpipe_sim.simulation import run as run_choice

    experiment = _load(config, settings)
    played = run_choice(experiment, experiment.choice).played
    with written_whole(output) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("rank", "lane", "task", "start_s", "end_s"))
        writer.writerows(played.rows())


def _compare(experiment: Experiment, by: str, limit: float | None) -> Comparison:
    from dualpipe_sim import fairness
    from dualpipe_sim.simulation import run_all

    if (by == "memory") != (limit is not None):
        raise UserError("compare: a limit of activations goes with --by memory, like: --by memory 16")
    if limit is not None:
        return fairness.by_memory(experiment, limit)
    ways = {"ranks": run_all, "stages": fairness.by_stages}
    if by not in ways:
        raise UserError(f"compare: --by must be ranks, stages or memory, got '{by}'{did_you_mean(by, ways)}")
    return ways[by](experiment)


def _load(config: str, settings: list[str] | None) -> Experiment:
    from dualpipe_sim.config import load_experiment

    return load_experiment(config, settings=settings or ())
