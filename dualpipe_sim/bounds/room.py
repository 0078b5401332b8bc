"""How much work can have begun by a moment, where what is in flight shares a room: a bound that knows memory.

Until backwards make room, ranks can only run forwards, and of these no more than fit. So much of the time until then
ranks must idle, however the order is. In numbers:

Let G be the least work of all ops on some ranks, and U(t) the most work of ops that begin before t. Every op not among
them runs after t, so the last of n ranks ends at ``t + (G - U(t)) / n`` or later: for every t a lower bound.

U(t) is bounded so. A micro-batch goes through its steps one after the other (F of each stage, deepest last, then their
backwards the other way), and by time t has begun the first so many of them. Sort micro-batches by that, the furthest
first: if the j-th has begun step n, so have all j before it, so t is later than the earliest moment at which j + 1
micro-batches can have begun step n (``begins_s``). What they hold at t, a stage's activations from when its F has begun
until its backward has, is at most the room r. (A backward frees them at its end, or at that of its W, at the earliest:
here they count as freed, and all work of both as begun. That only makes U larger.) So U(t) is at most

    max of the sum over j of work[n_j], over all n_j with begins_s[n_j, j] < t and the sum of held[n_j] at most r

and by weak duality, for every price p >= 0 of room, at most p r and, of each j, the most of work[n] - p held[n] over n.
That is convex in p, and straight between prices at which a step becomes worth as much as another: one of these is best.
Where there are many, some are tried: a price that is not the best gives a bound all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dualpipe_sim.base.arrays import FloatArray

_MOMENTS, _PRICES = 1000, 400  # at most are tried


class Way(NamedTuple):
    """What each of some micro-batches does where the room is, step by step.

    Attributes:
        begins_s: earliest moment at which 1, 2, … micro-batches can have begun a step, shape ``(steps, count)``.
        work_s: least work of a micro-batch's steps up to and with each, shape ``(steps,)``.
        held: room that it takes once it has begun a step, shape ``(steps,)``.

    """

    begins_s: FloatArray
    work_s: FloatArray
    held: FloatArray


def idle_bound_s(ways: Sequence[Way], room: float, ranks: int = 1, *, moments_s: FloatArray | None = None) -> float:
    """Return seconds that some ranks are never done before, whatever the order, with so much room for all of them.

    One rank whose micro-batches of F = 1 s come back after 4 s for a B of 2 s: with room for two it idles for 2 s
    before the first backward, and does all other work of 5 micro-batches after that.

    >>> begins_s = np.add.outer(np.array([0.0, 4.0]), np.arange(5.0))
    >>> idle_bound_s([Way(begins_s, np.array([1.0, 3.0]), np.array([1.0, 0.0]))], room=2.0)
    17.0

    Args:
        ways: of all micro-batches that share the room.
        room: what is held at most at any time.
        ranks: how many share the work.
        moments_s: until when they may idle; by default whenever a step can begin.

    """
    work_s = sum(float(way.work_s[-1]) * way.begins_s.shape[1] for way in ways)
    # Who has begun a step has begun those before it.
    begins_s = [np.maximum.accumulate(way.begins_s, axis=0) for way in ways]
    if moments_s is None:
        moments_s = np.unique(np.concatenate([begins.ravel() for begins in begins_s]))
        moments_s = moments_s[:: -(-len(moments_s) // _MOMENTS)]
    # How many steps each has begun by then; those that begin later still have begun none, and gain nothing.
    begun = [
        (begins[:, None, begins[0] < moments_s[-1]] < moments_s[:, None]).sum(axis=0, dtype=int) for begins in begins_s
    ]
    price = _prices(ways)
    sums_s = np.repeat(price[:, None] * room, len(moments_s), axis=1)
    for way, until in zip(ways, begun, strict=True):
        gain_s = np.zeros((len(price), len(way.work_s) + 1))
        gain_s[:, 1:] = way.work_s - price[:, None] * way.held
        steps, each = gain_s.shape[1], np.arange(len(moments_s))
        at = np.bincount((each[:, None] * steps + until).ravel(), minlength=len(each) * steps).reshape(-1, steps)
        sums_s += np.maximum.accumulate(gain_s, axis=1) @ at.T  # as many as are at each step by then
    done_s = np.minimum(sums_s.min(axis=0), work_s)
    return float((moments_s + (work_s - done_s) / ranks).max(initial=0.0))


def _prices(ways: Sequence[Way]) -> FloatArray:
    """Return prices at which one step becomes worth as much as another, or as none: the best is among them."""
    slopes = [np.zeros(1)]
    for way in ways:
        work_s, held = np.append(way.work_s, 0.0), np.append(way.held, 0.0)
        more = np.subtract.outer(held, held)
        slopes.append(np.subtract.outer(work_s, work_s)[more > 0] / more[more > 0])
    found = np.unique(np.maximum(np.concatenate(slopes), 0.0))
    return found[:: -(-len(found) // _PRICES)]
