"""What a run says: its timeline and every number worth knowing of it, for people, notebooks and programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

from dualpipe_sim.analysis.memory import Memory
from dualpipe_sim.base.plain_data import data_frame, plain_data
from dualpipe_sim.base.show import Table, Tabular, line
from dualpipe_sim.base.units import format_number, format_percent, format_seconds, in_narrow_gb, label_of, sizes
from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.graph.timeline import Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dualpipe_sim.base.plain_data import DataFrame
    from dualpipe_sim.experiment import Choice
    from dualpipe_sim.pictures.report import Page

Theory: TypeAlias = dict[str, object]

HEADINGS = ("makespan", "mb/s", "bubble", "idle", "paper", "peak", "paper")
"""What a run's summary shows: micro-batches a second, the bubble ratio, the idle seconds of the rank with the most and
its most activations, each beside the paper's formula."""

TRAINING_HEADINGS = ("makespan", "step", "tok/s/GPU", "MFU", "bubble", "hidden", "GB")
"""What it shows where a model is known: the step, with gradient reduction and optimizer; tokens a second and GPU; model
FLOPs over the BF16 peak, causal; the share of all-to-all beside which compute runs; the fullest rank's peak memory."""


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
        theory: ``bubble_s`` and ``peak_activations`` as the paper's formula has them, whether the simulated bubble must
            be ``exact``-ly that, what it is ``over`` (makespan, or span from a rank's first op to its last), and the
            ``source``; None without one.
        engine: what played the task graph.
        step_time_s: seconds of a training step, gradient reduction and optimizer included; this and what follows is
            None where no model is known.
        tokens_per_second_per_gpu: tokens trained on, a second and GPU.
        mfu: model FLOPs over what the BF16 peak allows, the masked half of attention left out.
        mfu_noncausal: the same with the masked half counted.
        gpu_hours_per_trillion_tokens: GPU-hours that 10^12 tokens take.
        alltoall_hidden_ratio: share of the all-to-alls' time beside which compute runs; None without any.
        exposed_alltoall_s_by_rank: seconds of all-to-all beside which nothing computes.
        peak_memory_bytes_by_rank: most bytes in use on a GPU of each rank.
        over_memory: ``rank`` and ``excess_bytes`` of each rank that needs more than its GPU has, the fullest first.
        overlapped_pair_s: seconds of each distinct overlapped pair, by its stages (``0F;7B``).
        slowest_stage: the stage whose F and B take longest where they run alone, and their ``seconds``.
        noise: with jitter, how many ``runs`` were drawn, and their makespans' ``median_s``, ``p5_s`` and ``p95_s``.
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
    step_time_s: float | None = None
    tokens_per_second_per_gpu: float | None = None
    mfu: float | None = None
    mfu_noncausal: float | None = None
    gpu_hours_per_trillion_tokens: float | None = None
    alltoall_hidden_ratio: float | None = None
    exposed_alltoall_s_by_rank: list[float] | None = None
    peak_memory_bytes_by_rank: list[int] | None = None
    over_memory: list[dict[str, int]] | None = None
    overlapped_pair_s: dict[str, float] | None = None
    slowest_stage: dict[str, float] | None = None
    noise: dict[str, float] | None = None
    error: str | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    timeline: Timeline | None = None
    memory: Memory | None = None

    def __repr__(self) -> str:
        size = sizes(self.ranks, self.micro_batches)
        if self.error is not None:
            return line(self, self.label, size, f"refused: {self.error}")
        bubble = f"bubble {format_percent(self.bubble_ratio)}"
        return line(self, self.label, size, format_seconds(self.makespan_s), bubble)

    @property
    def label(self) -> str:
        """The schedule's name with its options."""
        return label_of(self.schedule, self.options)

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

    def summary(self) -> list[str]:
        """Return the main numbers as text, one for each of ``HEADINGS``; empty where refused."""
        if self.error is not None:
            return []
        idle_s = [sum(causes) for causes in zip(*(self.idle_s_by_cause or {}).values(), strict=True)]
        theory = self.theory or {}
        return [
            format_seconds(self.makespan_s),
            format_number(self.micro_batches_per_s),
            format_percent(self.bubble_ratio),
            format_seconds(max(idle_s, default=0.0)),
            format_seconds(theory.get("bubble_s")) + ("*" if theory.get("over") == "span" else ""),
            format_number(max(self.peak_activations_by_rank or [0.0])),
            format_number(theory.get("peak_activations")),
        ]

    def training_summary(self) -> list[str]:
        """Return the main numbers of a run with a model, one for each of ``TRAINING_HEADINGS``; empty where refused."""
        if self.error is not None:
            return []
        return [
            format_seconds(self.makespan_s),
            format_seconds(self.step_time_s),
            format_number(self.tokens_per_second_per_gpu),
            format_percent(self.mfu),
            format_percent(self.bubble_ratio),
            format_percent(self.alltoall_hidden_ratio),
            in_narrow_gb(max(self.peak_memory_bytes_by_rank or [0])),
        ]


KEYS = tuple(one.name for one in fields(Result) if one.name not in ("metrics", "timeline", "memory"))
"""The keys of every run in JSON and in sweeps, before those of registered metrics."""


@dataclass(frozen=True, eq=False)
class Comparison(Tabular, Sequence[Result]):
    """Several schedules on the same costs: most micro-batches a second first, refused ones last.

    >>> from dualpipe_sim import compare
    >>> for run in compare("figure5", compare=["1f1b", "dualpipe", "gpipe"]):
    ...     print(run.label, run.makespan_s)
    dualpipe 66.0
    1f1b 81.0
    gpipe 81.0
    """

    runs: tuple[Result, ...]

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

    def to_table(self) -> Table:
        """Return the main numbers, a row a run, or why it was refused, as the table that this shows itself as."""
        headings, summaries = summaries_of(self.runs)
        rows = [
            [run.label, run.size, *([run.error] if run.error is not None else summary)]
            for run, summary in zip(self.runs, summaries, strict=True)
        ]
        return Table(
            ("schedule", "size", *headings), rows, ("schedule", "size"), notes=notes_of(self.runs), of=len(self)
        )

    def __repr__(self) -> str:
        return line(self, f"of {len(self)}: {', '.join(run.label for run in self.runs)}")

    def gantt(self, **options: Any) -> Figure:  # noqa: ANN401 - the plot names and types them
        """Draw all timelines on one time axis; see :func:`dualpipe_sim.pictures.plot.compare_gantt`."""
        from dualpipe_sim.pictures.plot import compare_gantt

        named = dict(zip(_names(self.runs), self.runs, strict=True))
        timelines = {name: run.timeline for name, run in named.items() if run.timeline is not None}
        return compare_gantt(timelines, memories={name: run.memory for name, run in named.items()}, **options)

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
        from dualpipe_sim.pictures.report import Run, page

        named = zip(_names(self.runs), self.runs, strict=True)
        done = [Run(name, run.timeline, run.memory) for name, run in named if run.timeline is not None]
        return page(done, title=title, table=self.to_table().html(), config=config, first=first)


def _names(runs: Sequence[Result]) -> Iterator[str]:
    """Yield a name of its own for each run: its label, with its size or even a number where others have that, too."""
    labels, names = Counter(run.label for run in runs), Counter[str]()
    for run in runs:
        name = run.label if labels[run.label] == 1 else f"{run.label}, {run.size}"
        names[name] += 1
        yield name if names[name] == 1 else f"{name} ({names[name]})"


def refused(choice: Choice, reason: str) -> Result:
    """Return the result of a schedule that cannot be run."""
    return Result(choice.name, choice.ranks, choice.micro_batches, dict(choice.options), error=reason)


def by_throughput(runs: Sequence[Result]) -> Comparison:
    """Return runs as a comparison: most micro-batches a second first, refused ones last."""
    return Comparison(tuple(sorted(runs, key=lambda run: -(run.micro_batches_per_s or 0.0))))


def summaries_of(runs: Sequence[Result]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Return the headings that fit some runs, and each run's main numbers below them."""
    own = metrics_of(runs)
    model_known = any(run.step_time_s is not None for run in runs)
    headings = TRAINING_HEADINGS if model_known else HEADINGS
    summaries = [run.training_summary() if model_known else run.summary() for run in runs]
    columns = [[format_number(run.metrics.get(name)) for name in own] if run.error is None else [] for run in runs]
    return (*headings, *own), [[*summary, *more] for summary, more in zip(summaries, columns, strict=True)]


def metrics_of(runs: Sequence[Result]) -> tuple[str, ...]:
    """Return the names of the registered metrics of some runs, which are the last of their headings."""
    return tuple(dict.fromkeys(name for run in runs for name in run.metrics))


def notes_of(runs: Sequence[Result]) -> list[str]:
    """Return what numbers of these runs must not be read without: what a formula is over, and which do not fit."""
    over = "* over the span from a rank's first op to its last, as its paper counts"
    starred = any(run.error is None and (run.theory or {}).get("over") == "span" for run in runs)
    full = [f"{run.label} {run.memory.verdict()}" for run in runs if run.memory is not None and run.over_memory]
    return [over] * starred + full
