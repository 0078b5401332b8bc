"""How much a page takes at once, estimated before anything is built: a link must not hang whoever opens it."""

from __future__ import annotations

from math import prod

from dualpipe_sim.errors import UserError
from dualpipe_sim.experiment import Choice, Experiment

MOST_PASSES = 600_000
"""Of micro-batches through stages and layers, all schedules together; 64 × 1024 of six schedules are fewer."""

SECONDS = 10.0
"""How long one schedule's answer may take."""

SECONDS_OF_A_FILE = 60.0
"""How long what is downloaded may take: charts are drawn anew."""

MEMORY_BYTES = 6 * 2**30
"""That a worker process may have beyond what it begins with."""


def check_size(experiment: Experiment, choices: tuple[Choice, ...]) -> None:
    """Refuse more than a page takes, with the largest that works.

    Raises:
        UserError: more than ``MOST_PASSES``.

    """
    of_one = sum(_passes_of_one(experiment, choice) for choice in choices)
    passes = sum(choice.micro_batches * _passes_of_one(experiment, choice) for choice in choices)
    if passes <= MOST_PASSES:
        return
    first, largest = choices[0], MOST_PASSES // of_one
    schedules = "one schedule" if len(choices) == 1 else f"{len(choices)} schedules"
    at = f"{first.ranks} ranks" if largest else f"{max(1, MOST_PASSES * first.ranks // of_one)} ranks, one micro-batch"
    most = f"{at} × {largest} micro-batches" if largest else at
    raise UserError(
        f"{first.ranks} ranks × {first.micro_batches} micro-batches of {schedules} are more than a page answers; the "
        f"most are {most}; `dualpipe-sim compare` takes more"
    )


def _passes_of_one(experiment: Experiment, choice: Choice) -> int:
    """Return how many stages and layers a micro-batch passes, as many as the schedule's options may make them."""
    times = prod(value for value in choice.options.values() if type(value) is int and value > 1)
    layers = 0 if experiment.job is None else experiment.job.model.layers
    return choice.ranks * times + layers
