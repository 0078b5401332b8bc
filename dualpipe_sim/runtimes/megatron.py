"""Megatron-Core (https://github.com/NVIDIA/Megatron-LM, commit d98e8a6): its 1F1B, interleaved and combined 1F1B.

A rank's forwards and backwards each run in *steps*, a micro-batch through one of its stages. Behind a step a rank sends
what it made, and receives what a later step needs, from the previous rank or, for backwards, from the next; the first
rank gets from the last one what the next stage of a micro-batch needs, and keeps it until its turn.

Messages go as an *exchange*, which is waited for at once, or are *issued*, and awaited by the step that needs them, or,
for sends, by the next send. An exchange is one batch and a synchronisation of the host, or lone messages, in which even
and odd ranks take turns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.messages import Pipes
from dualpipe_sim.order.ops import F, Op, Pair, Receive, Send, Task
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.runtimes.cells import AttentionWeight, Batch, Lines, Moved, Row, Sync, Wait, WaitBesideCompute
from dualpipe_sim.runtimes.registry import register

PLAIN, INTERLEAVED, COMBINED = "1f1b", "interleaved-1f1b", "interleaved-1f1b-overlap"


@register("megatron", schedules=(PLAIN, INTERLEAVED, COMBINED))
@dataclass(frozen=True)
class Megatron:
    """Megatron-Core's pipelines; the names are those of its own settings.

    Attributes:
        overlap_p2p_comm: whether messages of the steady state are issued and go on beside compute; by default in
            interleaved schedules.
        batch_p2p_comm: whether an exchange is one batch; by default where messages do not overlap.
        batch_p2p_sync: whether the host waits for its device after a batch.
        overlap_p2p_comm_warmup_flush: whether messages go on beside compute while the pipeline fills and drains too.
        deallocate_pipeline_outputs: whether a forward's output is freed once it is sent, and its send waited for.
        delay_wgrad_compute: whether the weight gradient of a stage's first attention is split off.

    """

    overlap_p2p_comm: bool | None = None
    batch_p2p_comm: bool | None = None
    batch_p2p_sync: bool = True
    overlap_p2p_comm_warmup_flush: bool = False
    deallocate_pipeline_outputs: bool = True
    delay_wgrad_compute: bool = False

    def lines(self, ranks: int) -> Lines:
        """Each two ranks have a communicator; of two ranks in all, one of them sends on the world's instead."""
        return "direction" if ranks == 2 else "pair"

    def usual(self, schedule: str, ranks: int) -> dict[str, object]:
        """Return Megatron's own group, which is as large as there are ranks."""
        return {} if schedule == PLAIN else {"group": ranks}

    def program(self, schedule: Schedule) -> list[Row]:
        """Return what each rank issues.

        Raises:
            ScheduleError: settings that Megatron refuses.

        """
        interleaved = schedule.name != PLAIN
        overlap = interleaved if self.overlap_p2p_comm is None else self.overlap_p2p_comm
        batch = (not overlap) if self.batch_p2p_comm is None else self.batch_p2p_comm
        self._check(schedule, overlap=overlap, batch=batch)
        style = _Style(batch, self.batch_p2p_sync, self.deallocate_pipeline_outputs, self.delay_wgrad_compute)
        rows = []
        for rank in range(schedule.ranks):
            one = _Rank(schedule, rank, style)
            if not interleaved:
                rows.append(_plain(one))
            elif self.overlap_p2p_comm_warmup_flush:
                rows.append(_overlapping_all(one))
            else:
                rows.append(_interleaved(one, overlap=overlap))
        return rows

    def _check(self, schedule: Schedule, *, overlap: bool, batch: bool) -> None:
        interleaved = schedule.name != PLAIN
        faults = {
            f"groups of {_group(schedule)} micro-batches are less than {schedule.ranks} ranks; take more of them": (
                interleaved and _group(schedule) < schedule.ranks
            ),
            "overlap_p2p_comm needs an interleaved schedule": overlap and not interleaved,
            "batch_p2p_comm does not go with overlap_p2p_comm": overlap and batch,
            "overlap_p2p_comm_warmup_flush needs overlap_p2p_comm": self.overlap_p2p_comm_warmup_flush and not overlap,
            f"delay_wgrad_compute needs {COMBINED}": self.delay_wgrad_compute and schedule.name != COMBINED,
            "with 2 ranks an interleaved batch swaps tensors, which go both ways unnamed; take batch_p2p_comm=false": (
                interleaved and batch and schedule.ranks == 2
            ),
        }
        for fault, found in faults.items():
            if found:
                raise ScheduleError(f"runtime megatron: {fault}")


