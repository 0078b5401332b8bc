"""Options that say what part of a chart to show."""

from __future__ import annotations

import re
from typing import Annotated, TypeAlias

import typer

from dualpipe_sim.errors import UserError, quoted

Ranks: TypeAlias = Annotated[
    str | None, typer.Option("--ranks", metavar="RANGES", help="Show some ranks only, e.g. 0-3 or 0,2,5-7.")
]
From: TypeAlias = Annotated[
    str | None, typer.Option("--from", metavar="TIME", help="Where the time axis begins, e.g. 1.2s.")
]
To: TypeAlias = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Where it ends, e.g. 1500ms.")]
Zoom: TypeAlias = Annotated[
    str | None,
    typer.Option("--zoom", metavar="ends", help="Show warm-up and drain, and what repeats between them once."),
]
MicroBatches: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--micro-batches",
        metavar="RANGES",
        help="Show some micro-batches (counted in their pipe) in colour, others grey, over the time they take.",
    ),
]

_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)
_MOST = 1_000_000


def parse_ranges(text: str | None, option: str) -> list[int] | None:
    """Read ``0-3`` or ``0,2,5-7``, both ends counted; None stays None.

    Raises:
        UserError: anything else, with the option that it was given to.

    """
    if text is None:
        return None
    numbers: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise UserError(f"{option} {text}: must be numbers and ranges, like 0-3 or 0,2,5-7")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UserError(f"{option} {text}: {part.strip()} runs backwards; write {last}-{first}")
        if last - first >= _MOST:
            raise UserError(f"{option} {text}: {part.strip()} is longer than any pipeline")
        numbers += range(first, last + 1)
    return numbers


def parse_time(text: str | None, option: str) -> float | None:
    """Read ``1.2s`` or ``1500 ms`` as seconds, a bare number too; None stays None.

    Raises:
        UserError: anything else, with the option that it was given to.

    """
    if text is None:
        return None
    from dualpipe_sim.base.units import SECONDS, quantity

    try:
        return quantity(text, SECONDS, "a time like 1.2s or 1500 ms")
    except ValueError as error:
        raise UserError(f"{option} {text}: {str(error).removesuffix(f', got {quoted(text)}')}") from error
