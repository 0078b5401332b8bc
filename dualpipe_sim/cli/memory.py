"""The command memory: what every rank's GPU holds, and whether that fits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from dualpipe_sim.cli.answer import print_answer
from dualpipe_sim.cli.app import app, example
from dualpipe_sim.cli.arguments import Config, Json, Settings, simulates
from dualpipe_sim.cli.terminal import print_table
from dualpipe_sim.errors import UserError

if TYPE_CHECKING:
    from dualpipe_sim.analysis.memory import Memory
    from dualpipe_sim.result import Result


@app.command(epilog=example("memory deepseek_v3 --plot memory.png"))
@simulates
def memory(
    config: Config,
    settings: Settings = None,
    plot: Annotated[
        str | None,
        typer.Option("--plot", metavar="FILE", help="Draw one rank's memory over time, stacked (png, svg, pdf)."),
    ] = None,
    rank: Annotated[
        int | None, typer.Option("--rank", metavar="RANK", help="The rank that --plot draws; default: the fullest.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what the memory of every rank's GPU is used for at its peak, and whether the step fits."""
    from dualpipe_sim.config import load_experiment
    from dualpipe_sim.simulation import run

    if rank is not None and plot is None:
        raise UserError("--rank says which rank --plot draws; give a file, like --plot memory.png")
    experiment = load_experiment(config, settings=settings or ())
    result = run(experiment, experiment.choice)
    if result.memory is None:
        raise UserError(
            f"{experiment.source}: memory needs a model, so costs of kind 'layers'; its costs know no bytes"
        )
    if plot is not None:
        from dualpipe_sim.pictures.plot import memory_stack, save

        save(memory_stack(result.memory, rank, title=f"{result.label}, {result.size}").figure, plot)
    if as_json:
        print_answer("memory", _to_dict(result, result.memory))
    else:
        _print(result, result.memory)


def _to_dict(result: Result, memory: Memory) -> dict[str, object]:
    keys = ("schedule", "ranks", "micro_batches", "options")
    return {key: getattr(result, key) for key in keys} | memory.to_dict()


def _print(result: Result, memory: Memory) -> None:
    table = memory.to_table()
    title = f"{result.caption}, {result.size} (ranks × micro-batches): {table.title}"
    print_table(replace(table, title=title, notes=[result.model_in_words, *table.notes]))
