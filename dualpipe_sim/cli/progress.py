"""Progress of commands that evaluate many points, and what Ctrl-C leaves of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dualpipe_sim.base.signals import Stopped

if TYPE_CHECKING:
    from rich.progress import TaskID

    from dualpipe_sim.batch.points import Progress


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Give what a progress bar is told by, on stderr; there is none where nobody watches."""
    from rich import progress
    from rich.console import Console

    columns = (
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("left"),
    )
    console = Console(stderr=True)
    with progress.Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        tasks: list[TaskID] = []

        def show(done: int, total: int) -> None:
            if not tasks:  # rows of an earlier run are no speed
                tasks.append(bar.add_task("", total=total, completed=done, rate=""))
            speed = bar.tasks[0].speed
            bar.update(tasks[0], completed=done, rate=f"{speed:.3g} points/s" if speed else "")

        yield show


@contextmanager
def interruptible(output: str | None) -> Iterator[None]:
    """Let what ends the program say what stays."""
    try:
        yield
    except Stopped as stop:
        stop.left = (
            f"{output} keeps the rows so far; --resume goes on" if output else "with -o FILE, --resume could go on"
        )
        raise
