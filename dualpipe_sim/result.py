"""What a run says: its timeline and every number worth knowing of it, for people, notebooks and programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

from dualpipe_sim.analysis.memory import DOES_NOT_FIT, Memory
from dualpipe_sim.base.plain_data import data_frame, plain_data
from dualpipe_sim.base.show import Table, Tabular, line
from dualpipe_sim.base.units import format_number, format_percent, format_seconds, in_narrow_gb, label_of, sizes
from dualpipe_sim.errors import ScheduleError, UserError
from dualpipe_sim.graph.timeline import Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dualpipe_sim.base.plain_data import DataFrame
    from dualpipe_sim.experiment import Choice
    from dualpipe_sim.order.schedule import Schedule
    from dualpipe_sim.pictures.report import Page, Run
    from dualpipe_sim.pictures.widget import ViewerWidget

Theory: TypeAlias = dict[str, object]


@dataclass(frozen=True, eq=False)
class Result(Tabular):
    """One schedule, run; or refused, with the reason in ``error`` and nothing else.

    >>> from dualpipe_sim import simulate
    >>> result = simulate("figure5")
    >>> result.schedule, result.size, result.makespan_s
    ('dualpipe', '8 × 20', 66.0)
    >>> round(result.bubble_ratio, 4), max(result.peak_activations_by_rank)
    (0.0909, 9.0)

    Attributes:
        schedule: name of the schedule.
        ranks: pipeline ranks.
        micro_batches: micro-batches of a step, all pipes together.
        options: the schedule's own options.
        makespan_s: seconds until the last op ends.
        bubble_ratio: mean over ranks of 1 - busy / makespan.
        bubble_ratio_by_rank: the same of each rank.
        span_bubble_ratio: (longest rank span - busiest rank's busy time) / longest rank span.
        compute_idle_ratio: mean over ranks of the share of the makespan in which the compute lane is empty.
        micro_batches_per_s: micro-batches done a second.
        idle_s_by_cause: idle seconds of each rank, by cause; the causes sum to the rank's idle time.
        peak_in_flight_by_rank: most (stage, micro-batch) pairs live at once.
        peak_activations_by_rank: the same in activations of a whole rank's share of the model.
        theory: the bubble and the memory as the paper's formulas have them: ``bubble_s``, the ``formula`` of it and the
            same with ``numbers`` for its letters (None where it is in words or times differ), ``peak_activations``;
            whether the simulated bubble must be ``exact``-ly that, or else the ``reason`` why not, what it is ``over``
            (makespan, or span from a rank's first op to its last), and the ``source``; None for a schedule without one.
        engine: what played the task graph.
        model: the model's ``name``, its routed ``experts``, ``parameters`` and ``active_parameters``, those of linear
            maps that a token passes; this and what follows is None where no model is known.
        step_time_s: seconds of a training step, gradient reduction and optimizer included.
        tokens_per_second_per_gpu: tokens trained on, a second and GPU.
        mfu: model FLOPs over what the BF16 peak allows, the masked half of attention left out.
        mfu_noncausal: the same with the masked half counted.
        gpu_hours_per_trillion_tokens: GPU-hours that 10^12 tokens take.
        alltoall_hidden_ratio: share of the all-to-alls' time beside which compute runs; None without any.
        alltoall_hidden_in_pairs_ratio: the same of those in overlapped pairs.
        exposed_alltoall_s_by_rank: seconds of all-to-all beside which nothing computes.
        exposed_tensor_parallel_s_by_rank: the same of the collectives of tensor-parallel groups.
        peak_memory_bytes_by_rank: most bytes in use on a GPU of each rank.
        over_memory: ``rank`` and ``excess_bytes`` of each rank that needs more than its GPU has, the fullest first.
        overlapped_pair_s: seconds of each distinct overlapped pair, by its stages (``0F;7B``).
        layers_by_stage: transformer layers of each stage of a pipe.
        slowest_stage: the stage whose F and B take longest where they run alone, and their ``seconds``.
        noise: with jitter, how many ``runs`` were drawn, and their makespans' ``median_s``, ``p5_s`` and ``p95_s``.
        measured: what somebody measured of this very run: the ``source``, ``numbers`` by the keys above, and ``why``
            they differ.
        error: why the schedule cannot be run at these sizes, or None.
        metrics: what the metrics that were registered say of it, by name; each is a key of ``to_dict`` too.
        timeline: when everything ran; None where refused.
        memory: the memory of every rank over time; None where no model is known.

    """

    schedule: str
    ranks: int
    micro_batches: int
    options: Mapping[str, object] = field(default_factory=dict)
    makespan_s: float | None = None
    bubble_ratio: float | None = None
    bubble_ratio_by_rank: list[float] | None = None
    span_bubble_ratio: float | None = None
    compute_idle_ratio: float | None = None
    micro_batches_per_s: float | None = None
    idle_s_by_cause: dict[str, list[float]] | None = None
    peak_in_flight_by_rank: list[int] | None = None
    peak_activations_by_rank: list[float] | None = None
    theory: Theory | None = None
    engine: str | None = None
    model: dict[str, Any] | None = None
    step_time_s: float | None = None
    tokens_per_second_per_gpu: float | None = None
    mfu: float | None = None
    mfu_noncausal: float | None = None
    gpu_hours_per_trillion_tokens: float | None = None
    alltoall_hidden_ratio: float | None = None
    alltoall_hidden_in_pairs_ratio: float | None = None
    exposed_alltoall_s_by_rank: list[float] | None = None
    exposed_tensor_parallel_s_by_rank: list[float] | None = None
    peak_memory_bytes_by_rank: list[int] | None = None
    over_memory: list[dict[str, int]] | None = None
    overlapped_pair_s: dict[str, float] | None = None
    layers_by_stage: list[int] | None = None
    slowest_stage: dict[str, float] | None = None
    noise: dict[str, float] | None = None
    measured: Mapping[str, Any] | None = None
    error: str | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    timeline: Timeline | None = None
    memory: Memory | None = None

    def __repr__(self) -> str:
        size = sizes(self.ranks, self.micro_batches)
        if self.error is not None:
            return line(self, self.label, size, f"refused: {self.error}")
        bubble = f"bubble {format_percent(self.bubble_ratio)}"
        return line(self, self.label, size, self.in_words(self.makespan_s), bubble)

    @property
    def label(self) -> str:
        """The schedule's name with its options."""
        return label_of(self.schedule, self.options)

    @property
    def model_in_words(self) -> str:
        """The model's name and how many parameters it has, or nothing where no model is known."""
        if self.model is None:
            return ""
        total, active = (f"{self.model[key] / 1e9:.4g} B" for key in ("parameters", "active_parameters"))
        passed = f", of which a token passes {active}" if self.model["experts"] else ""
        return f"model {self.model['name']}: {total} parameters{passed}"

    def to_dict(self) -> dict[str, object]:
        """Return every key of a run, ready for JSON."""
        plain = {name: getattr(self, name) for name in KEYS}
        return {**plain, "options": plain_data(self.options), **self.metrics}

    def to_table(self) -> Table:
        """Return the main numbers in a row, as the table that a run shows itself as."""
        return Comparison((self,)).to_table()

    def gantt(self, ax: Axes | None = None, **options: Any) -> Axes:  # noqa: ANN401 - the plot names and types them
        """Draw the timeline; see :func:`dualpipe_sim.pictures.plot.gantt`.

        Raises:
            ScheduleError: the schedule was refused.

        """
        from dualpipe_sim.pictures.plot import gantt

        return gantt(self.played, ax, memory=self.memory, **options)

    def report(self, title: str = "", config: str = "") -> Page:
        """Return the run as a page for a browser; see :meth:`Comparison.report`.

        Raises:
            ScheduleError: the schedule was refused.

        """
        return Comparison((self,)).report(title or self.played.graph.schedule.name, config)

    def widget(self) -> ViewerWidget:
        """Return the run as a widget for a notebook; see :meth:`Comparison.widget`.

        Raises:
            ScheduleError: the schedule was refused.
            UserError: anywidget is not installed.

        """
        return Comparison((self,)).widget(self.played.graph.schedule.name)

    @property
    def played(self) -> Timeline:
        """The timeline of a run that was not refused.

        Raises:
            ScheduleError: the schedule was refused.

        """
        if self.timeline is None:
            raise ScheduleError(self.error or f"{self.schedule} was not run")
        return self.timeline

    @property
    def size(self) -> str:
        """Ranks × micro-batches."""
        return f"{self.ranks} × {self.micro_batches}"

    def in_words(self, seconds: object, digits: int = 4) -> str:
        """Return a time of this run as tables write it: without a unit where its costs have none."""
        return format_seconds(seconds, digits, unitless=self.timeline is not None and self.timeline.unitless)

    @property
    def fits(self) -> bool:
        """Whether every rank has the memory that it needs, as far as that is known."""
        return not self.over_memory

    @property
    def caption(self) -> str:
        """The label, and where the schedule does not fit, these words: what stands over charts and in tables."""
        return self.label if self.fits else f"{self.label}, {DOES_NOT_FIT}"


KEYS = tuple(one.name for one in fields(Result) if one.name not in ("metrics", "timeline", "memory"))
"""The keys of every run in JSON and in sweeps, before those of registered metrics."""


@dataclass(frozen=True, eq=False)
class Comparison(Tabular, Sequence[Result]):
    """Several schedules on the same costs: the fastest a micro-batch first, then what does not fit, then refused ones.

    >>> from dualpipe_sim import compare
    >>> for run in compare("figure5", compare=["1f1b", "dualpipe", "gpipe"]):
    ...     print(run.label, run.makespan_s)
    dualpipe 66.0
    1f1b 81.0
    gpipe 81.0

    Attributes:
        runs: in that order.
        remarks: sentences that tables show below, beside those of the runs.

    """

    runs: tuple[Result, ...]
    remarks: tuple[str, ...] = ()

    def __getitem__(self, index: int) -> Result:  # type: ignore[override]
        """Return one run by its place."""
        return self.runs[index]

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Result]:
        return iter(self.runs)

    def to_dict(self) -> dict[str, object]:
        """Return all runs, ready for JSON."""
        return {"runs": [run.to_dict() for run in self.runs]}

    def to_pandas(self) -> DataFrame:
        """Return the runs as a pandas DataFrame: a row a run, the keys of :meth:`Result.to_dict` as columns.

        Raises:
            UserError: pandas is not installed.

        """
        rows = [run.to_dict() for run in self.runs]
        return data_frame(rows, dict.fromkeys(chain(KEYS, *rows)))

    def to_csv(self) -> str:
        """Return the runs as CSV, a row a run: the keys of :meth:`Result.to_dict`, cells as in the table of a sweep."""
        from dualpipe_sim.batch.cells import csv_line

        rows = [run.to_dict() for run in self.runs]
        columns = tuple(dict.fromkeys(chain(KEYS, *rows)))
        return "".join(map(csv_line, (columns, *([row.get(key) for key in columns] for row in rows))))

    def to_table(self) -> Table:
        """Return the main numbers, a row a run, or why it was refused, as the table that this shows itself as."""
        headings, summaries = summaries_of(self.runs)
        rows = [
            [run.caption, run.size, *([run.error] if run.error is not None else summary)]
            for run, summary in zip(self.runs, summaries, strict=True)
        ]
        notes = [*self.remarks, *notes_of(self.runs)]
        return Table(("schedule", "size", *headings), rows, ("schedule", "size"), notes=notes, of=len(self))

    def __repr__(self) -> str:
        return line(self, f"of {len(self)}: {', '.join(run.label for run in self.runs)}")

    def gantt(self, **options: Any) -> Figure:  # noqa: ANN401 - the plot names and types them
        """Draw all timelines on one time axis; see :func:`dualpipe_sim.pictures.plot.compare_gantt`."""
        from dualpipe_sim.pictures.plot import compare_gantt

        named = dict(zip(_names(self.runs), self.runs, strict=True))
        timelines = {name: run.timeline for name, run in named.items() if run.timeline is not None}
        return compare_gantt(timelines, memories={name: run.memory for name, run in named.items()}, **options)

    def plot(self, **options: Any) -> Figure:  # noqa: ANN401 - the plot names and types them
        """Draw all timelines, as :meth:`gantt` does."""
        return self.gantt(**options)

    def report(self, title: str = "comparison", config: str = "", first: str = "") -> Page:
        """Return all runs as one page for a browser, to be saved or shown in a notebook.

        The page needs no network: a Gantt chart to zoom and hover over, memory, causes of idle time, this table.

        Args:
            title: what stands on top.
            config: the configuration's text, shown at the end; empty for none.
            first: label of the run to show first; empty for the fastest.

        Raises:
            UserError: every run was refused.

        """
        from dualpipe_sim.pictures.report import page

        return page(self._shown(), title=title, table=self.to_table().html(), config=config, first=first)

    def widget(self, first: str = "") -> ViewerWidget:
        """Return all runs as a widget for a notebook: the report's viewer, which says what is looked at.

        What is chosen in it comes back, and what is set is shown: ``run``, ``op`` and ``window`` of
        :class:`~dualpipe_sim.pictures.widget.ViewerWidget`.

        Args:
            first: label of the run to show first; empty for the fastest.

        Raises:
            UserError: every run was refused, or anywidget is not installed.

        """
        try:
            from dualpipe_sim.pictures.widget import ViewerWidget
        except ModuleNotFoundError as error:
            raise UserError("the widget needs anywidget; pip install 'dualpipe-sim[widget]'") from error
        return ViewerWidget(self._shown(), first)

    def _shown(self) -> list[Run]:
        """Return what a viewer shows: every run that was not refused, with a name of its own."""
        from dualpipe_sim.pictures.report import Run

        named = zip(_names(self.runs), self.runs, strict=True)
        return [Run(name, run.timeline, run.memory) for name, run in named if run.timeline is not None]


def _names(runs: Sequence[Result]) -> Iterator[str]:
    """Yield a name of its own for each run: its label, with its size or even a number where others have that, too."""
    labels, names = Counter(run.label for run in runs), Counter[str]()
    for run in runs:
        name = run.caption if labels[run.label] == 1 else f"{run.caption}, {run.size}"
        names[name] += 1
        yield name if names[name] == 1 else f"{name} ({names[name]})"


def refused(choice: Choice, reason: str) -> Result:
    """Return the result of a schedule that cannot be run."""
    return Result(choice.name, choice.ranks, choice.micro_batches, dict(choice.options), error=reason)


def fastest_first(runs: Sequence[Result]) -> Comparison:
    """Return runs as a comparison: the fastest a token first, then those that do not fit, refused ones last.

    By tokens a second and GPU where a model is known, which is by step time where all have the same micro-batches, and
    else by micro-batches a second.
    """

    def place(run: Result) -> tuple[bool, bool, float]:
        return run.error is not None, not run.fits, -(run.tokens_per_second_per_gpu or run.micro_batches_per_s or 0.0)

    return Comparison(tuple(sorted(runs, key=place)))


_Write: TypeAlias = Callable[[Result], str]


def _most(values: Sequence[float] | None) -> float:
    return max(values or [0.0])


def _idle_s(run: Result) -> float:
    """Idle seconds of the rank with the most."""
    return _most([sum(causes) for causes in zip(*(run.idle_s_by_cause or {}).values(), strict=True)])


def _published(run: Result, key: str) -> object:
    """Return what the paper's formula gives, where the simulated number must be that."""
    theory = run.theory or {}
    return theory.get(key) if key == "peak_activations" or theory.get("exact") else None


def _paper_idle(run: Result) -> str:
    bubble_s = _published(run, "bubble_s")
    starred = bubble_s is not None and (run.theory or {}).get("over") == "span"
    return run.in_words(bubble_s) + "*" * starred


_COLUMNS: dict[str, _Write] = {
    "makespan": lambda run: run.in_words(run.makespan_s),
    "makespan/M": lambda run: run.in_words((run.makespan_s or 0.0) / run.micro_batches),
    "bubble": lambda run: format_percent(run.bubble_ratio),
    "idle": lambda run: run.in_words(_idle_s(run)),
    "paper idle": _paper_idle,
    "peak": lambda run: format_number(_most(run.peak_activations_by_rank)),
    "paper peak": lambda run: format_number(_published(run, "peak_activations")),
}
"""What a run's summary shows: the makespan, also a micro-batch where runs have not all as many; the bubble ratio; the
idle seconds of the rank with the most and its most activations, each beside the paper's formula where that holds."""

_TRAINING_COLUMNS: dict[str, _Write] = {
    "step": lambda run: format_seconds(run.step_time_s),
    "tok/s/GPU": lambda run: format_number(run.tokens_per_second_per_gpu),
    "MFU": lambda run: format_percent(run.mfu),
    "compute idle": lambda run: format_percent(run.compute_idle_ratio),
    "bubble": lambda run: format_percent(run.bubble_ratio),
    "hidden": lambda run: format_percent(run.alltoall_hidden_ratio),
    "GB": lambda run: in_narrow_gb(_most(run.peak_memory_bytes_by_rank)),
}
"""What it shows where a model is known: the step, with gradient reduction and optimizer; tokens a second and GPU; model
FLOPs over the BF16 peak, causal; the share of the makespan in which nothing computes, and that in which no op is in
progress; the share of all-to-all beside which compute runs; the fullest rank's peak memory."""


def summaries_of(runs: Sequence[Result]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Return the headings that fit some runs, and each run's main numbers below them; none where refused."""
    columns = _TRAINING_COLUMNS if any(run.step_time_s is not None for run in runs) else _COLUMNS
    done = [run for run in runs if run.error is None]
    if len({run.micro_batches for run in done}) < 2:
        columns = {heading: write for heading, write in columns.items() if heading != "makespan/M"}
    columns = columns | {name: partial(_metric, name) for name in metrics_of(runs)}
    rows = [[write(run) for write in columns.values()] if run.error is None else [] for run in runs]
    return tuple(columns), rows


def _metric(name: str, run: Result) -> str:
    return format_number(run.metrics.get(name))


def metrics_of(runs: Sequence[Result]) -> tuple[str, ...]:
    """Return the names of the registered metrics of some runs, which are the last of their headings."""
    return tuple(dict.fromkeys(name for run in runs for name in run.metrics))


def _in_parts(schedule: Schedule) -> bool:
    return schedule.micro_batch_share != 1 or schedule.slices > 1


def notes_of(runs: Sequence[Result]) -> list[str]:
    """Return what numbers of these runs must not be read without: what a formula is over, and which do not fit."""
    over = "* over the span from a rank's first op to its last, as its paper counts"
    starred = any(run.error is None and _paper_idle(run).endswith("*") for run in runs)
    parts = [
        f"{run.label} runs {run.timeline.graph.schedule.size}, taken to be as efficient as whole ones"
        for run in runs
        if run.timeline is not None and _in_parts(run.timeline.graph.schedule)
    ]
    caveats = dict.fromkeys(one for run in runs if run.timeline is not None for one in run.timeline.caveats)
    full = [f"{run.label} {run.memory.verdict()}" for run in runs if run.memory is not None and not run.fits]
    return (
        [over] * starred
        + [*caveats]
        + parts
        + full
        + [_beside_measured(run) for run in runs if run.measured is not None]
    )


_MEASURED: dict[str, Callable[[float], str]] = {
    "step_time_s": lambda value: f"step {format_seconds(value)}",
    "tokens_per_second_per_gpu": lambda value: f"{format_number(value)} tok/s/GPU",
    "mfu": lambda value: f"MFU {format_percent(value)}",
    "gpu_hours_per_trillion_tokens": lambda value: f"{value:,.0f} GPU-hours a trillion tokens",
}


def _beside_measured(run: Result) -> str:
    """Return in words what was measured of a run, and how far the simulation is from it."""
    measured = run.measured or {}
    said = [
        f"{_MEASURED[key](value)} ({getattr(run, key) / value - 1:+.1%} here)"
        for key, value in measured["numbers"].items()
    ]
    why = f". {measured['why']}" if measured["why"] else ""
    return f"{run.label} as measured by {measured['source']}: {', '.join(said)}{why}"
