"""What a kind of fuzzed input is, and how one case of it is tried.

An input gives a result or one clear line (a ``UserError``), in bounded time and memory; anything else is a fault.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType

from dualpipe_sim.errors import UserError

FOUND = Path(__file__).with_name("found")
LONGEST_S = 60
"""Of its process's own work that a case may take, however busy the machine is."""
LONGEST_LINE = 2_000
"""Letters of a line that refuses a case."""


@dataclass(frozen=True)
class Kind:
    """A kind of input, each case of it a file.

    Attributes:
        name: one word.
        suffix: of its files, ``.yaml``.
        make: what such a file holds, by the chances given: the same for the same chances, on every machine.
        attempt: does with a file what the program does; a ``UserError`` is an answer, all else that it raises a fault.
        in_tests: how many cases each run of the tests tries.
        in_long: how many ``make fuzz`` tries.

    """

    name: str
    suffix: str
    make: Callable[[Random], bytes]
    attempt: Callable[[Path], object]
    in_tests: int
    in_long: int

    @property
    def found(self) -> Sequence[Path]:
        """The files that were faults once: they are tried for ever."""
        return sorted((FOUND / self.name).glob("*"))

    def case(self, seed: int, index: int) -> bytes:
        """Return one of the cases of a long run."""
        return self.make(Random(f"{seed} {self.name} {index}"))  # noqa: S311 - to be the same again


def refused(kind: Kind, path: Path) -> bool:
    """Return whether a file is refused in a line, rather than answered by a result; raise what is a fault."""
    try:
        with _own_seconds(LONGEST_S):
            kind.attempt(path)
    except UserError as error:
        line = str(error)
        assert line.strip(), "refused without a word"
        assert len(line) < LONGEST_LINE, f"a line of {len(line)} letters: {line[:200]}"
        assert all(letter.isprintable() or letter == "\n" for letter in line), f"not to be printed: {line!r}"
        return True
    return False


class TooLong(BaseException):
    """A case that went on and on. Nothing inside takes it for a failure of its own."""


@contextmanager
def _own_seconds(most: int) -> Iterator[None]:
    """Raise ``TooLong`` where this process works for longer: no load of the machine's counts."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLong(f"worked for more than {most} s")

    with suppress(AttributeError):  # Windows has no such timer
        before = signal.signal(signal.SIGPROF, stop)
        signal.setitimer(signal.ITIMER_PROF, most)
    try:
        yield
    finally:
        with suppress(AttributeError):
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)
