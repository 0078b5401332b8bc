"""Legends: what they name, and where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from matplotlib.axes import Axes

from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.pictures.plot import gantt

if TYPE_CHECKING:
    from tests.pictures.plot.conftest import Draw, Play


def test_the_legend_names_what_is_drawn_and_nothing_else(timeline: Play, figure5: Axes) -> None:
    def entries(ax: Axes) -> list[str]:
        found = ax.get_legend()
        assert found is not None
        return [text.get_text() for text in found.get_texts()]

    assert entries(figure5) == [
        "forward",
        "backward",
        "backward for input",
        "backward for weights",
        "overlapped forward & backward",
        "pipe 0 (numbered), pipe 1",
    ]
    assert entries(gantt(timeline("1f1b", 2, 4), transfers=True, causes=False)) == [
        "forward",
        "backward",
        "idle",
        "activations sent",
        "gradients sent",
    ]
    costs = UniformCosts(1, 1, 1, vocab_s=1, vocab_t=1)
    passes = [entries(gantt(timeline(name, 2, 4, costs)))[2:] for name in ("vocab-1f1b", "interlaced")]
    assert passes == [["vocabulary: logits", "vocabulary: gradients"], ["vocabulary: logits and gradients"]]
    interleaved = timeline("interleaved-1f1b", 2, 4, stages_per_rank=3)
    assert entries(gantt(interleaved))[-1] == "a rank's 3 stages, shallowest first"


@pytest.mark.parametrize(("ranks", "micro_batches"), [(2, 4), (4, 8), (8, 20)])
def test_the_legend_lies_below_the_chart_and_inside_the_figure(
    timeline: Play, drawn: Draw, ranks: int, micro_batches: int
) -> None:
    ax = gantt(timeline("dualpipe", ranks, micro_batches), transfers=True, causes=False)
    renderer = drawn(ax)
    found = ax.get_legend()
    assert found is not None
    legend, figure = found.get_window_extent(renderer), ax.figure.bbox
    assert legend.y1 < ax.xaxis.label.get_window_extent(renderer).y0
    assert figure.x0 <= legend.x0
    assert legend.x1 <= figure.x1
    assert figure.y0 <= legend.y0
    assert ax.bbox.width > 0.8 * figure.width
