"""Animated GIFs of few colours."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.animation import PillowWriter
from PIL import Image

from dualpipe_sim.base.arrays import IntArray

_COLOURS, _UNKNOWN = 256, -1


class GifWriter(PillowWriter):
    """Writes all pictures in the same few colours, so that what does not change takes no room."""

    def __init__(self, frames_per_second: float, samples: Any) -> None:  # noqa: ANN401 - pixels
        super().__init__(fps=frames_per_second)  # type: ignore[arg-type]
        self._colours = _Colours(samples)
        self._pictures: list[Image.Image] = []

    def grab_frame(self, **savefig_kwargs: Any) -> None:  # noqa: ANN401, ARG002 - matplotlib's
        """Keep what the figure shows, in few colours."""
        canvas: Any = self.fig.canvas
        canvas.draw()
        self._pictures.append(self._colours.picture(np.asarray(canvas.buffer_rgba())))

    def finish(self) -> None:
        """Write all pictures."""
        first, *others = self._pictures
        first.save(self.outfile, save_all=True, append_images=others, duration=round(1000 / self.fps), loop=0)


class _Colours:
    """The colours that most of some pictures is in, and which of them is nearest to any other; a colour is a number."""

    def __init__(self, samples: Any) -> None:  # noqa: ANN401 - pixels
        found, count = np.unique(_numbers(samples), return_counts=True)
        self._palette = found[np.argsort(-count, kind="stable")[:_COLOURS]]
        self._nearest = np.full(1 << 24, _UNKNOWN, dtype=np.int16)
        self._nearest[self._palette] = np.arange(len(self._palette))

    def picture(self, pixels: Any) -> Image.Image:  # noqa: ANN401
        """Return a picture in these colours."""
        numbers = _numbers(pixels)
        unknown = np.unique(numbers[self._nearest[numbers] == _UNKNOWN])
        apart = np.abs(_channels(unknown)[:, None] - _channels(self._palette)[None]).sum(axis=2)
        self._nearest[unknown] = apart.argmin(axis=1)
        image = Image.fromarray(self._nearest[numbers].astype(np.uint8), "P")
        image.putpalette(_channels(self._palette).ravel().tolist())
        return image


def _numbers(pixels: Any) -> IntArray:  # noqa: ANN401
    red, green, blue = np.moveaxis(pixels[..., :3].astype(np.int64), -1, 0)
    numbers: IntArray = red << 16 | green << 8 | blue
    return numbers


def _channels(numbers: IntArray) -> IntArray:
    return np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], axis=-1)
