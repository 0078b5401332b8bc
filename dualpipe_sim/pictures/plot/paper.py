"""What a chart is drawn for: a size on paper, a font and its size, with or without a legend."""

from __future__ import annotations

import re
from typing import NamedTuple, TypeAlias

from matplotlib.font_manager import fontManager

from dualpipe_sim.base.units import as_float
from dualpipe_sim.errors import UserError, did_you_mean, quoted

Size: TypeAlias = str | tuple[float, float]
"""``single-column``, ``double-column``, ``6x4`` (inches), ``16x9cm``, ``160x90mm``, or (width, height) in inches."""

COLUMNS_IN = {"single-column": 3.35, "double-column": 7.0}
"""Widths of text in a journal of two columns, in inches; the height follows from what is drawn."""

_COLUMN_FONT_PT = {"single-column": 7.0, "double-column": 8.0}
_PER_INCH = {"": 1.0, "in": 1.0, "cm": 2.54, "mm": 25.4}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*x\s*(\d+(?:\.\d+)?)\s*(in|cm|mm|)", re.ASCII)
_MOST_IN = 200.0
_FONTS_PT = (1.0, 72.0)


class Paper(NamedTuple):
    """What a chart is drawn for.

    Attributes:
        width_in: width of the figure in inches, or None for one that fits what is drawn.
        height_in: its height, or None likewise.
        font_pt: size of its text in points, or None for one that goes with the width.
        font: family of its font, or None for the usual one.
        legend: whether a legend says what colours mean.

    """

    width_in: float | None = None
    height_in: float | None = None
    font_pt: float | None = None
    font: str | None = None
    legend: bool = True


ANY_PAPER = Paper()
"""No size, no font asked for."""


def paper_of(size: Size | None, font_size: float | None, font: str | None, *, legend: bool) -> Paper:
    """Return what a chart is drawn for, from what a caller or a command says.

    >>> paper_of("single-column", None, None, legend=False)
    Paper(width_in=3.35, height_in=None, font_pt=7.0, font=None, legend=False)

    Raises:
        UserError: a size, a font or its size that cannot be.

    """
    width_in, height_in = (None, None) if size is None else _inches(size)
    if font_size is None and isinstance(size, str):
        font_size = _COLUMN_FONT_PT.get(size)
    if font_size is not None and not _FONTS_PT[0] <= as_float(font_size) <= _FONTS_PT[1]:
        raise UserError(f"font_size: must be from 1 to 72 points, got {quoted(font_size)}")
    if font is not None and font not in (known := set(fontManager.get_font_names())):
        raise UserError(f"font: there is no font {quoted(font)} on this machine{did_you_mean(font, known)}")
    return Paper(width_in, height_in, font_size, font, legend)


def _inches(size: Size) -> tuple[float, float | None]:
    if isinstance(size, str):
        if size in COLUMNS_IN:
            return COLUMNS_IN[size], None
        match = _SIZE.fullmatch(size.strip().lower())
        sides = [float(match[place]) / _PER_INCH[match[3]] for place in (1, 2)] if match else []
    else:
        sides = [as_float(side) for side in size] if all(isinstance(side, (int, float)) for side in size) else []
    if len(sides) != 2 or not all(0 < side <= _MOST_IN for side in sides):
        words = ", ".join(COLUMNS_IN)
        raise UserError(f"size: must be {words}, or width x height like 6x4 (inches) or 16x9cm, got {quoted(size)}")
    return sides[0], sides[1]
