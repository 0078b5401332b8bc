"""What passes between ranks: each tensor as a send and a receive.

Sends and receives carry no tag: what a rank receives from another is matched by order alone. Where they also go one
after another (torch runs all of a rank's in one line), the two ranks of each must come to it at the same time, or
they wait for each other for ever.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from dualpipe_sim.order.finding import Finding, Site
from dualpipe_sim.order.ops import (
    BESIDE,
    Action,
    B,
    Collective,
    Direction,
    F,
    I,
    Kind,
    Op,
    Program,
    R,
    Receive,
    S,
    Send,
    T,
    Tensor,
    W,
    ops_of,
)
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.order.schedule import Schedule


class Message(NamedTuple):
    """A tensor that passes between two ranks, and how many of each one's tasks are issued before it."""

    tensor: Tensor
    source: int
    target: int
    tasks_before_send: int
    tasks_before_receive: int


class Messages(NamedTuple):
    """All that passes between ranks.

    Attributes:
        all: the messages, numbered by their place here.
        of_rank: for each rank the numbers of what it sends and receives, in the order it issues them.

    """

    all: list[Message]
    of_rank: list[list[int]]


_OF_ONE_STAGE = (W, R, S, T, *BESIDE)


def input_of(op: Op) -> Tensor | None:
    """Return the tensor that an op needs from the stage before it in its direction; None for what needs no other stage.

    The first stage of a pipe in that direction needs none: who knows the pipe leaves it out.
    """
    return None if op.kind in _OF_ONE_STAGE else Tensor("F" if op.kind == F else "B", op.stage, op.micro_batch)


def output_of(op: Op) -> Tensor | None:
    """Return the tensor that an op makes for the stage after it in its direction; None for what makes none."""
    if op.kind == F:
        return Tensor("F", op.stage + 1, op.micro_batch)
    return None if op.kind in _OF_ONE_STAGE else Tensor("B", op.stage - 1, op.micro_batch)


def tensors_between_ranks(schedule: Schedule) -> dict[Tensor, tuple[int, int]]:
    """Return all that must pass between ranks, with its sender and its receiver, in the order of the ops."""
    pipes = Pipes(schedule.placement)
    made = (tensor for row in schedule.order for task in row for tensor in pipes.outputs_of(task))
    between = ((tensor, pipes.ranks_of(tensor)) for tensor in made)
    return {tensor: ranks for tensor, ranks in between if ranks[0] != ranks[1]}


def messages_of(program: Program) -> Messages:
    """Return what passes between ranks in a program in which every send has its receive."""
    sent: dict[Tensor, tuple[int, int]] = {}  # by which rank, and how many tasks it issues before
    received: dict[Tensor, tuple[int, int]] = {}
    lines: list[list[Tensor]] = []
    for rank, row in enumerate(program):
        tasks = 0
        lines.append([])
        for action in row:
            if isinstance(action, (Send, Receive)):
                (sent if isinstance(action, Send) else received)[action.tensor] = rank, tasks
                lines[rank].append(action.tensor)
            else:
                tasks += bool(ops_of(action))
    messages = [
        Message(tensor, source, target, before_send, before_receive)
        for tensor, (source, before_send) in sent.items()
        for target, before_receive in (received[tensor],)
    ]
    number = {message.tensor: place for place, message in enumerate(messages)}
    return Messages(messages, [[number[tensor] for tensor in line] for line in lines])


class InLine(NamedTuple):
    """How messages go where each rank's go one after another.

    Attributes:
        messages: those that get through, numbered so that each stands behind all it waits for.
        circle: where some never do, the ranks that wait for each other: a rank, the message that it stands at, and one
            that it comes to later, at which the next one's rank stands.

    """

    messages: Messages
    circle: list[tuple[int, Message, Message]]


