"""Walks and solvers of a search, each a point that any process can evaluate: the same point gives the same row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import cast

import numpy as np

from dualpipe_sim.base.compiled import COMPILES
from dualpipe_sim.base.show import brief
from dualpipe_sim.bounds.optimum import optimum
from dualpipe_sim.bounds.ticks import have_tick
from dualpipe_sim.order.op_times import OpTimes
from dualpipe_sim.order.text import format_order, parse_order
from dualpipe_sim.schedules.annealing.anneal import anneal
from dualpipe_sim.schedules.annealing.in_turn import play
from dualpipe_sim.schedules.annealing.problem import FORWARD, INPUT, WEIGHT, Answer, Problem

_OPS_OF_A_WALK = 40_000_000 if COMPILES else 4_000_000  # moves x ops of an order: some seconds
_FEWEST_MOVES = 200
_MOST_SEED = 2_000_000_000
_TICKS = 20_000  # that the longest op is rounded to, for a solver that counts


def answer_of(data: object) -> Answer:
    """Return an answer that was plain data."""
    cuts, ranks, again, turns, waits = cast("tuple[list[int], list[int], list[bool], list[list[float]], bool]", data)
    return Answer(tuple(cuts), tuple(ranks), tuple(again), tuple(map(tuple, turns)), waits)


@dataclass(frozen=True)
class Walk:
    """Evaluates walks by annealing.

    Attributes:
        problem: what is asked.
        moves: how many changes each tries; None for as many as take some seconds.

    """

    problem: Problem
    moves: int | None = None

    __repr__ = brief

    def __call__(self, point: Mapping[str, object]) -> dict[str, object]:
        """Return where a walk came to; without an ``answer`` where it met nothing that fits.

        ``start`` is an answer; ``hottest`` and ``seed`` are the walk's.
        """
        first = answer_of(point["start"])
        ops = first.stages * self.problem.micro_batches * (3 if self.problem.split else 2)
        moves = self.moves or max(_FEWEST_MOVES, _OPS_OF_A_WALK // ops)
        draws = Random(f"{point['seed']}")  # noqa: S311 - draws moves, keeps no secret
        seeds = draws.randint(1, _MOST_SEED), draws.randint(1, _MOST_SEED)
        best = anneal(self.problem, first, moves, cast("float", point["hottest"]), seeds)
        found = play(self.problem, best)
        return {"answer": None} if found is None else {"answer": best, "makespan_s": found.makespan_s}


@dataclass(frozen=True)
class Polish:
    """Improves an order by CP-SAT, partition and placement kept.

    Attributes:
        problem: what is asked.

    """

    problem: Problem

    __repr__ = brief

    def __call__(self, point: Mapping[str, object]) -> dict[str, object]:
        """Return the best order found in ``within_s`` or by ``patience_s``, as text, from the order ``text`` on.

        ``partition`` says how many layers each stage holds. Times without a common tick are rounded for the solver, so
        that the order is to be played again; ``proved`` is whether none of this placement is better but for rounding.
        """
        known = parse_order(cast("str", point["text"]))
        partition, problem = cast("list[int]", point["partition"]), self.problem
        seconds = np.array(problem.stage_s(list(accumulate(partition, initial=0))))
        times = OpTimes(seconds[FORWARD], seconds[INPUT], seconds[WEIGHT], problem.hop_s)
        if not have_tick(times):
            tick_s = max(float(seconds.max()), problem.hop_s) / _TICKS
            ticks = np.rint(seconds / tick_s)
            times = OpTimes(ticks[FORWARD], ticks[INPUT], ticks[WEIGHT], float(round(problem.hop_s / tick_s)))
        found = optimum(
            known.placement,
            (problem.micro_batches,),
            times,
            split=problem.split,
            memory_limit=problem.most_activations,
            within_s=cast("float", point["within_s"]),
            patience_s=cast("float | None", point["patience_s"]),
            layers_of_stage=partition,
            known=known,
        )
        return {"text": format_order(found.schedule), "proved": found.proved}
