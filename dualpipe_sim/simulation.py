"""From an experiment to results: order, costs and topology meet, an engine plays, metrics read the timeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from dualpipe_sim.analysis import alltoall, metrics, step
from dualpipe_sim.analysis.held import held_by_rank
from dualpipe_sim.analysis.memory import memory_of
from dualpipe_sim.analysis.registry import measure
from dualpipe_sim.balance import balanced_for
from dualpipe_sim.base.kept import Kept
from dualpipe_sim.base.plain_data import digest
from dualpipe_sim.costs.asked import (
    gathers_stages,
    of_smaller_micro_batches,
    op_seconds,
    stage_costs,
    with_vocabulary_cut,
)
from dualpipe_sim.costs.phases import Costs, with_job
from dualpipe_sim.costs.transfers import slowest_hop_s
from dualpipe_sim.costs.uniform import UniformTimes
from dualpipe_sim.demand import check
from dualpipe_sim.engine.noise import slowed, spread
from dualpipe_sim.engine.play import play, settled
from dualpipe_sim.errors import ScheduleError, TooLargeError, UnfitCostsError
from dualpipe_sim.experiment import Choice, Experiment
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.gathers import with_gathers
from dualpipe_sim.order.op_times import OpTimes
from dualpipe_sim.order.ops import F, I, Vocabulary, W
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.result import KEYS, Comparison, Result, Theory, fastest_first, refused
from dualpipe_sim.schedules import theory
from dualpipe_sim.schedules.registry import spec


def simulate(config: str | Path | Mapping[str, object] | None = None, **overrides: object) -> Result:
    """Run the schedule of a configuration, or of arguments alone.

    >>> simulate(schedule="dualpipe", ranks=8, micro_batches=20, forward=1.0, backward="2 s").makespan_s
    66.0

    Args:
        config: a YAML file, the name of a packaged one (``deepseek_v3``), or a mapping of the same shape; None if the
            other arguments say all. Without a word on costs F, I and W then take a second each.
        overrides: values that replace those of the configuration. Its keys by name (``schedule``, ``engine``,
            ``cluster``, …); ``ranks`` and ``micro_batches`` of ``pipeline``; ``forward``, ``backward`` (half of it each
            for I and W), ``backward_input``, ``backward_weight``, ``overlapped``, ``recompute``, ``vocab_s``,
            ``vocab_t`` and ``transfer`` of ``costs``; ``max_memory``, such as ``"8 GB"``, for the memory that a run may
            take; any other as ``**{"training.causal": False}``. A schedule may
            also be a :class:`Schedule`, an order in text or a path of a file with one, and then gives ranks and
            micro-batches where nothing else does; ``costs``, ``model``, ``gpu`` and ``cluster`` may be objects of the
            package.

    Raises:
        ConfigError: what is wrong with the configuration, in one line.
        ScheduleError: the schedule cannot do these sizes.

    """
    experiment = _load(config, overrides)
    return run(experiment)


def compare(config: str | Path | Mapping[str, object] | None = None, **overrides: object) -> Comparison:
    """Run all schedules that a configuration compares; one that refuses its sizes is a run with ``error``.

    >>> fastest = compare(schedule="all", ranks=4, micro_batches=12)[0]
    >>> fastest.schedule, fastest.makespan_s
    ('interleaved-zb', 37.5)

    Args:
        config: as for :func:`simulate`.
        overrides: as for :func:`simulate`; ``schedule`` may also be a list of schedules, or ``"all"`` of them.

    Raises:
        ConfigError: what is wrong with the configuration, in one line.

    """
    return run_all(experiment_to_compare(config, overrides))


def experiment_to_compare(
    config: str | Path | Mapping[str, object] | None, overrides: Mapping[str, object]
) -> Experiment:
    """Return the experiment whose schedules are compared; arguments and errors as for :func:`compare`."""
    return _load(config, to_compare(overrides))


def to_compare(overrides: Mapping[str, object]) -> dict[str, object]:
    """Return overrides in which several schedules, or ``"all"``, are those to compare."""
    several = overrides.get("schedule")
    if several != "all" and not isinstance(several, (list, tuple)):
        return dict(overrides)
    return {**{key: one for key, one in overrides.items() if key != "schedule"}, "compare": several}


def run(experiment: Experiment, choice: Choice | None = None) -> Result:
    """Run one schedule of an experiment, by default its own.

    Raises:
        ScheduleError: the schedule cannot do these sizes, or its order deadlocks.
        TooLargeError: it is more than this machine has memory for.

    """
    with experiment.named():
        return _run(experiment, choice or experiment.choice)


def run_all(experiment: Experiment) -> Comparison:
    """Run every schedule that an experiment compares (or its only one).

    Raises:
        TooLargeError: there is no memory for all of them.

    """
    with experiment.named():
        check(experiment, experiment.choices)
        return fastest_first([run_or_refuse(experiment, choice) for choice in experiment.choices])


def run_or_refuse(experiment: Experiment, choice: Choice) -> Result:
    """Run one schedule of an experiment; one that cannot do these sizes or costs is a result with ``error``."""
    try:
        return _run(experiment, choice)
    except (ScheduleError, UnfitCostsError, TooLargeError) as error:
        return refused(choice, str(error))


def build_choice(experiment: Experiment, choice: Choice) -> Schedule:
    """Return the order of a choice; a schedule that adapts to times is given those of the experiment."""
    if choice.order is not None:
        return choice.order
    usual = {} if experiment.runtime is None else experiment.runtime.usual(choice.name, choice.ranks)
    chosen, options = spec(choice.name), {**usual, **choice.options}
    times_on = partial(_op_times, experiment, "one barrier" if chosen.cuts_vocabulary else None)
    find = partial(chosen.build, choice.ranks, choice.micro_batches, options, times_on)
    if chosen.adapts_to_times or not chosen.is_own:
        return find()
    # (by types, too: 2 and 2.0, or 1 and true, are equal as keys, and not as options)
    types = tuple(map(type, options.values()))
    return _ORDERS.of((chosen.generate, types, digest([choice.ranks, choice.micro_batches, options])), find)


_ORDERS: Kept[Schedule] = Kept(most=400_000, size=lambda order: len(order.rank))
"""Orders of the last few runs, and with each what follows from it alone; an op of one takes some 200 bytes.

