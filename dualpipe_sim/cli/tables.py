"""Results as tables on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from dualpipe_sim.registry import ScheduleSpec
from dualpipe_sim.result import HEADINGS, Comparison, Result, format_seconds

_HEADINGS = {"warm_up": "warm-up", "exposed_transfer": "transfer"}


def print_run(result: Result) -> None:
    """Print one run: its main numbers, then a row a rank."""
    console = Console()
    console.print(_runs([result]))
    if result.theory:
        console.print(f"formula: {result.theory['source']}", highlight=False, soft_wrap=True)
    console.print(f"span bubble {result.span_bubble_ratio:.1%}, played by the {result.engine} engine", highlight=False)
    console.print(_by_rank(result))


def print_comparison(comparison: Comparison) -> None:
    """Print a comparison: a row a schedule, and below it why others were refused."""
    console = Console()
    done = [run for run in comparison if run.error is None]
    if done:
        console.print(_runs(done))
    if any((run.theory or {}).get("over") == "span" for run in done):
        console.print("* over the span from a rank's first op to its last, as its paper counts", highlight=False)
    for run in comparison:
        if run.error is not None:
            console.print(f"refused: {run.error}", highlight=False, soft_wrap=True)


def print_schedules(specs: Mapping[str, ScheduleSpec]) -> None:
    """Print the registry: name, source, what a schedule needs, and its options."""
    console = Console()
    for name, spec in specs.items():
        options = ", ".join(f"{option}={parameter.default}" for option, parameter in spec.options.items())
        console.print(f"[bold]{name}[/bold]", highlight=False)
        for label, text in (("", spec.source), ("needs ", spec.needs), ("options: ", options)):
            if text:
                console.print(Padding(f"{label}{escape(text)}", (0, 0, 0, 4)), highlight=False)


def _runs(runs: list[Result]) -> Table:
    # The size that most have stands above the table; a schedule with its own says so in its row.
    usual = Counter(run.size for run in runs).most_common(1)[0][0]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left", title_style="")
    table.title = f"{usual} (ranks × micro-batches)"
    table.add_column("schedule", overflow="fold", min_width=20)
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for run in runs:
        table.add_row(run.label if run.size == usual else f"{run.label}, {run.size}", *run.summary())
    return table


def _by_rank(result: Result) -> Table:
    causes = result.idle_s_by_cause or {}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("rank", "bubble", *(_HEADINGS.get(cause, cause) for cause in causes), "in flight", "act."):
        table.add_column(heading, justify="right")
    columns = zip(
        result.bubble_ratio_by_rank or (),
        zip(*causes.values(), strict=True),
        result.peak_in_flight_by_rank or (),
        result.peak_activations_by_rank or (),
        strict=True,
    )
    for rank, (bubble, idle, in_flight, activations) in enumerate(columns):
        table.add_row(f"{rank}", f"{bubble:.1%}", *map(format_seconds, idle), f"{in_flight}", f"{activations:.4g}")
    return table
