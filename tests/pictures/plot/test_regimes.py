"""A map's chart: whose colour is where, what is written into it, and what is hatched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from dualpipe_sim import RegimeMap, regimes
from dualpipe_sim.pictures.palette import SERIES, luminance
from dualpipe_sim.pictures.plot import regime_chart

UNIT: dict[str, Any] = {"pipeline": {"ranks": 8, "micro_batches": 32}, "costs": {"forward": 1, "backward": 2}}


@pytest.fixture(scope="module")
def found() -> RegimeMap:
    """DualPipe until pairs last 3 + 1/26 units, then ZB-H1 (see tests/robustness/test_regimes.py)."""
    return regimes(UNIT, "costs.overlapped=2.5..3.5:21", "costs.transfer=0,0.001", compare=["zb-h1", "dualpipe"])


def picture(ax: Axes) -> np.ndarray:
    return np.asarray(ax.images[0].get_array())


def hue(colour: np.ndarray) -> str:
    """The series whose mixture with white a colour is nearest to."""
    away = 1 - np.array([to_rgb(one) for one in SERIES])
    ours = 1 - colour
    return SERIES[int((away @ ours / np.linalg.norm(away, axis=1)).argmax())]


def test_regions_meet_where_the_formulas_do(found: RegimeMap) -> None:
    dots = picture(regime_chart(found))
    hues = [hue(colour) for colour in dots[10]]
    names = list(dict.fromkeys(hues))
    assert len(names) == 2
    place = hues.index(names[1]) / len(hues) * 21 - 0.5  # in points of the axis
    assert 2.5 + place * 0.05 == pytest.approx(3 + 1 / 26, abs=0.005)


def test_colours_are_stronger_the_further_the_best_is_ahead(found: RegimeMap) -> None:
    dots = picture(regime_chart(found))[10]
    clear, near = dots[5], dots[int(0.45 * len(dots))]
    assert luminance(_hex(clear)) < luminance(_hex(near))


def _hex(colour: np.ndarray) -> str:
    return "#" + "".join(f"{round(255 * one):02x}" for one in colour)


def test_regions_are_named_inside(found: RegimeMap) -> None:
    ax = regime_chart(found)
    named = {text.get_text(): text.get_position() for text in ax.texts if text.get_text() in found.schedules}
    assert set(named) == {"dualpipe", "zb-h1"}
    assert named["dualpipe"][0] < (3 + 1 / 26 - 2.475) / 1.05 < named["zb-h1"][0]


def test_a_region_without_room_is_named_below() -> None:
    narrow = regimes(UNIT, "costs.overlapped=2.5..3.05:12", "costs.transfer=0,0.001", compare=["zb-h1", "dualpipe"])
    ax = regime_chart(narrow)
    figure = ax.figure
    assert isinstance(figure, Figure)
    below = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "zb-h1" in below
    assert "dualpipe" not in below
    bare = regime_chart(narrow, legend=False).figure
    assert isinstance(bare, Figure)
    assert not bare.legends


def test_what_does_not_fit_and_what_is_close_is_hatched() -> None:
    limited = regimes(UNIT, "activations=4..12:9", "costs.transfer=0,0.1", compare=["zb-h1", "1f1b"], close=0.5)
    ax = regime_chart(limited)
    assert {"xx", "////"} <= {hatch for one in ax.collections for hatch in getattr(one, "hatches", ()) if hatch}
    figure = ax.figure
    assert isinstance(figure, Figure)
    below = [text.get_text() for text in figure.legends[0].get_texts()]
    assert below[:2] == ["too close to call (within 50%)", "nothing fits"]


def test_axes_have_round_numbers_units_and_words() -> None:
    drawn = regime_chart(
        regimes("small", "costs.transfer=0 ms..5 ms:7", "pipeline.micro_batches=8..24:3", compare=["1f1b", "gpipe"])
    )
    assert (drawn.get_xlabel(), drawn.get_ylabel()) == ("transfer (ms)", "micro-batches of a step")
    assert [label.get_text() for label in drawn.get_xticklabels()] == ["0", "1", "2", "3", "4", "5"]
    assert drawn.get_xticks() == pytest.approx(np.arange(6) * 6 / 5)
    assert [label.get_text() for label in drawn.get_yticklabels()] == ["8", "16", "24"]
    log = regimes("small", "costs.transfer=1 us..1 ms:4:log", "engine=simpy,auto", compare=["1f1b"])
    drawn = regime_chart(log)
    places = dict(zip((one.get_text() for one in drawn.get_xticklabels()), drawn.get_xticks(), strict=True))
    assert places["0.01"] == pytest.approx(1)
    assert [label.get_text() for label in drawn.get_yticklabels()] == ["simpy", "auto"]


@pytest.mark.parametrize(("size", "inches"), [("single-column", 3.35), ("16x9cm", 16 / 2.54)])
def test_it_is_as_large_as_asked_for(found: RegimeMap, size: str, inches: float) -> None:
    figure = regime_chart(found, size=size, theme="dark").figure
    assert isinstance(figure, Figure)
    assert figure.get_size_inches()[0] == pytest.approx(inches)


def test_it_draws_where_it_is_told() -> None:
    figure = Figure()
    ax = figure.add_subplot()
    assert regime_chart(regimes(UNIT, "ranks=2,4", "costs.transfer=0,1", compare=["1f1b"]), ax) is ax
