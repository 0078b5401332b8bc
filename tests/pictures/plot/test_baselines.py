"""Whole pictures, beside those that were looked at before.

``python -m tests.pictures.plot.test_baselines`` draws them anew: look at them before committing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.pictures.plot import (
    activations_over_time,
    compare_gantt,
    gantt,
    idle_by_cause,
    pair_figure,
)

if TYPE_CHECKING:
    from tests.pictures.plot.conftest import Draw, Play

BASELINES = Path(__file__).parent / "baselines"


def pictures(timeline: Play, lanes: Timeline) -> dict[str, Axes | Figure]:
    unit = timeline("dualpipe", 8, 20)
    transfer = UniformCosts(1, 1, 1, transfer_s=0.25)
    return {
        "figure5.png": gantt(unit, causes=False),
        "comparison.png": compare_gantt(
            {name: timeline(name, 4, 8, transfer) for name in ("1f1b", "dualpipe")}, transfers=True
        ),
        "lanes.png": gantt(lanes, causes=False),
        "zoom_dark.png": gantt(
            unit, ranks=range(3), from_s=10, to_s=30, micro_batches=range(4), causes=False, theme="dark"
        ),
        "pair.png": pair_figure(lanes),
        "activations_dark.png": activations_over_time(unit, theme="dark"),
        "idle.png": idle_by_cause(timeline("zb-h1", 4, 8, transfer)),
    }


def picture(chart: Axes | Figure, drawn: Draw) -> Image.Image:
    """A picture whose Axes stand where no font's size can move them."""
    figure: Any = chart.figure
    figure.set_layout_engine("none")
    share = 0.75 / len(figure.axes)
    for place, ax in enumerate(figure.axes):
        ax.set_position((0.07, 0.95 - (place + 1) * share, 0.63 if figure.artists else 0.85, share - 0.06))
    renderer: Any = drawn(chart)
    return Image.fromarray(np.asarray(renderer.buffer_rgba())[..., :3])


def test_pictures_look_as_they_did(timeline: Play, layered: Timeline, drawn: Draw) -> None:
    # Every version of FreeType draws text a little differently: that hardly moves the mean of a block of pixels,
    # but a colour, cell, border or number gone wrong does.
    def blocks(image: Image.Image) -> FloatArray:
        return np.asarray(image.reduce(8), dtype=float)

    for name, chart in pictures(timeline, layered).items():
        was, is_now = Image.open(BASELINES / name).convert("RGB"), picture(chart, drawn)
        assert is_now.size == was.size, name
        difference = np.abs(blocks(is_now) - blocks(was))
        assert difference.mean() < 1.6, name
        assert np.percentile(difference, 98) < 24, name


if __name__ == "__main__":
    from tests.pictures.plot.conftest import TwoLanes, draw, played

    for file, shown in pictures(played, played("dualpipe", 2, 8, TwoLanes())).items():
        picture(shown, draw).save(BASELINES / file, optimize=True)
