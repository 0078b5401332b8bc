"""DeepSeek's DualPipe and DualPipeV (https://github.com/deepseek-ai/DualPipe, commit 3da1bbe).

Messages gather in a list. Every op first puts what it receives on the list, then *commits* it: all that is on it is one
batch, and the op waits for the whole of it. What the op sends goes on the list after it, and so leaves together with
what the next op receives: a slow receiver holds up the sender, too. In the steps before the steady state some receives
are put earlier and some sends later, so that neighbours meet.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dualpipe_sim.order.messages import Pipes
from dualpipe_sim.order.ops import Op, Pair, Task, W
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.runtimes.cells import Batch, Lines, Moved, Row, Wait
from dualpipe_sim.runtimes.registry import register


@register("deepseek", schedules=("dualpipe", "dualpipev"))
@dataclass(frozen=True)
class DeepSeek:
    """DeepSeek's own programs of its two schedules; they have no options."""

    def lines(self, ranks: int) -> Lines:  # noqa: ARG002 - Megatron's depend on it
        """There are no lone messages."""
        return "one"

    def usual(self, schedule: str, ranks: int) -> dict[str, object]:  # noqa: ARG002 - other runtimes need both
        """Return no options: the defaults are the same."""
        return {}

    def program(self, schedule: Schedule) -> list[Row]:
        """Return what each rank issues."""
        return [_row(schedule, rank) for rank in range(schedule.ranks)]


@dataclass
class _Rank:
    """A rank's row while it is written."""

    pipes: Pipes
    row: Row = field(default_factory=list)
    gathered: list[Moved] = field(default_factory=list)

    def receive(self, task: Task) -> None:
        """Put what a task receives from other ranks on the list."""
        self.gathered += self.pipes.receives_of(task)

    def send(self, task: Task) -> None:
        """Put what a task sends to other ranks on the list."""
        self.gathered += self.pipes.sends_of(task)

    def compute(self, task: Task) -> None:
        """Commit the list, and run a task."""
        self.commit()
        self.row.append(task)

    def run(self, task: Task) -> None:
        """Run a task with its receives and its sends."""
        self.receive(task)
        self.compute(task)
        self.send(task)

    def commit(self) -> None:
        """Issue what is on the list as one batch, and wait for it."""
        if self.gathered:
            messages = tuple(self.gathered)
            self.row += [Batch(messages), Wait(messages)]
            self.gathered = []


def _row(schedule: Schedule, rank: int) -> Row:
    """Return what one rank issues: the steps of DeepSeek's code, of which the first four have ways of their own."""
    bidirectional = len(schedule.placement.pipes) > 1
    half = schedule.ranks // 2 if bidirectional else schedule.ranks
    from_end = min(rank, schedule.ranks - 1 - rank) if bidirectional else rank
    innermost = from_end == half - 1  # a middle rank of DualPipe, the last one of DualPipeV
    tasks = list(schedule.order[rank])
    one = _Rank(Pipes(schedule.placement))

    for task in _taken(tasks, 2 * (half - from_end - 1)):  # step 1: F0
        one.run(task)

    second = _taken(tasks, 2 * (from_end + 1))  # step 2: F0, F1
    later = [*second[2::2], *_forward_after(tasks, half - from_end - 1)]  # the F0s whose receives are put ahead
    one.receive(second[0])
    held = second[-1]  # whose send an innermost rank leaves out until the first pair, which it takes apart
    for place, (down, up) in enumerate(zip(second[::2], second[1::2], strict=True)):
        one.compute(down)
        if innermost and bidirectional:
            one.send(down)
        one.receive(later[place])
        one.receive(up)
        one.compute(up)
        if not (innermost and place == from_end):
            one.send(up)
        if not (innermost and bidirectional):
            one.send(down)

    for _ in range(half - from_end - 1):  # step 3: I1, W, F1
        gradient, weight, up = _taken(tasks, 3)
        one.run(gradient)
        one.receive(up)
        one.compute(weight)
        one.compute(up)
        one.send(up)

    if innermost:  # step 4: the first pair is taken apart
        down, back = _taken(tasks, 2)
        one.compute(down)
        one.send(held)
        one.receive(back)
        one.compute(back)
        one.send(down)
        one.send(back)
    else:
        (pair,) = _taken(tasks, 1)
        if isinstance(pair, Pair):
            one.receive(pair.backward)
            one.compute(pair)
            one.send(pair)
    for task in tasks:
        if isinstance(task, Op) and task.kind == W:
            one.compute(task)
        else:
            one.run(task)
    one.commit()
    return one.row


def _taken(tasks: list[Task], count: int) -> list[Task]:
    """Take so many tasks from the front."""
    taken = tasks[:count]
    del tasks[:count]
    return taken


def _forward_after(tasks: list[Task], triples: int) -> list[Task]:
    """Return the first F0 of the steady state, which stands behind step 3, alone or in a pair."""
    first = tasks[3 * triples]
    return [first.forward if isinstance(first, Pair) else first]
