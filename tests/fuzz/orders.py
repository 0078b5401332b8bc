"""Orders of many schedules in their text form, damaged: the verdict is that of rules told in plain Python.

A file's first line says what the order is read as: a placement, and how many barriers its vocabulary has.
"""

from __future__ import annotations

import re
from functools import cache
from math import isfinite
from pathlib import Path
from random import Random

from dualpipe_sim import build
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine.play import play
from dualpipe_sim.errors import ScheduleError, UserError
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.order.check import check_all
from dualpipe_sim.order.placement import PlacementName
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.order.text import format_order, parse_order
from dualpipe_sim.runtimes.torch import format_sharded
from tests.fuzz.damage import damaged
from tests.fuzz.disorder import disordered
from tests.fuzz.kind import Kind
from tests.fuzz.oracle import is_right

_ORDERS: tuple[tuple[str, int, int, dict[str, object], PlacementName], ...] = (
    ("1f1b", 3, 4, {}, "explicit"),
    ("1f1b", 1, 2, {}, "loop"),
    ("1f1b-overlap", 2, 4, {}, "explicit"),
    ("1f1b-recompute", 3, 3, {}, "loop"),
    ("gpipe", 2, 3, {}, "explicit"),
    ("chimera", 4, 4, {}, "bidirectional"),
    ("chimera", 4, 4, {"pairs": 2}, "bidirectional"),
    ("dualpipe", 2, 4, {}, "bidirectional"),
    ("dualpipe", 4, 8, {}, "bidirectional"),
    ("dualpipev", 2, 4, {}, "v"),
    ("gis", 2, 3, {}, "explicit"),
    ("hanayo", 2, 2, {"waves": 2}, "v"),
    ("interlaced", 3, 3, {}, "explicit"),
    ("interleaved-1f1b", 2, 4, {"stages_per_rank": 2}, "loop"),
    ("interleaved-zb", 2, 4, {"stages_per_rank": 2}, "explicit"),
    ("looped-bfs", 2, 3, {"stages_per_rank": 3}, "loop"),
    ("mario", 3, 4, {}, "explicit"),
    ("po-h", 2, 4, {}, "loop"),
    ("po-f", 2, 4, {}, "explicit"),
    ("seq1f1b", 2, 3, {"slices": 2}, "explicit"),
    ("slimpipe", 2, 2, {"slices": 4}, "explicit"),
    ("stp", 2, 3, {}, "v"),
    ("terapipe", 3, 2, {"slices": 3}, "explicit"),
    ("v-half", 2, 3, {}, "v"),
    ("vocab-1f1b", 3, 3, {"barriers": 1}, "explicit"),
    ("vocab-1f1b", 2, 3, {"barriers": 2}, "explicit"),
    ("vocab-v-half", 2, 3, {"barriers": 1}, "v"),
    ("zb-h1", 3, 4, {}, "explicit"),
    ("zb-v", 2, 3, {}, "v"),
)
_PLACEMENTS: tuple[PlacementName, ...] = ("explicit", "loop", "v", "bidirectional")
_UNSURE = re.compile(r"[\"\0]|[^\S \t\n]|\n\n|^\s|\s$")
"""What rows and cells are parted at is the reader's matter: quotes, spaces of many kinds, empty lines."""


@cache
def _rows(which: int) -> tuple[tuple[str, ...], ...]:
    name, ranks, batches, options, _ = _ORDERS[which]
    order = build(name, ranks, batches, **options)
    sharded = which % 5 == 0 and order.slices == 1 and order.vocabulary is None
    text = format_sharded(order) if sharded else format_order(order)
    return tuple(tuple(line.split(",")) for line in text.splitlines())


def _make(chance: Random) -> bytes:
    which = chance.randrange(len(_ORDERS))
    text = disordered(_rows(which), chance)
    placement = _ORDERS[which][4] if chance.random() < 0.85 else chance.choice(_PLACEMENTS)
    barriers = _ORDERS[which][3].get("barriers", 1) if chance.random() < 0.9 else chance.choice((1, 2))
    content = _in_other_clothes(text, chance).encode()
    if chance.random() < 0.1:
        content = damaged(content, chance)
    return f"{placement} {barriers}\n".encode() + content


def _in_other_clothes(text: str, chance: Random) -> str:
    """Return the same order as another program, or an older one, would write it."""
    kind = chance.random()
    if kind < 0.05:
        return text.replace("B", "BW").replace("I", "B") if "W" in text and "O" not in text else text
    if kind < 0.1:
        return text.replace(",", " , ").replace(" ,", " ,,", 1)
    if kind < 0.13:
        return "\n".join(",".join(f'"{cell}"' for cell in row.split(",")) for row in text.split("\n"))
    return "\ufeff" + text.replace("\n", "\r\n") if kind < 0.16 else text


# --- the verdict -----------------------------------------------------------------------------------------------------


def judged(path: Path, costs: UniformCosts) -> Schedule:
    """Return a file's order, if the program and the rules in plain Python both say that it is right.

    Raises:
        UserError: both say that it is not.
        AssertionError: they differ.

    """
    first, _, rest = path.read_bytes().partition(b"\n")
    placement, barriers = first.split()
    name: PlacementName = next(one for one in _PLACEMENTS if one == placement.decode())
    try:
        text = rest.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    try:
        found = check_all(text, name, barriers=int(barriers))
    except ScheduleError:
        found = None
    there = [] if found is None else [str(one) for one in found.findings]
    right = found is not None and not there
    plain = text.removesuffix("\n")
    if not _UNSURE.search(plain):
        assert right == is_right(plain, name, int(barriers)), f"right: {right}; findings: {there}"
    if found is None or found.schedule is None:
        _played_or_refused(text, name, costs)
        raise UserError("; ".join(there)[:1_000] or "refused")
    return found.schedule


def _played_or_refused(text: str, name: PlacementName, costs: UniformCosts) -> None:
    """Play an order without a check of it first: what it does not see is to be played, or refused in a line."""
    try:
        play(lower(parse_order(text, name), costs))
    except UserError:
        return


def _attempt(path: Path) -> float:
    costs = UniformCosts(1.0, 1.5, 0.5, transfer_s=0.25)
    makespan_s = play(lower(judged(path, costs), costs)).makespan_s
    assert isfinite(makespan_s)
    assert makespan_s > 0
    return makespan_s


KIND = Kind("orders", ".csv", _make, _attempt, in_tests=100, in_long=20_000)
