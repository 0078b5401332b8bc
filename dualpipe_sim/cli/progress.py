"""Progress of commands that evaluate many points, and what Ctrl-C leaves of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dualpipe_sim.base.signals import Stopped
from dualpipe_sim.cli.terminal import console_on

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import ProgressColumn, TaskID

    from dualpipe_sim.batch.points import Progress


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Give what a progress bar is told by, on stderr; there is none where nobody watches."""
    from rich import progress

    columns = (
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("left"),
    )
    with _on_stderr(*columns) as bar:
        tasks: list[TaskID] = []

        def show(done: int, total: int) -> None:
            if not tasks:  # rows of an earlier run are no speed
                tasks.append(bar.add_task("", total=total, completed=done, rate=""))
            speed = bar.tasks[0].speed
            bar.update(tasks[0], completed=done, rate=f"{speed:.3g} points/s" if speed else "")

        yield show


@contextmanager
def seconds_bar() -> Iterator[Callable[[float, float, float], None]]:
    """Give what a bar of a search is told by, on stderr: how much of how much is done, and the best seconds so far."""
    from rich import progress

    from dualpipe_sim.base.units import format_seconds

    columns = progress.BarColumn(), progress.TaskProgressColumn(), progress.TextColumn("{task.description}")
    with _on_stderr(*columns) as bar:
        task = bar.add_task("")

        def show(done: float, total: float, best_s: float) -> None:
            bar.update(task, completed=done, total=total, description=f"best so far {format_seconds(best_s)}")

        yield show


def _on_stderr(*columns: ProgressColumn) -> Bar:
    """Return a bar that is gone when it is done, and never there where nobody watches."""
    from rich import progress

    console = console_on(err=True)
    return progress.Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


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
