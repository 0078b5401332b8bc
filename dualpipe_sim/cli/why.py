"""The command why: what a run's step consists of, depends on and loses."""

from __future__ import annotations

from typing import Annotated

import typer

from dualpipe_sim.cli.answer import print_answer
from dualpipe_sim.cli.app import app, example
from dualpipe_sim.cli.arguments import Config, Json, Settings, simulates
from dualpipe_sim.cli.figure import Dark, Title
from dualpipe_sim.cli.terminal import print_table


@app.command(epilog=example("why figure5 --set schedule=1f1b"))
@simulates
def why(
    config: Config,
    settings: Settings = None,
    plot: Annotated[
        str | None,
        typer.Option("--plot", metavar="FILE", help="Draw what the step depends on (png, svg, pdf)."),
    ] = None,
    title: Title = None,
    dark: Dark = False,
    as_json: Json = False,
) -> None:
    """Say why a step takes as long as it does: critical path, what each cost and link adds, the bubble as a sum.

    The order and the layout of stages stay as they are while one cost changes.
    """
    from dualpipe_sim.config import load_experiment
    from dualpipe_sim.why import why_run

    if plot is not None:
        from dualpipe_sim.pictures.plot import check_format

        check_format(plot)
    found = why_run(load_experiment(config, settings=settings or ()))
    if plot is not None:
        from dualpipe_sim.pictures.plot import save

        save(found.plot(title=title, theme="dark" if dark else "light").figure, plot)
    if as_json:
        print_answer("why", found.to_dict())
        return
    for table in (found.to_table(), found.path_table(), found.bubble_table()):
        print_table(table)
