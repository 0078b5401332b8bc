"""Damage that befalls orders: cells moved, swapped, dropped, doubled, changed; some of it leaves them right."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

_NUMBER = re.compile(r"\d+")
_OTHERS = ("F", "B", "I", "W", "R", "S", "T", "O", "L", "BW", "X")


def disordered(order: Sequence[Sequence[str]], chance: Random, *, messages: bool = False) -> str:
    """Return an order as text, its cells by rank, with none to three damages; those of messages alone, if wanted."""
    rows = [list(row) for row in order]
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        chance.choice(_OF_MESSAGES if messages else _DAMAGES)(rows, chance)
    return "\n".join(",".join(row) for row in rows)


def _place(rows: list[list[str]], chance: Random) -> tuple[list[str], int]:
    row = chance.choice([row for row in rows if row] or [["0F0"]])
    return row, chance.randrange(len(row))


def _moved(rows: list[list[str]], chance: Random) -> None:
    row, place = _place(rows, chance)
    cell = row.pop(place)
    row.insert(max(0, place + chance.choice((-3, -2, -1, 1, 2, 3))), cell)


def _swapped(rows: list[list[str]], chance: Random) -> None:
    row, one = _place(rows, chance)
    other = chance.randrange(len(row))
    row[one], row[other] = row[other], row[one]


def _neighbours(rows: list[list[str]], chance: Random) -> None:
    """Let two messages that stand together change places."""
    there = [
        (row, place)
        for row in rows
        for place in range(len(row) - 1)
        if all("SEND" in cell or "RECV" in cell for cell in row[place : place + 2])
    ]
    if there:
        row, place = chance.choice(there)
        row[place : place + 2] = row[place : place + 2][::-1]


def _dropped(rows: list[list[str]], chance: Random) -> None:
    row, place = _place(rows, chance)
    del row[place]


def _doubled(rows: list[list[str]], chance: Random) -> None:
    row, place = _place(rows, chance)
    chance.choice(rows).insert(chance.randint(0, len(row)), row[place])


def _renumbered(rows: list[list[str]], chance: Random) -> None:
    row, place = _place(rows, chance)
    numbers = list(_NUMBER.finditer(row[place]))
    if numbers:
        one = chance.choice(numbers)
        other = chance.choice((str(int(one[0]) + 1), str(max(0, int(one[0]) - 1)), "0", "7", "99", "00", "9" * 30))
        row[place] = row[place][: one.start()] + other + row[place][one.end() :]


def _relettered(rows: list[list[str]], chance: Random) -> None:
    row, place = _place(rows, chance)
    row[place] = re.sub("[A-Z]+", lambda _: chance.choice(_OTHERS), row[place], count=1)


def _on_another_rank(rows: list[list[str]], chance: Random) -> None:
    row, place = _place(rows, chance)
    chance.choice(rows).append(row.pop(place))


def _rows_swapped(rows: list[list[str]], chance: Random) -> None:
    one, other = chance.randrange(len(rows)), chance.randrange(len(rows))
    rows[one], rows[other] = rows[other], rows[one]


def _paired(rows: list[list[str]], chance: Random) -> None:
    """Make a pair of two neighbours, or two of a pair."""
    row, place = _place(rows, chance)
    if row[place].startswith("("):
        row[place : place + 1] = row[place][1:].partition(")")[0].split(";")
    elif place + 1 < len(row):
        letter = re.search("[A-Z]+", row[place + 1])
        row[place : place + 2] = [f"({row[place]};{row[place + 1]})OVERLAP_F_{letter[0] if letter else 'B'}"]


def _another_batch(rows: list[list[str]], chance: Random) -> None:
    """Give two micro-batches each other's numbers on some stages: right again where that is all of them."""
    one, other, only = chance.randrange(3), chance.randrange(3), chance.choice(("", "0", "1"))
    exchange = {str(one): str(other), str(other): str(one)}
    form = re.compile(rf"(?<![\w.])({only or '[0-9]+'})([A-Z]+)([0-9]+)")
    for row in rows:
        row[:] = [form.sub(lambda at: at[1] + at[2] + exchange.get(at[3], at[3]), cell) for cell in row]


_DAMAGES = (
    _moved, _moved, _swapped, _swapped, _dropped, _doubled, _renumbered, _relettered, _on_another_rank, _rows_swapped,
    _paired, _another_batch,
)  # fmt: skip
_OF_MESSAGES = (_moved, _moved, _moved, _swapped, _swapped, _neighbours, _neighbours, _dropped, _doubled, _renumbered)
