"""The command animate: a run as a film, for teaching."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dualpipe_sim.cli.app import app, example
from dualpipe_sim.cli.arguments import Config, Output, Settings, simulates
from dualpipe_sim.cli.figure import Dark, Palette, Title
from dualpipe_sim.cli.terminal import line


@app.command(epilog=example("animate figure5 -o figure5.gif --seconds 4"))
@simulates
def animate(  # noqa: PLR0913, PLR0917 - each is an option
    config: Config,
    output: Output,
    settings: Settings = None,
    seconds: Annotated[float, typer.Option("--seconds", metavar="S", help="How long the run takes in the film.")] = 12,
    fps: Annotated[float, typer.Option("--fps", metavar="N", help="Pictures a second.")] = 12,
    title: Title = None,
    palette: Palette = "deepseek",
    dark: Dark = False,
) -> None:
    """Write a film of one schedule (gif; mp4 where ffmpeg is): ops as they run, idle time and activations beside."""
    from dualpipe_sim.config import load_experiment
    from dualpipe_sim.pictures.plot import animate, check_animation
    from dualpipe_sim.simulation import run

    frames = check_animation(output, seconds, fps)
    experiment = load_experiment(config, settings=settings or ())
    timeline = run(experiment, experiment.choice).played
    look: dict[str, Any] = {"title": title, "palette": palette, "theme": "dark" if dark else "light"}
    animate(timeline, output, seconds=seconds, frames_per_second=fps, **look)
    line(f"{output}: {frames} pictures, {Path(output).stat().st_size / 1e3:,.0f} kB")
