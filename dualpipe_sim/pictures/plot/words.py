"""The texts of a chart: whatever names are in them, they are words, and no formula, and fit a picture."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from matplotlib.artist import Artist
from matplotlib.axis import Axis
from matplotlib.text import Text

from dualpipe_sim.base.show import cut
from dualpipe_sim.errors import visible

_LONGEST = 300
"""Letters of a text; a longer one makes a picture that no program opens."""


def keep_to_words(drawn: Artist) -> None:
    """Make of all texts in a figure, or in a part of it, what shows and does nothing else.

    Dollars stand for themselves, what is not to be seen is written out, and what is very long is cut.
    """
    for axis in drawn.findobj(Axis):
        for formatter in (axis.get_major_formatter(), axis.get_minor_formatter()):
            if not isinstance(formatter.format_ticks, _InWords):  # (it sets the texts anew whenever they are drawn)
                formatter.format_ticks = _InWords(formatter.format_ticks)  # type: ignore[method-assign]
    for text in drawn.findobj(Text):
        text.set_parse_math(False)
        if text.get_text() != (words := _words(text.get_text())):
            text.set_text(words)


class _InWords:
    """What a formatter makes of ticks, as words."""

    def __init__(self, texts: Callable[[list[float]], list[str]]) -> None:
        self._texts = texts

    def __call__(self, values: list[float]) -> list[str]:
        return list(map(_words, self._texts(values)))


def _words(text: object) -> str:
    return cut(visible(str(text)), _LONGEST)


@contextmanager
def any_letter() -> Iterator[None]:
    """Say nothing of letters that a font lacks: they are drawn as boxes, which says it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield
