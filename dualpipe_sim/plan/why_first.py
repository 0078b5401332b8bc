"""Why a plan's first is first: against its runner-up cause by cause, what holds it up, and what a change would buy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from statistics import fmean

from dualpipe_sim.analysis import metrics
from dualpipe_sim.analysis.critical_path import critical_path
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.base.show import brief
from dualpipe_sim.errors import UserError
from dualpipe_sim.experiment import Experiment
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.hardware.cluster import Link
from dualpipe_sim.model.recipe import Recompute
from dualpipe_sim.plan.outcome import Plan, describe
from dualpipe_sim.plan.run import row_of
from dualpipe_sim.plan.space import experiment_at, layer_costs
from dualpipe_sim.result import Result
from dualpipe_sim.simulation import lower_choice, run_or_refuse

MORE = 1.1
SMS = 5


@dataclass(frozen=True)
class Change:
    """What one change to a plan would do.

    Attributes:
        what: the change.
        step_time_s: seconds of the step then; None where it cannot be.
        tokens_per_second_per_gpu: tokens a second and GPU then.
        gain: by how much that is more than before, as a share of it.
        peak_memory_bytes: of the fullest rank then.
        fits: whether that is no more than a GPU has.
        error: why it cannot be, or None.

    """

    what: str
    step_time_s: float | None = None
    tokens_per_second_per_gpu: float | None = None
    gain: float | None = None
    peak_memory_bytes: int | None = None
    fits: bool | None = None
    error: str | None = None


@dataclass(frozen=True)
class WhyFirst:
    """Why the first of a plan is first, all without contention.

    Attributes:
        first: the first, in a line.
        second: its runner-up, or None.
        causes_s: seconds of the step by cause of both, or of the first alone; see :func:`causes_s`.
        slowest_stage: the stage of the first whose F and B take longest alone, and their ``seconds``.
        critical_s: seconds of the first's critical path, by what they are spent on (``PARTS`` has the words).
        changes: what changes to the first would buy.

    """

    first: str
    second: str | None
    causes_s: dict[str, list[float]]
    slowest_stage: dict[str, float]
    critical_s: dict[str, float]
    changes: list[Change]

    __repr__ = brief

    @property
    def binding(self) -> str:
        """What most of the longest chain of waits was spent on."""
        return max(self.critical_s, key=self.critical_s.__getitem__)

    def to_dict(self) -> dict[str, object]:
        """Return everything, ready for JSON."""
        return asdict(self) | {"binding": self.binding}


def why_first(plan: Plan) -> WhyFirst:
    """Return why the first of a plan is first.

    Raises:
        UserError: nothing fits, so that there is no first.

    """
    if not plan.ranking:
        raise UserError(plan.closest())
    experiments = [experiment_at(plan.experiment, plan.candidates[place]) for place in plan.ranking[:2]]
    results = [run_or_refuse(one, one.choice) for one in experiments]
    by_cause = [causes_s(result, one) for result, one in zip(results, experiments, strict=True)]
    lines = [describe(plan.candidates[place]) for place in plan.ranking[:2]]
    return WhyFirst(
        first=lines[0],
        second=lines[1] if len(lines) > 1 else None,
        causes_s={cause: [one[cause] for one in by_cause] for cause in by_cause[0]},
        slowest_stage=dict(results[0].slowest_stage or {}),
        critical_s=critical_path(results[0].played).seconds_by_part(),
        changes=changes(experiments[0], results[0]),
    )


def causes_s(result: Result, experiment: Experiment) -> dict[str, float]:
    """Return the seconds of a step by cause; they sum to it.

    ``compute``, ``recompute`` (what the backward does once more), ``exposed all-to-all`` and ``tensor parallelism``
    (its exposed collectives, where there are any) are the mean over ranks; ``uneven stages`` is what the busiest rank
    is busy beyond that; ``bubble`` is what the busiest rank is idle; ``end of step`` is what is left of gradient
    reduction after the pipeline, and the optimizer.
    """
    timeline = result.played
    busy_s = metrics.busy_s(timeline)
    exposed_s = fmean(result.exposed_alltoall_s_by_rank or [0.0])
    summed_s = fmean(result.exposed_tensor_parallel_s_by_rank or [0.0])
    mean_s, busiest_s = float(busy_s.mean()), float(busy_s.max())
    redone_s = _recompute_s(result, experiment)
    return {
        "compute": mean_s - exposed_s - summed_s - redone_s,
        "recompute": redone_s,
        "exposed all-to-all": exposed_s,
        **({"tensor parallelism": summed_s} if summed_s else {}),
        "uneven stages": busiest_s - mean_s,
        "bubble": timeline.makespan_s - busiest_s,
        "end of step": (result.step_time_s or 0.0) - timeline.makespan_s,
    }


def changes(experiment: Experiment, result: Result) -> list[Change]:
    """Return what each of a few changes to an experiment would buy over its result."""
    moved = [_run(what, one, result) for what, one in _one_layer_moved(experiment, result)]
    fastest = min(moved, key=lambda one: (one.step_time_s is None, one.step_time_s), default=None)
    others = [_run(what, one, result) for what, one in _settings(experiment)]
    return others + ([] if fastest is None else [fastest])


def _settings(experiment: Experiment) -> Iterator[tuple[str, Experiment | UserError]]:
    """Yield experiments with one setting changed, or why that cannot be."""
    cluster = experiment.cluster
    yield "10 % more NVLink", replace(experiment, cluster=replace(cluster, nvlink=_more(cluster.nvlink)))
    yield "10 % more InfiniBand", replace(experiment, cluster=replace(cluster, infiniband=_more(cluster.infiniband)))
    overlap = layer_costs(experiment).overlap
    for more in (SMS, -SMS):
        sms = overlap.communication_sms + more
        what = f"{SMS} SMs {'more' if more > 0 else 'fewer'} for communication ({sms})"
        try:
            costs = replace(layer_costs(experiment), overlap=replace(overlap, communication_sms=sms))
            yield what, replace(experiment, cost_model=costs)
        except UserError as error:
            yield what, error
    doubled = replace(experiment.choice, micro_batches=2 * experiment.choice.micro_batches)
    yield "twice the micro-batches", replace(experiment, choice=doubled)


def _one_layer_moved(experiment: Experiment, result: Result) -> Iterator[tuple[str, Experiment]]:
    """Yield experiments in which the slowest stage has given a layer to another one; those in between shift along."""
    graph, costs = result.played.graph, layer_costs(experiment)
    stages = len(graph.schedule.placement.pipes[0])
    costs = replace(costs, vocabulary=graph.schedule.vocabulary)
    layers = costs.on_cluster(experiment.cluster).stage_layers(stages)
    counts = [len(stage.layers) for stage in layers]
    slowest = int((result.slowest_stage or {"stage": 0})["stage"]) % stages
    mtp_and_head_last = layers[-1].head and layers[-1].mtp == costs.job.model.mtp_depth
    if not (counts[slowest] and layers[0].embedding and mtp_and_head_last):
        return
    for stage in range(stages):
        if stage != slowest:
            moved = tuple(count + (one == stage) - (one == slowest) for one, count in enumerate(counts))
            job = replace(costs.job, layout=moved)
            yield f"one layer from stage {slowest} to {stage}", replace(experiment, cost_model=replace(costs, job=job))


def _run(what: str, experiment: Experiment | UserError, before: Result) -> Change:
    if isinstance(experiment, UserError):
        return Change(what, error=str(experiment))
    result = run_or_refuse(experiment, experiment.choice)
    if result.error is not None:
        return Change(what, error=result.error)
    row = row_of(result)
    tokens, tokens_before = result.tokens_per_second_per_gpu or 0.0, before.tokens_per_second_per_gpu or 1.0
    return Change(
        what,
        result.step_time_s,
        tokens,
        tokens / tokens_before - 1,
        int(str(row["peak_memory_bytes"])),
        fits=not result.over_memory,
    )


def _more(link: Link) -> Link:
    return replace(link, bytes_per_s=MORE * link.bytes_per_s)


def _recompute_s(result: Result, experiment: Experiment) -> float:
    """Seconds of what the backward computes once more, mean over ranks, in the phases as they were lowered."""
    costs, nothing = layer_costs(experiment), Recompute.of(())
    recipe = costs.job.recipe
    if recipe.recompute == nothing:
        return 0.0
    storing = replace(costs, job=replace(costs.job, recipe=replace(recipe, recompute=nothing)))
    stored = lower_choice(replace(experiment, cost_model=storing), experiment.choice)
    return (_compute_s(result.played.graph) - _compute_s(stored)) / experiment.choice.ranks


def _compute_s(graph: TaskGraph) -> float:
    return float(graph.duration_s[: graph.first_transfer][graph.on(Lane.COMPUTE)].sum())
