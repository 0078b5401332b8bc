"""Error bars: how far off a predicted step may be, and which settings are too close to call.

The numbers stand in ``accuracy.yaml``, which ``make board`` writes; docs/accuracy.md says what they were made from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from dualpipe_sim.base.show import brief
from dualpipe_sim.base.units import format_seconds
from dualpipe_sim.config.yaml_text import read_yaml
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.experiment import Experiment
from dualpipe_sim.result import Comparison, Result
from dualpipe_sim.scoring.rows import Class

if TYPE_CHECKING:
    from dualpipe_sim.batch.points import Row
    from dualpipe_sim.plan import Plan

_FILE = Path(__file__).parent / "accuracy.yaml"
_MEGATRON = ("megatron", "megatron-2021", "megatron-2022")
_RUNS: dict[Class, str] = {
    "megatron-dense": "published dense runs on Megatron-LM or its kin",
    "dense": "published dense runs",
    "moe": "published runs with experts",
}


@dataclass(frozen=True)
class ErrorBar:
    """How far predictions of published runs of one class are off: of predicted over measured steps, less one.

    >>> bar = ErrorBar("moe", rows=20, median=0.1, p90=0.25, bias=-0.05)
    >>> bar.range_s(10.0)
    (8.0, 13.333333333333334)
    >>> bar.in_words(10.0)
    'step 10 s, 8 to 13.3 s: of 20 published runs with experts nine in ten lie within 25 % (docs/accuracy.md)'

    Attributes:
        kind: the class.
        rows: runs that count.
        median: of errors without their signs.
        p90: nine of ten are no larger.
        bias: median with signs.
        of_trace: whether the prediction at hand is of DeepSeek's software, whose times are fitted to one trace; none of
            those runs is, and it is taken to be as far off.

    """

    kind: Class
    rows: int
    median: float
    p90: float
    bias: float
    of_trace: bool = False

    __repr__ = brief

    def range_s(self, step_s: float) -> tuple[float, float]:
        """Return the least and the most seconds of a step whose prediction is off by p90 at most."""
        return step_s / (1 + self.p90), step_s / (1 - self.p90) if self.p90 < 1 else inf

    @property
    def provenance(self) -> str:
        """Where the bar comes from, in words."""
        runs = f"of {self.rows} {_RUNS[self.kind]} nine in ten lie within {_percent(self.p90)} (docs/accuracy.md)"
        taken = ", and steps of stack deepseek, fitted to one trace, are taken to be no further off"
        return runs + taken * self.of_trace

    def in_words(self, step_s: float) -> str:
        """Return a predicted step with its bar, and where that comes from."""
        return f"step {format_seconds(step_s)}, {_range(*self.range_s(step_s))}: {self.provenance}"

    def to_dict(self) -> dict[str, object]:
        """Return the class and its errors, ready for JSON."""
        return {"class": self.kind, "rows": self.rows, "median": self.median, "p90": self.p90}


class ScheduleErrors(NamedTuple):
    """How far steps are off that the costs of another schedule's run predict; docs/accuracy.md says of which runs.

    Attributes:
        rows: how many were measured and predicted.
        median: of errors without their signs.
        p90: nine of ten are no larger.

    """

    rows: int
    median: float
    p90: float


def error_bar(experiment: Experiment) -> ErrorBar | None:
    """Return how far off the steps of an experiment may be; None where they are not made of a model's shapes and a GPU.

    >>> from dualpipe_sim.config import load_experiment
    >>> error_bar(load_experiment("deepseek_v3")).kind, error_bar(load_experiment("figure5"))
    ('moe', None)
    """
    costs = experiment.cost_model
    if not isinstance(costs, LayerCosts):
        return None
    return class_bar(_class_of(costs), of_trace=not costs.job.recipe.stack.by_shape)


def class_bar(kind: Class, *, of_trace: bool = False) -> ErrorBar:
    """Return the error bar of a class; ``of_trace`` as in :class:`ErrorBar`."""
    return ErrorBar(kind, **_board()[kind], of_trace=of_trace)


def schedule_errors() -> ScheduleErrors:
    """Return how far off one schedule is against another on the same costs.

    >>> found = schedule_errors()
    >>> 0 < found.median < found.p90 < 1
    True
    """
    return ScheduleErrors(**_board()["schedules"])


def too_close_to_call(comparison: Comparison) -> list[str]:
    """Return the labels of schedules that are not slower than the first by more than schedules are off.

    Costs are the same for all, so that what is wrong with them cancels; time is that of a token. Where the first fits
    its GPUs, what does not is no rival.
    """
    first, others = _rivals(comparison)
    if first is None:
        return []
    most = 1 + schedule_errors().p90
    return [_named(run, comparison) for run in others if _speed(first) <= most * _speed(run)]


def remarks(comparison: Comparison, bar: ErrorBar | None) -> tuple[str, ...]:
    """Return what a comparison's steps, and their order, must not be read without; nothing without a bar."""
    first, others = _rivals(comparison)
    if bar is None or first is None:
        return ()
    who = _named(first, comparison)
    step = bar.in_words(first.step_time_s or 0.0)
    if not others:
        return (step,)
    off, close = schedule_errors(), too_close_to_call(comparison)
    fitting = " that fit" * any(run.error is None and run.fits is not first.fits for run in comparison)
    faster = f"{who} is faster than the others{fitting}"
    found = f"too close to call with {who}: {', '.join(close)}" if close else faster
    inside = any(_has_collectives(run) for run in (first, *others))
    without = ", none with collectives inside its ops" * inside
    return (
        f"{who}: {step}",
        f"{found}; of {off.rows} measured steps{without}, predicted from another schedule's run, nine in ten lie "
        f"within {_percent(off.p90)}",
    )


