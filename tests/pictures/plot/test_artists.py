"""Artists of many cells: numbers that fit, borders that thin out, colours that blend where a chart is crowded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.errors import UserError
from dualpipe_sim.order.ops import B, F
from dualpipe_sim.pictures.palette import fill
from dualpipe_sim.pictures.plot import gantt

if TYPE_CHECKING:
    from tests.pictures.plot.conftest import Draw, Play, Reading


def test_figure_5_numbers_the_micro_batches_of_the_first_pipe_only(read: type[Reading], figure5: Axes) -> None:
    found = read(figure5).numbers()
    # ten forwards and ten backwards on each of 8 ranks; of 40 + 4 backwards in two parts the first pipe has half
    assert len(found) == 8 * 20 + (7 + 6 + 5 + 4 + 4 + 5 + 6 + 7) // 2
    assert {text for _, _, text in found} == {str(number) for number in range(10)}
    on_rank_0 = [text for row, _, text in sorted(found) if row == 0]
    # Seven forwards ahead and three in pairs; backwards 0-5 whole, 6-9 in two parts.
    assert " ".join(on_rank_0) == "0 1 2 3 4 5 6 7 0 8 1 9 2 3 4 5 6 6 7 7 8 8 9 9"


def test_numbers_can_be_asked_for_all_pipes_or_for_none(read: type[Reading], timeline: Play) -> None:
    played = timeline("dualpipe", 2, 4)
    auto, every, none = (gantt(played, numbers=which) for which in ("auto", "all", "none"))
    assert len(read(every).numbers()) == 2 * len(read(auto).numbers())
    assert read(none).numbers() == []


def test_numbers_vanish_where_cells_are_crowded_and_come_back_on_zooming_in(
    read: type[Reading], timeline: Play
) -> None:
    ax = gantt(timeline("1f1b", 8, 256))
    assert read(ax).numbers() == []
    ax.set_xlim(0, 30)
    found = read(ax).numbers()
    assert (0, 0.5, "0") in found
    assert all(0 <= middle <= 30 for _, middle, _ in found)


def test_numbers_never_reach_out_of_their_cells(read: type[Reading], timeline: Play, drawn: Draw) -> None:
    ax = gantt(timeline("zb-h1", 4, 120, UniformCosts(3, 2, 1)))
    ax.set_xlim(300, 400)
    renderer = drawn(ax)
    found = read(ax).labels()[0]
    at, size_pt = found.shown(renderer)
    assert len(at) > 0
    for one in at.tolist():
        text = Text(text=found.labels.texts[found.labels.text[one]], size=size_pt)
        text.set_figure(ax.figure)
        room = ax.transData.transform([[found.boxes.begin_s[one], 0], [found.boxes.end_s[one], 1]])
        extent = text.get_window_extent(renderer)
        assert extent.width < room[1, 0] - room[0, 0]
        assert extent.height < abs(room[1, 1] - room[0, 1])


def test_an_unknown_choice_of_numbers_is_refused(timeline: Play) -> None:
    with pytest.raises(UserError, match=r"^numbers: 'al' is not one of auto, all, none; did you mean 'all'\?$"):
        gantt(timeline("gpipe", 1, 1), numbers="al")  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_large_chart_is_few_artists_without_borders(read: type[Reading], timeline: Play, drawn: Draw) -> None:
    ax = gantt(timeline("dualpipe", 64, 512))
    drawn(ax)
    assert len(ax.get_children()) < 40
    assert read(ax).numbers() == []
    assert sum(len(one.boxes.row) for one in read(ax).ops().values()) == 64 * 2 * 512 + sum(
        2 * (63 - min(rank, 63 - rank)) // 2 for rank in range(64)
    )


def test_borders_thin_out_with_their_cells(read: type[Reading], timeline: Play, drawn: Draw) -> None:
    ax = gantt(timeline("1f1b", 4, 8))
    drawn(ax)
    assert read(ax).border_pt("F shade 0") == 0.6
    ax.set_xlim(0, 90)
    drawn(ax)
    assert 0 < read(ax).border_pt("F shade 0") < 0.6
    ax.set_xlim(0, 230)
    drawn(ax)
    assert read(ax).border_pt("F shade 0") == 0


def test_pixels_of_a_crowded_chart_have_the_mean_colour_of_what_they_cover(read: type[Reading], timeline: Play) -> None:
    # GPipe on one rank: all forwards, then all backwards, 1 and 2 each, of 6000 cells on some 1300 pixels.
    ax = gantt(timeline("gpipe", 1, 3000), title="")
    seen = read(ax).pixels()
    left, right = ax.bbox.x0, ax.bbox.x1
    middle = round(ax.figure.bbox.height - (ax.bbox.y0 + ax.bbox.y1) / 2)
    third = round(left + (right - left) / 3)
    line = seen[middle]
    assert (line[round(left) + 2 : third - 2] == np.round(255 * np.array(to_rgb(fill(F, 0, 1))))).all()
    assert (line[third + 2 : round(right) - 2] == np.round(255 * np.array(to_rgb(fill(B, 0, 1))))).all()

    mixed = gantt(timeline("1f1b", 1, 3000), title="")
    seen = read(mixed).pixels()
    mean = (np.array(to_rgb(fill(F, 0, 1))) + 2 * np.array(to_rgb(fill(B, 0, 1)))) / 3
    line = seen[middle, round(left) + 2 : round(right) - 2]
    assert np.abs(line.mean(axis=0) - 255 * mean).max() < 1
    assert line.std(axis=0).max() < 25


def test_a_crowded_chart_has_rank_0_on_top_too(read: type[Reading], timeline: Play) -> None:
    # Rank 0's forwards take 1 each and rank 1's 3, so while rank 1 is busy with them rank 0 has long been done.
    ax = gantt(timeline("gpipe", 2, 2000, UniformCosts((1.0, 3.0), 1, 1)), title="", causes=False)
    seen = read(ax).pixels()
    upper, lower = (ax.transData.transform((5000, rank)) for rank in (0, 1))
    assert upper[1] > lower[1]

    def colour(place: FloatArray) -> list[int]:
        found: list[int] = seen[len(seen) - round(place[1]), round(place[0])].tolist()
        return found

    assert colour(upper) == [255, 255, 255]
    assert colour(lower) == np.round(255 * np.array(to_rgb(fill(F, 0, 1)))).tolist()
