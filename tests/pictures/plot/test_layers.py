"""Layers in parts: bars as long as their seconds, words that can be read, colours that stay apart."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.breakdown import PARTS, Breakdown, breakdown
from dualpipe_sim.errors import UserError
from dualpipe_sim.pictures.plot.layers import FILLS, layer_bars
from tests.pictures.test_palette import SEEN_BY, lab

if TYPE_CHECKING:
    from tests.pictures.plot.conftest import Draw, Reading

MANY: dict[str, Any] = {
    "pipeline": {"ranks": 4, "micro_batches": 16},
    "schedule": "1f1b",
    "stack": "torch-eager",
    "model": "qwen3-next-80b-a3b",
    "gpu": "h100",
    "parallel": {"tensor": 2, "context": 2, "expert": 8, "data": 4},
    "training": {"sequence_length": 2048, "precision": "bf16", "recompute": "full"},
}
"""Two kinds of layers with nearly all parts there are, recomputed."""


def layers_of(config: dict[str, Any] | str, **overrides: object) -> Breakdown:
    return breakdown(load_experiment(config, overrides).costs)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def v3_layers() -> Breakdown:
    return layers_of("deepseek_v3")


def bars(ax: Axes) -> dict[str, Any]:
    """The bars by layer, work and part."""
    return {str(bar.get_gid()): bar for bar in ax.patches if bar.get_gid()}


def test_bars_are_as_long_as_the_parts_take_and_stand_behind_each_other(v3_layers: Breakdown) -> None:
    found = bars(layer_bars(v3_layers))
    for layer in v3_layers.all_of_it:
        for field in ("forward_s", "input_gradient_s", "weight_gradient_s"):
            begin_s = 0.0
            for part in layer.parts:
                seconds = getattr(part, field)
                key = f"{layer.kind} {field} {part.name}"
                assert (key in found) == (seconds > 0)
                if seconds:
                    assert found[key].get_x() == pytest.approx(begin_s)
                    assert found[key].get_width() == pytest.approx(seconds)
                    begin_s += seconds
            assert begin_s == pytest.approx(getattr(layer, field))


def test_each_kind_of_layer_has_a_bar_for_each_kind_of_work(read: type[Reading], v3_layers: Breakdown) -> None:
    ax = layer_bars(v3_layers)
    works = ["forward", "backward for input", "backward for weights"]
    assert read(ax).ticks("y") == [works[0], works[2], *works * 3]  # the embedding has none for input
    again = layer_bars(layers_of(MANY))
    assert read(again).ticks("y").count("forward again") == 2
    assert again.get_xlabel().endswith("(ms)")


def test_the_legend_names_what_takes_time(read: type[Reading], v3_layers: Breakdown) -> None:
    assert read(layer_bars(v3_layers)).legend() == [
        "embedding", "attention", "mlp", "router", "experts", "shared", "head", "loss", "dispatch", "combine", "gaps",
    ]  # fmt: skip
    assert {"tensor parallel", "context parallel", "host"} <= set(read(layer_bars(layers_of(MANY))).legend())


@pytest.mark.parametrize("config", ["deepseek_v3", "many", "long"])
def test_no_words_lie_on_others(drawn: Draw, config: str) -> None:
    long = {"training.sequence_length": 131072, "parallel.context": 8} if config == "long" else {}
    ax = layer_bars(layers_of(MANY if config != "deepseek_v3" else config, **long), title="a title")
    renderer = drawn(ax)
    legend: Any = ax.get_legend()
    ticks = [one for one in ax.get_xticklabels() if one.get_position()[0] <= ax.get_xlim()[1]]
    words = [*ax.texts, *ticks, *ax.get_yticklabels(), ax.xaxis.label, ax.title, *legend.get_texts()]
    boxes = [(one.get_text(), one.get_window_extent(renderer)) for one in words if one.get_text()]
    assert len(boxes) > 20
    overlapping = [(one, other) for (one, a), (other, b) in combinations(boxes, 2) if a.overlaps(b)]
    assert overlapping == []
    (left, _), (right, top) = ax.figure.bbox.get_points()
    assert [text for text, box in boxes if box.x0 < left or box.x1 > right or box.y1 > top] == []


def test_a_share_is_written_where_it_has_room(v3_layers: Breakdown) -> None:
    ax = layer_bars(v3_layers)
    dense = v3_layers.layers[0]
    share = f"{100 * dense.parts[0].forward_s / dense.forward_s:.0f} %"
    assert share in [text.get_text() for text in ax.texts]
    assert "0 %" not in [text.get_text() for text in ax.texts]


def test_it_is_drawn_dark_and_into_an_axes_of_the_callers(v3_layers: Breakdown) -> None:
    mine = layer_bars(v3_layers, theme="dark").figure.add_subplot()
    assert layer_bars(v3_layers, mine) is mine
    with pytest.raises(UserError, match="theme"):
        layer_bars(v3_layers, theme="light grey")  # type: ignore[arg-type]


@pytest.mark.parametrize("eyes", SEEN_BY)
def test_parts_stay_apart_for_all_eyes(eyes: str) -> None:
    # 2.3 is a just noticeable difference (Mahy et al. 1994).
    assert list(FILLS) == list(PARTS)
    seen = [lab(colour, eyes) for colour in FILLS.values()]
    assert min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2)) > 2.3 * 5
