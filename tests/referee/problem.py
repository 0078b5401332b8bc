"""A problem: all that decides when everything of a step runs, in words and numbers of its own, and as a JSON file.

Nothing here knows the package's graph: an order is text, times are seconds by op and stage, and a program is text. The
referee reads it by itself (``judge``); ``packaged`` hands it to the package's engines.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, TypeAlias

OP = r"(\d+)([FBIWRSTOL])(\d+)(?:\.(\d+))?"
_PAIR = re.compile(rf"\({OP};{OP}\)OVERLAP_F_[FBIW]")
_OP = re.compile(OP)
_OF_WEIGHTS = re.compile(r"(\d+)(UNSHARD|RESHARD|REDUCE_GRAD)")
_MESSAGE = re.compile(r"(\d+)(SEND|RECV)_([FB])(\d+)")
_SEVERAL = re.compile(r"\{(.*)\}|(WAIT|WAIT_COMM)\((.*)\)")
_SAYS_NOTHING = re.compile(r"SYNC|\d+DW\d+|\d+(?:UNSHARD|RESHARD|REDUCE_GRAD)")


class Op(NamedTuple):
    """One op by its letter; of what is done about weights its word, with micro-batch and slice 0."""

    letter: str
    stage: int
    micro_batch: int
    slice: int = 0


class Tensor(NamedTuple):
    """What goes from a rank to another: whether it is an activation, and who needs it."""

    forward: bool
    stage: int
    micro_batch: int
    slice: int = 0


class Message(NamedTuple):
    """One side of a tensor's way: whether it leaves here."""

    sends: bool
    tensor: Tensor


class Part(NamedTuple):
    """A part of a task on one lane of its rank.

    Attributes:
        lane: ``compute``, ``alltoall``, ``copy`` or ``data``.
        seconds: how long it holds the lane; beside an all-to-all where ``alone`` says what it takes without.
        half: which op of its task it is of.
        after: places of earlier parts that it waits for.
        late: whether its op's output is there before it.
        flows: what it puts on links: tier, bytes, and the most bytes a second that it can take.
        alone: seconds while nothing is on its rank's all-to-all lane, if not ``seconds``.

    """

    lane: str
    seconds: float
    half: int = 0
    after: tuple[int, ...] = ()
    late: bool = False
    flows: tuple[tuple[str, float, float], ...] = ()
    alone: float | None = None


Cost: TypeAlias = "float | list[float] | None"


@dataclass(frozen=True)
class Uniform:
    """Seconds of 1/ranks of the model, or of each such part of its depth; ``docs/model.md`` has what they mean."""

    forward: Cost = 1.0
    backward_input: Cost = 1.0
    backward_weight: Cost = 1.0
    overlapped: Cost = None
    recompute: Cost = None
    offload: Cost = 0.0
    vocab_s: Cost = 0.0
    vocab_t: Cost = 0.0
    all_reduce: Cost = 0.0
    unshard: Cost = None
    reduce_grad: Cost = None


@dataclass(frozen=True)
class Links:
    """Nodes of GPUs: bandwidth and latency of each GPU's NVLink and NIC, and whose NICs meet in one pod."""

    gpus_per_node: int
    nvlink: tuple[float, float]
    infiniband: tuple[float, float]
    gpus_per_pod: int = 0
    oversubscription: float = 1.0
    gpu_of_rank: tuple[int, ...] = ()


