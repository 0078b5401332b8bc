"""Axes: ranks from the top, time in a unit that fits."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from matplotlib.axes import Axes

from dualpipe_sim.base.units import fitting_unit, format_time
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.pictures.plot import gantt

if TYPE_CHECKING:
    from tests.pictures.plot.conftest import Play, Reading


def test_rank_0_is_on_top_and_time_runs_to_the_right(read: type[Reading], figure5: Axes) -> None:
    assert figure5.get_ylim() == (7.5, -0.5)
    assert read(figure5).ticks("y") == [f"rank {rank}" for rank in range(8)]
    assert figure5.get_xlabel() == "time (s)"
    assert read(figure5).ticks("x")[0] == "0"


@pytest.mark.parametrize(
    ("seconds", "unit", "text"),
    [
        (0.0, "s", "0 s"),
        (4000.0, "s", "4,000 s"),
        (1.0, "s", "1 s"),
        (0.018321, "ms", "18.32 ms"),
        (2.5e-6, "µs", "2.5 µs"),
        (3e-9, "ns", "3 ns"),
        (3e-12, "ns", "0.003 ns"),
    ],
)
def test_times_are_given_in_the_unit_that_fits(seconds: float, unit: str, text: str) -> None:
    assert fitting_unit(seconds).name == unit
    assert format_time(seconds) == text


def test_the_time_axis_counts_in_the_unit_that_it_names(read: type[Reading], timeline: Play) -> None:
    ax = gantt(timeline("1f1b", 2, 4, UniformCosts(0.001, 0.001, 0.001)))
    assert ax.get_xlabel() == "time (ms)"
    assert ax.get_xlim()[1] == pytest.approx(0.015)  # (P-1)(F+B) + 4·(F+B)
    labels = dict(zip(np.round(ax.get_xticks(), 9).tolist(), read(ax).ticks("x"), strict=True))
    assert (labels[0.002], labels[0.014]) == ("2", "14")


def test_where_rows_are_lower_than_their_labels_only_some_are_labelled(read: type[Reading], timeline: Play) -> None:
    ax = gantt(timeline("gpipe", 128, 4))
    labels = read(ax).ticks("y")
    assert labels[:2] != ["rank 0", "rank 1"]
    assert labels[0] == "rank 0"
    extents = [tick.get_window_extent() for tick in ax.get_yticklabels()]
    assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(extents))
