"""The command that writes a run for other programs: trace."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from dualpipe_sim.cli.app import app, example
from dualpipe_sim.cli.arguments import Config, Output, Settings, simulates


class TraceFormat(str, Enum):
    """The program that a trace is for."""

    chrome = "chrome"
    hta = "hta"
    chakra = "chakra"


@app.command(epilog=example("trace figure5 -o trace.json"))
@simulates
def trace(
    config: Config,
    output: Output,
    trace_format: Annotated[
        TraceFormat,
        typer.Option(
            "--format",
            help="chrome: one JSON file, for ui.perfetto.dev; hta: a folder with a file a rank, for Holistic Trace "
            "Analysis; chakra: FILE.0.et, FILE.1.et, ..., a file a rank, for ASTRA-sim.",
        ),
    ] = TraceFormat.chrome,
    settings: Settings = None,
) -> None:
    """Write one schedule's run as a trace that Perfetto, Holistic Trace Analysis or ASTRA-sim reads."""
    from dualpipe_sim.config import load_experiment
    from dualpipe_sim.export import write_chakra, write_chrome, write_hta
    from dualpipe_sim.simulation import run

    experiment = load_experiment(config, settings=settings or ())
    result = run(experiment, experiment.choice)
    if trace_format is TraceFormat.chrome:
        write_chrome(result.played, output, result.memory)
    else:
        {TraceFormat.hta: write_hta, TraceFormat.chakra: write_chakra}[trace_format](result.played, output)
