"""What is answered of runs: one, several, points of a sweep; memory, layers, a measured run beside a simulated one."""

from __future__ import annotations

from typing import Literal

from dualpipe_sim.analysis.critical_path import PARTS
from dualpipe_sim.analysis.memory import COMPONENTS, Excess, Memory
from dualpipe_sim.answers.keys import Schema, keys, listed, nullable, of_type, record, value
from dualpipe_sim.calibration.compare_run import RunComparison
from dualpipe_sim.costs.breakdown import PARTS as LAYER_PARTS
from dualpipe_sim.costs.breakdown import Breakdown, LayerBreakdown, PartBreakdown
from dualpipe_sim.engine.noise import Spread
from dualpipe_sim.experiment import Measured
from dualpipe_sim.result import KEYS, Result
from dualpipe_sim.schedules.theory import ClosedForm
from dualpipe_sim.scoring.accuracy import ErrorBar, ScheduleErrors
from dualpipe_sim.why.bubble import WHERE, Bubble, Wait
from dualpipe_sim.why.costs import Cost
from dualpipe_sim.why.outcome import Why
from dualpipe_sim.why.sensitivity import Sensitivity

METRIC = value(float | None, "what a registered metric of this name says of the run")
BAR = record(
    "how far predicted steps of its class are off the published ones",
    keys(ErrorBar, renamed={"class": "kind"}) | keys(ErrorBar, "rows", "median", "p90"),
)
NO_BAR = "; null where costs are not made of a model's shapes and a GPU"


def run() -> dict[str, Schema]:
    """Return the keys of a run."""
    return {**run_keys(), "step_time_error": nullable(BAR, BAR["description"] + NO_BAR)}


def run_keys() -> dict[str, Schema]:
    """Return the keys of a run by itself, in the order of its fields."""
    found = keys(Result, *KEYS)
    inner = {
        "theory": theory(),
        "model": {
            "name": value(str, "the model's name"),
            "experts": value(int, "routed experts of a layer; 0 without any"),
            "parameters": value(int, "all parameters but those of multi-token prediction"),
            "active_parameters": value(int, "those of linear maps that a token passes"),
        },
        "slowest_stage": stage(),
        "noise": keys(Spread),
        "measured": keys(Measured),
    }
    for key, inside in inner.items():
        found[key] = nullable(record("", inside), found[key]["description"])
    told = nullable(listed(of_type(Excess, {}), ""), found["over_memory"]["description"])
    return found | {"over_memory": told}


def theory() -> dict[str, Schema]:
    """Return the keys of what a schedule's paper says."""
    formula = keys(ClosedForm, "bubble_s", "formula", "numbers", "exact", "over", "peak_activations", "source")
    return formula | {"reason": value(str | None, "why the simulated bubble need not be that, or null")}


def why() -> dict[str, Schema]:
    """Return the keys of why a step takes as long as it does."""
    parts = ", ".join(key if key == words else f"{key} ({words})" for key, words in PARTS.items())
    depends = keys(Sensitivity) | keys(Sensitivity, "per_second")
    of_cost, key = keys(Cost, "key")["key"]["description"], depends["key"]["description"]
    depends["key"]["description"] = key.replace("that of a `Cost`", of_cost)
    terms = {"sum": value(str | None, "the same as a sum of what costs take, by the letters of formulas; null without")}
    slopes = "by how many seconds it grows for a second more of each cost, by its key; null where there are none"
    part = {
        "seconds": value(float, "how long it idles there", "s"),
        **terms,
        "slopes": value(dict[str, float] | None, slopes),
        "waits": listed(of_type(Wait, {}), "its idle stretches there, in their order"),
    }
    bubble = {
        **keys(Bubble, "rank", "seconds"),
        **terms,
        **keys(Bubble, "one_s"),
        "parts": record(
            "the same by part of its run", {where: record(where.replace("_", "-"), part) for where in WHERE}
        ),
    }
    return {
        **keys(Result, "schedule", "ranks", "micro_batches", "options"),
        **keys(Why, "step_s"),
        **keys(Result, "makespan_s"),
        "critical_path_s": value(
            dict[str, float], f"seconds of the critical path by what they are spent on: {parts}", "s"
        ),
        "costs": listed(record("a cost", depends), keys(Why, "costs")["costs"]["description"]),
        "hardware": listed(record("a part", depends), keys(Why, "hardware")["hardware"]["description"]),
        "bubble": record(keys(Why, "bubble")["bubble"]["description"], bubble),
        "theory": nullable(record("", theory()), keys(Result, "theory")["theory"]["description"]),
    }


def stage() -> dict[str, Schema]:
    """Return the keys of a stage and its seconds."""
    return {
        "stage": value(int, "the stage"),
        "seconds": value(float, "seconds of its F and B where they run alone", "s"),
    }


