"""Arguments, and what is asked of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeAlias

from dualpipe_sim.errors import UserError, quoted
from dualpipe_sim.importers.imported import is_of_a_run

Flags: TypeAlias = Mapping[str, Any]
"""Values by flag, without the hyphens before it: a text, True for a bare flag, or a list of several."""


_UNSAID = re.compile(r"`.*|\$(\(.*|\{[^}]*\}?|\w+|[@*])")
"""What only the shell that ran a script could say."""


def value_of(value: Any) -> Any:  # noqa: ANN401 - whatever YAML has there
    """Return what a flag's value in YAML is as a text, or as a list of words."""
    if isinstance(value, bool) or value is None:
        return value is None or value
    return [str(one) for one in value] if isinstance(value, (list, tuple)) else str(value)


class Arguments:
    """Arguments that are asked for, in Megatron's defaults and types; what nobody asks for stays to be named."""

    def __init__(self, flags: Flags, source: str) -> None:
        self.flags, self.source = flags, source
        self._asked: set[str] = set()
        self._values: set[str] = set()
        self.notes: list[str] = []

    def given(self, flag: str) -> bool:
        """Return whether a flag is there, and not said to be false."""
        self._asked.add(flag)
        return self.flags.get(flag) not in (None, False, "False", "false")

    def pass_over(self, *flags: str) -> None:
        """Take flags as read that say nothing beyond others."""
        self._asked.update(flags)

    def text(self, flag: str, default: str | None = None) -> str | None:
        """Return a value as text."""
        self._asked.add(flag)
        self._values.add(flag)
        value = self.flags.get(flag, default)
        if value is True:
            raise self.wrong(flag, "needs a value")
        text = " ".join(value) if isinstance(value, list) else None if value is None else str(value)
        unsaid = _UNSAID.search(text or "")
        if unsaid:
            raise self.wrong(
                flag, f"{quoted(unsaid[0])} is not said in the file; write it there, or give it with --set"
            )
        return text

    def words(self, flag: str) -> list[str]:
        """Return a value as words."""
        return (self.text(flag) or "").replace(",", " ").split()

    def whole(self, flag: str, default: int | None = None, *, least: int = 0) -> int:
        """Return a whole number.

        Raises:
            UserError: it is none, or too small, or missing without a default.

        """
        value = self.text(flag)
        if value is None:
            if default is None:
                raise self.wrong(flag, "is missing")
            return default
        if not re.fullmatch(r"[0-9]{1,12}", value):
            raise self.wrong(flag, f"must be a whole number, got {quoted(value)}")
        if not is_of_a_run(flag, int(value)):
            raise self.wrong(flag, f"{value} is more than any run has")
        if int(value) < least:
            raise self.wrong(flag, f"must be {least} or more, got {quoted(value)}")
        return int(value)

    def fraction(self, flag: str, default: float) -> float:
        """Return a number."""
        try:
            return float(self.text(flag) or default)
        except ValueError as error:
            raise self.wrong(flag, f"must be a number, got {quoted(self.text(flag))}") from error

    def wrong(self, flag: str, what: str) -> UserError:
        """Return the error of a flag."""
        return UserError(f"{self.source}: --{flag}: {what}")

    def note(self, flag: str, what: str) -> None:
        """Name a flag that is not modelled as it is meant."""
        self.notes.append(f"--{flag}: {what}")

    def left(self, not_modelled: Mapping[str, str], neither: tuple[str, ...], told: Collection[str]) -> Iterable[str]:
        """Yield a line for each flag that nobody asked for and that may change time or memory.

        Args:
            not_modelled: flags that are not modelled, with what happens instead.
            neither: how flags begin that change neither.
            told: flags that say more of one that is named already.

        """
        for flag in self.flags:
            behind = self.flags[flag]
            if flag.startswith("$"):
                yield f"{flag}: is not said in the file; what it adds is left out"
            elif flag in self._asked - self._values and isinstance(behind, str) and _UNSAID.fullmatch(behind):
                yield f"{behind}: is not said in the file; what it adds behind --{flag} is left out"
            elif flag in not_modelled and self.given(flag):
                yield f"--{flag}: is not modelled; {not_modelled[flag]}"
            elif flag not in self._asked and flag not in told and not flag.startswith(neither):
                yield f"--{flag}: is not known here, and left out"