def in_line(messages: Messages) -> InLine:
    """Let messages through, each when both its ranks have come to it."""
    order: list[int] = []
    at = [0] * len(messages.of_rank)
    heads = [line[0] if line else None for line in messages.of_rank]
    awake = list(range(len(heads)))[::-1]
    while awake:
        rank = awake.pop()
        while (head := heads[rank]) is not None:
            ranks = messages.all[head].source, messages.all[head].target
            if heads[ranks[0]] != heads[ranks[1]]:
                break
            order.append(head)
            for side in ranks:
                at[side] += 1
                line = messages.of_rank[side]
                heads[side] = line[at[side]] if at[side] < len(line) else None
            awake.append(sum(ranks) - rank)
    stands_at = {rank: messages.all[head] for rank, head in enumerate(heads) if head is not None}
    place = {number: now for now, number in enumerate(order)}
    lines = [[place[number] for number in line if number in place] for line in messages.of_rank]
    return InLine(Messages([messages.all[number] for number in order], lines), _circle(stands_at))


def _circle(stands_at: Mapping[int, Message]) -> list[tuple[int, Message, Message]]:
    """Follow ranks that stand, each to the other side of its message, until one comes round again."""
    walked: list[int] = []
    rank = next(iter(stands_at), None)
    while rank is not None and rank not in walked:
        walked.append(rank)
        rank = stands_at[rank].source + stands_at[rank].target - rank
    circle = walked[walked.index(rank) :] if rank is not None else []
    return [
        (after, stands_at[after], stands_at[rank]) for rank, after in zip(circle, circle[1:] + circle[:1], strict=True)
    ]


_Sites: TypeAlias = Mapping[Tensor, Site]


def wrong_places(rows: Sequence[Sequence[Action | None]], placement: Placement) -> Iterator[Finding]:
    """Yield what is done about weights on a rank that does not hold their stage."""
    rank_of_stage = placement.rank_of_stage.tolist()
    for rank, row in enumerate(rows):
        for cell, action in enumerate(row):
            if isinstance(action, Collective) and rank_of_stage[action.stage : action.stage + 1] != [rank]:
                yield _at(Site(rank, cell), action, "is on a rank that does not hold its stage")


def wrong_messages(rows: Sequence[Sequence[Action | None]], schedule: Schedule) -> Iterator[Finding]:
    """Yield all that is wrong with the sends and receives of an order with which nothing else is.

    A tensor is sent once by its maker's rank, after its maker, and received once by its user's, before its user; and
    what one rank receives from another comes in the order in which that one sends it.
    """
    yield from wrong_places(rows, schedule.placement)
    sent: dict[Tensor, Site] = {}
    received: dict[Tensor, Site] = {}
    ops: dict[Op, Site] = {}
    for rank, row in enumerate(rows):
        for cell, action in enumerate(row):
            here = Site(rank, cell)
            ops.update(dict.fromkeys(ops_of(action), here))
            if isinstance(action, (Send, Receive)):
                side = sent if isinstance(action, Send) else received
                if action.tensor in side:
                    yield _at(here, action, f"is there already (rank {side[action.tensor].rank})")
                side.setdefault(action.tensor, here)
    tensors = tensors_between_ranks(schedule)
    for tensor, ranks in tensors.items():
        yield from _wrong_sides(tensor, ranks, sent, received, ops)
    for side, kind in ((sent, Send), (received, Receive)):
        for tensor, here in side.items():
            if tensor not in tensors:
                yield _at(here, kind(tensor), "is for no tensor that passes between ranks")
    yield from _wrong_order(tensors, sent, received)


def _at(site: Site, action: Action, what: str) -> Finding:
    return Finding("messages", f"{action} {what}", *site, str(action))


