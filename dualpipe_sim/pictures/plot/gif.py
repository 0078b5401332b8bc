"""Animated GIFs of few colours."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.animation import PillowWriter
from PIL import Image

from dualpipe_sim.pictures.plot.few_colours import FewColours


class GifWriter(PillowWriter):
    """Writes all pictures in the same few colours, so that what does not change takes no room."""

    def __init__(self, frames_per_second: float, samples: Any) -> None:  # noqa: ANN401 - pixels
        super().__init__(fps=frames_per_second)  # type: ignore[arg-type]
        self._colours = FewColours(samples)
        self._pictures: list[Image.Image] = []

    def grab_frame(self, **savefig_kwargs: Any) -> None:  # noqa: ANN401, ARG002 - matplotlib's
        """Keep what the figure shows, in few colours."""
        canvas: Any = self.fig.canvas
        canvas.draw()
        self._pictures.append(self._colours.picture(np.asarray(canvas.buffer_rgba())))

    def finish(self) -> None:
        """Write all pictures."""
        first, *others = self._pictures
        first.save(self.outfile, "GIF", save_all=True, append_images=others, duration=round(1000 / self.fps), loop=0)
