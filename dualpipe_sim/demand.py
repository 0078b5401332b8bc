"""What runs take of this machine, memory and work, estimated before anything is built; too much of it is refused.

Bytes are measured ones (`docs/limits.md` says how), for what is there at a run's peak. A *step* of work is a phase, a
transfer or a lane that is looked at once: about a tenth of a microsecond.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dualpipe_sim.base.memory import at_most, short_of
from dualpipe_sim.base.units import format_room, number_of, sizes
from dualpipe_sim.costs.asked import gathers_stages
from dualpipe_sim.errors import TooLargeError
from dualpipe_sim.experiment import Choice, Experiment
from dualpipe_sim.schedules.registry import spec
from dualpipe_sim.schedules.size import Size

MOST_STEPS = 10_000_000_000
"""Of one run, or of all runs of a comparison: some quarter of an hour."""

_OP_BYTES = 500
_PHASE_BYTES = 380
_ISSUED_BYTES = 1_300
_DRAWN_BYTES = 800
_LAYER_BYTES = 20_000
_LANE_BYTES = 3_000
_WAIT_BYTES = 150
_PLAYED = 30
"""Steps that the discrete-event engine needs for one of the longest path's."""
_DRAW = 500
"""Steps of a draw, however small what is played."""


@dataclass(frozen=True)
class Demand:
    """What runs take.

    Attributes:
        memory_bytes: at their peak, beyond what the process has before.
        steps: of work.

    """

    memory_bytes: float
    steps: float

    def __add__(self, other: Demand) -> Demand:
        return Demand(self.memory_bytes + other.memory_bytes, self.steps + other.steps)


@dataclass(frozen=True)
class Limit:
    """What runs may take.

    Attributes:
        memory_bytes: of memory; None for what this machine has.
        steps: of work.
        who: does no more, in words that follow "are more than"; empty for this machine.
        instead: what does, in words, or an empty string.

    """

    memory_bytes: float | None = None
    steps: float = MOST_STEPS
    who: str = ""
    instead: str = ""

    def excess(self, demand: Demand) -> str:
        """Return in words what is over the limit, or an empty string."""
        if demand.steps > self.steps:
            return f"{demand.steps:.2g} steps of work are more than {self.who or 'are done at once'} ({self.steps:.2g})"
        free = short_of(demand.memory_bytes) if self.memory_bytes is None else self.memory_bytes
        if free is None or demand.memory_bytes <= free:
            return ""
        needs = format_room(demand.memory_bytes)
        return f"{needs} of memory are more than {self.who or 'are free'} ({format_room(free)})"


def demand(experiment: Experiment, choice: Choice, draws: int | None = None) -> Demand:
    """Return what a run of a schedule takes.

    Args:
        experiment: what it is run on.
        choice: the schedule.
        draws: how often its durations are drawn; None for what ``noise`` says.

    Raises:
        ScheduleError: there is no such schedule, or it has no such options.

    """
    drawn, size = _draws(experiment, draws), _size_of(choice)
    phases = size.units * _phases_of_layers(experiment)
    issues = experiment.runtime is not None or experiment.transfers == "rendezvous" or gathers_stages(experiment.costs)
    layers = 0 if experiment.job is None else experiment.job.model.layers
    by_op = _OP_BYTES + _ISSUED_BYTES * issues
    memory_bytes = by_op * size.ops + _PHASE_BYTES * phases + _LAYER_BYTES * layers + _LANE_BYTES * choice.ranks
    nodes = 2 * size.ops + phases
    waits = size.meets * size.units * choice.ranks**2
    memory_bytes += _WAIT_BYTES * waits
    # turns in which lanes look whether they can go on, each at all that it waits for
    turns = 2 * size.stages * choice.ranks * (choice.ranks if size.meets else 1)
    play = (nodes + turns + waits) * (_PLAYED if _is_played(experiment) else 1)
    if drawn:
        memory_bytes += _DRAWN_BYTES * nodes + 8 * drawn
    return Demand(memory_bytes, play + drawn * (play + _DRAW))


