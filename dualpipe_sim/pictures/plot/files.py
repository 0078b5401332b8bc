"""Charts that show in a notebook by themselves, and charts as files."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from PIL import Image

from dualpipe_sim.base.files import written_whole
from dualpipe_sim.errors import UserError
from dualpipe_sim.pictures.plot.few_colours import FewColours
from dualpipe_sim.pictures.plot.words import any_letter, keep_to_words

_DOTS_PER_INCH, _DOTS_PER_INCH_ON_PAPER = 150, 300
_DATE_OF_FORMAT: dict[str, dict[str, Any]] = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
"""File formats, and the metadata to leave out of each: when it was made."""
_RC_PARAMS: Any = {"svg.hashsalt": "dualpipe-sim", "svg.fonttype": "none", "pdf.fonttype": 42}
"""Ids that do not change from run to run, text that stays text, and fonts that print shops take."""

_LEAST_SHARE = 0.95
_OPTIONS: dict[str, Any] = {".png": {"pil_kwargs": {"compress_level": 1}}}  # (it is compressed once more)
_OUTLINE = re.compile(rb'\bd="[^"]*"')
_SPACES = re.compile(rb"\s*([MLCQz])\s*")
_DECIMALS = re.compile(rb"(\.\d\d)\d+")
_TEXT = re.compile(rb'<g id="text_\d+">\s*(<text [^>]*?)(?: transform="rotate\(-0 [^"]*")?>([^<]*</text>)\s*</g>')
_RECTANGLE = re.compile(rb"M([\d.]+) ([\d.]+)L([\d.]+) \2L\3 ([\d.]+)L\1 \4(?:L\1 \2)?z")


class Chart(Figure):
    """A figure that a notebook shows where a cell ends in it, with no help from pyplot.

    Attributes:
        exact: whether a file of it is as large as asked for, and not cut to what is drawn.

    """

    exact = False

    def draw(self, renderer: Any) -> None:  # noqa: ANN401 - theirs
        """Draw the chart, its texts as words."""
        keep_to_words(self)
        with any_letter():
            super().draw(renderer)

    def savefig(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - theirs
        """Write the chart to a file, its texts as words."""
        keep_to_words(self)  # (what is cut to what is drawn is measured first)
        with any_letter():
            super().savefig(*args, **options)

    def _repr_png_(self) -> bytes:
        return rendered(self, ".png")


class ChartAxes(Axes):
    """The Axes of a chart; a notebook shows the whole chart where a cell ends in it."""

    def _repr_png_(self) -> bytes:
        return rendered(self.figure, ".png")


def new_axes(size_in: tuple[float, float], *, exact: bool = False) -> Axes:
    """Return the only Axes of a new chart, whose width and height are in inches."""
    chart = Chart(figsize=size_in, layout="constrained")
    chart.exact = exact
    return chart.add_subplot(axes_class=ChartAxes)


def save(figure: Figure | SubFigure, path: str | Path) -> None:
    """Write a figure to a ``.png``, ``.svg`` or ``.pdf`` file, whole or not at all.

    The same chart gives the same file, byte for byte.

    >>> from pathlib import Path
    >>> from dualpipe_sim import simulate
    >>> save(simulate("figure5").gantt().figure, "gantt.svg")
    >>> Path("gantt.svg").stat().st_size > 1000
    True

    Raises:
        UserError: another suffix, or a path that cannot be written to.

    """
    suffix = check_format(path)
    with written_whole(path) as part:
        part.write_bytes(rendered(figure, suffix))


def check_format(path: str | Path) -> str:
    """Return the suffix of a chart's file in small letters.

    >>> check_format("gantt.SVG")
    '.svg'

    Raises:
        UserError: another suffix than ``.png``, ``.svg`` or ``.pdf``.

    """
    suffix = Path(path).suffix.lower()
    if suffix not in _DATE_OF_FORMAT:
        wrong = f"'{suffix}' is no format of a chart" if suffix else "the name does not say its format"
        raise UserError(f"{path}: {wrong}; use .png, .svg or .pdf")
    return suffix


def rendered(figure: Figure | SubFigure, suffix: str) -> bytes:
    """Return a figure as the content of a file with this suffix, cut to what is drawn."""
    content = BytesIO()
    with mpl.rc_context(_RC_PARAMS):
        figure.figure.savefig(
            content,
            format=suffix.removeprefix("."),
            dpi=_DOTS_PER_INCH_ON_PAPER if getattr(figure.figure, "exact", False) else _DOTS_PER_INCH,
            bbox_inches=None if getattr(figure.figure, "exact", False) else "tight",
            metadata=_DATE_OF_FORMAT[suffix],
            **_OPTIONS.get(suffix, {}),
        )
    smaller = {".svg": _shortened, ".png": _in_few_colours}
    return smaller[suffix](content.getvalue()) if suffix in smaller else content.getvalue()


def _in_few_colours(png: bytes) -> bytes:
    """Return a PNG in 256 colours, where nearly all of it is in no more; a chart whose cells blend has too many."""
    with Image.open(BytesIO(png)) as image:
        picture, pixels = image.convert("RGB"), np.asarray(image.convert("RGBA"))
        about = {"dpi": image.info["dpi"]}
    few, content = FewColours(pixels), BytesIO()
    (few.picture(pixels) if few.share >= _LEAST_SHARE else picture).save(content, "png", **about)
    return content.getvalue()


def _shortened(svg: bytes) -> bytes:
    """Return an SVG with less said of what it consists of most.

    Corners are to the hundredth of a point, rectangles given by their sides, and texts have no group of their own.
    """

    def short(outline: re.Match[bytes]) -> bytes:
        corners = _SPACES.sub(rb"\1", _DECIMALS.sub(rb"\1", outline[0]))
        return _RECTANGLE.sub(rb"M\1 \2H\3V\4H\1z", corners)

    return _TEXT.sub(rb"\1>\2", _OUTLINE.sub(short, svg))
