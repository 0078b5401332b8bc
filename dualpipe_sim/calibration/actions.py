"""Names of ranges and rows as actions: an op, an overlapped pair, or a tensor's send or receive.

Torch marks each action of a pipeline schedule with a range named ``PP:`` and the action
(``torch.distributed.pipelining.schedules``); ranges of other names are mapped by regular expressions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from dualpipe_sim.errors import ScheduleError, UserError, quoted
from dualpipe_sim.order.messages import input_of
from dualpipe_sim.order.ops import OF_WEIGHTS, Kind, Op, Receive, Send, Tensor, ops_of
from dualpipe_sim.order.text import parse_cell

PREFIX = "PP:"
_GPIPE = re.compile(r"(Forward|Backward) (\d+)", re.ASCII)
"""Torch's GPipe, which runs the stage of its rank."""
_LETTERS = [str(kind) for kind in Kind if kind not in OF_WEIGHTS]
_NO_OP = re.compile(r"\d+([A-Z_]+)", re.ASCII)

Side = Literal["SEND", "RECV"]


class Action(NamedTuple):
    """What a range or row stands for.

    Attributes:
        text: its text form.
        cell: the op, or both ops of a pair; empty for a message.
        tensor: what a message carries, or None.
        side: whether a message is the sender's or the receiver's, or None.

    """

    text: str
    cell: tuple[Op, ...]
    tensor: Tensor | None = None
    side: Side | None = None


def parse_action(text: str) -> Action:
    """Read ``0F3``, ``(0F7;7B3)OVERLAP_F_B``, ``0SEND_F3`` or ``1RECV_F3``.

    Raises:
        ScheduleError: the text is none of these.

    """
    action, text = parse_cell(text), text.strip()
    if isinstance(action, (Send, Receive)):
        return Action(text, (), action.tensor, "SEND" if isinstance(action, Send) else "RECV")
    if not ops_of(action):
        raise ScheduleError(f"{quoted(text)} is no op and no message")
    return Action(text, ops_of(action))


def inputs_of(action: Action) -> list[Tensor]:
    """Return the tensors that an op or pair needs from neighbouring stages, be it first or last of its pipe or not."""
    return [tensor for op in action.cell if (tensor := input_of(op)) is not None]


@dataclass(frozen=True)
class Names:
    r"""Which names of ranges are which actions.

    Attributes:
        maps: ``(regular expression, action)``; the whole name must match, the action may hold the expression's groups
            (``\1``) and ``{rank}``.

    """

    maps: tuple[tuple[re.Pattern[str], str], ...] = ()
    _seen: dict[tuple[str, int], str | None] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, maps: Iterable[str]) -> Names:
        r"""Return the names that texts such as ``Forward (\d+)={rank}F\1`` map, beside torch's own.

        Raises:
            UserError: a text without ``=``, or a regular expression that is none.

        """
        return cls(tuple(map(_parse_map, maps)))

    def action_text(self, name: str, rank: int) -> str | None:
        """Return the action that a range's name stands for, or None where it stands for none.

        Raises:
            UserError: a mapped name that becomes no action.

        """
        key = name, rank
        if key not in self._seen:
            self._seen[key] = self._look_up(name, rank)
        return self._seen[key]

    def _look_up(self, name: str, rank: int) -> str | None:
        for pattern, template in self.maps:
            if match := pattern.fullmatch(name):
                return _mapped(match, template, rank)
        if match := _GPIPE.fullmatch(name):
            return f"{rank}{match[1][0]}{match[2]}"
        return name.removeprefix(PREFIX) if name.startswith(PREFIX) else None


def kind_of_no_op(text: str) -> str | None:
    """Return the name of one of torch's actions that is no op (``REDUCE_GRAD``), or None for anything else."""
    match = _NO_OP.fullmatch(text)
    return match[1] if match and match[1] not in _LETTERS else None


def _parse_map(text: str) -> tuple[re.Pattern[str], str]:
    pattern, equals, action = text.rpartition("=")
    if not equals or not pattern or not action:
        raise UserError(rf"--map {text}: must be REGEX=ACTION, like 'Forward (\d+)={{rank}}F\1'")
    try:
        return re.compile(pattern), action
    except re.error as error:
        raise UserError(f"--map {text}: {quoted(pattern)} is no regular expression: {error}") from error


def _mapped(match: re.Match[str], template: str, rank: int) -> str:
    where = f"--map {match.re.pattern}={template}"
    try:
        text = match.expand(template.replace("{rank}", str(rank)))
        return parse_action(text).text
    except (re.error, IndexError) as error:
        raise UserError(f"{where}: {error}") from error
    except ScheduleError as error:
        raise UserError(f"{where}: the range {quoted(match[0])} becomes no action: {error}") from error
