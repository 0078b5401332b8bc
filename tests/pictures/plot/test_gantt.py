"""Gantt charts as a whole: title, transfers, several below each other, where they are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.errors import UserError
from dualpipe_sim.pictures.plot import compare_gantt, gantt

if TYPE_CHECKING:
    from tests.pictures.plot.conftest import Draw, Play


def test_the_title_gives_sizes_bubble_and_makespan(timeline: Play, figure5: Axes) -> None:
    # 6 idle of 66
    assert figure5.get_title(loc="left") == "dualpipe: 8 ranks × 20 micro-batches, bubble 9.1 %, 66 s"
    alone = gantt(timeline("gpipe", 1, 1))
    assert alone.get_title(loc="left") == "gpipe: 1 rank × 1 micro-batch, bubble 0.0 %, 3 s"
    assert gantt(timeline("gpipe", 1, 1), title="mine").get_title(loc="left") == "mine"


def transfer_lines(ax: Axes) -> dict[str, list[Any]]:
    """(time, row) of both ends of each transfer, by what it carries."""
    return {
        str(one.get_label()): np.array(one.get_paths()[0].vertices).reshape(-1, 2, 2).tolist()
        for one in ax.collections
        if isinstance(one, PathCollection) and "transfers" in str(one.get_label())
    }


def test_transfers_are_lines_from_the_sender_s_end_to_the_receiver_s_start(timeline: Play) -> None:
    ax = gantt(timeline("1f1b", 2, 1, UniformCosts(1, 1, 1, transfer_s=0.5)), transfers=True)
    # 0F0 0-1, sent 1-1.5, 1F0 1.5-2.5, 1B0 2.5-4.5, sent 4.5-5; rows are 0.62 high
    assert transfer_lines(ax) == {
        "transfers after F": [[[1, pytest.approx(0.31)], [1.5, pytest.approx(0.69)]]],
        "transfers after B": [[[4.5, pytest.approx(0.69)], [5, pytest.approx(0.31)]]],
    }


def test_every_boundary_between_ranks_is_crossed_once_each_way_by_every_micro_batch(timeline: Play) -> None:
    ax = gantt(timeline("dualpipe", 4, 8), transfers=True)
    assert {label: len(lines) for label, lines in transfer_lines(ax).items()} == {
        "transfers after F": 3 * 8,
        "transfers after B": 3 * 8,
    }
    assert transfer_lines(gantt(timeline("dualpipe", 4, 8))) == {}


def test_a_comparison_stacks_charts_on_one_time_axis(timeline: Play, drawn: Draw) -> None:
    played = {name: timeline(name, 4, 8) for name in ("chimera", "1f1b", "dualpipe")}
    figure = compare_gantt(played, title="Which is fastest?")
    assert [ax.get_title(loc="left").split(":")[0] for ax in figure.axes] == ["chimera", "1f1b", "dualpipe"]
    assert {ax.get_xlim() for ax in figure.axes} == {(0, max(one.makespan_s for one in played.values()))}
    assert [ax.get_xlabel() for ax in figure.axes] == ["", "", "time (s)"]
    drawn(figure)
    assert len({(round(ax.bbox.x0), round(ax.bbox.x1)) for ax in figure.axes}) == 1
    assert sum(ax.get_legend() is not None for ax in figure.axes) == 1
    assert figure.get_suptitle() == "Which is fastest?"


def test_rows_of_a_comparison_are_equally_high_however_many_there_are(timeline: Play, drawn: Draw) -> None:
    figure = compare_gantt({"two": timeline("1f1b", 2, 8), "eight": timeline("1f1b", 8, 8)})
    drawn(figure)
    two, eight = (ax.bbox.height for ax in figure.axes)
    assert eight / two == pytest.approx(4, rel=0.02)


def test_a_comparison_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"^there is no timeline to compare; give at least one$"):
        compare_gantt({})


def test_a_chart_is_drawn_into_the_axes_it_is_given(timeline: Play) -> None:
    figure = Figure()
    upper, lower = figure.subplots(2)
    assert gantt(timeline("1f1b", 2, 4), upper) is upper
    assert len(figure.axes) == 2
    assert not lower.collections


def test_a_notebook_shows_charts_and_comparisons_by_themselves(timeline: Play) -> None:
    played = timeline("1f1b", 2, 4)
    charts: list[Any] = [gantt(played), compare_gantt({"1f1b": played})]
    for chart in charts:
        assert chart._repr_png_().startswith(b"\x89PNG")
