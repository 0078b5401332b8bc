"""The command score: measured runs, each predicted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dualpipe_sim.cli.answer import print_answer
from dualpipe_sim.cli.app import app, example
from dualpipe_sim.cli.arguments import Json, Workers
from dualpipe_sim.cli.progress import progress_bar
from dualpipe_sim.cli.terminal import line, print_table, say
from dualpipe_sim.errors import UserError, did_you_mean, quoted

if TYPE_CHECKING:
    from dualpipe_sim.scoring import Board, Prediction


@app.command(epilog=example("score my_runs.yaml --workers 2"))
def score(
    runs: Annotated[
        Path,
        typer.Argument(metavar="RUNS.yaml", help="Measured runs: a list of rows under `runs:` (docs/howto_score.md)."),
    ],
    name: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="Show one run: what it takes, by cause, and what is assumed."),
    ] = None,
    worst: Annotated[int, typer.Option("--worst", metavar="N", min=0, help="How many of the worst to show.")] = 10,
    workers: Workers = 1,
    html: Annotated[
        str | None,
        typer.Option("--html", metavar="FILE", help="Write one page for a browser, too: scatter, tables, all runs."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict measured runs, and say how far off that is, by class, source, GPU and precision, and which are worst."""
    from dualpipe_sim.pictures.report import check_suffix
    from dualpipe_sim.scoring import score as predict
    from dualpipe_sim.scoring.rows import read_rows

    if html is not None:
        check_suffix(html)
    rows = read_rows(runs)
    if name is not None:
        names = [str(row.get("id", f"run {place}")) for place, row in enumerate(rows)]
        if name not in names:
            raise UserError(f"{runs}: there is no run {quoted(name)}{did_you_mean(name, names)}")
        rows = [{**rows[names.index(name)], "id": name}]
    with progress_bar() as progress:
        board = predict(rows, source=str(runs), workers=workers, progress=progress)
    if html is not None:
        _write(board, html, runs.stem, worst)
    if as_json:
        print_answer("score", board.to_dict())
    elif name is not None:
        _print_one(board.predictions[0])
    else:
        _print(board, worst)


def _write(board: Board, html: str, title: str, worst: int) -> None:
    from dualpipe_sim.scoring.page import page

    page(board, title, worst=worst).save(html)
    line(f"{html}: {Path(html).stat().st_size / 1e3:,.0f} kB", err=True)


def _print(board: Board, worst: int) -> None:
    from dualpipe_sim.base.units import number_of

    for table in board.to_tables(worst):
        print_table(table)
    say(f"{board.stated} of {number_of(len(board.predictions), 'run')} can be stated")
    for one in board.predictions:
        if one.unsupported is not None:
            line(one.unsupported, err=True)


def _print_one(one: Prediction) -> None:
    from dualpipe_sim.base.show import Table
    from dualpipe_sim.base.units import format_percent, format_seconds, in_gb
    from dualpipe_sim.scoring.accuracy import class_bar

    if one.unsupported is not None:
        raise UserError(one.unsupported)
    step_s = one.step_time_s or 0.0
    rows = [
        (name, format_seconds(seconds), format_percent(seconds / step_s if step_s else 0.0))
        for name, seconds in (one.parts_s or {}).items()
        if seconds
    ]
    measured = [("measured", format_seconds(one.measured_step_time_s), "")] if one.measured_step_time_s else []
    print_table(Table((one.id, "seconds", "share"), [*rows, ("step", format_seconds(step_s), ""), *measured], [one.id]))
    if one.error is not None:
        say(f"{one.error:+.1%} off")
    else:
        say(class_bar(one.kind, of_trace=one.stack == "deepseek").in_words(step_s))
    say(
        f"peak {in_gb(one.memory_bytes or 0)}"
        + ("" if one.fits else ", which does not fit with what is reserved and lost")
    )
    if one.memory_error is not None and one.measured_memory_bytes is not None:
        say(f"measured {in_gb(one.measured_memory_bytes)} GB: {one.memory_error:+.1%} off")
    for assumed in one.assumed:
        say(f"assumed: {assumed}")
