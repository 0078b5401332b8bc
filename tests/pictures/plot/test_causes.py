"""Idle time in the colours of its causes, and how a mean rank's time splits up, beside the chart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from dualpipe_sim.analysis.metrics import idle_s, idle_s_by_cause
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.pictures.palette import CAUSE_STYLES, KIND_STYLES, THEMES, luminance, tint
from dualpipe_sim.pictures.plot import compare_gantt, gantt

if TYPE_CHECKING:
    from tests.pictures.plot.conftest import Play, Reading

HALF = UniformCosts(1, 1, 1, transfer_s=0.5)


@settings(max_examples=10, deadline=None)
@given(
    name=st.sampled_from(["gpipe", "1f1b", "zb-h1", "chimera", "interleaved-1f1b", "dualpipe", "dualpipev"]),
    times=st.tuples(*[st.integers(1, 9)] * 3),
    transfer=st.integers(0, 3),
)
def test_coloured_idle_time_is_the_idle_time_of_each_cause_and_rank(
    read: type[Reading], timeline: Play, name: str, times: tuple[int, int, int], transfer: int
) -> None:
    played = timeline(name, 4, 8, UniformCosts(*times, transfer_s=transfer))
    found = read(gantt(played)).idle()
    of_cause = {
        cause: np.bincount(one.boxes.row, weights=one.boxes.width_s(), minlength=4) for cause, one in found.items()
    }
    summed = {cause: seconds for cause, seconds in idle_s_by_cause(played).items() if seconds.any()}
    assert of_cause == {cause: pytest.approx(seconds) for cause, seconds in summed.items()}
    assert sum(of_cause.values()) == pytest.approx(idle_s(played))


def test_idle_time_is_paler_than_every_op(read: type[Reading], timeline: Play) -> None:
    light = THEMES["light"]
    palest = min(luminance(tint(one.fill, light)) for name, one in CAUSE_STYLES.items() if name != "exposed_reduction")
    assert palest > max(luminance(KIND_STYLES[kind].light) for kind in (0, 1, 3))
    found = read(gantt(timeline("1f1b", 4, 8, HALF)))
    assert {cause: found.fill(f"idle: {cause}") for cause in found.idle()} == {
        cause: tint(CAUSE_STYLES[cause].fill, light) for cause in ("warm_up", "drain", "waiting", "exposed_transfer")
    }


def test_causes_can_be_left_out_and_are_where_there_is_no_colour(read: type[Reading], timeline: Play) -> None:
    played = timeline("1f1b", 4, 8)
    for chart in (gantt(played, causes=False), gantt(played, palette="grey"), gantt(played, Figure().subplots())):
        assert read(chart).idle() == {}
        assert read(chart).beside() == []
        assert "idle" in read(chart).legend()


def test_what_stands_beside_a_chart_sums_to_the_makespan(read: type[Reading], timeline: Play) -> None:
    # 1F1B on 4 ranks: (8 + 3)(1 + 2) = 33; each rank works 24, and waits 1.5, 3 and 4.5 in the mean.
    (block,) = read(gantt(timeline("1f1b", 4, 8))).beside()
    title, *cells = block
    seconds, shares, words = np.array(cells).reshape(3, -1).tolist()
    assert title == "a mean rank's 33 s"
    assert dict(zip(words, seconds, strict=True)) == {
        "ops": "24.0 s",
        "warm-up": "1.5 s",
        "drain": "3.0 s",
        "waiting for an op upstream": "4.5 s",
    }
    assert sum(float(one.removesuffix(" %")) for one in shares) == pytest.approx(100, abs=0.2)


def test_where_there_is_no_room_beside_a_chart_the_legend_names_causes(read: type[Reading], timeline: Play) -> None:
    assert read(gantt(timeline("1f1b", 4, 8), size="single-column")).idle() == {}
    found = read(gantt(timeline("1f1b", 4, 8), size="single-column", causes=True))
    assert found.beside() == []
    assert found.legend()[-3:] == ["idle: warm-up", "idle: drain", "idle: waiting for an op upstream"]
    assert read(gantt(timeline("1f1b", 4, 8), legend=False)).beside() == []


def test_a_comparison_marks_where_the_fastest_ends_and_how_much_longer_others_take(
    read: type[Reading], timeline: Play
) -> None:
    played = {name: timeline(name, 8, 20) for name in ("dualpipe", "1f1b")}  # 66 and 81
    figure = compare_gantt(played)
    lines = [[np.asarray(one.get_xdata())[0] for one in ax.lines if one.get_label() == "fastest"] for ax in figure.axes]
    assert lines == [[66.0], [66.0]]
    fast, slow = ([text.get_text() for text in ax.texts] for ax in figure.axes)
    assert (fast, slow) == ([], ["+15 s (+22.7 %)"])
    (drawn,) = (one for one in figure.axes[1].lines if one.get_label() == "dimension")
    assert np.asarray(drawn.get_xdata()).tolist() == [66.0, 81.0]
    assert [read(ax).beside()[0][0] for ax in figure.axes] == ["a mean rank's 66 s", "a mean rank's 81 s"]


def test_a_run_of_more_micro_batches_says_so_where_it_takes_longer(timeline: Play) -> None:
    figure = compare_gantt({"few": timeline("1f1b", 4, 8), "many": timeline("1f1b", 4, 12)})
    assert [text.get_text() for text in figure.axes[1].texts] == ["+12 s (+36.4 %), 4 micro-batches more"]


def test_halves_of_micro_batches_are_no_more_micro_batches(timeline: Play) -> None:
    # Chimera with backward halving runs 16 halves for 8
    halves = timeline("chimera", 4, 8, concatenation="backward-halving")
    assert halves.graph.schedule.micro_batches == 16
    figure = compare_gantt({"chimera": halves, "1f1b": timeline("1f1b", 4, 8)})
    assert not [text for ax in figure.axes for text in ax.texts if "micro-batches" in text.get_text()]


def test_a_zoom_has_the_causes_that_it_shows(read: type[Reading], timeline: Play) -> None:
    played = timeline("1f1b", 4, 8)
    whole, part = read(gantt(played)), read(gantt(played, ranks=[1], to_s=10))
    assert (set(whole.idle()), set(part.idle())) == ({"warm_up", "waiting", "drain"}, {"warm_up", "waiting"})
    assert {row for one in part.idle().values() for row in one.boxes.row.tolist()} == {0}