@dataclass(frozen=True)
class _Style:
    """How messages go."""

    batch: bool
    sync: bool
    deallocate: bool
    delay_weight: bool


@dataclass
class _Rank:
    """A rank's row while it is written, with its steps."""

    schedule: Schedule
    rank: int
    style: _Style
    row: Row = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pipes = Pipes(self.schedule.placement)
        ops = [op for task in self.schedule.order[self.rank] for op in task.ops]
        self.forwards = [op for op in ops if op.kind == F]
        self.backwards = [op for op in ops if op.kind != F]
        self.warm_up = self._warm_up()
        self.first, self.last = self.rank == 0, self.rank == self.schedule.ranks - 1
        self._open: dict[bool, deque[Moved]] = {True: deque(), False: deque()}
        self._held: dict[bool, list[Moved]] = {True: [], False: []}

    def _warm_up(self) -> int:
        """Return how many forwards a rank runs before its steady state.

        Where all run before the first backward the row alone does not tell whether the last of them is the first of the
        steady state, so it is Megatron's formula.
        """
        stages, ranks = len(self.schedule.placement.rank_of_stage), self.schedule.ranks
        ahead = 2 * (ranks - 1 - self.rank) + (stages // ranks - 1) * _group(self.schedule)
        return min(len(self.forwards), ahead + (self.schedule.name == COMBINED))

    # What steps send and receive.

    def send(self, op: Op) -> list[Moved]:
        """Return the send of what an op made."""
        return [*self.pipes.sends_of(op)]

    def receive(self, op: Op) -> list[Moved]:
        """Return the receive of what an op needs."""
        return [*self.pipes.receives_of(op)]

    def receive_after(self, steps: list[Op], step: int) -> list[Moved]:
        """Return what is received behind a step: as a rule what the next one needs.

        On the rank that stages wrap around to, it is what the step of ``ranks`` - 1 before hands to the next stage.
        """
        if step == len(steps) - 1:
            return []
        forward = steps[0].kind == F
        if not (self.first if forward else self.last):
            return self.receive(steps[step + 1])
        source = step - self.schedule.ranks + 1
        if source < 0:
            return []
        op = steps[source]
        stage = op.stage + self.schedule.ranks * (1 if forward else -1)
        return self.receive(op._replace(stage=stage)) if 0 <= stage < len(self.schedule.placement.rank_of_stage) else []

    # How messages go.

    def exchange(self, messages: list[Moved], *, always: bool = True) -> None:
        """Send and receive, and wait for it; a batch synchronises the host even where there is nothing to exchange."""
        if self.style.batch:
            if messages:
                ordered = tuple(_ordered(messages, _IN_BATCH))
                self.row += [Batch(ordered), Wait(ordered)]
            if self.style.sync and (messages or always):
                self.row.append(Sync())
            return
        for message in self.issue(messages):
            self.row.append(Wait((message,)))

    def issue(self, messages: list[Moved]) -> list[Moved]:
        """Issue lone messages, of which even and odd ranks begin with opposite ones, and return them in order."""
        ordered = _ordered(messages, _ON_ODD_RANK if self.rank % 2 else _ON_EVEN_RANK)
        self.row += ordered
        return ordered

    def issue_open(self, messages: list[Moved]) -> None:
        """Issue messages, of which receives stay open until their step, and sends are held until the next."""
        for message in self.issue(messages):
            if isinstance(message, Receive):
                self._open[message.tensor.direction == "F"].append(message)

    def hold(self, sends: list[Moved], *, forward: bool, beside_compute: bool = False) -> None:
        """Wait for the send held so far, and hold this one; a forward's that is to be freed is waited for at once."""
        wait = WaitBesideCompute if beside_compute else Wait
        if forward and self.style.deallocate:
            self.row += [wait((send,)) for send in sends]
            return
        self.row += [wait((held,)) for held in self._held[forward]]
        self._held[forward] = sends

    def await_input(self, op: Op) -> None:
        """Wait for the oldest receive of an op's direction that is open, unless the op needs none."""
        opened = self._open[op.kind == F]
        if opened and self.receive(op):
            self.row.append(Wait((opened.popleft(),)))

    def finish(self) -> Row:
        """Wait for the last backward's send, and return the row."""
        self.row += [Wait((held,)) for held in self._held[False]]
        return self.row

    # What runs.

    def run(self, task: Task) -> None:
        """Run a task; behind a backward comes the weight gradient that is split off it."""
        self.row.append(task)
        if not isinstance(task, Pair) and task.kind != F:
            self.run_split_off(task)

    def run_split_off(self, backward: Op) -> None:
        """Run the weight gradient that is split off a backward, where one is."""
        if self.style.delay_weight:
            self.row.append(AttentionWeight(backward.stage, backward.micro_batch))


def _group(schedule: Schedule) -> int:
    """Return how many micro-batches run through a stage before the next one's turn: the first stage's first turn."""
    forwards = (op for task in schedule.order[0] for op in task.ops if op.kind == F)
    return sum(1 for _ in takewhile(lambda op: op.stage == 0, forwards))


_TO_NEXT, _FROM_PREVIOUS, _TO_PREVIOUS, _FROM_NEXT = ("F", Send), ("F", Receive), ("B", Send), ("B", Receive)
_IN_BATCH = (_TO_PREVIOUS, _FROM_PREVIOUS, _TO_NEXT, _FROM_NEXT)
_ON_EVEN_RANK = (_TO_NEXT, _FROM_PREVIOUS, _TO_PREVIOUS, _FROM_NEXT)
_ON_ODD_RANK = (_FROM_PREVIOUS, _TO_NEXT, _FROM_NEXT, _TO_PREVIOUS)
"""The orders of messages: of a batch, and of lone ones, in which neighbours begin with opposite sides."""


def _ordered(messages: list[Moved], order: Sequence[tuple[str, type]]) -> list[Moved]:
    return sorted(messages, key=lambda message: order.index((message.tensor.direction, type(message))))


def _plain(one: _Rank) -> Row:
    """Return 1F1B, one stage a rank: an exchange before and after every op."""
    forwards, backwards = one.forwards, one.backwards
    warm_up = min(one.schedule.ranks - 1 - one.rank, len(forwards))

    def exchange(*messages: list[Moved]) -> None:
        one.exchange([message for some in messages for message in some], always=False)

    for op in forwards[:warm_up]:
        exchange(one.receive(op))
        one.run(op)
        exchange(one.send(op))
    steady = forwards[warm_up:]
    if steady:
        exchange(one.receive(steady[0]))
    for place, (op, back) in enumerate(zip(steady, backwards, strict=False)):
        one.run(op)
        exchange(one.send(op), one.receive(back))
        one.run(back)
        exchange(one.send(back), one.receive(steady[place + 1]) if place + 1 < len(steady) else [])
    for back in backwards[len(steady) :]:
        exchange(one.receive(back))
        one.run(back)
        exchange(one.send(back))
    return one.row


def _interleaved(one: _Rank, *, overlap: bool) -> Row:
    """Return interleaved 1F1B; only in the steady state messages may go on beside compute."""
    forwards, backwards, warm_up = one.forwards, one.backwards, one.warm_up
    steps = len(forwards)
    first_gradient = [] if one.last else one.receive(backwards[0])
    if not one.first:
        one.exchange(one.receive(forwards[0]))
    for step in range(warm_up):
        one.run(forwards[step])
        more = first_gradient if not overlap and step == warm_up - 1 < steps - 1 else []
        one.exchange(one.send(forwards[step]) + one.receive_after(forwards, step) + more)
    if warm_up < steps:
        if overlap:
            one.issue_open(first_gradient)
    elif not one.last:
        one.exchange(first_gradient)
    for step in range(steps - warm_up):
        if overlap:
            _overlapped_step(one, step)
        else:
            _exchanging_step(one, step)
    for step in range(steps - warm_up, steps):
        if overlap:
            one.await_input(backwards[step])
        one.run(backwards[step])
        one.exchange(one.send(backwards[step]) + one.receive_after(backwards, step))
    return one.finish()


def _overlapping_all(one: _Rank) -> Row:
    """Return interleaved 1F1B whose messages go on beside compute while the pipeline fills and drains, too."""
    forwards, backwards, warm_up = one.forwards, one.backwards, one.warm_up
    steps = len(forwards)
    if not one.first:
        one.exchange(one.receive(forwards[0]))
    for step in range(warm_up):
        op = forwards[step]
        if step:
            one.await_input(op)
        _issue_around(one, forwards, step, receive_first=not one.first)
    if warm_up < steps:
        one.issue_open([] if one.last else one.receive(backwards[0]))
    elif not one.last:
        one.exchange(one.receive(backwards[0]))
    for step in range(steps - warm_up):
        _overlapped_step(one, step)
    for step in range(steps - warm_up, steps):
        one.await_input(backwards[step])
        _issue_around(one, backwards, step, receive_first=not one.last)
    return one.finish()


def _issue_around(one: _Rank, steps: list[Op], step: int, *, receive_first: bool) -> None:
    """Run a step with the next receive issued before it, or behind it with its send."""
    sends, receives = one.send(steps[step]), one.receive_after(steps, step)
    if receive_first:
        one.issue_open(receives)
    one.run(steps[step])
    one.issue_open(sends if receive_first else sends + receives)
    one.hold(sends, forward=steps[0].kind == F)


def _exchanging_step(one: _Rank, step: int) -> None:
    """Write a forward and a backward of the steady state, and one exchange behind both."""
    place = one.warm_up + step
    forward, backward = one.forwards[place], one.backwards[step]
    _run_both(one, forward, backward)
    last = place == len(one.forwards) - 1
    received = [] if last else one.receive_after(one.forwards, place)
    one.exchange(one.send(forward) + one.send(backward) + received + one.receive_after(one.backwards, step))


def _run_both(one: _Rank, forward: Op, backward: Op) -> None:
    if _combined(one):
        one.run(Pair(forward, backward))
        one.run_split_off(backward)
    else:
        one.run(forward)
        one.run(backward)


def _overlapped_step(one: _Rank, step: int) -> None:
    """Write a forward and a backward of the steady state, each with its messages beside what follows."""
    place = one.warm_up + step
    forward, backward = one.forwards[place], one.backwards[step]
    paired = _combined(one)
    one.await_input(forward)
    if paired:
        one.await_input(backward)
    one.run(Pair(forward, backward) if paired else forward)
    sends = one.send(forward)
    one.issue_open(sends + one.receive_after(one.forwards, place))
    one.hold(sends, forward=True, beside_compute=paired)
    if not paired:
        one.await_input(backward)
        one.run(backward)
    sends = one.send(backward)
    one.issue_open(sends + one.receive_after(one.backwards, step))
    one.hold(sends, forward=False)
    if paired:
        one.run_split_off(backward)


def _combined(one: _Rank) -> bool:
    return one.schedule.name == COMBINED
