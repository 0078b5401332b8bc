"""Bare SimPy: a program that only yields timeouts and events, as the floor that a SimPy engine stands on."""

from __future__ import annotations

from collections.abc import Generator

import simpy

PROCESSES = 64


def run(timeouts: int, events: int) -> None:
    """Yield so many timeouts and events from 64 processes."""
    env = simpy.Environment()
    for process in range(PROCESSES):
        env.process(_yield(env, _share(timeouts, process), _share(events, process)))
    env.run()


def _yield(env: simpy.Environment, timeouts: int, events: int) -> Generator[simpy.Event, object, None]:
    for _ in range(events):
        yield simpy.Event(env).succeed()
    for _ in range(timeouts):
        yield simpy.Timeout(env, 1.0)


def _share(total: int, process: int) -> int:
    return total // PROCESSES + (process < total % PROCESSES)
