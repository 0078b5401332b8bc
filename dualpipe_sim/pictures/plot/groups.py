"""Cells of one look, drawn at once.

A chart may have tens of thousands of cells, too many for an artist each. Cells of one look (kind, shade, in a pair or
not) are a :class:`Group` and one collection of polygons. The same cells are there once more as strips of mean colour;
polygons draw themselves where cells are wide enough, strips where they are not, and which it is they find out when they
are drawn, at any zoom.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from dualpipe_sim.base.arrays import IntArray
from dualpipe_sim.order.ops import Kind
from dualpipe_sim.pictures.palette import CAUSE_STYLES, Colour, Theme, fill, ink_on, style_of, tint
from dualpipe_sim.pictures.plot.artists import CellPolygons
from dualpipe_sim.pictures.plot.cells import Band, Boxes, Cells
from dualpipe_sim.pictures.plot.strips import CellStrips
from dualpipe_sim.pictures.plot.style import BORDER_PT

MOST_VECTOR_CELLS = 12_000
"""With more, SVG and PDF hold cells as an image: smaller, quicker to make and to open."""


class Group(NamedTuple):
    """Boxes of one look.

    Attributes:
        label: what they are, for who looks into a chart.
        boxes: where they lie.
        face: their fill.
        border: their border.
        border_pt: its width where boxes are wide enough.

    """

    label: str
    boxes: Boxes
    face: Colour
    border: Colour
    border_pt: float = BORDER_PT


def groups_of(cells: Cells, shades: int, theme: Theme) -> Iterator[Group]:
    """Yield the cells of each look: by kind and shade, with a border of their own or within that of a pair.

    A look is one number, (kind x shades + shade) x 2 + paired, so that one ``unique`` finds those that there are; they
    are taken apart again by ``divmod``. Cells of micro-batches that do not keep their colour are one group more.
    """
    look = (cells.kind * shades + cells.shade) * 2 + cells.paired
    for code in np.unique(look[cells.in_colour]).tolist():
        of_kind, paired = divmod(code, 2)
        kind, shade = divmod(of_kind, shades)
        yield Group(
            f"{Kind(kind)} {'in pairs, ' if paired else ''}shade {shade}",
            cells.boxes.where(cells.in_colour & (look == code)),
            fill(kind, shade, shades, theme.kinds),
            style_of(kind, theme.kinds).border,
            0.0 if paired else BORDER_PT,
        )
    if not cells.in_colour.all():
        yield Group("other micro-batches", cells.boxes.where(~cells.in_colour), theme.faded, theme.ground)


def idle_groups(idle: Mapping[str, Boxes], theme: Theme) -> Iterator[Group]:
    """Yield idle time of each cause, without a border and pale, so that ops stay the figure."""
    for cause, boxes in idle.items():
        yield Group(f"idle: {cause}", boxes, tint(CAUSE_STYLES[cause].fill, theme), theme.ground, 0.0)


def draw_groups(ax: Axes, groups: Sequence[Group], band: Band, narrow_s: float) -> None:
    """Draw boxes that do not overlap, one by one or, where they are crowded, as strips."""
    groups = [group for group in groups if len(group.boxes.row)]
    if not groups:
        return
    boxes = Boxes(*(np.concatenate(column) for column in zip(*(group.boxes for group in groups), strict=True)))
    for group in groups:
        polygons = CellPolygons(group.boxes, band, narrow_s)
        polygons.set_facecolor(group.face)
        polygons.set_border(group.border, group.border_pt)
        polygons.set_label(group.label)
        polygons.set_rasterized(len(boxes.row) > MOST_VECTOR_CELLS)
        ax.add_collection(polygons, autolim=False)
    fills = [group.face for group in groups for _ in range(len(group.boxes.row))]
    ax.add_artist(CellStrips(boxes, band, fills, narrow_s))


class InkTable:
    """The ink that shows on each kind and shade, in a list by kind x shades + shade."""

    def __init__(self, shades: int, theme: Theme) -> None:
        self._shades = shades
        self.inks = [ink_on(fill(kind, shade, shades, theme.kinds)) for kind in Kind for shade in range(shades)]

    def of(self, cells: Cells) -> IntArray:
        """Return the place of each cell's ink in the list."""
        return cells.kind * self._shades + cells.shade