def check(
    experiment: Experiment, choices: Sequence[Choice], limit: Limit | None = None, draws: int | None = None
) -> None:
    """Refuse runs that take more than there is, before anything of them is built.

    Args:
        experiment: what schedules are run on.
        choices: the schedules, whose results are all kept.
        limit: what they may take; None for what this machine and the experiment allow.
        draws: as for :func:`demand`.

    Raises:
        TooLargeError: with what they take, and the largest that works.

    """
    limit = limit or Limit()
    with at_most(experiment.max_memory_bytes):
        excess = limit.excess(_of_all(experiment, choices, draws))
        if excess:
            own = experiment.choice if experiment.choice in choices else choices[0]
            several = f" of {number_of(len(choices), 'schedule')}" if len(choices) > 1 else ""
            largest = _largest(experiment, choices, limit, draws)
            said = f"; the most is {largest}" if largest else "; take fewer stages, or smaller options"
            raise TooLargeError(f"{sizes(own.ranks, own.micro_batches)}{several}: {excess}{said}{limit.instead}")


def _of_all(experiment: Experiment, choices: Sequence[Choice], draws: int | None) -> Demand:
    return sum((demand(experiment, choice, draws) for choice in choices), Demand(0.0, 0.0))


def _largest(experiment: Experiment, choices: Sequence[Choice], limit: Limit, draws: int | None) -> str:
    """Return in words the most draws, or else micro-batches, or else ranks with which runs are within a limit."""

    def works(choices: Sequence[Choice], draws: int | None = draws) -> bool:
        return not limit.excess(_of_all(experiment, choices, draws))

    own, drawn = choices[0], _draws(experiment, draws)
    if drawn and works(choices, 0):
        return number_of(_most(drawn, lambda fewer: works(choices, fewer)), "draw")
    if any(choice.order is not None for choice in choices):
        return ""  # which has its sizes

    def cut(micro_batches: int, ranks: int | None = None) -> list[Choice]:
        return [
            replace(
                choice,
                ranks=ranks or choice.ranks,
                micro_batches=max(1, choice.micro_batches * micro_batches // own.micro_batches),
            )
            for choice in choices
        ]

    if works(cut(1)):
        return sizes(own.ranks, _most(own.micro_batches, lambda fewer: works(cut(fewer))))
    ranks = _most(own.ranks, lambda fewer: works(cut(1, fewer)))
    return sizes(ranks, 1) if ranks else ""


def _most(most: int, works: Callable[[int], bool]) -> int:
    """Return the largest number up to ``most`` that works, where all below one that works do; 0 for none."""
    least = 0
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if works(middle) else (least, middle - 1)
    return least


def _draws(experiment: Experiment, draws: int | None) -> int:
    noise = experiment.noise
    return (noise.runs if noise is not None and noise.jitter else 0) if draws is None else draws


def _size_of(choice: Choice) -> Size:
    if choice.order is None:
        return spec(choice.name).size(choice.ranks, choice.micro_batches, choice.options)
    order = choice.order
    stages, units = len(order.placement.pipes[0]), order.micro_batches * order.slices
    return Size(stages, units, -(-len(order.rank) // (stages * units)))


def _phases_of_layers(experiment: Experiment) -> float:
    """Return the phases of a unit's layers, forward and backward, of costs that know them; as counted, or more."""
    job = experiment.job
    if job is None:
        return 0.0
    parallel, passes = job.parallel, 3 if job.recipe.recompute.full else 2
    of_layer = (
        3.2
        + 2.0 * (job.model.experts is not None)
        + 5.2 * (parallel.tensor > 1)
        + 1.6 * (parallel.context > 1)
        + 1.7 * (parallel.gathers != "once")
    )
    return passes * job.model.layers * of_layer


def _is_played(experiment: Experiment) -> bool:
    """Whether the discrete-event engine may be needed."""
    overlap = getattr(experiment.cost_model, "overlap", None)
    shares = experiment.contention == "fair" or getattr(overlap, "sharing", "") == "on-demand"
    return experiment.engine == "simpy" or shares
