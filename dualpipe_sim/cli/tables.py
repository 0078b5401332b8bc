"""Results as tables on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from dualpipe_sim.base.show import Table
from dualpipe_sim.base.units import format_seconds, in_gb
from dualpipe_sim.cli.terminal import Entry, line, print_entries, print_table, say
from dualpipe_sim.result import Comparison, Result, metrics_of, notes_of, summaries_of
from dualpipe_sim.schedules.registry import ScheduleSpec

if TYPE_CHECKING:
    from dualpipe_sim.config.keys import Key
    from dualpipe_sim.scoring.accuracy import ErrorBar

_HEADINGS = {
    "warm_up": "warm-up",
    "exposed_transfer": "transfer",
    "exposed_alltoall": "all-to-all",
    "exposed_gather": "gather",
    "exposed_reduction": "reduce",
}


def print_run(result: Result, others: Mapping[str, Result], bar: ErrorBar | None) -> None:
    """Print one run: its main numbers, then a row a rank.

    Args:
        result: the run.
        others: the same without what may hold it up, by words that say so.
        bar: how far off its step may be.

    """
    _print_runs([result])
    if bar is not None and result.step_time_s is not None:
        say(bar.in_words(result.step_time_s))
    if result.theory and result.step_time_s is None:
        reason = result.theory["reason"]
        say(f"formula: {result.theory['source']}" + (f"; not shown, since {reason}" if reason else ""))
    for sentence in _training(result):
        say(sentence)
    for caveat in result.played.caveats:
        say(caveat)
    if result.measured is not None:
        say(notes_of([result])[-1])
    if result.noise is not None:
        low, middle, high = (result.in_words(result.noise[key]) for key in ("p5_s", "median_s", "p95_s"))
        say(f"with jitter: {middle}, 90 % of {result.noise['runs']} runs from {low} to {high}")
    for words, other in others.items():
        say(f"{words}: {other.in_words(other.makespan_s)}")
    if result.memory is None and result.peak_memory_bytes_by_rank is not None:
        peaks = result.peak_memory_bytes_by_rank
        fullest = max(range(len(peaks)), key=peaks.__getitem__)
        say(f"peak memory: {in_gb(peaks[fullest])} GB on rank {fullest}, beyond what it holds before a step")
    say(f"span bubble {result.span_bubble_ratio:.1%}, played by the {result.engine} engine")
    _print_ranks(result)


def print_comparison(comparison: Comparison) -> None:
    """Print a comparison: a row a schedule, and below it why others were refused."""
    done = [run for run in comparison if run.error is None]
    if done:
        _print_runs(done)
    for note in (*comparison.remarks, *notes_of(comparison)):
        say(note)
    for run in comparison:
        if run.error is not None:
            who = "" if run.error.startswith(run.schedule) else f"{run.label}: "
            say(f"refused: {who}{run.error}")


def print_schedules(specs: Mapping[str, ScheduleSpec]) -> None:
    """Print the registry: name, source, what a schedule needs, and its options."""
    entries = []
    for name, spec in specs.items():
        options = ", ".join(f"{option}={parameter.default}" for option, parameter in spec.options.items())
        said = (("", spec.source), ("needs ", spec.requires), ("options: ", options))
        entries.append(Entry(name, paragraphs=[f"{label}{text}" for label, text in said if text]))
    print_entries(entries)


def print_names(heading: str, about: Mapping[str, str]) -> None:
    """Print names below a heading, each with what it is."""
    if heading:
        line(heading)
    print_entries(Entry(name, paragraphs=[what]) for name, what in about.items())


def print_keys(keys: Sequence[Key]) -> None:
    """Print keys of a configuration, each with its unit, default, example and meaning."""
    entries = []
    for key in keys:
        facts = [
            f"unit {key.unit}" if key.unit else "",
            "" if key.section or not key.default else f"default {key.default}",
            "must be given" if key.default is None and not key.section else "",
            f"example {key.example}" if key.example is not None else "",
        ]
        said = "; ".join(filter(None, facts))
        entries.append(Entry(key.path, f"  ({said})" if said else "", [key.meaning]))
    print_entries(entries)


def _print_runs(runs: list[Result]) -> None:
    # The size that most have stands above the table; a schedule with its own says so in its row.
    usual = Counter(run.size for run in runs).most_common(1)[0][0]
    labels = [run.caption if run.size == usual else f"{run.caption}, {run.size}" for run in runs]
    headings, summaries = summaries_of(runs)
    rows = [[label, *summary] for label, summary in zip(labels, summaries, strict=True)]
    title = f"{usual} (ranks × micro-batches)"
    own = metrics_of(runs)
    first_own = 1 + len(headings) - len(own)
    print_table(Table(("schedule", *headings)[:first_own], [row[:first_own] for row in rows], ["schedule"], title))
    if own:  # registered metrics, which a narrow terminal has no room for beside the others
        print_table(Table(("schedule", *own), [row[:1] + row[first_own:] for row in rows], ["schedule"]))


def _training(result: Result) -> list[str]:
    """Return what a run says of training, where a model is known."""
    if result.step_time_s is None or result.makespan_s is None:
        return []
    pipeline, after = map(format_seconds, (result.makespan_s, result.step_time_s - result.makespan_s))
    lines = [
        result.model_in_words,
        f"pipeline {pipeline}, then gradient reduction and optimizer {after}",
        f"MFU {result.mfu:.1%} causal, {result.mfu_noncausal:.1%} non-causal; "
        f"{result.gpu_hours_per_trillion_tokens:,.0f} GPU-hours a trillion tokens",
    ]
    if result.alltoall_hidden_ratio is not None:
        exposed_s = max(result.exposed_alltoall_s_by_rank or [0.0])
        in_pairs = result.alltoall_hidden_in_pairs_ratio
        of_pairs = "" if in_pairs is None else f", {in_pairs:.1%} of that in pairs"
        lines.append(
            f"all-to-all: {result.alltoall_hidden_ratio:.1%} hidden{of_pairs}; the rank with the most exposes "
            f"{format_seconds(exposed_s)}"
        )
    waits_s = max(result.exposed_tensor_parallel_s_by_rank or [0.0])
    if waits_s:
        lines.append(f"tensor parallelism: the rank with the most waits {format_seconds(waits_s)} for its collectives")
    if result.overlapped_pair_s:
        shortest_s, longest_s = min(result.overlapped_pair_s.values()), max(result.overlapped_pair_s.values())
        lines.append(f"overlapped pairs last {format_seconds(shortest_s)} to {format_seconds(longest_s)}")
    if result.memory is not None:
        lines.append(f"memory {result.memory.verdict()}")
    if result.layers_by_stage is not None:
        runs = ((layers, len(list(same))) for layers, same in groupby(result.layers_by_stage))
        said = ", ".join(f"{layers}" if times == 1 else f"{times} × {layers}" for layers, times in runs)
        lines.append(f"layers by stage: {said}")
    if result.slowest_stage is not None:
        seconds = format_seconds(result.slowest_stage["seconds"])
        lines.append(f"slowest stage: {result.slowest_stage['stage']}, F and B alone take {seconds}")
    return lines


def _exposed(result: Result) -> Iterator[list[float]]:
    """Yield the seconds of collectives that nothing hides inside the ops of each rank, kind by kind."""
    for seconds in (result.exposed_alltoall_s_by_rank, result.exposed_tensor_parallel_s_by_rank):
        if seconds is not None:
            yield seconds


def _print_ranks(result: Result) -> None:
    """Print a row a rank: bubble, idle seconds by cause, collectives exposed inside ops, what is in flight."""
    seconds = {_HEADINGS.get(cause, cause): idle_s for cause, idle_s in (result.idle_s_by_cause or {}).items()}
    for cause in ("blocked", "host"):  # which there is only where messages or launches have an order of their own
        if not any(seconds.get(cause, ())):
            seconds.pop(cause, None)
    inside_s = [float(sum(of_rank)) for of_rank in zip(*_exposed(result), strict=True)]
    exchanges = result.alltoall_hidden_ratio is not None or any(inside_s)
    if exchanges:
        seconds["inside"] = inside_s
    if result.alltoall_hidden_ratio is None:
        seconds.pop("all-to-all", None)
    digits = 3 if exchanges else 4  # all columns fit 80 characters
    headings = ("rank", "bubble", *seconds, *([] if exchanges else ["in flight"]), "act.")
    columns = zip(
        result.bubble_ratio_by_rank or (),
        zip(*seconds.values(), strict=True),
        result.peak_in_flight_by_rank or (),
        result.peak_activations_by_rank or (),
        strict=True,
    )
    rows = []
    for rank, (bubble, times_s, in_flight, activations) in enumerate(columns):
        times = [result.in_words(time_s, digits) for time_s in times_s]
        live = [] if exchanges else [f"{in_flight}"]
        rows.append([f"{rank}", f"{bubble:.1%}", *times, *live, f"{activations:.4g}"])
    print_table(Table(headings, rows))
