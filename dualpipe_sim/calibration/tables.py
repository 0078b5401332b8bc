"""Tables that a run writes as CSV: their cells, and in one line what is wrong with them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from dualpipe_sim.calibration.actions import Action, parse_action
from dualpipe_sim.errors import ScheduleError, UserError, quoted

MOST_RANKS = 1 << 20
"""That a run may have."""


def rows_of(text: str, source: str, header: Sequence[str], more: Sequence[str] = ()) -> Iterator[tuple[list[str], str]]:
    """Yield the cells of each row, and where it stands.

    Args:
        text: the table.
        source: what it is called.
        header: its columns.
        more: columns that may follow.

    Raises:
        UserError: no such table; the line, the value and what would be right.

    """
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        first = next(lines, [])
        columns = [cell.strip() for cell in first]
        if columns not in ([*header], [*header, *more]):
            perhaps = f", perhaps with ,{','.join(more)}" if more else ""
            raise UserError(
                f"{source}: must begin with the line {','.join(header)}{perhaps}, got {quoted(','.join(first))}"
            )
        for cells in lines:
            where = f"{source}: line {lines.line_num}"
            if cells and len(cells) != len(columns):
                raise UserError(f"{where}: must have {len(columns)} cells, {','.join(columns)}, got {len(cells)}")
            if cells:
                yield [cell.strip() for cell in cells], where
    except csv.Error as error:
        raise UserError(f"{source}: line {lines.line_num}: is no CSV: {error}") from error


def rank_of(text: str, where: str) -> int:
    """Return the number of a rank.

    Raises:
        UserError: it is none.

    """
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < MOST_RANKS):
        raise UserError(f"{where}: rank must be a whole number, got {quoted(text)}")
    return int(text)


def action_of(text: str, where: str) -> Action:
    """Return the action that a task's name says.

    Raises:
        UserError: it says none.

    """
    try:
        return parse_action(text)
    except ScheduleError as error:
        raise UserError(f"{where}: {error}") from error