def _wrong_sides(
    tensor: Tensor, ranks: tuple[int, int], sent: _Sites, received: _Sites, ops: Mapping[Op, Site]
) -> Iterator[Finding]:
    kinds = (F,) if tensor.direction == "F" else (B, I)
    for side, action, stage, rank in (
        (sent, Send(tensor), tensor.made_by, ranks[0]),
        (received, Receive(tensor), tensor.stage, ranks[1]),
    ):
        if tensor not in side:
            what = f"{action} is missing; what passes between ranks is sent and received once"
            yield Finding("messages", what, rank, None, str(action))
            continue
        here = side[tensor]
        op = next(op for kind in kinds if (op := Op(kind, stage, tensor.micro_batch)) in ops)
        if here.rank != rank:
            yield _at(here, action, f"is on the wrong rank; it belongs to rank {rank}")
        elif side is sent and here < ops[op]:
            yield _at(here, action, f"comes before {op}")
        elif side is received and here > ops[op]:
            yield _at(here, action, f"comes after {op}")


def _wrong_order(tensors: Mapping[Tensor, tuple[int, int]], sent: _Sites, received: _Sites) -> Iterator[Finding]:
    """Yield the first receive between each two ranks that does not match what is sent then."""
    between: defaultdict[tuple[int, int], list[Tensor]] = defaultdict(list)
    for tensor, ranks in tensors.items():
        between[ranks].append(tensor)
    for (source, _), group in between.items():
        if any(tensor not in side for tensor in group for side in (sent, received)):
            continue
        leaving, arriving = sorted(group, key=sent.__getitem__), sorted(group, key=received.__getitem__)
        for one, other in zip(leaving, arriving, strict=True):
            if one != other:
                yield _at(
                    received[other],
                    Receive(other),
                    f"stands where {Receive(one)} should: rank {source} sends {Send(one)} first, "
                    "and receives are matched by order alone",
                )
                break


class Pipes:
    """Where tensors begin and end: a pipe's first stage receives no activation, its last one no gradient."""

    def __init__(self, placement: Placement) -> None:
        self._rank_of_stage: list[int] = placement.rank_of_stage.tolist()
        # A tensor past the last stage, or before the first (-1), is in no pipe.
        self._no_input = {"F": [*placement.is_first.tolist(), True], "B": [*placement.is_last.tolist(), True]}
        # By kind and stage, since programs ask for each of their ops: what all micro-batches need and make there.
        stages = range(len(self._rank_of_stage))
        self._needs = [[self._end(input_of(Op(kind, stage, 0))) for stage in stages] for kind in Kind]
        self._makes = [[self._end(output_of(Op(kind, stage, 0))) for stage in stages] for kind in Kind]

    def inputs_of(self, action: Action) -> tuple[Tensor, ...]:
        """Return the tensors that an action needs from the stages before."""
        return tuple(tensor for tensor, _ in _tensors(self._needs, action))

    def outputs_of(self, action: Action) -> tuple[Tensor, ...]:
        """Return the tensors that an action makes for the stages after."""
        return tuple(tensor for tensor, _ in _tensors(self._makes, action))

    def receives_of(self, action: Action) -> list[Receive]:
        """Return what an action's rank receives from other ranks for it."""
        return [Receive(tensor) for tensor, crosses in _tensors(self._needs, action) if crosses]

    def sends_of(self, action: Action) -> list[Send]:
        """Return what an action's rank sends to other ranks after it."""
        return [Send(tensor) for tensor, crosses in _tensors(self._makes, action) if crosses]

    def ranks_of(self, tensor: Tensor) -> tuple[int, int]:
        """Return the rank that makes a tensor and the rank that needs it."""
        return self._rank_of_stage[tensor.made_by], self._rank_of_stage[tensor.stage]

    def _end(self, tensor: Tensor | None) -> _End:
        """Return a tensor's direction, its stage, and whether it passes between ranks; None for one in no pipe."""
        if tensor is None or self._no_input[tensor.direction][tensor.stage]:
            return None
        source, target = self.ranks_of(tensor)
        return tensor.direction, tensor.stage, source != target


_End: TypeAlias = tuple[Direction, int, bool] | None


def _tensors(ends: list[list[_End]], action: Action) -> list[tuple[Tensor, bool]]:
    return [
        (Tensor(end[0], end[1], op.micro_batch), end[2])
        for op in ops_of(action)
        if (end := ends[op.kind][op.stage]) is not None
    ]
