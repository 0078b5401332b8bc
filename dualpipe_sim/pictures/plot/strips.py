"""Cells too narrow to draw one by one, as an image whose pixels take the mean colour of what they cover.

Drawn as polygons such cells would beat against the pixels: bands of colour that are not in the timeline.

The mean over a pixel is an integral divided by a width. Colour x time, summed from the left, is a function that rises
in straight lines between the starts and ends of cells. Its values at the two edges of a pixel, subtracted, are the
integral over the pixel. So a row of any number of cells takes one interpolation at all pixel edges.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.backend_bases import RendererBase
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.pictures.palette import Colour
from dualpipe_sim.pictures.plot.artists import is_crowded
from dualpipe_sim.pictures.plot.cells import Band, Boxes


class CellStrips(Artist):
    """A strip of colour for each row, drawn only where cells are crowded."""

    def __init__(self, boxes: Boxes, band: Band, fills: Sequence[Colour], narrow_s: float) -> None:
        """Take boxes that do not overlap, the band of their rows, a fill for each, and how long a narrow one lasts."""
        super().__init__()
        order = np.lexsort((boxes.begin_s, boxes.row))  # by row, then by time: the last key sorts first
        self.boxes = boxes.where(order)
        table = {fill: to_rgb(fill) for fill in set(fills)}
        self._colours = np.array([table[fill] for fill in fills]).reshape(-1, 3)[order]
        self._band = band
        self._narrow_s = narrow_s
        self.set_zorder(1)
        self.set_in_layout(False)

    def draw(self, renderer: RendererBase) -> None:
        """Draw the strips, pixel for pixel.

        The image is as large as the axes are in pixels. Each of its lines shows one row's strip, or nothing where the
        line lies between two bands.
        """
        if not self.get_visible() or self.axes is None or not is_crowded(self.axes, self._narrow_s):
            return
        scale = renderer.get_image_magnification()
        box = self.axes.bbox
        columns, lines = max(round(box.width * scale), 1), max(round(box.height * scale), 1)
        bottom, top = self.axes.get_ylim()
        # Where the middle of each line lies on the row axis, less the band's place in a row: then a row is its number.
        place = bottom + (top - bottom) * (np.arange(lines) + 0.5) / lines - self._band.middle
        row = np.round(place).astype(np.int64)
        rows = int(self.boxes.row.max(initial=-1)) + 1
        inside = (np.abs(place - row) <= self._band.height / 2) & (row >= 0) & (row < rows)
        image = np.zeros((lines, columns, 4), dtype=np.uint8)
        along = self.axes.xaxis.get_transform()
        left, right = along.transform(self.axes.get_xlim())
        edges_s = along.inverted().transform(np.linspace(left, right, columns + 1))
        image[inside] = self._strips(edges_s, rows)[row[inside]]
        context = renderer.new_gc()
        renderer.draw_image(context, round(box.x0), round(box.y0), image)
        context.restore()
        self.stale = False

    def _strips(self, edges_s: FloatArray, rows: int) -> NDArray[np.uint8]:
        """Mean colour of each row between neighbouring edges, and as alpha the share that cells cover.

        Shape ``(rows, edges - 1, 4)``: red, green, blue and alpha from 0 to 255.
        """
        strips = np.zeros((rows, len(edges_s) - 1, 4))
        starts = np.searchsorted(self.boxes.row, np.arange(rows + 1)).tolist()
        for row in np.unique(self.boxes.row).tolist():
            cells = np.arange(*starts[row : row + 2])
            strips[row] = _means(self.boxes.where(cells), self._colours[cells], edges_s)
        return np.round(255 * strips.clip(0, 1)).astype(np.uint8)


def _means(boxes: Boxes, colours: FloatArray, edges_s: FloatArray) -> FloatArray:
    """Mean colour and covered share between neighbouring edges, shape ``(edges - 1, 4)``.

    A red cell from 0 to 1, and edges at 0, 0.5, 1.5 and 2.5: red, red over half of it, nothing.

    >>> cell, red = Boxes(np.array([0]), np.array([0.0]), np.array([1.0])), np.array([[1.0, 0.0, 0.0]])
    >>> _means(cell, red, np.array([0.0, 0.5, 1.5, 2.5]))
    array([[1. , 0. , 0. , 1. ],
           [1. , 0. , 0. , 0.5],
           [0. , 0. , 0. , 0. ]])

    Args:
        boxes: cells of one row, in order, without overlap.
        colours: red, green and blue of each from 0 to 1, shape ``(cells, 3)``.
        edges_s: edges of the pixels, shape ``(edges,)``.

    """
    width_s = boxes.width_s()
    # A fourth colour that every cell has in full: its mean is the share that cells cover.
    layers = np.concatenate([colours, np.ones((len(colours), 1))], axis=1) * width_s[:, None]
    until_end = np.cumsum(layers, axis=0)
    # The integral bends where a cell begins and where it ends: begin, end, begin, end, … and its values there.
    knots_s = np.stack([boxes.begin_s, boxes.end_s], axis=1).ravel()
    integral = np.stack([until_end - layers, until_end], axis=1).reshape(-1, 4)
    at_edges = np.stack([np.interp(edges_s, knots_s, layer) for layer in integral.T], axis=1)
    *colour, covered_s = np.diff(at_edges, axis=0).T
    mean = np.divide(colour, covered_s, out=np.zeros((3, len(covered_s))), where=covered_s > 0)
    share = covered_s / np.abs(np.diff(edges_s))
    return np.stack([*mean, share], axis=1)
