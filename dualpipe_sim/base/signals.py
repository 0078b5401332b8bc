"""Ctrl-C, SIGTERM, a terminal that is gone: all end a program by an exception, which ends workers and tears no file."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from dualpipe_sim.errors import visible

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name))
"""Those that the system has: a terminal that is gone says SIGHUP, on Windows SIGBREAK."""
_told: list[int] = []
"""The signal that this program was told to end by, if any."""


class Stopped(BaseException):
    """A program is to end. No ``KeyboardInterrupt``, which libraries have answers of their own to.

    Attributes:
        number: the signal that says so.
        left: what stays of the work, in words.

    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.left = ""

    def __str__(self) -> str:
        how = "interrupted" if self.number == signal.SIGINT else f"ended by {signal.Signals(self.number).name}"
        return f"{how}; {self.left}" if self.left else how


@contextmanager
def stoppable(program: str) -> Iterator[None]:
    """Run what is inside until it is told to end, which is one line on stderr and the exit code that shells expect.

    A signal that is ignored stays so: a shell's script has its reasons. Who asks twice does not wait for workers.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _stop)
    try:
        yield
    except Stopped as stop:
        with suppress(OSError, AttributeError):  # a terminal may be what is gone
            sys.stderr.write(visible(f"{program}: {stop}") + "\n")  # noqa: TID251 - before anything else is imported
        sys.exit(128 + stop.number)
    finally:
        _stop_at_once_from_now_on()  # nobody is there any more to take the exception


@contextmanager
def ending_by(end: Callable[[], object]) -> Iterator[None]:
    """Let what runs inside come to its end by itself where the program is told to end, which it then does.

    Args:
        end: makes it end; called in the middle of whatever it does, where an exception would leave it torn.

    """
    told: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        del frame
        told.append(number)
        end()

    ours = [number for number in _SIGNALS if signal.getsignal(number) is _stop]
    for number in ours:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, _stop)
    if told:
        signal.raise_signal(told[0])


def stop_after_all(left: str) -> None:
    """Go on ending, where a search was told to end and has said the best that it found until then.

    Args:
        left: what stays of the work, in words.

    Raises:
        Stopped: as by the signal; by SIGINT where there was none.

    """
    stop = Stopped(_told[0] if _told else signal.SIGINT)
    stop.left = left
    raise stop


def _stop(number: int, frame: FrameType | None) -> None:
    del frame
    _told.append(number)
    _stop_at_once_from_now_on()
    raise Stopped(number)


def _stop_at_once_from_now_on() -> None:
    for one in _SIGNALS:
        if signal.getsignal(one) is _stop:
            signal.signal(one, _stop_at_once)


def _stop_at_once(number: int, frame: FrameType | None) -> None:
    del frame
    os._exit(128 + number)
