"""Orders by chance that can be run: ops are put down one after another, each once what it waits for is there.

With them come programs by chance, in which each message is put on both its ranks at one moment, so that nobody waits
for ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from tests.referee.problem import Op


class Drawn(NamedTuple):
    """An order, and a program of it."""

    pipes: list[list[int]]
    order: list[str]
    program: list[str]
    barriers: int
    late_again: bool


class _Order:
    """An order while it is put down."""

    def __init__(self, chance: Random, *, messages: bool) -> None:
        self.chance, self.messages = chance, messages
        self.slices = 1 if messages else chance.choice((1, 1, 1, 2, 3))
        self.pipes = _pipes(chance)
        self.rank_of_stage = [rank for pipe in self.pipes for rank in pipe]
        self.ranks = 1 + max(self.rank_of_stage)
        self.barriers, self.late_again = chance.choice((1, 2)), chance.random() < 0.5
        self.rows: list[list[str]] = [[] for _ in range(self.ranks)]
        self.program: list[list[str]] = [[] for _ in range(self.ranks)]
        self.needs: dict[Op, set[Op]] = {}
        self.crossing: dict[Op, Op] = {}  # by what makes a tensor for another rank, what needs it
        self.arrived: set[Op] = set()  # by what needs a tensor
        self.at_once: dict[Op, list[Op]] = {}
        first = 0
        for pipe in self.pipes:
            for micro_batch in range(chance.randint(1, 4)):
                for part in range(self.slices):
                    self._micro_batch(first, len(pipe), micro_batch, part)
            first += len(pipe)
        if len(self.pipes) == 1 and chance.random() < 0.25:
            self._vocabulary()

    def _micro_batch(self, first: int, depth: int, micro_batch: int, part: int) -> None:
        """Draw what a micro-batch's ops are, and what they wait for."""
        for stage in range(first, first + depth):
            back = "I" if self.chance.random() < 0.4 else "B"
            here = {letter: Op(letter, stage, micro_batch, part) for letter in ("F", back)}
            forward, backward = here.values()
            self.needs[forward] = set()
            self.needs[backward] = {forward}
            if stage > first:
                self._crosses(Op("F", stage - 1, micro_batch, part), forward)
                self._crosses(backward, self._back(stage - 1, micro_batch, part))
            if part:
                self.needs[forward].add(forward._replace(slice=part - 1))
                self.needs[self._back(stage, micro_batch, part - 1)].add(backward)
            if back == "I":
                self.needs[Op("W", stage, micro_batch, part)] = {backward}
            if self.chance.random() < 0.15:
                self.needs[again := Op("R", stage, micro_batch, part)] = {forward}
                self.needs[backward].add(again)
            if self.chance.random() < 0.2:
                out, load = (Op(letter, stage, micro_batch, part) for letter in "OL")
                self.needs |= {out: {forward}, load: {out}}
                self.needs[backward].add(load)

    def _back(self, stage: int, micro_batch: int, part: int) -> Op:
        return next(op for letter in "BI" if (op := Op(letter, stage, micro_batch, part)) in self.needs)

    def _crosses(self, maker: Op, user: Op) -> None:
        self.needs[user].add(maker)
        again = user._replace(letter="R")
        if maker.letter != "F" and self.late_again and again in self.needs:
            self.needs[again].add(maker)
            user = again
        if self.rank_of_stage[maker.stage] != self.rank_of_stage[user.stage]:
            self.crossing[maker] = user

    def _vocabulary(self) -> None:
        last = len(self.rank_of_stage) - 1
        named = [self.rank_of_stage.index(rank) for rank in range(self.ranks)]
        together = self.chance.random() < 0.4
        for forward in [op for op in self.needs if op.letter == "F" and op.stage == last]:
            logits, gradients = ([Op(letter, stage, *forward[2:]) for stage in named] for letter in "ST")
            self.needs |= {one: {forward} for one in logits}
            back = self._back(last, *forward[2:])
            if together:
                self.at_once |= dict.fromkeys(logits, logits)
            else:
                self.needs |= {one: set(logits) for one in gradients}
            self.needs[back] |= set(gradients if self.barriers == 2 and not together else logits)

    def put_down(self) -> _Order:
        """Put all down."""
        left, done = dict(self.needs), set[Op]()
        sent: set[Op] = set()
        soon = self.chance.random()
        while left:
            ready = [op for op, needs in left.items() if needs <= done and self._here(op)]
            to_send = [op for op in self.crossing if self.messages and op in done and op not in sent]
            if to_send and (not ready or self.chance.random() < soon):
                batch = self.chance.sample(to_send, self.chance.choice((1, 1, min(len(to_send), 3))))
                self._send(batch)
                sent.update(batch)
                continue
            task = self._task(ready)
            for op in task:
                done.add(op)
                del left[op]
        return self

    def _here(self, op: Op) -> bool:
        """Whether all messages for an op are on its rank's row."""
        if not self.messages:
            return True
        return op in self.arrived or op not in self.crossing.values()

    def _task(self, ready: list[Op]) -> list[Op]:
        op = self.chance.choice(ready)
        if op in self.at_once:
            for one in self.at_once[op]:
                self._append(self.rank_of_stage[one.stage], self._cell(one))
            return self.at_once[op]
        rank = self.rank_of_stage[op.stage]
        beside = [one for one in ready if self.rank_of_stage[one.stage] == rank and one.letter in "BIWF" and one != op]
        if op.letter == "F" and beside and self.chance.random() < 0.4:
            other = self.chance.choice(beside)
            self._append(rank, f"({self._cell(op)};{self._cell(other)})OVERLAP_F_{other.letter}")
            return [op, other]
        self._append(rank, self._cell(op))
        return [op]

    def _cell(self, op: Op) -> str:
        return f"{op.stage}{op.letter}{op.micro_batch}" + (f".{op.slice}" if self.slices > 1 else "")

    def _append(self, rank: int, cell: str) -> None:
        self.rows[rank].append(cell)
        self.program[rank].append(cell)

    def _send(self, makers: list[Op]) -> None:
        """Issue messages on both their ranks, together or one by one, and wait for some."""
        lone = len(makers) == 1 and self.chance.random() < 0.7
        issued: dict[int, list[str]] = {}
        for maker in makers:
            user = self.crossing[maker]
            self.arrived.add(user)
            letter = "F" if maker.letter == "F" else "B"
            for op, verb in ((maker, "SEND"), (user, "RECV")):
                issued.setdefault(self.rank_of_stage[op.stage], []).append(f"{op.stage}{verb}_{letter}{op.micro_batch}")
        for rank, messages in issued.items():
            self.program[rank].append(messages[0] if lone else f"{{{';'.join(messages)}}}")
            if self.chance.random() < 0.4:
                self.program[rank].append(f"WAIT({';'.join(messages)})")
            if self.chance.random() < 0.1:
                self.program[rank].append("SYNC")


