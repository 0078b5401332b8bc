"""Themes: every chart is light or dark as a whole, takes an Axes, and is saved as vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from dualpipe_sim.analysis import metrics
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.pictures.palette import THEMES, luminance
from dualpipe_sim.pictures.plot import (
    activations_over_time,
    bubble_against_activations,
    gantt,
    idle_by_cause,
    pair_figure,
    save,
)

if TYPE_CHECKING:
    from tests.pictures.plot.conftest import Draw

CHARTS: dict[str, Callable[[Timeline, Axes | None, Any], Axes]] = {
    "gantt": lambda played, ax, theme: gantt(played, ax, transfers=True, theme=theme),
    "activations_over_time": lambda played, ax, theme: activations_over_time(played, ax, theme=theme),
    "idle_by_cause": lambda played, ax, theme: idle_by_cause(played, ax, theme=theme),
    "pair_figure": lambda played, ax, theme: pair_figure(played, None, ax, theme=theme),
    "bubble_against_activations": lambda played, ax, theme: bubble_against_activations([run(played)], ax, theme=theme),
}


class _Run(NamedTuple):
    caption: str
    bubble_ratio: float | None
    peak_activations_by_rank: list[float] | None


def run(played: Timeline) -> _Run:
    schedule = played.graph.schedule
    peaks = metrics.peak_activations_by_rank(played).tolist()
    return _Run(schedule.name, metrics.bubble_ratio(played), peaks)


@pytest.mark.parametrize("chart", CHARTS)
def test_every_chart_is_light_or_dark_as_a_whole(chart: str, layered: Timeline) -> None:
    light, dark = (CHARTS[chart](layered, None, theme) for theme in ("light", "dark"))
    for ax, look in ((light, THEMES["light"]), (dark, THEMES["dark"])):
        assert to_hex(ax.figure.get_facecolor()) == to_hex(ax.get_facecolor()) == look.ground
        inks = [text.get_color() for text in (ax.xaxis.label, *ax.get_xticklabels(), *ax.get_yticklabels())]
        inks += [text.get_color() for text in getattr(ax.get_legend(), "get_texts", list)()]
        for ink in inks:
            dim, bright = sorted((luminance(to_hex(ink)), luminance(look.ground)))
            assert (bright + 0.05) / (dim + 0.05) > 4.5  # WCAG 2 for any text


@pytest.mark.parametrize("chart", CHARTS)
def test_every_chart_takes_an_axes_and_returns_it(drawn: Draw, chart: str, layered: Timeline) -> None:
    ax = Figure().subplots()
    assert CHARTS[chart](layered, ax, "light") is ax
    drawn(ax)


@pytest.mark.parametrize("chart", CHARTS)
def test_every_chart_shows_itself_in_a_notebook_and_is_saved_as_vectors(
    chart: str, layered: Timeline, tmp_path: Path
) -> None:
    ax: Any = CHARTS[chart](layered, None, "dark")
    assert ax._repr_png_().startswith(b"\x89PNG")
    for suffix in (".svg", ".pdf"):
        save(ax.figure, tmp_path / f"chart{suffix}")
    assert "<image" not in (tmp_path / "chart.svg").read_text()
