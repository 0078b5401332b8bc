"""Whether an order is right, told by plain Python from the rules in words: docs/howto_pytorch.md, order/finding.py.

It shares nothing with the package. Every cell is a node of a graph of who waits for whom; an order is right if each op
is there once, where its stage is, and the graph has no circle. A program's messages are played besides, one after
another on each rank, each when both its ranks stand at it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from itertools import pairwise, product
from typing import NamedTuple

_OP = r"([0-9]+)(BW|[FBIWRSTOL])([0-9]+)(?:\.([0-9]+))?"
_CELLS = {
    "op": re.compile(_OP),
    "pair": re.compile(rf"\({_OP};{_OP}\)OVERLAP_F_([BIWF])"),
    "message": re.compile(r"([0-9]+)(SEND|RECV)_([FB])([0-9]+)"),
    "weights": re.compile(r"([0-9]+)(?:UNSHARD|RESHARD|REDUCE_GRAD)"),
}


class Op(NamedTuple):
    """An op as it is written."""

    kind: str
    stage: int
    batch: int
    slice: int | None = None


class Message(NamedTuple):
    """One side of a tensor that passes between ranks, named by the stage that needs it."""

    sends: bool
    way: str
    needed_by: int
    batch: int


class Weights(NamedTuple):
    """Something done about a stage's weights."""

    stage: int


class Wrong(Exception):  # noqa: N818 - a verdict
    """What is wrong with an order."""


def is_right(text: str, placement: str, barriers: int) -> bool:
    """Return whether an order in its text form is right, its messages among it."""
    try:
        _judge(text, placement, barriers)
    except Wrong:
        return False
    return True


def _demand(condition: object, what: str) -> None:
    if not condition:
        raise Wrong(what)


def _judge(text: str, placement: str, barriers: int) -> None:
    rows = [[_cell(cell.strip(" \t")) for cell in line.split(",") if cell.strip(" \t")] for line in text.split("\n")]
    rows = _of_today(rows)
    _demand(all(any(_ops(cell) for cell in row) for row in rows), "a row without an op")
    where = _Where(rows, placement)
    at = _complete(rows, where)
    _no_circle(rows, where, at, barriers)
    for last in (pipe[-1] for pipe in where.pipes):
        row = rows[where.rank_of[last]]
        losses = [op[2:] for cell in row for op in _ops(cell) if op.kind == "F" and op.stage == last]
        _demand(all(one <= other for one, other in pairwise(losses)), "losses out of order")
    for rank, row in enumerate(rows):
        weights = [cell for cell in row if isinstance(cell, Weights)]
        _demand(all(where.rank_of.get(cell.stage) == rank for cell in weights), "weights of another rank")
    _messages(rows, where)


# --- what is written -------------------------------------------------------------------------------------------------


def _cell(text: str) -> tuple[Op, ...] | Message | Weights:
    kind, found = next(((kind, found) for kind, form in _CELLS.items() if (found := form.fullmatch(text))), ("", None))
    _demand(found is not None and all(len(number) < 12 for number in re.findall("[0-9]+", text)), f"junk: {text}")
    assert found is not None
    if kind == "weights":
        return Weights(int(found[1]))
    if kind == "message":
        stage = int(found[1])
        sends = found[2] == "SEND"
        needed_by = stage + {"F": 1, "B": -1}[found[3]] if sends else stage
        return Message(sends, found[3], needed_by, int(found[4]))
    ops = tuple(
        Op(kind, int(stage), int(batch), int(part) if part else None)
        for stage, kind, batch, part in re.findall(_OP, text)
    )
    if len(ops) == 2:
        _demand([op.kind for op in ops] == ["F", found[9]], "a pair of other ops than it says")
    return ops


def _ops(cell: object) -> tuple[Op, ...]:
    return cell if isinstance(cell, tuple) and not isinstance(cell, (Message, Weights)) else ()


def _of_today(rows: list[list[tuple[Op, ...] | Message | Weights]]) -> list[list[tuple[Op, ...] | Message | Weights]]:
    """Read the letters of old, and one slice as a whole micro-batch."""
    ops = {op for row in rows for cell in row for op in _ops(cell)}
    kinds = {op.kind for op in ops}
    if "W" in kinds and "I" not in kinds:

        def letter(cell: tuple[Op, ...] | Message | Weights) -> tuple[Op, ...] | Message | Weights:
            lone = _ops(cell)
            if len(lone) == 1 and lone[0].kind == "B" and lone[0]._replace(kind="W") in ops:
                return (lone[0]._replace(kind="I"),)
            return cell

        rows = [[letter(cell) for cell in row] for row in rows]
    rows = [
        [
            tuple(op._replace(kind="B") if op.kind == "BW" else op for op in _ops(cell)) if _ops(cell) else cell
            for cell in row
        ]
        for row in rows
    ]
    ops = {op for row in rows for cell in row for op in _ops(cell)}
    if {op.slice for op in ops} == {0}:
        rows = [
            [tuple(op._replace(slice=None) for op in _ops(cell)) if _ops(cell) else cell for cell in row]
            for row in rows
        ]
    return rows


