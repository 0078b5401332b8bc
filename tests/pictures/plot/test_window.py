"""Zoom: which ranks, time and micro-batches are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib.collections import PathCollection

from dualpipe_sim.errors import UserError
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import Pair
from dualpipe_sim.pictures.palette import THEMES
from dualpipe_sim.pictures.plot import (
    compare_gantt,
    gantt,
)

if TYPE_CHECKING:
    from tests.pictures.plot.conftest import Play, Reading


def test_a_zoom_shows_the_ranks_and_the_time_asked_for(read: type[Reading], timeline: Play) -> None:
    ax = gantt(timeline("1f1b", 4, 8), ranks=[1, 3], from_s=2, to_s=9)
    assert ax.get_xlim() == (2, 9)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["rank 1", "rank 3"]
    # rank 1: 1F0 1-2, 1F1 2-3, 1F2 3-4, 1B0 8-10; rank 3: 3F0 3-4, 3B0 4-6, 3F1 6-7, 3B1 7-9
    assert read(ax).seconds_by_row("F") == {0: 2, 1: 2}
    assert read(ax).seconds_by_row("B") == {0: 2, 1: 4}


def test_other_micro_batches_are_grey_and_the_chart_as_long_as_those_asked_for(
    read: type[Reading], timeline: Play
) -> None:
    ax = gantt(timeline("1f1b", 2, 4), micro_batches=[1], transfers=True)
    # rank 0: 0F0 0-1, 0F1 1-2, 0B0 4-6, 0F2 6-7, 0B1 7-9; rank 1: 1F0 1-2, 1B0 2-4, 1F1 4-5, 1B1 5-7
    assert ax.get_xlim() == (1, 9)
    assert read(ax).seconds_by_row("F") == {0: 1, 1: 1}
    assert read(ax).seconds_by_row("B") == {0: 2, 1: 2}
    assert read(ax).fill("other micro-batches") == THEMES["light"].faded
    assert "other micro-batches" in read(ax).legend()
    lines = [one for one in ax.collections if isinstance(one, PathCollection) and "transfers" in str(one.get_label())]
    assert [len(np.array(one.get_paths()[0].vertices)) for one in lines] == [2, 2]
    assert set(read(ax).texts()) == {"1"}


def test_other_micro_batches_are_grey_on_the_lanes_too(read: type[Reading], layered: Timeline) -> None:
    ax = gantt(layered, micro_batches=[0], from_s=0, to_s=layered.makespan_s)
    whole = sum(read(gantt(layered)).seconds_by_row("exposed all-to-all").values())
    asked = sum(read(ax).seconds_by_row("exposed all-to-all").values())
    assert 0 < asked < whole
    assert sum(read(ax).seconds_by_row("other all-to-all").values()) > 0


def test_a_pair_keeps_its_border_where_either_half_was_asked_for(read: type[Reading], timeline: Play) -> None:
    played = timeline("dualpipe", 2, 8)
    schedule = played.graph.schedule
    pairs = {str(task) for row in schedule.order for task in row if isinstance(task, Pair)}
    with_0 = [pair for pair in pairs if "F0;" in pair or pair.endswith("B0)OVERLAP_F_B")]
    ax = gantt(played, micro_batches=[0], from_s=0, to_s=played.makespan_s)
    assert len(read(ax).cells["pairs"].boxes.row) == len(with_0) > 0


@pytest.mark.parametrize(
    ("zoom", "reason"),
    [
        ({"ranks": [4]}, "ranks: there is no 4; the pipeline has 0 to 3"),
        ({"ranks": [-1]}, "ranks: there is no -1; the pipeline has 0 to 3"),
        ({"ranks": []}, "ranks: none are chosen; give at least one of 0 to 3"),
        ({"micro_batches": range(7, 10)}, "micro-batches: there is no 8; a pipe has 0 to 7"),
        ({"from_s": -1}, "from: time begins at 0, not at -1 s"),
        ({"from_s": 33}, "from: 33 s is not before the end of the run at 33 s"),
        ({"from_s": 3, "to_s": 2}, "to: 2 s is not after 3 s, where the chart begins"),
        ({"theme": "drak"}, "theme: 'drak' is not one of light, dark; did you mean 'dark'?"),
    ],
)
def test_a_zoom_at_what_there_is_not_is_refused(timeline: Play, zoom: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError) as refusal:
        gantt(timeline("1f1b", 4, 8), **zoom)  # lasts (8 + 3)·3
    assert str(refusal.value) == reason


def test_a_comparison_zooms_all_its_charts_alike(timeline: Play) -> None:
    played = {name: timeline(name, 4, 8) for name in ("gpipe", "dualpipe")}
    figure = compare_gantt(played, ranks=range(2), micro_batches=[0])
    spans = [
        (
            min(float(one.task_start_s[one.graph.schedule.task_of_op[rows]].min()) for one, rows in chosen),
            max(float(one.task_end_s[one.graph.schedule.task_of_op[rows]].max()) for one, rows in chosen),
        )
        for chosen in [
            [(one, (one.graph.schedule.micro_batch == 0) & (one.graph.schedule.rank < 2)) for one in played.values()]
        ]
    ]
    assert {ax.get_xlim() for ax in figure.axes} == set(spans)
    assert [len(ax.get_yticklabels()) for ax in figure.axes] == [2, 2]
