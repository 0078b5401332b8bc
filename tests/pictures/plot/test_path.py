"""The critical path over a chart: continuous, as long as the run, and summed beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes

from dualpipe_sim import compare, simulate
from dualpipe_sim.analysis.critical_path import PARTS, critical_path
from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.pictures.palette import CAUSE_STYLES, THEMES, path_colour
from dualpipe_sim.pictures.plot import gantt

if TYPE_CHECKING:
    from tests.pictures.plot.conftest import Play, Reading


def line_of(ax: Axes) -> FloatArray:
    """Corners of the line below all stretches, shape (corners, 2), each (time, row)."""
    (line,) = (one for one in ax.lines if one.get_label() == "critical path")
    return np.asarray(line.get_xydata())


def stretches(ax: Axes) -> dict[str, FloatArray]:
    """The stretches of each part, shape (stretches, 2, 2)."""
    drawn = {str(one.get_label()).removeprefix("path: "): one.get_path() for one in ax.patches}
    return {
        name: np.asarray(path.vertices).reshape(-1, 2, 2) for name, path in drawn.items() if name in {*PARTS, "turns"}
    }


@settings(max_examples=10, deadline=None)
@given(
    name=st.sampled_from(["gpipe", "1f1b", "zb-h1", "chimera", "interleaved-1f1b", "dualpipe", "dualpipev"]),
    times=st.tuples(*[st.integers(1, 9)] * 3),
    transfer=st.integers(0, 3),
)
def test_the_path_leads_without_a_gap_from_the_start_to_the_end(
    timeline: Play, name: str, times: tuple[int, int, int], transfer: int
) -> None:
    played = timeline(name, 4, 8, UniformCosts(*times, transfer_s=transfer))
    ax = gantt(played, critical_path=True)
    corners = line_of(ax)
    assert corners[0, 0] == 0
    assert corners[-1, 0] == pytest.approx(played.makespan_s)
    assert (np.diff(corners[:, 0]) >= 0).all()
    begins, ends = corners[0::2], corners[1::2]
    assert begins[1:, 0] == pytest.approx(ends[:-1, 0])
    seconds = {part: float((lines[:, 1, 0] - lines[:, 0, 0]).sum()) for part, lines in stretches(ax).items()}
    assert sum(seconds.values()) == pytest.approx(played.makespan_s)
    slanted = stretches(ax).get("transfer", np.empty((0, 2, 2)))
    assert (np.abs(np.diff(slanted[:, :, 1])) > 0.99).all()
    assert all((np.diff(lines[:, :, 1]) == 0).all() for part, lines in stretches(ax).items() if part == "compute")


def test_the_path_runs_through_the_ops_that_it_consists_of(read: type[Reading], timeline: Play) -> None:
    # GPipe on 2 ranks with one micro-batch: 0F0 0-1, sent 1-1.5, 1F0 1.5-2.5, 1B0 2.5-4.5, sent 4.5-5, 0B0 5-7
    ax = gantt(timeline("gpipe", 2, 1, UniformCosts(1, 1, 1, transfer_s=0.5)), critical_path=True)
    corners = [(float(time_s), round(float(row))) for time_s, row in line_of(ax)]
    assert corners == [
        *((0, 0), (1, 0), (1, 0), (1.5, 1), (1.5, 1), (2.5, 1)),
        *((2.5, 1), (4.5, 1), (4.5, 1), (5, 0), (5, 0), (7, 0)),
    ]
    blocks = read(ax).beside()
    title, *cells = blocks[-1]
    assert title == "the critical path's 7 s"
    assert np.array(cells).reshape(3, -1).T.tolist() == [["6 s", "85.7 %", "compute"], ["1 s", "14.3 %", "transfers"]]


def test_parts_of_the_path_of_layers_sum_to_the_makespan(read: type[Reading], layered: Timeline) -> None:
    ax = gantt(layered, critical_path=True)
    seconds = {part: float((lines[:, 1, 0] - lines[:, 0, 0]).sum()) for part, lines in stretches(ax).items()}
    assert {part: one for part, one in seconds.items() if one} == pytest.approx(
        critical_path(layered).seconds_by_part()
    )
    assert set(seconds) >= {"compute", "alltoall"}
    shares = read(ax).beside()[-1]
    assert sum(float(one[:-2]) for one in shares if one.endswith(" %")) == pytest.approx(100, abs=0.2)


def test_ranks_that_are_not_shown_have_no_path(timeline: Play) -> None:
    ax = gantt(timeline("1f1b", 4, 8), ranks=[0, 3], critical_path=True)
    rows = line_of(ax)[:, 1]
    assert {round(row) for row in rows[~np.isnan(rows)].tolist()} == {0, 1}
    assert np.isnan(rows).any()


def test_a_path_has_the_colours_of_idle_time_of_such_causes() -> None:
    light = THEMES["light"]
    for part, cause in (("transfer", "exposed_transfer"), ("alltoall", "exposed_alltoall"), ("host", "host")):
        assert path_colour(part, light) == CAUSE_STYLES[cause].fill
    assert path_colour("compute", light) == light.ink
    assert len({path_colour(part, light) for part in PARTS}) == len(PARTS)


def test_without_room_beside_the_chart_the_legend_names_the_parts(read: type[Reading]) -> None:
    found = read(simulate("figure5").gantt(size="single-column", critical_path=True))
    assert found.legend()[-1] == "critical path: compute"
    assert found.beside() == []


def test_every_chart_of_a_comparison_has_its_path() -> None:
    figure = compare("figure5", compare=["1f1b", "dualpipe"]).gantt(critical_path=True)
    assert [float(line_of(ax)[-1, 0]) for ax in figure.axes] == [66, 81]