Only of schedules whose functions are known to depend on nothing but what they are told.
"""


def lower_choice(experiment: Experiment, choice: Choice) -> TaskGraph:
    """Return the task graph of a choice, slow ranks slowed, with lengths as they are under load.

    Raises:
        TooLargeError: it is more than this machine has memory for.

    """
    check(experiment, (choice,))
    order = build_choice(experiment, choice)
    order = with_gathers(order) if gathers_stages(experiment.costs) else order
    return _laid(experiment, order)[1]


def lower_order(experiment: Experiment, order: Schedule, costs: Costs) -> TaskGraph:
    """Return the task graph of an order with costs that are laid out for it."""
    graph = lower(
        order,
        costs,
        experiment.topology(order.ranks),
        contention=experiment.contention == "fair",
        rendezvous=experiment.transfers == "rendezvous",
        runtime=experiment.runtime,
    )
    return settled(graph if experiment.noise is None else slowed(graph, experiment.noise), experiment.engine)


def laid_costs(experiment: Experiment, order: Schedule) -> Costs:
    """Return the costs of an experiment for an order: of its micro-batches, in the layout that is settled for it."""
    return _laid(experiment, order)[0]


def _laid(experiment: Experiment, order: Schedule) -> tuple[Costs, TaskGraph]:
    costs = of_smaller_micro_batches(experiment.costs, order.micro_batch_share)
    lowered = partial(lower_order, experiment, order)
    if not experiment.settle_layout:
        return costs, lowered(costs)
    return balanced_for(order, costs, experiment.topology(order.ranks), lowered)


def _op_times(experiment: Experiment, how: Vocabulary | None, placement: Placement) -> OpTimes:
    """Return the times of a placement's stages; of transfers given as bytes, that of the slowest hop."""
    costs = with_vocabulary_cut(stage_costs(experiment.costs, placement), how)
    transfer_s = slowest_hop_s(costs, experiment.topology(placement.ranks), placement)
    forward, backward_input, backward_weight = (op_seconds(costs, kind, placement.stages) for kind in (F, I, W))
    return OpTimes(forward, backward_input, backward_weight, transfer_s)


def _run(experiment: Experiment, choice: Choice) -> Result:
    graph = lower_choice(experiment, choice)
    published = _theory(experiment, choice)
    timeline = play(graph, experiment.engine)
    result = _with_training(_result(choice, timeline, published), timeline)
    if experiment.measured is not None and choice == experiment.choice and result.step_time_s is not None:
        result = replace(result, measured=asdict(experiment.measured))
    if experiment.noise is not None and experiment.noise.jitter:
        result = replace(result, noise=asdict(spread(graph, experiment.noise)))
    own = measure(result, reserved=(*KEYS, "schema", "step_time_error"))  # the last two of its answer as JSON
    return replace(result, metrics=own) if own else result


def _load(config: str | Path | Mapping[str, object] | None, overrides: Mapping[str, object]) -> Experiment:
    from dualpipe_sim.config.load import in_full, load_experiment

    return load_experiment(config, in_full(overrides))