def run_error(bar: ErrorBar | None) -> dict[str, object]:
    """Return how far off a run's step may be, ready for JSON (its own key ``error`` says why it was refused)."""
    return {"step_time_error": None if bar is None else bar.to_dict()}


def comparison_errors(comparison: Comparison, bar: ErrorBar | None) -> dict[str, object]:
    """Return the same ready for JSON; without a bar all keys are None."""
    if bar is None:
        return dict.fromkeys(("step_time_error", "schedule_error", "too_close_to_call"))
    return {
        **run_error(bar),
        "schedule_error": schedule_errors()._asdict(),
        "too_close_to_call": too_close_to_call(comparison),
    }


def plan_close(plan: Plan, bar: ErrorBar) -> list[int]:
    """Return the places in a plan's ranking, from 1, of those that are too close to call with its first.

    Settings share a part of what is wrong with their costs, and nothing measured says how much: a setting is too close
    where it is slower by no more than the median error, with which half of all predictions are.
    """
    return [place for place, row in enumerate(plan.ranked, 1) if place > 1 and _step_s(row) <= _most_s(plan, bar)]


def plan_remarks(plan: Plan, bar: ErrorBar | None) -> list[str]:
    """Return what a plan's steps, and their order, must not be read without; nothing without a bar or a ranking."""
    if bar is None or not plan.ranking:
        return []
    words = [bar.in_words(_step_s(plan.ranked[0]))]
    close, more = plan_close(plan, bar), _others_that_may_be_close(plan, bar)
    if len(plan.ranking) > 1 or more:
        both = [places_in_words(close)] * bool(close) + [f"up to {more:,} not ranked"] * bool(more)
        found = f"too close to call with 1: {' and '.join(both)}" if both else "none is too close to call with 1"
        words.append(
            f"{found}; slower by {_percent(bar.median)} or less, the median error of those runs, since nothing "
            "measured says how much of it two settings share"
        )
    return words


def plan_errors(plan: Plan, bar: ErrorBar | None) -> dict[str, object]:
    """Return the same ready for JSON; without a bar all keys are None."""
    if bar is None:
        return dict.fromkeys(("step_time_error", "too_close_within", "too_close_to_call"))
    return {
        "step_time_error": bar.to_dict(),
        "too_close_within": {"error": "median", "share": bar.median},
        "too_close_to_call": plan_close(plan, bar) if plan.ranking else [],
    }


@cache
def _board() -> dict[str, Any]:
    return read_yaml(_FILE)


def _class_of(costs: LayerCosts) -> Class:
    """Return the class that a published run of these costs would be of (:func:`dualpipe_sim.scoring.rows.class_of`)."""
    job = costs.job
    if job.model.experts is not None:
        return "moe"
    megatron = job.recipe.stack.name in _MEGATRON
    return "megatron-dense" if megatron and not job.parallel.shards_weights else "dense"


def _rivals(comparison: Comparison) -> tuple[Result | None, list[Result]]:
    """Return the first run whose step is known, and those that are to be told from it."""
    done = [run for run in comparison if run.error is None and run.step_time_s is not None]
    return (done[0], [run for run in done[1:] if run.fits is done[0].fits]) if done else (None, [])


def _has_collectives(run: Result) -> bool:
    return run.alltoall_hidden_ratio is not None or any(run.exposed_tensor_parallel_s_by_rank or [])


def _speed(run: Result) -> float:
    return run.tokens_per_second_per_gpu or 0.0


def _named(run: Result, comparison: Comparison) -> str:
    """Return a run's label, with its size where another run has that label, too."""
    return run.label if sum(other.label == run.label for other in comparison) == 1 else f"{run.label}, {run.size}"


def _step_s(row: Row) -> float:
    """Return the step of a row of a plan's ranking, as its table shows it."""
    return cast("float", row["confirmed_step_time_s"] or row["step_time_s"])


def _most_s(plan: Plan, bar: ErrorBar) -> float:
    return _step_s(plan.ranked[0]) * (1 + bar.median)


def _others_that_may_be_close(plan: Plan, bar: ErrorBar) -> int:
    """Return how many candidates outside of a ranking fit, as far as is known, and may be too close to call."""
    ranked, most_s = set(plan.ranking), _most_s(plan, bar)
    others = (row for place, row in enumerate(plan.rows) if place not in ranked)
    left = (row for row in others if row["reason"] in (None, "work", "bound"))
    return sum(cast("float", row["step_time_s"] or row["bound_s"]) <= most_s for row in left)


def places_in_words(numbers: Sequence[int]) -> str:
    """Return numbers in words, those in a row as from one to another: ``2 to 4, 7``."""
    rows: list[list[int]] = []
    for number in numbers:
        if rows and number == rows[-1][-1] + 1:
            rows[-1].append(number)
        else:
            rows.append([number])
    return ", ".join(f"{row[0]} to {row[-1]}" if len(row) > 1 else f"{row[0]}" for row in rows)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.095 else f"{100 * share:.0f} %"


def _range(least_s: float, most_s: float) -> str:
    if most_s == inf:
        return f"{format_seconds(least_s, 3)} or more"
    least, most = format_seconds(least_s, 3), format_seconds(most_s, 3)
    unit = most.partition(" ")[2]
    return f"{least.removesuffix(f' {unit}')} to {most}"
