"""Comparisons on equal terms: the same ranks, the same stages, or the same activation memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from math import inf

from dualpipe_sim.base.plugins import in_code_of
from dualpipe_sim.costs.asked import on_fewer_ranks
from dualpipe_sim.errors import ScheduleError, TooLargeError, UserError, did_you_mean
from dualpipe_sim.experiment import Choice, Experiment
from dualpipe_sim.result import Comparison, Result, fastest_first, refused
from dualpipe_sim.schedules.registry import spec
from dualpipe_sim.simulation import run_all, run_or_refuse

_ROUNDING = 1e-9
_SMALL_RANKS = range(1, 17)


def compared(experiment: Experiment, by: str = "ranks", limit: float | None = None) -> Comparison:
    """Compare schedules on equal terms of ranks, of stages or of memory.

    Args:
        experiment: what is compared.
        by: ``ranks``, ``stages`` (:func:`at_equal_stages`) or ``memory`` (:func:`within_memory`).
        limit: of activations, where it is by memory.

    Raises:
        UserError: other terms, a limit with terms that have none, or none where it is by memory.

    """
    if (by == "memory") != (limit is not None):
        raise UserError("compare: a limit of activations goes with --by memory, like: --by memory 16")
    if limit is not None:
        return within_memory(experiment, limit)
    ways = {"ranks": run_all, "stages": at_equal_stages}
    if by not in ways:
        raise UserError(f"compare: --by must be ranks, stages or memory, got '{by}'{did_you_mean(by, ways)}")
    return ways[by](experiment)


def at_equal_stages(experiment: Experiment) -> Comparison:
    """Compare schedules that cut the model into the same number of stages, as DeepSeek's table counts.

    The experiment's ranks are the stages of a pipe; a schedule with v stages a rank runs on 1/v of the ranks, each of
    which holds v times as much of the model. The table is that of https://github.com/deepseek-ai/DualPipe, where
    DualPipeV needs half of the devices of DualPipe.
    """
    with experiment.named():
        return fastest_first([_at_same_stages(experiment, choice) for choice in experiment.choices])


def within_memory(experiment: Experiment, limit: float) -> Comparison:
    """Compare schedules each at its best options within a limit of activations.

    Args:
        experiment: what is compared; options that it gives stay as they are.
        limit: most activations that a rank may hold at any time, in those of one micro-batch through a rank's share.

    """
    with experiment.named():
        if not 0 <= limit < inf:
            raise UserError(f"activations: must be 0 or more, got {limit:g}")
        return fastest_first([_best_within(experiment, choice, limit) for choice in experiment.choices])


def _at_same_stages(experiment: Experiment, choice: Choice) -> Result:
    stages_per_rank = _stages_per_rank(choice)
    if choice.ranks % stages_per_rank:
        return refused(
            choice,
            f"{choice.name} has {stages_per_rank} stages a rank: their number must be a multiple, got {choice.ranks}",
        )
    if stages_per_rank == 1:
        return run_or_refuse(experiment, choice)
    joined = replace(experiment, cost_model=on_fewer_ranks(experiment.cost_model, stages_per_rank))
    return run_or_refuse(joined, replace(choice, ranks=choice.ranks // stages_per_rank))


def _stages_per_rank(choice: Choice) -> int:
    """Build the schedule at the smallest size that it accepts, and count."""
    if choice.order is not None:
        return len(choice.order.placement.pipes[0]) // choice.order.ranks
    chosen = spec(choice.name)
    for ranks, rounds in product(_SMALL_RANKS, (1, 2, 4)):
        try:
            placement = chosen.build(ranks, rounds * ranks, choice.options).placement
        except (ScheduleError, TooLargeError):
            continue
        return len(placement.pipes[0]) // ranks
    return 1


def _best_within(experiment: Experiment, choice: Choice, limit: float) -> Result:
    runs = [run_or_refuse(experiment, replace(choice, options=options)) for options in _options(choice, limit)]
    done = [run for run in runs if run.error is None]
    if not done:
        return runs[0]
    within = [run for run in done if _peak(run) <= limit + _ROUNDING]
    if within:
        return fastest_first(within)[0]
    least = min(done, key=_peak)
    return refused(choice, f"{least.label} holds {_peak(least):.4g} activations, more than the {limit:.4g} allowed")


def _options(choice: Choice, limit: float) -> Iterator[dict[str, object]]:
    """Yield the choice's own options with every combination of those it leaves open."""
    if choice.order is not None:
        yield {}
        return
    chosen = spec(choice.name)
    with in_code_of(chosen.within, f"{choice.name}: its within", ScheduleError):
        fixed = {**chosen.within(limit), **choice.options}
    open_options = {name: values for name, values in chosen.tries.items() if name not in fixed}
    for values in product(*open_options.values()):
        yield {**fixed, **dict(zip(open_options, values, strict=True))}


def _peak(run: Result) -> float:
    return max(run.peak_activations_by_rank or [0.0])
