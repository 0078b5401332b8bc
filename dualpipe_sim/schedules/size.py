"""How large an order is that a schedule would write down, known before it does."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import NamedTuple

from dualpipe_sim.base.memory import short_of
from dualpipe_sim.base.units import format_room, number_of
from dualpipe_sim.errors import TooLargeError
from dualpipe_sim.order.builder import MOST_MICRO_BATCHES, MOST_STAGES

OP_BYTES = 150
"""Of an op while an order is written down, as measured: its number, and then its place in the columns."""


class Size(NamedTuple):
    """What an order is made of, but for the few backwards that some schedules split.

    Attributes:
        stages: of a pipe.
        units: micro-batches, or slices of them, of all pipes together.
        each: how many ops a unit has at a stage: 2 for F and B, 3 for F, I and W.
        meets: how often a unit has all ranks wait for all, where they share the output layer out.

    """

    stages: int
    units: int
    each: int = 2
    meets: int = 0

    @property
    def ops(self) -> int:
        """All ops."""
        return self.stages * self.units * self.each

    def check(self, name: str, micro_batches: int) -> None:
        """Refuse an order that this machine has no room for, before anything of it is there.

        Raises:
            TooLargeError: with how many micro-batches there is room.

        """
        if self.stages >= MOST_STAGES or self.units >= MOST_MICRO_BATCHES:
            what = number_of(self.stages, "stage") if self.stages >= MOST_STAGES else f"{self.units:,} slices"
            most = MOST_STAGES if self.stages >= MOST_STAGES else MOST_MICRO_BATCHES
            raise TooLargeError(f"{name}: {what} are more than an order names, which is {most - 1:,}")
        needs = self.ops * OP_BYTES
        free = short_of(needs)
        if free is None:
            return
        fits = int(micro_batches * free / needs)
        largest = f"; {number_of(fits, 'micro-batch')} would fit" if fits else "; take fewer ranks or stages"
        there = f"{format_room(needs)}, but {format_room(free)} are free"
        raise TooLargeError(f"{name}: an order of {self.ops:,} ops takes {there}{largest}")


def of_line(each: int = 2, meets: int = 0) -> Callable[[int, int], Size]:
    """Return the size of orders with a stage a rank; arguments as of :class:`Size`."""
    return lambda ranks, micro_batches: Size(ranks, micro_batches, each, meets)


def of_v(each: int = 2, meets: int = 0) -> Callable[[int, int], Size]:
    """Return the size of orders with two stages a rank; arguments as of :class:`Size`."""
    return lambda ranks, micro_batches: Size(2 * ranks, micro_batches, each, meets)


def of_loop(each: int = 2) -> Callable[[int, int, int], Size]:
    """Return the size of orders with ``stages_per_rank``; arguments as of :class:`Size`."""
    return lambda ranks, micro_batches, stages_per_rank: Size(stages_per_rank * ranks, micro_batches, each)


def unknown(ranks: int, micro_batches: int, **options: object) -> Size:
    """Return the size of a schedule that says nothing of it: whole numbers may multiply stages or slices."""
    times = prod(value for value in options.values() if type(value) is int and value > 1)
    return Size(ranks * times, micro_batches, 4)