def draw(chance: Random, *, messages: bool) -> Drawn:
    """Return an order by chance, and a program of it where it is to have messages."""
    order = _Order(chance, messages=messages).put_down()
    rows = [",".join(row) for row in order.rows]
    return Drawn(order.pipes, rows, [",".join(row) for row in order.program], order.barriers, order.late_again)


def with_weights(chance: Random, row: str, stages: list[int]) -> str:
    """Return a row with stages gathered, freed and gathered again, and their gradients reduced."""
    cells = row.split(",")
    for stage in stages:
        places = list(_uses(cells, stage))
        if not places:
            continue
        again = places[1:] and chance.random() < 0.5
        if again:
            at = chance.choice(places[1:])
            cells[at:at] = [f"{stage}RESHARD", f"{stage}UNSHARD"]
        cells.insert(chance.randint(0, places[0]), f"{stage}UNSHARD")
        last = list(_uses(cells, stage))[-1] + 1
        cells[last:last] = [f"{stage}REDUCE_GRAD"] * (chance.random() < 0.7) + [f"{stage}RESHARD"]
    return ",".join(cells)


def _uses(cells: list[str], stage: int) -> Iterator[int]:
    for place, cell in enumerate(cells):
        if f"{stage}" in re.findall(r"(\d+)[FBIWR]\d", cell):
            yield place


def _pipes(chance: Random) -> list[list[int]]:
    """Draw one pipe or a few, equally deep, over ranks that all have a stage."""
    ranks, depth = chance.randint(1, 4), chance.randint(1, 5)
    pipes = [[chance.randrange(ranks) for _ in range(depth)] for _ in range(chance.choice((1, 1, 2, 3)))]
    number = {rank: place for place, rank in enumerate(sorted({rank for pipe in pipes for rank in pipe}))}
    return [[number[rank] for rank in pipe] for pipe in pipes]