# --- where it is -----------------------------------------------------------------------------------------------------


class _Where:
    """Which rank has which stage, and which stages are a pipe."""

    def __init__(self, rows: list[list[tuple[Op, ...] | Message | Weights]], placement: str) -> None:
        ranks = len(rows)
        held = [{op.stage for cell in row for op in _ops(cell)} for row in rows]
        stages = len(set().union(*held))
        _demand(set().union(*held) == set(range(stages)), "a stage without an op")
        if placement == "explicit":
            _demand(sum(map(len, held)) == stages, "a stage on two ranks")
            self.pipes = [list(range(stages))]
            self.rank_of = {stage: rank for rank, own in enumerate(held) for stage in own}
            return
        if placement == "loop":
            _demand(stages % ranks == 0, "stages")
            self.pipes, order = [list(range(stages))], [stage % ranks for stage in range(stages)]
        elif placement == "v":
            _demand(stages % (2 * ranks) == 0, "stages")
            there_and_back = [*range(ranks), *range(ranks - 1, -1, -1)]
            self.pipes = [list(range(stages))]
            order = there_and_back * (stages // (2 * ranks))
        else:
            pairs, left = divmod(stages, 2 * ranks)
            _demand(not left and ranks % pairs == 0, "stages")
            self.pipes = [list(range(ranks * pipe, ranks * (pipe + 1))) for pipe in range(2 * pairs)]
            order = []
            for pair in range(pairs):
                down = [(ranks // pairs * pair + place) % ranks for place in range(ranks)]
                order += down + down[::-1]
        self.rank_of = dict(enumerate(order))
        _demand(all(self.rank_of[stage] == rank for rank, own in enumerate(held) for stage in own), "a wrong rank")

    def beside(self, stage: int, step: int) -> int | None:
        """Return the stage before or after one in its pipe."""
        pipe = next(pipe for pipe in self.pipes if stage in pipe)
        place = pipe.index(stage) + step
        return pipe[place] if 0 <= place < len(pipe) else None


_Site = tuple[int, int]


def _complete(rows: list[list[tuple[Op, ...] | Message | Weights]], where: _Where) -> dict[Op, _Site]:
    """Return where each op is; every one is there, once."""
    sites = [
        (op, (rank, place)) for rank, row in enumerate(rows) for place, cell in enumerate(row) for op in _ops(cell)
    ]
    at = dict(sites)
    _demand(len(at) == len(sites), "an op twice")
    slices = {op.slice for op in at}
    _demand(slices == {None} or slices == set(range(len(slices))), "a slice without an op")
    passes = {"S", "T"} & {op.kind for op in at}
    for pipe in where.pipes:
        batches = {op.batch for op in at if op.stage in pipe}
        _demand(batches == set(range(len(batches))), "a micro-batch without an op")
        for stage, batch, part in product(pipe, batches, slices):
            there = {kind for kind in "FBIWRSTOL" if Op(kind, stage, batch, part) in at}
            _demand("F" in there, "no forward")
            _demand(there & set("BIW") in ({"B"}, {"I", "W"}), "not one backward")
            _demand(there & set("OL") in (set(), {"O", "L"}), "half a copy")
            wanted = passes if stage == _first_stage(where, where.rank_of[stage]) else set()
            _demand(there & set("ST") == wanted, "passes of the vocabulary")
    _demand(not passes or (len(where.pipes) == 1 and "S" in passes), "passes of several pipes")
    return at


def _first_stage(where: _Where, rank: int) -> int:
    return min(stage for stage, home in where.rank_of.items() if home == rank)


# --- who waits for whom ----------------------------------------------------------------------------------------------


def _no_circle(
    rows: list[list[tuple[Op, ...] | Message | Weights]], where: _Where, at: dict[Op, _Site], barriers: int
) -> None:
    together = any(op.kind == "S" for op in at) and not any(op.kind == "T" for op in at)

    def node(site: _Site) -> Hashable:
        """Return a cell, or what all ranks do at once."""
        ops = _ops(rows[site[0]][site[1]])
        return ops[0][2:] if together and ops and ops[0].kind == "S" else site

    after: defaultdict[Hashable, set[Hashable]] = defaultdict(set)
    nodes: set[Hashable] = set()
    for rank, row in enumerate(rows):
        sites = [(rank, place) for place in range(len(row)) if _ops(row[place])]
        nodes.update(map(node, sites))
        for one, other in pairwise(sites):
            after[node(one)].add(node(other))
    for op, site in at.items():
        for needed in _needs(op, where, at, 2 if barriers == 2 and not together else 1):
            if needed in at:
                _demand(node(at[needed]) != node(site) or node(site) != site, "an op beside what it needs")
                if node(at[needed]) != node(site):
                    after[node(at[needed])].add(node(site))
    waits = Counter(other for others in after.values() for other in others)
    ready = [one for one in nodes if not waits[one]]
    done = 0
    while ready:
        done += 1
        for behind in after[ready.pop()]:
            waits[behind] -= 1
            if not waits[behind]:
                ready.append(behind)
    _demand(done == len(nodes), "a circle")


def _needs(op: Op, where: _Where, at: dict[Op, _Site], barriers: int) -> Iterable[Op]:
    """Return what an op needs; what is not there it does not need."""
    kind, stage, batch, part = op
    last = where.pipes[0][-1]
    every = [_first_stage(where, rank) for rank in set(where.rank_of.values())]
    has_t = any(one.kind == "T" for one in at)
    if kind == "S":
        return [Op("F", last, batch, part)]
    if kind == "T":
        return [Op("S", first, batch, part) for first in every]
    if kind in "WL":
        return [Op({"W": "I", "L": "O"}[kind], stage, batch, part)]
    if kind == "F":
        before = where.beside(stage, -1)
        return [Op("F", one, batch, part) for one in [before] if one is not None] + (
            [Op("F", stage, batch, part - 1)] if part else []
        )
    needs = [Op("F", stage, batch, part)]
    if kind in "BI":
        needs += [Op(kind, stage, batch, part) for kind in "RL"]
        behind = where.beside(stage, 1)
        needs += [Op(kind, behind, batch, part) for kind in "BI" if behind is not None]
        needs += [Op(kind, stage, batch, part + 1) for kind in "BI" if part is not None]
        if stage == last:
            needs += [Op("T" if has_t and barriers == 2 else "S", first, batch, part) for first in every]
    return needs


# --- messages --------------------------------------------------------------------------------------------------------


def _messages(rows: list[list[tuple[Op, ...] | Message | Weights]], where: _Where) -> None:
    """Check that every tensor goes once and meets itself, and that no rank stands for ever."""
    sides = [cell for row in rows for cell in row if isinstance(cell, Message)]
    if not sides:
        return
    ops = {op: (rank, place) for rank, row in enumerate(rows) for place, cell in enumerate(row) for op in _ops(cell)}
    _demand(all(op.slice is None for op in ops), "messages of slices")
    crossing: dict[tuple[str, int, int], tuple[int, int]] = {}
    for op in ops:
        if op.kind in "FBI":
            needed_by = where.beside(op.stage, 1 if op.kind == "F" else -1)
            if needed_by is not None and where.rank_of[needed_by] != where.rank_of[op.stage]:
                tensor = ("F" if op.kind == "F" else "B", needed_by, op.batch)
                crossing[tensor] = where.rank_of[op.stage], where.rank_of[needed_by]
    wanted = Counter(Message(sends, *tensor) for tensor in crossing for sends in (True, False))
    _demand(Counter(sides) == wanted, "a tensor that does not go once")
    passing: defaultdict[tuple[int, int, bool], list[tuple[str, int, int]]] = defaultdict(list)
    for rank, row in enumerate(rows):
        for place, cell in enumerate(row):
            if isinstance(cell, Message):
                ranks = crossing[cell[1:]]
                _demand(ranks[not cell.sends] == rank, "a message of another rank")
                passing[ranks[0], ranks[1], cell.sends].append(cell[1:])
                stage = cell.needed_by + {"F": -1, "B": 1}[cell.way] if cell.sends else cell.needed_by
                kinds = "F" if cell.way == "F" else "BI"
                op_at = next(ops[op] for kind in kinds if (op := Op(kind, stage, cell.batch)) in ops)
                _demand(op_at[1] < place if cell.sends else place < op_at[1], "a message on the wrong side of its op")
    for (source, target, _), tensors in passing.items():
        _demand(passing[source, target, True] == tensors, "a message that meets another")
    _all_get_through([[cell[1:] for cell in row if isinstance(cell, Message)] for row in rows], crossing)


def _all_get_through(
    lines: list[list[tuple[str, int, int]]], crossing: dict[tuple[str, int, int], tuple[int, int]]
) -> None:
    moved = True
    while moved:
        moved = False
        for line in lines:
            while line and all(lines[rank][:1] == line[:1] for rank in crossing[line[0]]):
                for rank in crossing[line[0]]:
                    if lines[rank] is not line:
                        lines[rank].pop(0)
                line.pop(0)
                moved = True
    _demand(not any(lines), "ranks that wait for each other's messages")
