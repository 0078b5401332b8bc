"""The command ``dualpipe-sim``."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated

import typer

from dualpipe_sim.errors import UserError

app = typer.Typer(
    name="dualpipe-sim",
    help="Simulate pipeline-parallel training schedules: orders, times, bubbles and their causes, Gantt charts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS = ("start", "simulate", "report", "memory", "sweep", "plan", "trace", "calibrate", "compare_run", "orders")
"""Modules beside this one whose commands make up the program, in the order of the help."""


def _print_version(wanted: bool) -> None:
    if wanted:
        from dualpipe_sim import __version__

        typer.echo(f"dualpipe-sim {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Take the options that belong to no command."""


def main() -> None:
    """Run the command line; a mistake of the user's is one line on stderr and exit code 2."""
    for module in COMMANDS:
        importlib.import_module(f"dualpipe_sim.cli.{module}")
    try:
        app()
    except UserError as error:
        typer.echo(f"dualpipe-sim: {' '.join(str(error).split())}", err=True)
        sys.exit(2)
    except BrokenPipeError:
        # The reader (head, less) is gone; let the interpreter's last flush find a place to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
