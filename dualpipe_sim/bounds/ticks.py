"""Times in whole numbers, for a solver that counts."""

from __future__ import annotations

from math import gcd
from typing import NamedTuple

import numpy as np

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.errors import UserError
from dualpipe_sim.order.op_times import OpTimes
from dualpipe_sim.order.ops import B, F, I, W

_MOST = 1_000_000
"""Most ticks that an op may last: times are whole multiples of one tick, exactly."""


class Ticks(NamedTuple):
    """Times in ticks.

    Attributes:
        tick_s: seconds of one.
        of_kind: those of each stage's op, by kind; a B lasts I + W.
        hop: those of a transfer between two ranks.
        of_pair: those of a pair of each stage's F and each stage's B, where there are pairs; -1 where there is none.

    """

    tick_s: float
    of_kind: dict[int, list[int]]
    hop: int
    of_pair: list[list[int]] | None = None


def in_ticks(times: OpTimes, pair_s: FloatArray | None = None) -> Ticks:
    """Return times in ticks.

    The shortest time, or a small whole part of it, is tried as the tick, then decimals of a second; then the tick is
    made as long as all times allow, since the solver is faster with small numbers. Stages of F = 1 s, I = 1.5 s, W =
    0.5 s have ticks of 0.5 s:

    >>> ticks = in_ticks(OpTimes(np.array([1.0]), np.array([1.5]), np.array([0.5])))
    >>> ticks.tick_s, ticks.of_kind[I]
    (0.5, [3])

    Args:
        times: seconds of ops and of a transfer.
        pair_s: seconds of pairs, shape ``(stages, stages)``; infinite where there is none.

    Raises:
        UserError: all times are 0, or have no common tick.

    """
    by_kind: dict[int, FloatArray] = {F: times.forward_s, I: times.backward_input_s, W: times.backward_weight_s}
    paired_s = np.empty(0) if pair_s is None else pair_s[np.isfinite(pair_s)]
    seconds = np.concatenate([*by_kind.values(), paired_s, [times.transfer_s]])
    some = seconds[seconds > 0]
    if not len(some):
        raise UserError("optimum: all ops take no time")
    of_shortest = [float(some.min()) / parts for parts in (1, 2, 3, 4, 5, 10, 100, 1000)]
    for tick_s in (*of_shortest, *(10.0**-digits for digits in range(10))):
        whole = np.rint(seconds / tick_s)
        if np.allclose(whole * tick_s, seconds, rtol=1e-12, atol=0) and whole.max() < _MOST:
            tick_s *= gcd(*whole.astype(int).tolist())  # noqa: PLW2901 - the same, as long as can be
            ticks: dict[int, list[int]] = {
                kind: np.rint(of / tick_s).astype(int).tolist() for kind, of in by_kind.items()
            }
            ticks[B] = [into + weight for into, weight in zip(ticks[I], ticks[W], strict=True)]
            pairs = None if pair_s is None else np.rint(np.nan_to_num(pair_s / tick_s, posinf=-1)).astype(int).tolist()
            return Ticks(tick_s, ticks, round(times.transfer_s / tick_s), pairs)
    raise UserError("optimum: times must be whole multiples of one tick; round them")


def have_tick(times: OpTimes) -> bool:
    """Return whether all times are whole multiples of one tick."""
    try:
        in_ticks(times)
    except UserError:
        return False
    return True
