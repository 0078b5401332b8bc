"""The command explore: a live page on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from dualpipe_sim.cli.app import app, example
from dualpipe_sim.cli.complete import config_names
from dualpipe_sim.cli.start import STARTER
from dualpipe_sim.cli.terminal import line


@app.command(epilog=example("explore deepseek_v3"))
def explore(
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG",
            help="A YAML file, or the name of a packaged one such as deepseek_v3.",
            autocompletion=config_names,
        ),
    ] = STARTER,
    port: Annotated[int, typer.Option("--port", help="Where to listen; 0 for any port that is free.")] = 8765,
    host: Annotated[
        str,
        typer.Option(
            "--host", help="For whom to listen; another address than this machine's own asks for a token in links."
        ),
    ] = "127.0.0.1",
    opens: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
) -> None:
    """Show a live page: sliders for every size and cost, Gantt charts side by side; its URL is the experiment.

    It answers on this machine alone, until Ctrl-C.
    """
    from dualpipe_sim.explore.link import Start
    from dualpipe_sim.explore.serve import serve

    serve(Start.of(config), host, port, opens=opens, say=line)