def _theory(experiment: Experiment, choice: Choice) -> Theory | None:
    """Return what the schedule's paper says at these costs, and where its bubble does not hold for them, why."""
    if choice.order is not None:
        return None
    times: UniformTimes | None = getattr(experiment.costs, "uniform_times", None)
    letters = {} if times is None else times._asdict()
    transfers = letters.pop("transfers", False)
    published = theory.closed_form(choice.name, choice.ranks, choice.micro_batches, options=choice.options, **letters)
    if published is None:
        return None
    slow = {} if experiment.noise is None else experiment.noise.slow_ranks
    reasons = {
        "stages or micro-batches do not all take the same time": times is None,
        "ranks are not all as fast": any(factor != 1 for factor in slow.values()),
        "it leaves out transfers, which take time here": transfers,
        "it leaves out all-reduces, which take time here": bool(getattr(experiment.costs, "all_reduce", 0.0)),
        "weights are gathered a stage at a time": gathers_stages(experiment.costs),
        "transfers wait for both of their sides": experiment.transfers == "rendezvous"
        or experiment.runtime is not None,
        f"the formula is below 0 at these times; it holds where {published.holds}": published.is_beyond,
        f"it holds where {published.holds}": not published.exact,
    }
    reason = next((words for words, hinders in reasons.items() if hinders), None)
    return {
        "bubble_s": None if times is None else published.bubble_s,
        "formula": published.formula,
        "numbers": None if times is None else published.numbers,
        "exact": reason is None,
        "reason": reason,
        "over": published.over,
        "peak_activations": published.peak_activations,
        "source": published.source,
    }


def _result(choice: Choice, timeline: Timeline, published: Theory | None) -> Result:
    makespan_s = timeline.makespan_s
    return Result(
        schedule=choice.name,
        ranks=choice.ranks,
        micro_batches=choice.micro_batches,
        options=dict(choice.options),
        makespan_s=makespan_s,
        bubble_ratio=metrics.bubble_ratio(timeline),
        bubble_ratio_by_rank=metrics.bubble_ratio_by_rank(timeline).tolist(),
        span_bubble_ratio=metrics.span_bubble_ratio(timeline),
        compute_idle_ratio=metrics.compute_idle_ratio(timeline),
        micro_batches_per_s=choice.micro_batches / makespan_s if makespan_s else None,
        idle_s_by_cause={cause: idle.tolist() for cause, idle in metrics.idle_s_by_cause(timeline).items()},
        peak_in_flight_by_rank=metrics.peak_in_flight_by_rank(timeline).tolist(),
        peak_activations_by_rank=metrics.peak_activations_by_rank(timeline).tolist(),
        theory=published,
        engine=timeline.engine,
        timeline=timeline,
    )


def _with_training(result: Result, timeline: Timeline) -> Result:
    """Return a result with what it means for training, where a model is known."""
    costs = with_job(timeline.graph.costs)
    if costs is None:
        held = held_by_rank(timeline)
        result = result if held is None else replace(result, peak_memory_bytes_by_rank=held.tolist())
        if not alltoall.has_alltoall(timeline):
            return result
        exposed_s = alltoall.collective_times(timeline).other.exposed_s
        return replace(result, exposed_tensor_parallel_s_by_rank=exposed_s.tolist())
    training_step = step.step(timeline, costs)
    stage, seconds = step.slowest_stage(costs)
    memory, collectives = memory_of(timeline), alltoall.collective_times(timeline)
    pipe = costs.stage_layers[: len(timeline.graph.schedule.placement.pipes[0])]
    model = costs.job.model
    return replace(
        result,
        model={
            "name": model.name,
            "experts": 0 if model.experts is None else model.experts.routed,
            "parameters": model.parameters().total,
            "active_parameters": model.active_parameters(),
        },
        step_time_s=training_step.time_s,
        tokens_per_second_per_gpu=training_step.tokens_per_second_per_gpu,
        mfu=step.mfu(training_step, costs),
        mfu_noncausal=step.mfu(training_step, costs, causal=False),
        gpu_hours_per_trillion_tokens=training_step.gpu_hours_per_trillion_tokens,
        alltoall_hidden_ratio=collectives.alltoall.hidden_ratio,
        alltoall_hidden_in_pairs_ratio=collectives.in_pairs.hidden_ratio,
        exposed_alltoall_s_by_rank=collectives.alltoall.exposed_s.tolist(),
        exposed_tensor_parallel_s_by_rank=collectives.other.exposed_s.tolist(),
        peak_memory_bytes_by_rank=memory.peak_bytes_by_rank.tolist(),
        over_memory=[one._asdict() for one in memory.over],
        memory=memory,
        overlapped_pair_s=alltoall.overlapped_pair_s(timeline),
        layers_by_stage=[len(one.layers) for one in pipe],
        slowest_stage={"stage": stage, "seconds": seconds},
    )
