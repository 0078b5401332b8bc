"""Measuring: seconds at their best, memory at its worst, what SimPy is asked for."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import numpy as np
import simpy

_ROUNDS = range(5, 60)  # at least, at most
_LEAST_S = 1.0  # how long to go on repeating what is short


def best_s(
    *works: Callable[[], object], rounds: range = _ROUNDS, clock: Callable[[], float] = time.process_time
) -> list[float]:
    """Return the shortest time of each work in seconds: what the machine does when nothing disturbs it.

    Works take turns, so that what disturbs one disturbs those it is compared with. The clock is that of this process,
    which has one thread: it stands still while the machine does something else.
    """
    taken: list[list[float]] = []
    while len(taken) < rounds.start or (len(taken) < rounds.stop and np.sum(taken) < _LEAST_S):
        taken.append([_seconds(work, clock) for work in works])
    return [min(one) for one in zip(*taken, strict=True)]


def _seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    gc.collect()
    begin = clock()
    work()
    return clock() - begin


def command(*words: str) -> Callable[[], object]:
    """Return a work that runs a command in a process of its own, for a clock on the wall."""
    return partial(subprocess.run, words, check=True, stdout=subprocess.DEVNULL)


_PEAK = "import re, pathlib; print(re.search(r'VmHWM:\\s+(\\d+) kB', pathlib.Path('/proc/self/status').read_text())[1])"


def peak_mb(code: str) -> float:
    """Return the most memory that a new Python process holds while it runs some code, in MB (Linux only)."""
    done = subprocess.run([sys.executable, "-c", f"{code}\n{_PEAK}"], check=True, capture_output=True, text=True)
    return int(done.stdout) * 1024 / 1e6


class _Timeouts(simpy.Timeout):
    made = 0

    def __init__(self, env: simpy.Environment, delay: float, value: object = None) -> None:
        type(self).made += 1
        super().__init__(env, delay, value)


class _Events(simpy.Event):
    made = 0

    def __init__(self, env: simpy.Environment) -> None:
        type(self).made += 1
        super().__init__(env)


def simpy_work(play: Callable[[], object]) -> tuple[int, int]:
    """Return how many timeouts and other events some play makes."""
    _Timeouts.made = _Events.made = 0
    with patch.object(simpy, "Timeout", _Timeouts), patch.object(simpy, "Event", _Events):
        play()
    return _Timeouts.made, _Events.made
