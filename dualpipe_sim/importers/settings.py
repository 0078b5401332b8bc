"""Settings of a file that are asked for one by one; what nobody asks for stays to be named."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dualpipe_sim.errors import UserError, either, quoted
from dualpipe_sim.importers.imported import Keys, is_of_a_run


class Settings(ABC):
    """Settings by key.

    Attributes:
        values: what the file says.
        source: the file.
        unread: a line for each setting that was read and is not modelled.

    """

    kind = "file"
    """What lacks a setting that must be there."""

    def __init__(self, values: Keys, source: Path) -> None:
        self.values, self.source = values, source
        self.unread: list[str] = []

    @abstractmethod
    def get(self, *keys: str, default: Any = None) -> Any:  # noqa: ANN401 - whatever is there
        """Return a setting by any of its names; null is as good as nothing."""

    @abstractmethod
    def rest(self) -> Iterator[str]:
        """Yield a line for each setting that nobody asked for and that may change something."""

    def count(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        """Return a whole number, which must be there where there is no default."""
        value = self.get(key, default=default)
        if value is None:
            raise self.wrong(key, f"is missing, which a {self.kind} needs")
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.wrong(key, f"must be a whole number from {least} up, got {quoted(value)}")
        if not is_of_a_run(key, value):
            raise self.wrong(key, f"{quoted(value)} is more than any run has")
        return value

    def word(self, key: str, default: str, known: tuple[str, ...]) -> str:
        """Return one of a few words."""
        value = self.get(key, default=default)
        if value not in known:
            raise self.wrong(key, f"must be {either(known)}, got {quoted(value)}")
        return str(value)

    def note(self, key: str, text: str) -> None:
        """Say what of a setting is not modelled."""
        self.unread.append(f"{key}: {text}")

    def wrong(self, key: str, text: str) -> UserError:
        """Return what is wrong with a setting."""
        return UserError(f"{self.source}: {key}: {text}")
