"""What is answered of orders, searches, plans, scenarios, maps and measured runs."""

from __future__ import annotations

from typing import Literal

from dualpipe_sim.answers.keys import Schema, keys, listed, nullable, of_type, record, value
from dualpipe_sim.answers.runs import BAR, NO_BAR, stage
from dualpipe_sim.engine.scenarios import Scenarios
from dualpipe_sim.order.finding import Finding
from dualpipe_sim.plan import Plan
from dualpipe_sim.plan.outcome import REASONS
from dualpipe_sim.plan.searched import Tried
from dualpipe_sim.plan.space import Candidate
from dualpipe_sim.plan.why_first import WhyFirst
from dualpipe_sim.result import Result
from dualpipe_sim.robustness.axis import Axis
from dualpipe_sim.robustness.outcome import Lead, Standing
from dualpipe_sim.robustness.regime_map import RegimeMap
from dualpipe_sim.schedules.registry import ScheduleSpec
from dualpipe_sim.scoring.board import Board, Errors, Pointer
from dualpipe_sim.scoring.predict import Prediction
from dualpipe_sim.search.found import Found


def schedules() -> dict[str, Schema]:
    """Return the keys of the list of schedules."""
    option = {
        "name": value(str, "what it is called"),
        "type": value(str, "what values it takes, in words"),
        "default": {"description": "its value where none is given; null too where it must be given"},
        "required": value(bool, "whether it must be given"),
    }
    one = {
        **keys(ScheduleSpec, "name", "source"),
        "needs": keys(ScheduleSpec, "requires")["requires"],
        "options": listed(record("an option", option), "options beside the sizes"),
    }
    return {"schedules": listed(record("a schedule", one), "the registered schedules, by name")}


def check() -> dict[str, Schema]:
    """Return the keys of what is wrong with an order."""
    null = "; null where something is wrong"
    return {
        "legal": value(bool, "whether nothing is wrong"),
        "findings": listed(of_type(Finding, {}), "all that is wrong"),
        "ranks": value(int | None, "pipeline ranks" + null),
        "stages": value(int | None, "stages of all pipes" + null),
        "micro_batches": value(int | None, "micro-batches of a step, all pipes together" + null),
    }


def robust() -> dict[str, Schema]:
    """Return the keys of schedules in scenarios."""
    row = {
        **keys(Result, "schedule", "options", "ranks", "micro_batches", "fits"),
        **keys(Standing, "plain_s", "p50_s", "p95_s", "worst_s"),
        "best_share": value(float, "share of the scenarios in which it is the best of those that fit"),
        "mean_regret": value(float | None, "how much longer it takes than the best of each scenario, as a share; mean"),
        "p95_regret": value(float | None, "the same, which 95 % of the scenarios do not exceed"),
        "worst_regret": value(float | None, "the same of the worst scenario"),
    }
    behind = record(
        "a schedule",
        {
            "share": value(float | None, "how much longer it takes, as a share"),
            "surely": value(list[float | None], "what that is between in 95 of 100 samples of as many scenarios"),
        },
    )
    lead = {
        **keys(Lead, "percentile"),
        "schedule": value(str, "the label of the best"),
        "too_close_to_call": value(list[str], "labels of others that may as well be the best"),
        "behind": {"type": "object", "additionalProperties": behind, "description": "each schedule, by label"},
    }
    return {
        "scenarios": {**of_type(Scenarios, {}), "description": "what was drawn"},
        "schedules": listed(record("a schedule", row), "the best by its 95th percentile first, then what does not fit"),
        "best": listed(record("a percentile", lead), "which schedule is best by each percentile, and how surely"),
        "refused": listed(
            record("a schedule", keys(Result, "schedule", "error")), "schedules that cannot be played, and why"
        ),
    }


def regimes() -> dict[str, Schema]:
    """Return the keys of a map."""
    axis = record("an axis", keys(Axis, "key", "values"))
    point = {
        "best": value(str | None, "the best schedule; null where none fits"),
        "second": value(str | None, "the second best; null where there is none"),
        "margin": value(float | None, "how much longer the second takes than the best, as a share"),
        "too_close": value(bool, "whether that is too little to call"),
        "unfit": value(dict[str, str], "why schedules cannot be played or do not fit, by name"),
    }
    others = {
        "description": "the point's value on an axis, by its key; or by a schedule's name its seconds of a micro-batch "
        "(GPU-seconds of a token where a model is known), null where it cannot be played"
    }
    points = listed(record("a point", point, others=others), "the points, line by line from below")
    found = keys(RegimeMap, "x", "y", "schedules", "close", "crossings", told={Axis: axis})
    return {**found, "points": points}


