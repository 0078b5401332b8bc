"""Ctrl-C and SIGTERM: both end a program by one exception, so that workers are ended and no file is left torn."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
        sys.stderr.write(f"{program}: {stop}\n")
        sys.exit(128 + stop.number)


def _stop(number: int, frame: FrameType | None) -> None:
    del frame
    for one in _SIGNALS:
        if signal.getsignal(one) is _stop:
            signal.signal(one, _stop_at_once)
    raise Stopped(number)


def _stop_at_once(number: int, frame: FrameType | None) -> None:
    del frame
    os._exit(128 + number)
