"""Commands that run a configuration: run, compare, gantt, timeline."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from dualpipe_sim.cli.answer import print_answer
from dualpipe_sim.cli.app import app, example
from dualpipe_sim.cli.arguments import Config, Json, Output, Settings, simulates
from dualpipe_sim.cli.figure import (
    Causes,
    Dark,
    Font,
    FontSize,
    Legend,
    NumbersShown,
    Palette,
    Path,
    Size,
    Title,
    drawn,
)
from dualpipe_sim.cli.terminal import write
from dualpipe_sim.cli.zoom import From, MicroBatches, Ranks, To, Zoom, parse_ranges, parse_time

if TYPE_CHECKING:
    from dualpipe_sim.experiment import Experiment
    from dualpipe_sim.result import Result


@app.command(epilog=example("run figure5 --set schedule=zb-h1"))
@simulates
def run(config: Config, settings: Settings = None, as_json: Json = False) -> None:
    """Run one schedule: makespan, bubbles and their causes, what is in flight, rank by rank."""
    from dualpipe_sim.scoring import error_bar
    from dualpipe_sim.scoring.accuracy import run_error
    from dualpipe_sim.simulation import run as run_choice

    experiment = _load(config, settings)
    result, bar = run_choice(experiment, experiment.choice), error_bar(experiment)
    if as_json:
        print_answer("run", result.to_dict() | run_error(bar))
        return
    from dualpipe_sim.cli import tables

    others = {words: run_choice(other, experiment.choice) for words, other in _freed(experiment, result)}
    tables.print_run(result, others, bar)


def _freed(experiment: Experiment, result: Result) -> Iterator[tuple[str, Experiment]]:
    """Yield what would be faster, and the experiment without what holds it up."""
    plain = replace(experiment, noise=None)
    if experiment.transfers == "rendezvous" or experiment.runtime is not None:
        as_issued = "" if experiment.runtime is None else f"messages as {experiment.runtime.name} issues them; "
        words = f"{as_issued}with async transfers, which wait for no rank's turn"
        yield words, replace(plain, transfers="async", runtime=None)
    from dualpipe_sim.costs.measured import MeasuredCosts

    if result.played.graph.issue is not None and isinstance(experiment.cost_model, MeasuredCosts):
        without = replace(experiment.cost_model, host=False)
        yield "with a host that issues ops in no time", replace(plain, cost_model=without)


class TableFormat(str, Enum):
    """How a comparison is printed."""

    table = "table"
    json = "json"
    csv = "csv"
    latex = "latex"
    markdown = "markdown"


@app.command(epilog=example("compare deepseek_v3 --plot compare.png"))
@simulates
def compare(  # noqa: PLR0913, PLR0917 - each is an option
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
    zoom: Zoom = None,
    size: Size = None,
    font_size: FontSize = None,
    font: Font = None,
    legend: Legend = True,
    numbers: NumbersShown = True,
    causes: Causes = None,
    critical_path: Path = False,
    title: Title = None,
    palette: Palette = "deepseek",
    dark: Dark = False,
    table: Annotated[TableFormat, typer.Option("--format", help="How the table is printed.")] = TableFormat.table,
    as_json: Json = False,
) -> None:
    """Run the schedules that the configuration compares, fastest a micro-batch first."""
    from dualpipe_sim.equal_terms import compared
    from dualpipe_sim.scoring.accuracy import comparison_errors, error_bar, remarks

    _check_formats(plot, chart)
    look = drawn(size, font_size, font, legend, numbers, causes, critical_path, title, palette, dark)
    experiment = _load(config, settings)
    comparison, bar = compared(experiment, by, limit), error_bar(experiment)
    comparison = replace(comparison, remarks=remarks(comparison, bar))
    if plot or chart:
        from dualpipe_sim.pictures.plot import bubble_against_activations, save

        if plot:
            save(comparison.gantt(lanes=False, zoom=zoom, **look), plot)
        if chart:
            save(bubble_against_activations(comparison, theme="dark" if dark else "light").figure, chart)
    if as_json or table is TableFormat.json:
        print_answer("compare", comparison.to_dict() | comparison_errors(comparison, bar))
        return
    from dualpipe_sim.cli import tables

    if table is TableFormat.table:
        tables.print_comparison(comparison)
    elif table is TableFormat.csv:
        write(comparison.to_csv())
    else:
        write(comparison.to_table().written(table.value))


@app.command(epilog=example("gantt figure5 -o figure.pdf --size single-column"))
@simulates
def gantt(  # noqa: PLR0913, PLR0917 - each is an option
    config: Config,
    output: Output,
    settings: Settings = None,
    ranks: Ranks = None,
    begin: From = None,
    end: To = None,
    zoom: Zoom = None,
    micro_batches: MicroBatches = None,
    lanes: Annotated[
        bool | None,
        typer.Option("--lanes/--no-lanes", help="Show compute and all-to-all lanes; default: where there are any."),
    ] = None,
    host: Annotated[bool, typer.Option("--host", help="Show when each rank's host issues its ops.")] = False,
    transfers: Annotated[bool, typer.Option("--transfers", help="Draw the transfers between ranks too.")] = False,
    terms: Annotated[
        bool, typer.Option("--terms", help="Mark what the largest bubble consists of: warm-up, steady state, drain.")
    ] = False,
    size: Size = None,
    font_size: FontSize = None,
    font: Font = None,
    legend: Legend = True,
    numbers: NumbersShown = True,
    causes: Causes = None,
    critical_path: Path = False,
    title: Title = None,
    palette: Palette = "deepseek",
    dark: Dark = False,
) -> None:
    """Draw the Gantt chart of one schedule (png, svg, pdf), or a part of it."""
    from dualpipe_sim.pictures.plot import save
    from dualpipe_sim.simulation import run as run_choice

    _check_formats(output)
    shown = {
        "ranks": parse_ranges(ranks, "--ranks"),
        "from_s": parse_time(begin, "--from"),
        "to_s": parse_time(end, "--to"),
        "zoom": zoom,
        "micro_batches": parse_ranges(micro_batches, "--micro-batches"),
    }
    experiment = _load(config, settings)
    look = drawn(size, font_size, font, legend, numbers, causes, critical_path, title, palette, dark)
    look |= shown | {"lanes": lanes, "host": host, "transfers": transfers}
    if terms:
        from dualpipe_sim.why import why_run

        axes = why_run(experiment).gantt(**look)
    else:
        axes = run_choice(experiment, experiment.choice).gantt(**look)
    save(axes.figure, output)


@app.command(epilog=example("timeline figure5 -o timeline.csv"))
@simulates
def timeline(config: Config, output: Output, settings: Settings = None) -> None:
    """Write when every op and transfer ran, as CSV: rank,lane,task,start_s,end_s."""
    from dualpipe_sim.base.files import written_whole
    from dualpipe_sim.simulation import run as run_choice

    experiment = _load(config, settings)
    played = run_choice(experiment, experiment.choice).played
    with written_whole(output) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")  # noqa: TID251 - of ops and lanes, and there are many
        writer.writerow(("rank", "lane", "task", "start_s", "end_s"))
        writer.writerows(played.rows())


def _check_formats(*files: str | None) -> None:
    """Refuse charts' files of another format before anything is run."""
    for file in files:
        if file is not None:
            from dualpipe_sim.pictures.plot import check_format

            check_format(file)


def _load(config: str, settings: list[str] | None) -> Experiment:
    from dualpipe_sim.config import load_experiment

    return load_experiment(config, settings=settings or ())
