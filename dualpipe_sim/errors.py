"""What can be wrong with what a user gave; each message is one sentence naming value, place and way out."""

from __future__ import annotations

from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user gave: one sentence that names value, place and way out."""


class ConfigError(UserError):
    """A configuration that cannot be used; the message starts with the file and the key."""


class ScheduleError(UserError):
    """A schedule that does not exist, refuses these sizes, or breaks a rule of pipeline training."""


class DeadlockError(ScheduleError):
    """An order in which ranks wait for each other in a circle; the message spells the circle out."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known word, or an empty string."""
    from difflib import get_close_matches

    close = get_close_matches(word, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
