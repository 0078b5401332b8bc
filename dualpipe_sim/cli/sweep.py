"""The command sweep, with its progress bar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, cast

import typer

from dualpipe_sim.cli.answer import print_answer
from dualpipe_sim.cli.app import app, example
from dualpipe_sim.cli.arguments import Config, Dask, Json, Resume, Rows, Settings, Workers, simulates
from dualpipe_sim.cli.progress import interruptible, progress_bar
from dualpipe_sim.cli.terminal import line, print_table, say

if TYPE_CHECKING:
    from dualpipe_sim.batch.study import Study
    from dualpipe_sim.sweeps import SweepTable
    from dualpipe_sim.sweeps.runs import RunAt


@app.command(epilog=example("sweep figure5 --over pipeline.micro_batches=16,32,64"))
@simulates
def sweep(  # noqa: PLR0913, PLR0917 - each is an option
    config: Config,
    over: Annotated[
        list[str] | None,
        typer.Option("--over", metavar="KEY=V,V,…", help="An axis, e.g. pipeline.micro_batches=16,32 (repeatable)."),
    ] = None,
    settings: Settings = None,
    output: Rows = None,
    resume: Resume = False,
    workers: Workers = 1,
    dask: Dask = None,
    as_json: Json = False,
) -> None:
    """Run a configuration at many points, those of its `sweep:` section and of --over; a row a point."""
    from dualpipe_sim.batch.study import collect
    from dualpipe_sim.config.axes import parse_over
    from dualpipe_sim.sweeps import SweepTable
    from dualpipe_sim.sweeps.runs import study_of

    study = study_of(config, dict(map(parse_over, over or ())), settings or ())
    with interruptible(output), progress_bar() as progress:
        rows = collect(study, workers=workers, dask=dask, output=output, resume=resume, progress=progress)
    table = SweepTable(tuple(rows))
    if as_json:
        print_answer("sweep", table.to_dict())
    elif output is None:
        _print(table, _provenance(study, table))
    else:
        _print_place(table, output)


def _provenance(study: Study, table: SweepTable) -> list[str]:
    """Return in words how far off the steps of a sweep's points may be, once for each kind of point."""
    from dualpipe_sim.config import load_experiment
    from dualpipe_sim.scoring import error_bar

    runs, said = cast("RunAt", study.evaluate), []
    for point, row in zip(study.points, table, strict=True):
        if row["step_time_s"] is not None:
            bar = error_bar(load_experiment(runs.base, point, source=runs.source))
            said += [] if bar is None else [f"steps: {bar.provenance}"]
    return list(dict.fromkeys(said))


def _print(table: SweepTable, remarks: Sequence[str]) -> None:
    """Print a table: a row a point, and below it how far off steps may be, and why other points failed."""
    from dualpipe_sim.base.show import Table

    headings, texts = table.summary()
    words = headings[: headings.index("size")]
    shown = [place for place, heading in enumerate(headings) if not heading.startswith("paper")]
    done = (text for text, row in zip(texts, table, strict=True) if row["error"] is None)
    rows = [[text[place] for place in shown] for text in done]
    print_table(Table([headings[place] for place in shown], rows, words))
    for remark in remarks:
        say(remark)
    for text, row in zip(texts, table, strict=True):
        if row["error"] is not None:
            say(f"{', '.join(text)}: {row['error']}")


def _print_place(table: SweepTable, output: str) -> None:
    """Say where the table is, and how many points failed."""
    from dualpipe_sim.base.units import number_of

    failed = [row for row in table if row["error"] is not None]
    reason = f", {len(failed)} of them with an error, such as: {failed[0]['error']}" if failed else ""
    line(f"{output}: {number_of(len(table), 'row')}{reason}")
