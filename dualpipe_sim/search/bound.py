"""What no order is below, whatever its partition and its placement."""

from __future__ import annotations

from contextlib import suppress

from dualpipe_sim.bounds.optimum import best_balance_s
from dualpipe_sim.errors import UserError
from dualpipe_sim.schedules.annealing.problem import Problem


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
