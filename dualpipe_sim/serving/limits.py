"""How much is answered at once, estimated before anything is built: no question may hang who answers it."""

from __future__ import annotations

from dualpipe_sim.demand import Limit, check
from dualpipe_sim.experiment import Choice, Experiment

MOST_STEPS = 4_000_000
"""Of all schedules together: some seconds; 64 × 1024 of six schedules take fewer."""

MEMORY_BYTES = 6 * 2**30
"""That a worker process may have beyond what it begins with."""


def check_size(experiment: Experiment, choices: tuple[Choice, ...], who: str = "a page") -> None:
    """Refuse more than is answered, with the largest that works.

    Args:
        experiment: what the schedules are run on.
        choices: the schedules.
        who: who answers, in errors.

    Raises:
        TooLargeError: more than ``MOST_STEPS``, or than ``MEMORY_BYTES``.

    """
    check(experiment, choices, Limit(MEMORY_BYTES, MOST_STEPS, f"{who} answers", "; `dualpipe-sim compare` takes more"))
