"""What ranks do, as values: ops, tasks, and what else a program issues; never when or for how long.

The letters are those of ``torch.distributed.pipelining``: ``F`` forward, ``B`` full backward, ``I`` backward for
the input, ``W`` backward for the weights (papers often write B for I). ``R`` is a forward run again, for a backward
that keeps no more than its stage's input: it waits for no gradient, so that it may run while its rank would idle.
Where the vocabulary is cut over all ranks, each does its share of the output layer for every micro-batch: ``S`` makes
its logits, ``T`` gradients of them. They are a rank's own, and named by its first stage.
``O`` copies what a forward left out to the host's memory, ``L`` loads it back for the backward: what compute does
beside them goes on. So it does beside what is done about a stage's weights where GPUs share them out, of no
micro-batch: ``UNSHARD`` gathers them, ``RESHARD`` frees them, ``REDUCE_GRAD`` reduces their gradients.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import IntEnum
from typing import Literal, NamedTuple, TypeAlias


class Kind(IntEnum):
    """What an op does: a number in columns, its letter in text; ``Kind["F"]`` reads a letter.

    >>> Kind["W"], str(Kind.W), f"{Kind.I}"
    (<Kind.W: 3>, 'W', 'I')
    """

    F = 0
    B = 1
    I = 2
    W = 3
    R = 4
    S = 5
    T = 6
    O = 7
    L = 8
    UNSHARD = 9
    RESHARD = 10
    REDUCE_GRAD = 11

    __hash__ = int.__hash__  # an enum's own hashes the name, in Python: programs look up each of their ops

    def __str__(self) -> str:
        return self.name

    def __format__(self, format_spec: str) -> str:
        return format(self.name, format_spec)


F, B, I, W, R, S, T, O, L, UNSHARD, RESHARD, REDUCE_GRAD = Kind

COPIES = (O, L)
"""What runs on a rank's copy lane, beside its compute."""

OF_WEIGHTS = (UNSHARD, RESHARD, REDUCE_GRAD)
"""What is done about a stage's weights and gradients, beside compute on the lane of their data-parallel group."""

BESIDE = (*COPIES, *OF_WEIGHTS)
"""What takes none of its rank's time by itself."""


class Op(NamedTuple):
    """One forward or backward of one micro-batch through one stage, written ``5F3``: stage, kind, micro-batch.

    Where micro-batches are cut along their sequence, it is that of one slice, counted from 0 and written ``5F3.1``.

    >>> str(Op(F, stage=5, micro_batch=3)), str(Op(F, stage=5, micro_batch=3, slice=1))
    ('5F3', '5F3.1')
    """

    kind: Kind
    stage: int
    micro_batch: int
    slice: int | None = None

    def __str__(self) -> str:
        if self.kind in OF_WEIGHTS:
            return f"{self.stage}{self.kind}"
        whole = f"{self.stage}{self.kind}{self.micro_batch}"
        return whole if self.slice is None else f"{whole}.{self.slice}"

    @property
    def ops(self) -> tuple[Op, ...]:
        """The op itself, as the only one of its task."""
        return (self,)


PAIRED = (B, I, W, F)
"""What can run beside a forward as its pair: torch's full backward, and STP's other three."""


class Pair(NamedTuple):
    """A forward and an op of another micro-batch that run as one, written ``(0F7;7B3)OVERLAP_F_B``.

    Torch pairs forwards with full backwards; STP (https://arxiv.org/abs/2510.27257) also with halves of them and with
    second forwards, written likewise by their kinds.

    >>> str(Pair(Op(F, 0, 7), Op(B, 7, 3))), str(Pair(Op(F, 0, 7), Op(W, 7, 3)))
    ('(0F7;7B3)OVERLAP_F_B', '(0F7;7W3)OVERLAP_F_W')

    Attributes:
        forward: the forward.
        backward: what runs beside it, of a kind of ``PAIRED``.

    """

    forward: Op
    backward: Op

    def __str__(self) -> str:
        return f"({self.forward};{self.backward})OVERLAP_F_{self.backward.kind}"

    @property
    def ops(self) -> tuple[Op, ...]:
        """Both ops, the forward first."""
        return tuple(self)


Task: TypeAlias = Op | Pair
"""What one slot of a rank's order holds."""

Vocabulary: TypeAlias = Literal["one barrier", "two barriers", "together"]
"""How ranks wait for each other where each does its share of the output layer.

With ``two barriers`` a T waits for the S of all ranks, for maximum and sum of the logits, and the last stage's backward
for the T of all, which make its gradient. With ``one barrier`` S makes that gradient as far as it can, so that the
backward waits for the S of all ranks, as a T does, for which nothing waits. ``together`` is one pass of all ranks at
once, written as S: it starts when all have come to it and ends on all together.
"""

TaskShape: TypeAlias = tuple[tuple[int, int], ...]
"""What a task's cost depends on: (kind, stage) of its op, or of the forward of a pair and of what is beside it."""

Direction: TypeAlias = Literal["F", "B"]


class Tensor(NamedTuple):
    """An activation (``F``) or gradient (``B``), named by the stage and micro-batch that need it."""

    direction: Direction
    stage: int
    micro_batch: int

    @property
    def made_by(self) -> int:
        """The stage that it comes from."""
        return self.stage - 1 if self.direction == "F" else self.stage + 1


class Send(NamedTuple):
    """A tensor leaves for another rank, written ``0SEND_F3``: the stage that made it, direction, micro-batch."""

    tensor: Tensor

    def __str__(self) -> str:
        return f"{self.tensor.made_by}SEND_{self.tensor.direction}{self.tensor.micro_batch}"


class Receive(NamedTuple):
    """A tensor arrives from another rank, written ``1RECV_F3``: the stage that needs it, direction, micro-batch."""

    tensor: Tensor

    def __str__(self) -> str:
        return f"{self.tensor.stage}RECV_{self.tensor.direction}{self.tensor.micro_batch}"


Verb: TypeAlias = Literal["UNSHARD", "RESHARD", "REDUCE_GRAD"]


class Collective(NamedTuple):
    """What is done about a stage's parameters and gradients: ``0UNSHARD``, ``0RESHARD``, ``0REDUCE_GRAD``.

    A program only keeps its place: where weights are shared out it becomes an op (:mod:`dualpipe_sim.order.gathers`).
    """

    stage: int
    verb: Verb

    def __str__(self) -> str:
        return f"{self.stage}{self.verb}"


Action: TypeAlias = Task | Send | Receive | Collective
"""What a rank's program is made of; ``str`` is torch's text of it."""

Program: TypeAlias = tuple[tuple[Action, ...], ...]
"""What each rank issues, in order."""


def vocabulary_of(kinds: Collection[Kind], barriers: int) -> Vocabulary | None:
    """Return how ranks share the output layer out in an order of such kinds of ops; None where the last stage has it.

    >>> vocabulary_of({F, S, T, B}, barriers=1), vocabulary_of({F, S, B}, barriers=1), vocabulary_of({F, B}, barriers=1)
    ('one barrier', 'together', None)
    """
    if T in kinds:
        return "two barriers" if barriers == 2 else "one barrier"
    return "together" if S in kinds else None


def ops_of(action: Action | None) -> tuple[Op, ...]:
    """Return the ops of a task, and none of what is no task."""
    return action.ops if isinstance(action, (Op, Pair)) else ()
