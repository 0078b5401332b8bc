"""PyTorch's pipelining (https://docs.pytorch.org/docs/stable/distributed.pipelining.html, torch 2.13).

Its general runtime runs an order *lowered*, as its ``compute_comms`` CSV has it: beside the tasks a row holds
``0SEND_F3`` and ``1RECV_F3`` for each tensor that crosses from one rank to another (``_B`` for gradients), ``0UNSHARD``
and ``0RESHARD`` where a stage's parameters are gathered and freed, and ``0REDUCE_GRAD`` after its last B or W. Its
classes for 1F1B and GPipe are programs of their own: in their steady state a rank never computes while it communicates.

Torch lowers compute-only orders by itself, but knows one chain of stages only; this also takes pipes in opposite
directions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.check import check_schedule
from dualpipe_sim.order.gathers import sharded_rows, with_reductions
from dualpipe_sim.order.messages import Pipes
from dualpipe_sim.order.ops import (
    Action,
    B,
    Collective,
    F,
    Kind,
    Op,
    Program,
    Receive,
    Send,
    Task,
    Tensor,
)
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.order.text import format_rows
from dualpipe_sim.runtimes.cells import Batch, Lines, Moved, Row, Wait
from dualpipe_sim.runtimes.registry import register

_CLASSES = ("1f1b", "gpipe")


@register(
    "torch",
    schedules=(*_CLASSES, "interleaved-1f1b", "looped-bfs", "interleaved-zb", "zb-v", "dualpipev"),
    chains=True,
)
@dataclass(frozen=True)
class Torch:
    """Torch's runtime.

    Attributes:
        version: 2.13, or 2.11, whose classes issue every message as a batch.
        loaded: whether 1F1B and GPipe run as an order loaded into the general runtime, not as classes of their own.
        defer_pp_recv: whether receives are held back until what needs them (since 2.13).
        eager_initialization: whether the process group was made with a device, so that lone messages share one
            communicator, as they do up to 2.11; else each two ranks have their own
            (https://github.com/pytorch/pytorch/issues/175225).

    """

    version: Literal["2.13", "2.11"] = "2.13"
    loaded: bool = False
    defer_pp_recv: bool = False
    eager_initialization: bool = False

    def lines(self, ranks: int) -> Lines:  # noqa: ARG002 - Megatron's depend on it
        """Each two ranks have a communicator, unless the group was made with a device, or before 2.13."""
        return "one" if self.version == "2.11" or self.eager_initialization else "pair"

    def __post_init__(self) -> None:
        if self.version not in ("2.13", "2.11"):
            raise ScheduleError(f"runtime torch: version must be 2.13 or 2.11, not {self.version!r}")

    def usual(self, schedule: str, ranks: int) -> dict[str, object]:  # noqa: ARG002 - other runtimes need both
        """Return no options: the defaults are the same."""
        return {}

    def program(self, schedule: Schedule) -> list[Row]:
        """Return what each rank issues.

        Raises:
            ScheduleError: sizes that torch's 1F1B refuses.

        """
        if schedule.program is not None:  # an own compute_comms file is issued as it is written
            return [list(row) for row in schedule.program]
        if schedule.name in _CLASSES and not self.loaded:
            return [self._of_class(schedule, rank) for rank in range(schedule.ranks)]
        lowered = _with_messages(schedule, sharded_rows(schedule))
        if self.defer_pp_recv:
            lowered = [_deferred(row, schedule) for row in lowered]
        return [list(row) for row in lowered]

    def _of_class(self, schedule: Schedule, rank: int) -> Row:
        line = _Line(schedule, rank, batches=self.version == "2.11")
        if schedule.name == "gpipe":
            return line.gpipe()
        if schedule.micro_batches < schedule.ranks:
            raise ScheduleError(
                f"runtime torch: its 1F1B needs as many micro-batches as ranks, {schedule.ranks}, "
                f"not {schedule.micro_batches}; as a loaded order it runs (runtime option loaded=true)"
            )
        return line.one_forward_one_backward()


def format_sharded(schedule: Schedule) -> str:
    """Return the schedule with what FSDP does about its stages' weights and gradients, one line a rank.

    >>> from dualpipe_sim import build
    >>> print(format_sharded(build("1f1b", ranks=2, micro_batches=1)), end="")
    0UNSHARD,0F0,0B0,0REDUCE_GRAD,0RESHARD
    1UNSHARD,1F0,1B0,1REDUCE_GRAD,1RESHARD
    """
    return format_rows(sharded_rows(schedule))


def format_program(schedule: Schedule) -> str:
    """Return the schedule with its communication, one line a rank, as torch's ``compute_comms`` CSV.

    >>> from dualpipe_sim import build
    >>> print(format_program(build("1f1b", ranks=2, micro_batches=1)), end="")
    0F0,0SEND_F0,0RECV_B0,0B0,0REDUCE_GRAD
    1RECV_F0,1F0,1B0,1SEND_B0,1REDUCE_GRAD

    Raises:
        ScheduleError: an order that cannot run; the message says why.

    """
    return format_rows(program_of(schedule))


def program_of(schedule: Schedule) -> Program:
    """Return what each rank issues: the program that the order came with, or else torch's lowering of it.

    Ranks take turns, a task or reduction each: a task whose inputs are there is written down, what it sends is written
    down after it, and the receive at the end of the receiver's row so far. So two ranks agree on the order of all that
    passes between them, both ways, and nobody waits for ever.

    Raises:
        ScheduleError: an order that cannot run; the message says why.

    """
    if schedule.program is not None:
        return schedule.program
    if beyond := schedule.beyond_torch:
        raise ScheduleError(f"{schedule.name}: a program of sends and receives has no text for {beyond}")
    rows = [with_reductions(schedule, schedule.order[rank], rank) for rank in range(schedule.ranks)]
    return tuple(map(tuple, _with_messages(schedule, rows)))


def _with_messages(schedule: Schedule, tasks: Sequence[Sequence[Task | Collective]]) -> list[list[Action]]:
    """Return rows with their messages, by turns: see :func:`program_of`.

    Raises:
        ScheduleError: an order that cannot run; the message says why.

    """
    pipes = Pipes(schedule.placement)
    rows: list[list[Action]] = [[] for _ in range(schedule.ranks)]
    waiting = [deque(row) for row in tasks]
    inputs = [pipes.inputs_of(row[0]) if row else () for row in waiting]  # of each row's head
    made: set[Tensor] = set()
    while any(waiting):
        progress = False
        for rank, row in enumerate(waiting):
            if row and made.issuperset(inputs[rank]):
                action = row.popleft()
                rows[rank].append(action)
                for tensor in pipes.outputs_of(action):
                    made.add(tensor)
                    source, target = pipes.ranks_of(tensor)
                    if source != target:
                        rows[source].append(Send(tensor))
                        rows[target].append(Receive(tensor))
                inputs[rank] = pipes.inputs_of(row[0]) if row else ()
                progress = True
        if not progress:
            raise ScheduleError(f"{schedule.name}: {check_schedule(schedule)[0]}")
    return rows


def _deferred(row: Sequence[Action], schedule: Schedule) -> list[Action]:
    """Return a row with each receive held back until what needs it.

    Before a send to a higher rank those from that rank come first, the oldest first.
    """
    pipes, deferred = Pipes(schedule.placement), list[Action]()
    held: dict[Tensor, int] = {}  # what is to be received, and from which rank, the oldest first
    for action in row:
        if isinstance(action, Receive):
            held[action.tensor] = pipes.ranks_of(action.tensor)[0]
            continue
        due = [tensor for tensor in pipes.inputs_of(action) if tensor in held]
        if isinstance(action, Send):
            source, target = pipes.ranks_of(action.tensor)
            due = [tensor for tensor, sender in held.items() if sender == target > source]
        for tensor in due:
            deferred.append(Receive(tensor))
            del held[tensor]
        deferred.append(action)
    return deferred


class _Line:
    """A rank's row of one of torch's classes, one stage a rank.

    Args:
        schedule: what it runs.
        rank: the rank, which is its stage.
        batches: whether a message alone is a batch, too.

    """

    def __init__(self, schedule: Schedule, rank: int, *, batches: bool) -> None:
        self._ranks, self._micro_batches, self._stage = schedule.ranks, schedule.micro_batches, rank
        self._batches = batches
        self._pipes = Pipes(schedule.placement)
        self._row: Row = []

    def gpipe(self) -> Row:
        """Return GPipe: all forwards, each with its receive before and its send after it, then all backwards."""
        for kind in (F, B):
            sends: list[list[Moved]] = []
            for micro_batch in range(self._micro_batches):
                self._run_after_receiving(kind, micro_batch)
                sends.append(self._issue(self._send(kind, micro_batch)))
            for send in sends:
                self._wait(send)
        return self._reduced()

    def one_forward_one_backward(self) -> Row:
        """Return 1F1B: in the steady state a batch of one send and one receive, waited for, before every op."""
        warm_up = min(self._micro_batches, self._ranks - self._stage)
        sent: list[Moved] = []
        for micro_batch in range(warm_up):
            self._run_after_receiving(F, micro_batch)
            self._wait(sent)
            sent = [] if micro_batch == warm_up - 1 else self._issue(self._send(F, micro_batch))
        held = self._send(F, warm_up - 1)
        backward = 0
        for forward in range(warm_up, self._micro_batches + 1):
            self._wait(self._issue(held + self._receive(B, backward)))
            self._row.append(self._op(B, backward))
            held = self._send(B, backward)
            backward += 1
            if forward < self._micro_batches:
                self._wait(self._issue(held + self._receive(F, forward)))
                self._row.append(self._op(F, forward))
                held = self._send(F, forward)
        sent = self._issue(held)
        for micro_batch in range(backward, self._micro_batches):
            self._run_after_receiving(B, micro_batch)
            self._wait(sent)
            sent = self._issue(self._send(B, micro_batch))
        self._wait(sent)
        return self._reduced()

    def _run_after_receiving(self, kind: Kind, micro_batch: int) -> None:
        self._wait(self._issue(self._receive(kind, micro_batch)))
        self._row.append(self._op(kind, micro_batch))

    def _receive(self, kind: Kind, micro_batch: int) -> list[Moved]:
        return [*self._pipes.receives_of(self._op(kind, micro_batch))]

    def _send(self, kind: Kind, micro_batch: int) -> list[Moved]:
        return [*self._pipes.sends_of(self._op(kind, micro_batch))]

    def _op(self, kind: Kind, micro_batch: int) -> Op:
        return Op(kind, self._stage, micro_batch)

    def _issue(self, messages: list[Moved]) -> list[Moved]:
        """Issue messages, several of them as a batch, and return them."""
        if len(messages) > 1 or (messages and self._batches):
            self._row.append(Batch(tuple(messages)))
        else:
            self._row += messages
        return messages

    def _wait(self, messages: list[Moved]) -> None:
        if messages:
            self._row.append(Wait(tuple(messages)))

    def _reduced(self) -> Row:
        self._row.append(Collective(self._stage, "REDUCE_GRAD"))
        return self._row
