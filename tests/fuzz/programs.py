"""Programs with their sends and receives (torch's ``compute_comms``), these damaged: judged as orders are.

What is right is played on torch's runtime, where each rank's messages go one after another; it may not stand still.
"""

from __future__ import annotations

from functools import cache
from math import isfinite
from pathlib import Path
from random import Random

from dualpipe_sim import build
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine.play import play
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.order.placement import PlacementName
from dualpipe_sim.runtimes.registry import RUNTIMES
from dualpipe_sim.runtimes.torch import format_program
from tests.fuzz.disorder import disordered
from tests.fuzz.kind import Kind
from tests.fuzz.orders import judged

_PROGRAMS: tuple[tuple[str, int, int, dict[str, object], PlacementName], ...] = (
    ("1f1b", 3, 3, {}, "explicit"),
    ("1f1b", 4, 4, {}, "loop"),
    ("1f1b-recompute", 3, 3, {}, "explicit"),
    ("gpipe", 2, 3, {}, "explicit"),
    ("interleaved-1f1b", 2, 2, {"stages_per_rank": 2}, "explicit"),
    ("interleaved-1f1b", 3, 3, {"stages_per_rank": 2}, "loop"),
    ("looped-bfs", 2, 2, {"stages_per_rank": 2}, "loop"),
    ("dualpipev", 2, 4, {}, "v"),
    ("dualpipe", 2, 4, {}, "bidirectional"),
    ("chimera", 4, 4, {}, "bidirectional"),
    ("hanayo", 2, 2, {"waves": 2}, "v"),
    ("zb-h1", 2, 3, {}, "explicit"),
    ("zb-v", 2, 2, {}, "v"),
)


@cache
def _rows(which: int) -> tuple[tuple[str, ...], ...]:
    name, ranks, batches, options, _ = _PROGRAMS[which]
    text = format_program(build(name, ranks, batches, **options))
    return tuple(tuple(line.split(",")) for line in text.splitlines())


def _make(chance: Random) -> bytes:
    which = chance.randrange(len(_PROGRAMS))
    text = disordered(_rows(which), chance, messages=chance.random() < 0.8)
    return f"{_PROGRAMS[which][4]} 1\n{text}".encode()


def _attempt(path: Path) -> float:
    costs = UniformCosts(1.0, 1.5, 0.5, transfer_s=0.25)
    order, torch = judged(path, costs), RUNTIMES.get("torch").with_options({"version": "2.11"})
    makespan_s = play(lower(order, costs, runtime=torch)).makespan_s
    assert isfinite(makespan_s)
    assert makespan_s >= play(lower(order, costs)).makespan_s - 1e-9, "in line, and earlier than at once"
    return makespan_s


KIND = Kind("programs", ".csv", _make, _attempt, in_tests=60, in_long=10_000)
