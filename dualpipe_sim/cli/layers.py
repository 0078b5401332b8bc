"""The command layers: what a micro-batch takes and leaves, by kind of layer and part, without any schedule."""

from __future__ import annotations

from typing import Annotated

import typer

from dualpipe_sim.cli.answer import print_answer
from dualpipe_sim.cli.app import app, example
from dualpipe_sim.cli.arguments import Config, Json, Settings
from dualpipe_sim.cli.terminal import print_table
from dualpipe_sim.errors import UserError


@app.command(epilog=example("layers deepseek_v3 --plot layers.png"))
def layers(
    config: Config,
    settings: Settings = None,
    plot: Annotated[
        str | None,
        typer.Option("--plot", metavar="FILE", help="Draw the seconds of each kind of layer by part (png, svg, pdf)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what one micro-batch takes and leaves on one GPU, by kind of layer and part, without running a schedule."""
    from dualpipe_sim.config import load_experiment
    from dualpipe_sim.costs.breakdown import breakdown
    from dualpipe_sim.costs.layers import LayerCosts

    experiment = load_experiment(config, settings=settings or ())
    if not isinstance(experiment.costs, LayerCosts):
        raise UserError(
            f"{experiment.source}: parts of layers need a model, so costs of kind 'layers'; its costs know no layers"
        )
    with experiment.named():
        found = breakdown(experiment.costs)
    if plot is not None:
        from dualpipe_sim.pictures.plot import save
        from dualpipe_sim.pictures.plot.layers import layer_bars

        title = f"{experiment.costs.job.model.name}, {found.caption}"
        save(layer_bars(found, title=title).figure, plot)
    if as_json:
        print_answer("layers", found.to_dict())
        return
    for shown in (found, *found.all_of_it):
        print_table(shown.to_table())
