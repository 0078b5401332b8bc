"""The command sweep, with its progress bar."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from dualpipe_sim.cli.app import app
from dualpipe_sim.cli.arguments import Config, Settings

if TYPE_CHECKING:
    from rich.progress import TaskID

    from dualpipe_sim.sweep import SweepTable
    from dualpipe_sim.sweep.runner import Progress

_INTERRUPTED = 130  # what shells say of a program that Ctrl-C ended


@app.command()
def sweep(
    config: Config,
    over: Annotated[
        list[str] | None,
        typer.Option("--over", metavar="KEY=V,V,…", help="An axis, e.g. pipeline.micro_batches=16,32 (repeatable)."),
    ] = None,
    settings: Settings = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Append rows to this .csv, .jsonl or .parquet file."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the rows that are in the file.")] = False,
    workers: Annotated[int, typer.Option("--workers", "-j", metavar="N", help="Processes on this machine.")] = 1,
    dask: Annotated[
        str | None,
        typer.Option("--dask", metavar="ADDRESS", help="Use this Dask scheduler's workers, e.g. tcp://host:8786."),
    ] = None,
) -> None:
    """Run a configuration at many points, those of its `sweep:` section and of --over; a row a point."""
    from dualpipe_sim.config.axes import parse_over
    from dualpipe_sim.sweep import SweepTable
    from dualpipe_sim.sweep.runs import study_of
    from dualpipe_sim.sweep.study import collect

    study = study_of(config, dict(map(parse_over, over or ())), settings or ())
    with _interruptible(output), _progress() as progress:
        rows = collect(study, workers=workers, dask=dask, output=output, resume=resume, progress=progress)
    table = SweepTable(tuple(rows))
    if output is None:
        _print(table)
    else:
        _print_place(table, output)


@contextmanager
def _progress() -> Iterator[Progress]:
    """Give what a progress bar is told by, on stderr; there is none where nobody watches."""
    from rich import progress
    from rich.console import Console

    columns = (
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("left"),
    )
    console = Console(stderr=True)
    with progress.Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        tasks: list[TaskID] = []

        def show(done: int, total: int) -> None:
            if not tasks:  # rows of an earlier run are no speed
                tasks.append(bar.add_task("", total=total, completed=done, rate=""))
            speed = bar.tasks[0].speed
            bar.update(tasks[0], completed=done, rate=f"{speed:.3g} points/s" if speed else "")

        yield show


@contextmanager
def _interruptible(output: str | None) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        kept = f"{output} keeps the rows so far; --resume goes on" if output else "with -o FILE, --resume could go on"
        typer.echo(f"dualpipe-sim: interrupted; {kept}", err=True)
        sys.exit(_INTERRUPTED)


def _print(table: SweepTable) -> None:
    """Print a table: a row a point, and below it why others failed."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    headings, texts = table.summary()
    numbers = headings.index("size")
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    kept = [position for position, heading in enumerate(headings) if heading != "paper"]
    for position in kept:
        shown.add_column(headings[position], justify="right" if position >= numbers else "left", overflow="fold")
    for text, row in zip(texts, table, strict=True):
        if row["error"] is None:
            shown.add_row(*(text[position] for position in kept))
    console.print(shown)
    for text, row in zip(texts, table, strict=True):
        if row["error"] is not None:
            console.print(f"{', '.join(text)}: {row['error']}", highlight=False, markup=False, soft_wrap=True)


def _print_place(table: SweepTable, output: str) -> None:
    """Say where the table is, and how many points failed."""
    failed = [row for row in table if row["error"] is not None]
    reason = f", {len(failed)} of them with an error, such as: {failed[0]['error']}" if failed else ""
    typer.echo(f"{output}: {len(table)} rows{reason}")
