"""Commands that run a configuration: run, compare, gantt, timeline."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Annotated

import typer

from dualpipe_sim.cli.app import app
from dualpipe_sim.cli.arguments import Config, Json, Output, Settings

if TYPE_CHECKING:
    from dualpipe_sim.experiment import Experiment


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
    settings: Settings = None,
    plot: Annotated[
        str | None,
        typer.Option("--plot", metavar="FILE", help="Draw all Gantt charts on one time axis (png, svg, pdf)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the schedules that the configuration compares, fastest first."""
    from dualpipe_sim.simulation import run_all

    comparison = run_all(_load(config, settings))
    if plot:
        from dualpipe_sim.plot import save

        save(comparison.gantt(), plot)
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


def _load(config: str, settings: list[str] | None) -> Experiment:
    from dualpipe_sim.config import load_experiment

    return load_experiment(config, settings=settings or ())
