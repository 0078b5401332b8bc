"""How a real runtime moves data: messages in the order of its program, each waiting for both of its sides.

A rank's host issues its program from left to right (``runtimes``). Ops go to the compute stream, messages to the
streams of their communicators. A message waits for what was issued to the compute stream before it, waits included, and
for what stands before it on its *line*, the stream of its communicator
(https://docs.pytorch.org/docs/stable/distributed.html: NCCL's stream waits for the one that it is called from). It
moves data once its other side is there as well, and holds both lines until then. The messages of a batch run together,
and what is behind them waits for the last. An op waits for what it receives, and for all that the program waits for
before it.

A line is all that a rank sends and receives in one order: everything, or, where lone messages have a communicator for
each two ranks, what is lone between those, and what is in batches.

Here each message, a send and its receive, is one transfer of the graph, and what it waits for are edges.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

import numpy as np

from dualpipe_sim.base.arrays import IntArray
from dualpipe_sim.base.kept import Kept
from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.messages import input_of
from dualpipe_sim.order.ops import BESIDE, F, Receive, Send, Tensor, ops_of
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.runtimes.cells import Batch, Cell, Lines, Moved, Wait, WaitBesideCompute
from dualpipe_sim.runtimes.registry import RuntimeInUse

Waits: TypeAlias = tuple[IntArray, IntArray]
"""(waits for, what waits), side by side."""

Line: TypeAlias = tuple[int, bool] | None
"""The other rank of a line between two ranks, and whether it is the one for sending; None for the line of all else."""


class Issued(NamedTuple):
    """Transfers as they are issued; a message is a transfer's number in this order.

    Attributes:
        order: the transfer that each message is, shape ``(transfers,)``; each rank's sends stand as it issues them.
        sender: what it waits for on the rank that sends it.
        receiver: what it waits for on the rank that receives it.
        after_message: (message, message): what it waits for on both, each once.
        abreast: what tells messages from a rank to another apart that do not wait for each other in the order in which
            they are sent: those of one batch, and those of other lines, shape ``(transfers,)``.
        before_task: (message, task): a task waits for the messages that the program waits for before it; its inputs,
            which any order's task waits for, are left out.

    """

    order: IntArray
    sender: Side
    receiver: Side
    after_message: Waits
    abreast: IntArray
    before_task: Waits


class Side(NamedTuple):
    """What messages wait for on one of their two ranks.

    Attributes:
        after_task: (task, message): a message waits for the last task issued before it.
        after_message: (message, message): it waits for those before it on its line, and for what its stream waits for.

    """

    after_task: Waits
    after_message: Waits


def issued(schedule: Schedule, rows: Sequence[Iterable[Cell]], consumer: IntArray, lines: Lines = "one") -> Issued:
    """Return the order in which transfers are issued, and what each one waits for beside the op that makes it.

    Args:
        schedule: the order of ops.
        rows: what each rank issues.
        consumer: row of the op that needs each transfer, shape ``(transfers,)``.
        lines: what lines lone messages go on.

    Raises:
        ScheduleError: a rank that receives what the other side sends in another order.

    """
    ranks = [_Rank(schedule, rank, lines).issue(row) for rank, row in enumerate(rows)]
    _check_order(schedule, ranks)
    sent = [tensor for one in ranks for tensor in one.sent]
    number = {tensor: place for place, tensor in enumerate(sent)}
    columns = (column[consumer].tolist() for column in (schedule.kind, schedule.stage, schedule.micro_batch))
    transfer_of = {  # by what equals the tensor
        ("F" if kind == F else "B", stage, micro_batch): transfer
        for transfer, (kind, stage, micro_batch) in enumerate(zip(*columns, strict=True))
    }
    sender, receiver = (_side(ranks, number, sends=sends) for sends in (True, False))
    return Issued(
        np.array([transfer_of[tensor] for tensor in sent], dtype=np.int64),
        sender,
        receiver,
        _each_once(sender.after_message, receiver.after_message),
        np.array([one for rank in ranks for one in rank.abreast], dtype=np.int64),
        _pairs((number[tensor], task) for one in ranks for tensor, task in one.before_task),
    )


def _side(ranks: Sequence[_Rank], number: Mapping[Tensor, int], *, sends: bool) -> Side:
    return Side(
        _pairs((task, number[tensor]) for one in ranks for task, tensor in one.after_task[sends]),
        _pairs((number[before], number[tensor]) for one in ranks for before, tensor in one.after_message[sends]),
    )


def issued_by(runtime: RuntimeInUse, schedule: Schedule, consumer: IntArray) -> Issued:
    """Return the order in which a runtime issues transfers; arguments and errors as for :func:`issued`.

    The last few are kept: a program does not depend on costs, which is what most runs of one order differ in.
    """
    with_lines = runtime.runtime.lines(schedule.ranks)

    def find() -> Issued:
        with _no_collection():
            return issued(schedule, runtime.rows(schedule.bare), consumer, with_lines)

    return _KEPT.of((runtime, schedule.key), find)


_KEPT: Kept[Issued] = Kept(most=4_000_000, size=lambda found: found.after_message[0].size + 4 * found.order.size)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Let Python not look for circles: programs are many values and have none; a third of the time would go there."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class _Rank:
    """What a rank issues, and what waits for what."""

    def __init__(self, schedule: Schedule, rank: int, lines: Lines) -> None:
        self.rank = rank
        self.sent: list[Tensor] = []
        self.abreast: list[int] = []  # of each that is sent
        self.received: dict[tuple[int, bool], list[Tensor]] = defaultdict(list)  # by rank and whether on their own line
        self.sent_to: dict[tuple[int, bool], list[Tensor]] = defaultdict(list)
        self.after_task: dict[bool, list[tuple[int, Tensor]]] = {True: [], False: []}  # by whether it is sent
        self.after_message: dict[bool, list[tuple[Tensor, Tensor]]] = {True: [], False: []}
        self.before_task: list[tuple[Tensor, int]] = []
        self._rank_of_stage: list[int] = schedule.placement.rank_of_stage.tolist()
        self._lines = lines
        begin, end = schedule.first_task_of_rank[rank : rank + 2].tolist()
        tasks = np.arange(begin, end)
        beside = schedule.of_kinds(*BESIDE)[schedule.first_op[begin:end]]  # on streams of their own
        self._tasks: Iterator[int] = iter(tasks[~beside].tolist())
        self._last_task: int | None = None
        self._waited: list[Tensor] = []  # by the compute stream, since its last task
        self._through: set[Tensor | None] = set()  # what its tasks have waited for: behind them it needs no edge
        self._on_line: dict[Line, list[Tensor]] = {}  # the last message or batch of each line

    def issue(self, row: Iterable[Cell]) -> _Rank:
        """Go through the cells of the rank's row."""
        for cell in row:
            if isinstance(cell, (Send, Receive)):
                self._move((cell,), lone=True)
            elif isinstance(cell, Batch):
                self._move(cell.messages, lone=False)
            elif isinstance(cell, Wait):
                self._waited += [one.tensor for one in cell.messages]
            elif not isinstance(cell, WaitBesideCompute) and (ops := ops_of(cell)) and ops[0].kind not in BESIDE:  # type: ignore[arg-type]
                inputs = [input_of(op) for op in ops]
                task = self._last_task = next(self._tasks)
                waited = dict.fromkeys(tensor for tensor in self._waited if tensor not in inputs)
                self.before_task += [(tensor, task) for tensor in waited]
                self._through.update(self._waited, inputs)
                self._waited = []
        return self

    def _move(self, messages: Sequence[Moved], *, lone: bool) -> None:
        lines: dict[Line, list[Tensor]] = {}
        first = len(self.sent)
        for one in messages:
            tensor, sends, own = one.tensor, isinstance(one, Send), lone and self._lines != "one"
            other = self._rank_of_stage[tensor.stage if sends else tensor.made_by]
            line = (other, sends and self._lines == "direction") if own else None
            if sends:
                beside = (self._rank_of_stage[before.stage] for before in self.sent[first:] if before[0] == tensor[0])
                self.abreast.append(2 * sum(rank == other for rank in beside) + own)
                self.sent.append(tensor)
            (self.sent_to if sends else self.received)[other, own].append(tensor)
            if self._last_task is not None:
                self.after_task[sends].append((self._last_task, tensor))
            before = [*self._on_line.get(line, ()), *(waited for waited in self._waited if waited != tensor)]
            self.after_message[sends] += [
                (earlier, tensor) for earlier in dict.fromkeys(before) if earlier not in self._through
            ]
            lines.setdefault(line, []).append(tensor)
        self._on_line |= lines


def _check_order(schedule: Schedule, ranks: Sequence[_Rank]) -> None:
    """Refuse receives that meet other sends than their own: nothing carries a tag, so they are matched by order."""
    for one in ranks:
        for (other, own), received in one.received.items():
            sent = ranks[other].sent_to.get((one.rank, own), [])
            for place, tensor in enumerate(received):
                met = sent[place] if place < len(sent) else None
                if met != tensor:
                    what = "nothing that is left" if met is None else f"{Send(met)}"
                    raise ScheduleError(
                        f"{schedule.name}: rank {one.rank} receives the wrong tensor: its {Receive(tensor)} meets "
                        f"{what} of rank {other}, since messages are matched by order alone"
                    )


def _each_once(*waits: Waits) -> Waits:
    before, after = np.unique(np.concatenate(waits, axis=1), axis=1)
    return before, after


def _pairs(pairs: Iterable[tuple[int, int]]) -> Waits:
    before, after = np.array(list(pairs), dtype=np.int64).reshape(-1, 2).T  # (reshaped for the case of none)
    return before, after
