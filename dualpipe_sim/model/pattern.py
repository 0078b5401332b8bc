"""Strings of letters with repeats, as layouts and patterns of layers are written."""

from __future__ import annotations

import re

from dualpipe_sim.errors import UserError, quoted

MOST_LAYERS = 4_000
"""Of a model, which are all there as such: some thirty times as many as the deepest one has."""

_GROUP = re.compile(r"\(([^()]*)\)\*(\d+)")
_LETTER = re.compile(r"([^()*\d])\*(\d+)")
_MOST_CHARACTERS = 100_000


def unroll(text: str, where: str) -> str:
    """Return the letters with all repeats written out, spaces and commas left out.

    >>> unroll("Et*3|(tt|)*2,m|L", "pipeline.layout")
    'Ettt|tt|tt|m|L'

    Raises:
        UserError: they are far too many.

    """
    letters = re.sub(r"[\s,]", "", text)
    for pattern in (_GROUP, _LETTER):
        repeated = sum(len(found[1]) * _times(found) for found in pattern.finditer(letters))
        if repeated + len(letters) > _MOST_CHARACTERS:
            raise UserError(f"{where}: {quoted(text)} repeats too often")
        letters = pattern.sub(lambda found: found[1] * _times(found), letters)
    return letters


def _times(found: re.Match[str]) -> int:
    return int(found[2]) if len(found[2]) < len(str(_MOST_CHARACTERS)) + 1 else _MOST_CHARACTERS
