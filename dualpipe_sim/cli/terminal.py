"""What commands say on a terminal: every text passes here, and none of it acts on the terminal.

A name may come from a stranger's file. What is not to be seen in it is written out (``errors.visible``), and words in
brackets are words and no markup. Nothing else in ``cli/`` writes: a lint rule holds that.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import typer

from dualpipe_sim.base.show import Table, on_one_line, wrapped
from dualpipe_sim.errors import visible

if TYPE_CHECKING:
    from rich.console import Console

_INDENT = 4


def write(text: str, *, err: bool = False) -> None:
    """Write a text of whole lines, such as a CSV."""
    typer.echo(visible(text), nl=False, err=err)


def line(text: str, *, err: bool = False) -> None:
    """Write one line, whatever the names in it hold."""
    typer.echo(on_one_line(text), err=err)


def say(text: str) -> None:
    """Write a sentence; one that is longer than a line goes on in the next, at a word."""
    typer.echo("\n".join(wrapped(visible(text), _columns())))


def print_table(table: Table) -> None:
    """Write a table with all its rows, in the width of the terminal."""
    typer.echo(replace(table, most=len(table.rows)).text(_columns()) + "\n")


class Entry(NamedTuple):
    """Something by name, and what there is to say of it.

    Attributes:
        name: stands out.
        about: stands beside it.
        paragraphs: stand below, further in.

    """

    name: str
    about: str = ""
    paragraphs: Sequence[str] = ()


def print_entries(entries: Iterable[Entry]) -> None:
    """Write a list of things."""
    from rich.padding import Padding
    from rich.text import Text

    console = console_on()
    for entry in entries:
        name = Text.assemble((on_one_line(entry.name), "bold"), on_one_line(entry.about))
        console.print(name, highlight=False)
        for paragraph in filter(None, entry.paragraphs):
            console.print(Padding(Text(visible(paragraph)), (0, 0, 0, _INDENT)), highlight=False)


def console_on(*, err: bool = False) -> Console:
    """Return what Rich draws on, where words are no markup; ``err`` for stderr."""
    from rich.console import Console

    return Console(stderr=err, markup=False, emoji=False)


def flush() -> None:
    """Write what is still to be written; an ``OSError`` where that cannot be."""
    if sys.stdout is not None:
        sys.stdout.flush()


def print_no_more() -> None:
    """Let the interpreter's last flush of stdout find a place to go."""
    with suppress(OSError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _columns() -> int:
    return shutil.get_terminal_size().columns