def plan() -> dict[str, Schema]:
    """Return the keys of a plan; ``why`` and ``searched`` only where they were asked for."""
    row = record("a candidate", _candidate())
    within = {"error": value(str, "which error of published runs it is"), "share": value(float, "that error")}
    return {
        **keys(Plan, "gpus"),
        "candidates": value(int, "how many candidates there are"),
        **keys(Plan, "runs", "certain", renamed={"ruled_out": "reasons"}),
        "ranking": listed(row, "the best, the fastest first; first those confirmed with links shared"),
        "closest": nullable(row, "where none fits, the one that needs the least memory; null else"),
        "searched": listed(
            record("a cut", _tried()), "where it was asked for, what came of the orders that were searched"
        ),
        "step_time_error": nullable(BAR, BAR["description"] + NO_BAR),
        "too_close_within": nullable(record("", within), "which share slower is too close to call with the first"),
        "too_close_to_call": value(list[int] | None, "places in the ranking, from 1, that are too close to the first"),
        "why": record("why the first is first", _why_first()),
    }


def search() -> dict[str, Schema]:
    """Return the keys of what a search found."""
    return {
        **keys(Found, "makespan_s", "bound_s", "bound", "gap"),
        "work_s": value(float, "seconds of a rank's work if all had the same", "s"),
        **keys(Found, "partition", "stages_by_rank", renamed={"recomputed_stages": "recomputed"}),
        "peak_activations_by_rank": value(list[float], "most activations of each rank, in those of a mean rank"),
        **keys(Result, "bubble_ratio"),
        **keys(Found, "origin", renamed={"proved_for_its_stages": "proved"}),
        **keys(Found, "named", "rounds", "seconds", "seed", "interrupted", "remark"),
        "order": value(str, "the order as torch's CSV: a row a rank, a cell a task"),
    }


def score() -> dict[str, Schema]:
    """Return the keys of measured runs, each predicted."""
    name = keys(Prediction, "id", renamed={"class": "kind"})
    predicted = ("step_time_s", "memory_bytes", "fits", "stack", "assumed", "parts_s", "measured_step_time_s")
    both = (*predicted, "error", "measured_memory_bytes", "memory_error")
    one = [
        record("a run that is predicted", name | keys(Prediction, *both)),
        record("a run that is not", name | {"unsupported": value(str, "why nothing is predicted")}),
    ]
    errors = keys(Errors, "rows", "median", "p90", "bias")
    summed = record("the runs of one", {"rows": value(int, "how many"), **keys(Board, "stated"), **errors})
    group = {"type": "object", "additionalProperties": summed}
    groups = ("classes", "sources", "gpus", "precisions")
    return {
        "rows": value(int, "how many runs there are"),
        **keys(Board, "stated"),
        "predictions": listed({"anyOf": one}, "in the order of the rows"),
        **{name: {**group, "description": f"errors of steps by {name}"} for name in groups},
        "memory": {**record("", errors), "description": "errors of peak memory, of all runs"},
        "points_to": listed(of_type(Pointer, {}), "what a systematic error points to; empty where there is none"),
    }


def _candidate() -> dict[str, Schema]:
    """Return the keys of a plan's candidate; what is known only of those run is null of others."""
    ran = keys(Result, "step_time_s", "tokens_per_second_per_gpu", "mfu", "bubble_ratio")
    known = {
        **ran,
        "exposed_s": value(float, "seconds of communication beside which nothing computes, mean over ranks", "s"),
        "peak_memory_bytes": value(int, "what the fullest rank needs, with what is reserved and lost", "bytes"),
        "fullest_rank": value(int, "that rank"),
        "micro_batches": keys(Result, "micro_batches")["micro_batches"],
        "data_parallel": value(int, "GPUs, or groups of them, that train on different data"),
        "reason": value(
            Literal[tuple(REASONS)],  # which the constant has
            f"why it is ruled out; {'; '.join(f'{key}: {why}' for key, why in REASONS.items())}",
        ),
        "detail": value(str, "the same in a sentence"),
        "bound_s": value(float, "seconds that its step is not below", "s"),
        "any_order_s": value(float, "seconds that no order's step is below on its placement", "s"),
        "confirmed_step_time_s": value(float, "seconds of its step with links shared", "s"),
        "error": value(str, "why it failed"),
    }
    rest = {key: nullable(one) for key, one in known.items()}
    return {**keys(Candidate), **rest, "point": value(str, "its name: a digest of its values and the configuration")}


def _tried() -> dict[str, Schema]:
    return keys(Tried, "schedule", "step_time_s", "searched", "searched_step_time_s", "remark")


def _why_first() -> dict[str, Schema]:
    spent = "seconds of the first's critical path by what they are spent on, as in the answer of why"
    return {
        **keys(WhyFirst),
        "slowest_stage": record("the stage of the first whose F and B take longest alone", stage()),
        "critical_s": value(dict[str, float], spent, "s"),
        **keys(WhyFirst, "binding"),
    }