def compare() -> dict[str, Schema]:
    """Return the keys of a comparison."""
    meaning = "the runs: the fastest a micro-batch first (a token, where a model is known), then what does not fit, "
    rates = of_type(ScheduleErrors, {})
    labels = "labels of runs that are not slower than the first by more than schedules are off"
    return {
        "runs": listed(record("a run", run_keys(), others=METRIC), meaning + "refused ones last"),
        "step_time_error": nullable(BAR, BAR["description"] + NO_BAR),
        "schedule_error": nullable(rates, "how far steps are off that another schedule's run predicts" + NO_BAR),
        "too_close_to_call": value(list[str] | None, labels + NO_BAR),
    }


def sweep() -> dict[str, Schema]:
    """Return the keys of a sweep."""
    said = {key: nullable(one) for key, one in run_keys().items()}
    said["point"] = value(str, "the point's name: a digest of its values, the configuration and the version")
    axis = {"description": "the value of an axis, by its key, or what a registered metric of this name says"}
    row = record("a point", said, others=axis)
    return {
        "rows": listed(row, "a row a point, in their order; all but schedule, options and error null where refused")
    }


def memory() -> dict[str, Schema]:
    """Return the keys of memory."""
    named = [component.replace("-", "_").replace(" ", "_") for component in COMPONENTS]
    parts = {name: value(int, name.replace("_", " "), "bytes") for name in named}
    rank = {
        "rank": value(int, "the rank"),
        "peak_bytes": value(int, "most bytes in use", "bytes"),
        "needed_bytes": value(int, "bytes that its GPU must have: the peak, and what is reserved and lost", "bytes"),
        "peak_time_s": value(float, "when that is, from the start of the step", "s"),
        "headroom_bytes": value(int, "bytes of the GPU that are left; below 0 where it does not fit", "bytes"),
        "at_peak_bytes": record("what the peak is made of", parts),
        "most_bytes": record("the most of each, whenever that is", parts),
    }
    return {
        **keys(Result, "schedule", "ranks", "micro_batches", "options"),
        **keys(Memory, renamed={"gpu_memory_bytes": "gpu_bytes", "over_memory": "over"}),
        "by_rank": listed(record("a rank's GPU", rank), "every rank's peak and what it is made of"),
    }


def layers() -> dict[str, Schema]:
    """Return the keys of a model's layers."""
    sums = ("forward_s", "input_gradient_s", "weight_gradient_s", "recompute_s", "saved_bytes", "parameters")
    name = value(Literal[LAYER_PARTS], "the part")  # which the constant has
    part = record("a part of a layer", {"name": name, **keys(PartBreakdown, *sums, "source")})
    parts = listed(part, "what it consists of, without what takes neither time nor memory")
    layer = record("a layer of a kind", {**keys(LayerBreakdown, "kind", "count", *sums), "parts": parts})
    return keys(Breakdown, told={LayerBreakdown: layer})


def compare_run() -> dict[str, Schema]:
    """Return the keys of a simulated run beside a measured one."""
    op = {
        "task": value(str, "the op, or the pair, as torch's CSV writes it"),
        "rank": value(int, "its rank"),
        "length_s": _both("how long it takes"),
        "start_s": _both("when it begins"),
    }
    kind = {"ops": value(int, "how many there are"), "median_s": _both("how long the one in the middle takes")}
    kinds = {"type": "object", "additionalProperties": record("ops of a kind", kind)}
    about = "ops by kind: F, B, I, W and pair, of those that there are"
    return {
        **keys(Result, "schedule", "ranks", "micro_batches"),
        "makespan_s": _both("seconds from the first op's start to the last one's end"),
        "measured_steps_s": keys(RunComparison, "steps_s")["steps_s"],
        "busy_s_by_rank": listed(_both("a rank"), "seconds in which an op is in progress, by rank"),
        "idle_s_by_rank": listed(_both("a rank"), "the rest of the makespan, by rank"),
        "kinds": {**kinds, "description": about},
        "worst_ops": listed(record("an op", op), "the ops whose simulated lengths are furthest off, the worst first"),
    }


def imported() -> dict[str, Schema]:
    """Return the keys of what was taken over."""
    names = ("embedding", "attention", "mlp", "experts", "shared", "gate", "norm", "head", "mtp", "other")
    parts = {name: value(int, f"those of {name}") for name in names}
    counts = {
        "total": value(int, "all but those of multi-token prediction"),
        "active": value(int, "those that a token passes"),
        "parts": record("parameters by part", parts),
    }
    return {
        "name": value(str, "the model's name"),
        "parameters": record("how many parameters it has", counts),
        "unread": value(list[str], "what changes time or memory and is not modelled, a line each"),
    }


def _both(meaning: str) -> Schema:
    return record(
        meaning,
        {
            "simulated": value(float, "as simulated", "s"),
            "measured": value(float, "as measured", "s"),
            "error": value(float | None, "the difference over what was measured; null where that is 0"),
        },
    )
