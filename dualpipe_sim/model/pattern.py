"""Strings of letters with repeats, as layouts and patterns of layers are written."""

from __future__ import annotations

import re

from dualpipe_sim.errors import UserError, quoted

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
        letters = pattern.sub(lambda found: found[1] * min(int(found[2]), _MOST_CHARACTERS), letters)
        if len(letters) > _MOST_CHARACTERS:
            raise UserError(f"{where}: {quoted(text)} repeats too often")
    return letters
