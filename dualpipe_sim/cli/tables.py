"""Results as tables on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from dualpipe_sim.result import Comparison, Result, format_seconds, summaries_of
from dualpipe_sim.schedules.registry import ScheduleSpec

_HEADINGS = {"warm_up": "warm-up", "exposed_transfer": "transfer", "exposed_alltoall": "all-to-all"}


def print_run(result: Result) -> None:
    """Print one run: its main numbers, then a row a rank."""
    console = Console()
    console.print(_runs([result]))
    if result.theory:
        console.print(f"formula: {result.theory['source']}", highlight=False, soft_wrap=True)
    for line in _training(result):
        console.print(line, highlight=False, soft_wrap=True)
    if result.noise is not None:
        low, middle, high = (format_seconds(result.noise[key]) for key in ("p5_s", "median_s", "p95_s"))
        console.print(
            f"with jitter: {middle}, 90 % of {result.noise['runs']} runs from {low} to {high}", highlight=False
        )
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
    for run in done:
        if run.memory is not None and run.over_memory:
            console.print(f"{escape(run.label)} {run.memory.verdict()}", highlight=False, soft_wrap=True)
    for run in comparison:
        if run.error is not None:
            console.print(f"refused: {run.error}", highlight=False, soft_wrap=True)


def print_schedules(specs: Mapping[str, ScheduleSpec]) -> None:
    """Print the registry: name, source, what a schedule needs, and its options."""
    console = Console()
    for name, spec in specs.items():
        options = ", ".join(f"{option}={parameter.default}" for option, parameter in spec.options.items())
        console.print(f"[bold]{name}[/bold]", highlight=False)
        for label, text in (("", spec.source), ("needs ", spec.requires), ("options: ", options)):
            if text:
                console.print(Padding(f"{label}{escape(text)}", (0, 0, 0, 4)), highlight=False)


def _runs(runs: list[Result]) -> Table:
    # The size that most have stands above the table; a schedule with its own says so in its row.
    usual = Counter(run.size for run in runs).most_common(1)[0][0]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left", title_style="")
    table.title = f"{usual} (ranks × micro-batches)"
    table.add_column("schedule", overflow="fold", min_width=20)
    headings, summaries = summaries_of(runs)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for run, summary in zip(runs, summaries, strict=True):
        table.add_row(run.label if run.size == usual else f"{run.label}, {run.size}", *summary)
    return table


def _training(result: Result) -> list[str]:
    """Return what a run says of training, where a model is known."""
    if result.step_time_s is None or result.makespan_s is None:
        return []
    after_s = result.step_time_s - result.makespan_s
    lines = [
        f"gradient reduction and optimizer: {format_seconds(after_s)} after the pipeline",
        f"MFU {result.mfu:.1%} causal, {result.mfu_noncausal:.1%} non-causal; "
        f"{result.gpu_hours_per_trillion_tokens:,.0f} GPU-hours a trillion tokens",
    ]
    if result.alltoall_hidden_ratio is not None:
        exposed_s = max(result.exposed_alltoall_s_by_rank or [0.0])
        lines.append(
            f"all-to-all: {result.alltoall_hidden_ratio:.1%} hidden; the rank with the most exposes "
            f"{format_seconds(exposed_s)}"
        )
    if result.overlapped_pair_s:
        shortest_s, longest_s = min(result.overlapped_pair_s.values()), max(result.overlapped_pair_s.values())
        lines.append(f"overlapped pairs last {format_seconds(shortest_s)} to {format_seconds(longest_s)}")
    if result.memory is not None:
        lines.append(f"memory {result.memory.verdict()}")
    if result.slowest_stage is not None:
        seconds = format_seconds(result.slowest_stage["seconds"])
        lines.append(f"slowest stage: {result.slowest_stage['stage']}, F and B alone take {seconds}")
    return lines


def _by_rank(result: Result) -> Table:
    """Return a row a rank: bubble, idle seconds by cause, all-to-all exposed inside ops, what is in flight."""
    seconds = {_HEADINGS.get(cause, cause): idle_s for cause, idle_s in (result.idle_s_by_cause or {}).items()}
    exchanges = result.alltoall_hidden_ratio is not None
    if exchanges:
        seconds["inside"] = result.exposed_alltoall_s_by_rank or []
    else:
        seconds.pop("all-to-all", None)
    digits = 3 if exchanges else 4  # all columns fit 80 characters
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("rank", "bubble", *seconds, *([] if exchanges else ["in flight"]), "act."):
        table.add_column(heading, justify="right", no_wrap=True)
    columns = zip(
        result.bubble_ratio_by_rank or (),
        zip(*seconds.values(), strict=True),
        result.peak_in_flight_by_rank or (),
        result.peak_activations_by_rank or (),
        strict=True,
    )
    for rank, (bubble, times_s, in_flight, activations) in enumerate(columns):
        times = [format_seconds(time_s, digits) for time_s in times_s]
        live = [] if exchanges else [f"{in_flight}"]
        table.add_row(f"{rank}", f"{bubble:.1%}", *times, *live, f"{activations:.4g}")
    return table
