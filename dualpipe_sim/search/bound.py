"""What no order is below, whatever its partition and its placement."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from dualpipe_sim.bounds.optimum import best_balance_s
from dualpipe_sim.bounds.room import Way, idle_bound_s
from dualpipe_sim.errors import UserError
from dualpipe_sim.schedules.annealing.problem import Problem

_ROUNDING = 1e-9


def lower_bound(problem: Problem) -> tuple[float, str]:
    """Return seconds that no order is below, and what they are in words.

    Each rank works off its share, and one rank after the other starts: the first layer of the k-th is the model's k-th
    at least, so that a micro-batch comes through as many before. Where backwards are whole, gradients go as far back
    after its last op; else weights may fill that time.
    """
    (forward_s, backward_s, _), hop_s = problem.until_s, problem.hop_s
    waits_s = [
        forward_s[first] + hop_s * (first > 0) + (0.0 if problem.split else backward_s[first] + hop_s * (first > 0))
        for first in range(problem.ranks)
    ]
    work_s = [problem.micro_batches * sum(seconds) for seconds in problem.layer_s]
    found = {
        "the ranks' work, and the wait for their first ops": (sum(work_s) + sum(waits_s)) / problem.ranks,
        "one micro-batch, there and back": forward_s[-1] + backward_s[-1],
        "the rank of the heaviest layer": max(_alone_s(problem, layer) for layer in range(problem.layers)),
    }
    if problem.most_activations is not None and not problem.recompute:  # (what runs again may hold hardly anything)
        found |= within_room_s(problem, problem.most_activations)
    with suppress(UserError):  # (CP-SAT is not installed)
        words = "the most even shares of whole layers, and the wait for the ranks' first ops"
        found[words] = best_balance_s(work_s, problem.ranks, waits_s)
    what = max(found, key=found.__getitem__)
    return found[what], what


def _alone_s(problem: Problem, layer: int) -> float:
    """Return what a layer alone takes at least: all of its work once it can start, or as much as gradients wait for."""
    forward_s, backward_s, _ = problem.until_s
    forward, into, weight = (until[layer + 1] - until[layer] for until in problem.until_s)
    waited_for = problem.micro_batches * (forward + into) + backward_s[layer]
    return forward_s[layer] + max(waited_for, problem.micro_batches * (forward + into + weight))


def within_room_s(problem: Problem, most_activations: float) -> dict[str, float]:
    """Return what all ranks take together, whose rooms are one, in seconds by words: a layer as a stage.

    An order on stages is one on their layers, which run one after the other, and hold no less: a stage's layers are
    there from its F's start on, each not before its own, to the end of its W. So room x makespan is no less than what
    all layers hold for as long as micro-batches are on the way from them to the end and back (Little's law).

    How long ranks idle until backwards make room, :mod:`dualpipe_sim.bounds.room` says. Layer l can begin the forward
    of its micro-batch j when it has come through the layers before, where any of these, h, has run j others: until(h)
    + j F_h and the way from h to l. It can begin its backward when the first is back, and any layer from there on, h,
    has run j + 1 forwards and j backwards, and then the way from h back to l.
    """
    forward_s, backward_s, weight_s = (np.array(until) for until in problem.until_s)
    forward, into, weight = (np.diff(until) for until in (forward_s, backward_s, weight_s))
    room = problem.ranks * int(most_activations * problem.layers / problem.ranks + _ROUNDING)
    held_s = (forward_s[-1] - forward_s[:-1]) + (backward_s[-1] - backward_s[:-1]) + weight

    earlier = np.arange(float(problem.micro_batches))
    comes_s = forward_s[:-1, None] + np.maximum.accumulate(forward)[:, None] * earlier
    way_back_s = backward_s[-1] - backward_s[1:, None]  # from the last layer until where a layer begins
    turns_s = forward_s[:-1, None] + forward[:, None] * (earlier + 1) + into[:, None] * earlier
    turns_s = np.maximum(turns_s, forward_s[-1] + way_back_s) - way_back_s
    back_s = np.maximum.accumulate(turns_s[::-1]) + way_back_s[::-1]
    way = Way(
        np.concatenate([comes_s, back_s]),
        np.concatenate([forward_s[1:], forward_s[-1] + np.cumsum((into + weight)[::-1])]),
        np.cumsum(np.repeat([1.0, -1.0], problem.layers)),
    )
    return {
        "what all micro-batches hold until they are back": problem.micro_batches * float(held_s.sum()) / room,
        "the ranks' work, and the wait for backwards to make room": idle_bound_s([way], room, problem.ranks),
    }
