"""The command mcp: tools for agents."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from dualpipe_sim.cli.app import app, example
from dualpipe_sim.cli.terminal import line
from dualpipe_sim.errors import UserError


@app.command(epilog=example("mcp --allow-files experiments"))
def mcp(
    folder: Annotated[
        Path | None,
        typer.Option(
            "--allow-files",
            metavar="FOLDER",
            help="Let tools read configurations, and files that they name, in this folder; without it they read none.",
        ),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", metavar="S", min=1, help="How long a call may take.")] = 60,
) -> None:
    """Serve run, compare, why, plan, check and schedules as tools of an agent (MCP), on standard input and output."""
    if folder is not None and not folder.is_dir():
        raise UserError(f"--allow-files {folder}: is no folder")
    try:
        from dualpipe_sim.mcp_server.server import serve
    except ImportError as error:
        raise UserError("mcp needs the package mcp; pip install 'dualpipe-sim[mcp]'") from error
    if sys.stdin.isatty():
        line("dualpipe-sim: waiting for a client's messages on standard input; Ctrl-C ends it", err=True)
    if folder is not None:
        folder = folder.resolve()
        os.chdir(folder)  # from where configurations name files
    serve(folder, seconds)
