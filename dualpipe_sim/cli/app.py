"""The command ``dualpipe-sim``."""

from __future__ import annotations

import importlib
import io
import sys
import warnings
from contextlib import suppress
from typing import Annotated, Any, TextIO

import typer

from dualpipe_sim.cli.plain_signs import write_plain_signs
from dualpipe_sim.cli.terminal import flush, line, print_no_more, write
from dualpipe_sim.errors import UserError

_MISUSE: Any = typer.BadParameter.__base__
"""What is raised of a command line that cannot be read; some versions of Typer have their own, others click's."""

app = typer.Typer(
    name="dualpipe-sim",
    help="Simulate pipeline-parallel training schedules: orders, times, bubbles and their causes, Gantt charts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS = (
    "start", "imports", "simulate", "animate", "why", "report", "explore", "memory", "layers", "sweep", "robust",
    "plan", "search", "score", "trace", "calibrate", "compare_run", "orders", "mcp",
)  # fmt: skip
"""Modules beside this one whose commands make up the program, in the order of the help."""


def example(words: str) -> str:
    """Return the line that a command's help ends with."""
    return f"Example: dualpipe-sim {words}"


def _print_version(wanted: bool) -> None:
    if wanted:
        from dualpipe_sim import __version__

        line(f"dualpipe-sim {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - answered by its callback
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
    plugins: Annotated[
        list[str] | None,
        typer.Option(
            "--plugin",
            metavar="FILE",
            help="A Python file that registers schedules, kinds of costs or metrics; it is run (repeatable).",
        ),
    ] = None,
    allowed: Annotated[
        bool,
        typer.Option("--allow-plugins", help="Run the Python files that a configuration names under plugins:, too."),
    ] = False,
) -> None:
    """Take the options that belong to no command."""
    if allowed:
        from dualpipe_sim.base.plugins import allow_plugins

        context.with_resource(allow_plugins())
    if plugins:
        from dualpipe_sim.base.plugins import load_plugin

        for file in plugins:
            load_plugin(file)


def main() -> None:
    """Run the command line; a mistake of the user's is one line on stderr and exit code 2."""
    write_plain_signs()
    warnings.showwarning = _warn
    for module in COMMANDS:
        importlib.import_module(f"dualpipe_sim.cli.{module}")
    try:
        try:
            code = app(standalone_mode=False) or 0
        finally:
            flush()
        sys.exit(code)
    except UserError as error:
        _say(str(error))
        sys.exit(2)
    except _MISUSE as error:  # an option that there is not, say: usage, and what is wrong
        said = io.StringIO()
        error.show(said)
        write(said.getvalue(), err=True)
        sys.exit(2)
    except BrokenPipeError:  # the reader (head, less) is gone
        print_no_more()
        sys.exit(1)
    except OSError as error:
        if error.filename is not None:  # no file of the user's gets here, so it is what is printed
            raise
        print_no_more()
        _say(f"cannot print: {error.strerror or error}")
        sys.exit(2)


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as a line, without its place in the code."""
    del category, filename, lineno, file, line
    _say(str(message))


def _say(message: str) -> None:
    with suppress(OSError):  # nobody may hear it
        line(f"dualpipe-sim: {' '.join(message.split())}", err=True)
