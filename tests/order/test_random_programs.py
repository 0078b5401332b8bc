"""Random programs, legal and illegal, judged by a checker of another kind: a graph of who waits for whom.

A program is torch's of some schedule, with cells moved, swapped, dropped or doubled. The judge knows two rules of a
rank's row (https://docs.pytorch.org/docs/stable/distributed.html): an op waits for all before it and for what it
receives; a message waits for the ops before it, for the message before it, and for its other side. Messages carry no
name, so the n-th send to a rank meets the n-th receive there. A program is legal if every tensor goes once and meets
itself, from behind the op that makes it to before the op that needs it, and nothing waits for itself.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import networkx as nx
import pytest

from dualpipe_sim import build
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine.play import play
from dualpipe_sim.errors import DeadlockError
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.order.check import check_lines, read_order
from dualpipe_sim.runtimes.registry import RUNTIMES
from dualpipe_sim.runtimes.torch import format_program

PROGRAMS = 5000
SCHEDULES: list[tuple[str, int, int, dict[str, object]]] = [
    ("1f1b", 3, 3, {}),
    ("gpipe", 2, 3, {}),
    ("interleaved-1f1b", 2, 2, {"stages_per_rank": 2}),
    ("zb-h1", 2, 3, {}),
    ("zb-v", 2, 2, {}),
    ("looped-bfs", 2, 2, {"stages_per_rank": 2}),
]
CELL = re.compile(r"(\d+)(SEND_F|SEND_B|RECV_F|RECV_B|F|B|I|W)(\d+)")


class Tensor(NamedTuple):
    """An activation (step 1) or a gradient (step -1), by the stage that makes it."""

    step: int
    made_by: int
    micro_batch: int


class Cell(NamedTuple):
    """A cell of a row, read apart."""

    stage: int
    what: str
    micro_batch: int

    @property
    def step(self) -> int:
        """Which way the tensor goes that it moves, needs or makes."""
        return 1 if self.what.endswith("F") else -1

    @property
    def sends(self) -> bool:
        return self.what.startswith("SEND")

    @property
    def receives(self) -> bool:
        return self.what.startswith("RECV")

    @property
    def made(self) -> Tensor:
        return Tensor(self.step, self.stage, self.micro_batch)

    @property
    def needed(self) -> Tensor:
        return Tensor(self.step, self.stage - self.step, self.micro_batch)


def read(row: list[str]) -> list[Cell]:
    found = [CELL.fullmatch(cell) for cell in row]
    return [Cell(int(one[1]), one[2], int(one[3])) for one in found if one]


class Judge:
    """Judges programs of one chain of stages."""

    def __init__(self, rank_of_stage: list[int]) -> None:
        self.rank_of_stage = rank_of_stage
        self.waits: nx.DiGraph[object] = nx.DiGraph()
        self.right = True
        self.passing: dict[tuple[int, int, bool], list[Tensor]] = defaultdict(list)

    def between(self, tensor: Tensor) -> tuple[int, int] | None:
        """Return the two ranks that a tensor passes between, or None where it stays or does not exist."""
        stages = tensor.made_by, tensor.made_by + tensor.step
        if not all(0 <= stage < len(self.rank_of_stage) for stage in stages):
            return None
        source, target = (self.rank_of_stage[stage] for stage in stages)
        return None if source == target else (source, target)

    def is_legal(self, rows: list[list[str]]) -> bool:
        made: set[Tensor] = set()
        for rank, row in enumerate(rows):
            made |= self.judge_row(rank, read(row))
        crossing = Counter(tensor for tensor in made if self.between(tensor))
        for sends in (True, False):
            self.right &= crossing == Counter(
                tensor for (_, _, side), tensors in self.passing.items() if side == sends for tensor in tensors
            )
        for (source, target, _), tensors in list(self.passing.items()):
            self.right &= tensors == self.passing[source, target, True]
        return self.right and nx.is_directed_acyclic_graph(self.waits)

    def judge_row(self, rank: int, row: list[Cell]) -> set[Tensor]:
        """Judge a row alone, add what waits for what in it, and return what it makes."""
        made: set[Tensor] = set()
        there: set[Tensor] = set()
        forwards: set[tuple[int, int]] = set()
        halves: set[tuple[int, int]] = set()
        losses: list[int] = []
        op = message = object()
        for cell in row:
            here = cell.stage, cell.micro_batch
            if cell.sends or cell.receives:
                message = self.move(rank, cell, made, (op, message))
                there |= {cell.needed} if cell.receives else set()
                continue
            previous, op = op, (rank, cell)
            self.waits.add_edge(previous, op)
            self.right &= self.rank_of_stage[cell.stage] == rank
            if cell.what == "W":
                self.right &= here in halves
                continue
            needed = cell.needed
            inside = 0 <= needed.made_by < len(self.rank_of_stage)
            if inside and self.between(needed):
                self.right &= needed in there
                self.waits.add_edge(needed, op)
            elif inside:
                self.right &= needed in made
            self.right &= cell.what == "F" or here in forwards
            made.add(cell.made)
            forwards |= {here} if cell.what == "F" else set()
            halves |= {here} if cell.what == "I" else set()
            losses += [cell.micro_batch] * (cell.what == "F" and cell.stage == len(self.rank_of_stage) - 1)
        self.right &= losses == sorted(losses)
        return made

    def move(self, rank: int, cell: Cell, made: set[Tensor], before: tuple[object, object]) -> Tensor:
        """Judge a message, which waits for the op and for the message before it."""
        tensor = cell.made if cell.sends else cell.needed
        ranks = self.between(tensor)
        if ranks is None or rank != ranks[0 if cell.sends else 1] or (cell.sends and tensor not in made):
            self.right = False
        else:
            self.passing[ranks[0], ranks[1], cell.sends].append(tensor)
        self.waits.add_edges_from((one, tensor) for one in before)
        return tensor


def changed(rows: list[list[str]], dice: random.Random) -> list[list[str]]:
    """Return a program with some cells of it moved, swapped, dropped or doubled."""
    rows = [list(row) for row in rows]
    for _ in range(dice.choice((0, 1, 1, 2, 3))):
        row = dice.choice(rows)
        place, kind = dice.randrange(len(row)), dice.random()
        is_message = "SEND" in row[place] or "RECV" in row[place]
        if kind < 0.45:
            cell = row.pop(place)
            row.insert(max(0, place + dice.choice((-3, -2, -1, 1, 2, 3))), cell)
        elif kind < 0.8:
            other = dice.randrange(len(row))
            row[place], row[other] = row[other], row[place]
        elif is_message and kind < 0.9:
            row.pop(place)
        elif is_message:
            row.insert(dice.randrange(len(row)), row[place])
    return rows


def programs() -> Iterator[tuple[str, list[list[str]], bool]]:
    """Yield a schedule's name, a program, and whether it is legal."""
    dice = random.Random(20261127)  # noqa: S311
    orders = [(name, build(name, ranks, many, **options)) for name, ranks, many, options in SCHEDULES]
    right = {name: [row.split(",") for row in format_program(order).splitlines()] for name, order in orders}
    for number in range(PROGRAMS):
        name, order = orders[number % len(orders)]
        rows = changed(right[name], dice)
        yield name, rows, Judge(order.placement.rank_of_stage.tolist()).is_legal(rows)


@pytest.mark.thorough
@pytest.mark.slow
def test_programs_are_judged_as_a_graph_of_waits_judges_them() -> None:
    verdicts: Counter[tuple[str, bool]] = Counter()
    stopped: Counter[bool] = Counter()
    torch = RUNTIMES.get("torch").with_options({"version": "2.11"})
    for number, (name, rows, legal) in enumerate(programs()):
        text = "".join(",".join(row) + "\n" for row in rows)
        findings, order = read_order(text)
        if order is not None:
            findings = [*findings, *check_lines(order)]
        assert (not findings) == legal, f"{text}\n{[str(one) for one in findings]}"
        verdicts[name, legal] += 1
        if order is not None and (number % 5 == 0 or not legal):
            graph = lower(order, UniformCosts(1.0, 1.0, 1.0, transfer_s=0.5), runtime=torch)
            if legal:
                assert play(graph).makespan_s > 0
            else:
                with pytest.raises(DeadlockError, match=r"0SEND|1SEND|2SEND|3SEND"):
                    play(graph)
            stopped[not legal] += 1
    assert all(verdicts[name, legal] > 100 for name, *_ in SCHEDULES for legal in (True, False)), verdicts
    assert min(stopped[True], stopped[False]) > 100, stopped