@dataclass(frozen=True)
class Problem:
    """What is to be played.

    Attributes:
        pipes: of each pipe the rank of each of its stages.
        order: of each rank its tasks, as text.
        barriers: how many an order with S and T has.
        late_again: whether R waits for the gradient.
        share: how much of a micro-batch of the costs each one of the order is.
        program: of each rank what it issues, as text; None where a tensor leaves when it is made.
        lines: what lines lone messages go on: ``one``, ``pair`` or ``direction``.
        costs: seconds at stage level, or else
        parts: those of each task by its ops and stages, ``F0`` or ``F0;B3``.
        transfer: seconds (``s``) or bytes of a tensor, for all boundaries of a pipe or one each.
        weights: how long each micro-batch of the costs takes over the times; none where all are alike.
        slices: shares of a micro-batch's time that its slices take; none where all are alike.
        links: what bytes go over; none where times are given.
        contention: whether flows share links.
        host: seconds to issue a task and from then to the next, by its ops and stages.
        load: beta, tau in seconds and gamma.

    """

    pipes: list[list[int]]
    order: list[str]
    barriers: int = 1
    late_again: bool = False
    share: float = 1.0
    program: list[str] | None = None
    lines: str = "one"
    costs: Uniform | None = None
    parts: dict[str, list[Part]] = field(default_factory=dict)
    transfer: dict[str, Any] = field(default_factory=lambda: {"s": 0.0})
    weights: list[float] | None = None
    slices: list[float] | None = None
    links: Links | None = None
    contention: bool = False
    host: dict[str, tuple[float, float]] = field(default_factory=dict)
    load: tuple[float, float, float] | None = None

    @property
    def ranks(self) -> int:
        """How many pipeline ranks there are."""
        return len(self.order)

    def to_json(self) -> str:
        """Return the problem as a file holds it."""
        return json.dumps(asdict(self), indent=1) + "\n"


def read_problem(text: str) -> Problem:
    """Return the problem of a file."""
    told = json.loads(text)
    costs, links, parts = told["costs"], told["links"], told["parts"]
    return Problem(
        **told
        | {
            "costs": None if costs is None else Uniform(**costs),
            "links": None if links is None else Links(**{key: _tuple(value) for key, value in links.items()}),
            "parts": {shape: [Part(*map(_tuple, one)) for one in several] for shape, several in parts.items()},
        }
    )


def _tuple(value: Any) -> Any:  # noqa: ANN401 - whatever a file holds
    return tuple(map(_tuple, value)) if isinstance(value, list) else value


def tasks_of(row: str) -> list[tuple[Op, ...]]:
    """Read a rank's order: the one or two ops of each task."""
    return [_task(cell) for cell in row.split(",")]


def shape_of(task: tuple[Op, ...]) -> str:
    """Return what a task's times go by: ``F0``, ``F0;B3``."""
    return ";".join(f"{op.letter}{op.stage}" for op in task)


def _task(cell: str) -> tuple[Op, ...]:
    if pair := _PAIR.fullmatch(cell):
        return _op(*pair.groups()[:4]), _op(*pair.groups()[4:])
    if about := _OF_WEIGHTS.fullmatch(cell):
        return (Op(about[2], int(about[1]), 0),)
    one = _OP.fullmatch(cell)
    assert one, cell
    return (_op(*one.groups()),)


def _op(stage: str, letter: str, micro_batch: str, part: str | None) -> Op:
    return Op(letter, int(stage), int(micro_batch), int(part or 0))


class Wait(NamedTuple):
    """What the compute stream waits for."""

    messages: tuple[Message, ...]


class Batch(NamedTuple):
    """Messages that are issued as one, or a lone one."""

    messages: tuple[Message, ...]
    lone: bool


def cells_of(row: str) -> list[tuple[Op, ...] | Wait | Batch]:
    """Read a rank's program, as far as it says something of when things run."""
    read: list[tuple[Op, ...] | Wait | Batch] = []
    for cell in filter(None, row.split(",")):
        if _SAYS_NOTHING.fullmatch(cell) or cell.startswith("WAIT_COMM"):
            continue
        if several := _SEVERAL.fullmatch(cell):
            batch, _, waited = several.groups()
            messages = tuple(map(_message, (waited or batch).split(";")))
            read.append(Wait(messages) if waited else Batch(messages, lone=False))
        elif _MESSAGE.fullmatch(cell):
            read.append(Batch((_message(cell),), lone=True))
        else:
            read.append(_task(cell))
    return read


def _message(text: str) -> Message:
    found = _MESSAGE.fullmatch(text)
    assert found, text
    stage, sends, forward = int(found[1]), found[2] == "SEND", found[3] == "F"
    needed_by = stage + (1 if forward else -1) * sends
    return Message(sends, Tensor(forward, needed_by, int(found[4])))
