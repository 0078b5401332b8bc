"""How much is answered at once, estimated before anything is built: no question may hang who answers it."""

from __future__ import annotations

from math import prod

from dualpipe_sim.base.units import number_of, sizes
from dualpipe_sim.errors import UserError
from dualpipe_sim.experiment import Choice, Experiment

MOST_PASSES = 600_000
"""Of micro-batches through stages and layers, all schedules together; 64 × 1024 of six schedules are fewer."""

MEMORY_BYTES = 6 * 2**30
"""That a worker process may have beyond what it begins with."""


def check_size(experiment: Experiment, choices: tuple[Choice, ...], who: str = "a page") -> None:
    """Refuse more than is answered, with the largest that works.

    Args:
        experiment: what the schedules are run on.
        choices: the schedules.
        who: who answers, in errors.

    Raises:
        UserError: more than ``MOST_PASSES``.

    """
    layers = 0 if experiment.job is None else experiment.job.model.layers
    of_one = [choice.ranks * _times(choice) + layers for choice in choices]
    passes = sum(choice.micro_batches * one for choice, one in zip(choices, of_one, strict=True))
    if passes <= MOST_PASSES:
        return
    own, every = experiment.choice, layers * len(choices)
    largest = ""
    if micro_batches := own.micro_batches * MOST_PASSES // passes:
        largest = f"; the largest is {sizes(own.ranks, micro_batches)}"
    elif ranks := own.ranks * max(0, MOST_PASSES - every) // (sum(of_one) - every):
        largest = f"; the largest is {sizes(ranks, 1)}"
    raise UserError(
        f"{sizes(own.ranks, own.micro_batches)} of {number_of(len(choices), 'schedule')} are more than "
        f"{who} answers{largest}; `dualpipe-sim compare` takes more"
    )


def _times(choice: Choice) -> int:
    """Return how many times as many stages or slices as ranks a schedule's options may make."""
    return prod(value for value in choice.options.values() if type(value) is int and value > 1)
