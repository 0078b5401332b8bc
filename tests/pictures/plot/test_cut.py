"""Ends only: the middle that repeats is shown once, and the time axis says the true times on both sides."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim.analysis.repeating import repeating
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.errors import UserError
from dualpipe_sim.pictures.plot import compare_gantt, gantt
from dualpipe_sim.pictures.plot.cut import Cut

if TYPE_CHECKING:
    from tests.pictures.plot.conftest import Draw, Play, Reading

TIMES = st.lists(st.floats(0, 200), min_size=2, max_size=20, unique=True)


@given(times=TIMES)
def test_a_later_time_lies_further_right_and_every_place_has_its_time(times: list[float]) -> None:
    cut = Cut(10.0, 90.0, 2.0)
    in_order = np.sort(times)
    places = cut.places(in_order)
    apart = np.diff(in_order) > 1e-9
    assert (np.diff(places)[apart] > 0).all()
    assert cut.times(places) == pytest.approx(in_order, abs=1e-9)
    outside = in_order[(in_order <= 10) | (in_order >= 90)]
    assert cut.places(outside) == pytest.approx(np.where(outside <= 10, outside, outside - 78))


@pytest.mark.parametrize("name", ["1f1b", "zb-h1", "dualpipe", "interleaved-1f1b"])
def test_ends_show_all_but_whole_periods(read: type[Reading], timeline: Play, name: str) -> None:
    played = timeline(name, 4, 100)
    middle = repeating(played)
    assert middle is not None
    ax = gantt(played, zoom="ends")
    whole, ends = (
        sum(float(one.boxes.width_s().sum()) for one in [*read(chart).ops().values(), *read(chart).idle().values()])
        for chart in (gantt(played), ax)
    )
    assert whole == pytest.approx(4 * played.makespan_s)
    assert ends == pytest.approx(whole - 4 * (middle.repeats - 1) * middle.period_s)
    assert ax.get_xlim() == (0, played.makespan_s)
    assert [text.get_text() for text in ax.texts if text.get_text().startswith("×")] == [f"× {middle.repeats}"]


def test_the_break_says_how_much_is_left_out(timeline: Play) -> None:
    played = timeline("1f1b", 4, 1000)
    middle = repeating(played)
    assert middle is not None
    out_s = (middle.repeats - 1) * middle.period_s
    texts = [text.get_text() for text in gantt(played, zoom="ends").texts]
    assert f"{out_s:,.0f} s more of the same" in texts


def test_no_cell_lies_where_the_axis_is_cut(read: type[Reading], timeline: Play) -> None:
    played = timeline("zb-h1", 4, 100, UniformCosts(1, 2, 1, transfer_s=0.5))
    middle = repeating(played)
    assert middle is not None
    begin_s, end_s = middle.begin_s + middle.period_s, middle.end_s
    for one in read(gantt(played, zoom="ends")).cells.values():
        assert ((one.boxes.end_s <= begin_s + 1e-9) | (one.boxes.begin_s >= end_s - 1e-9)).all()


def test_ticks_of_a_cut_axis_say_the_time_at_their_place(timeline: Play, drawn: Draw) -> None:
    played = timeline("1f1b", 4, 100)
    ax = gantt(played, zoom="ends")
    drawn(ax)
    ticks = [(float(tick.get_text()), tick.get_window_extent()) for tick in ax.get_xticklabels()]
    assert len(ticks) >= 5
    middle = repeating(played)
    assert middle is not None
    scale = []  # points a second on each side
    for (early_s, left), (late_s, right) in pairwise(ticks):
        at = ((left.x0 + left.x1) / 2, (right.x0 + right.x1) / 2)
        assert at == pytest.approx(tuple(ax.transData.transform([[early_s, 0], [late_s, 0]])[:, 0]), abs=1)
        assert left.x1 < right.x0
        if not early_s <= middle.begin_s + middle.period_s <= late_s:
            scale.append((at[1] - at[0]) / (late_s - early_s))
    assert scale == pytest.approx([scale[0]] * len(scale), rel=0.02)
    assert all(time_s <= middle.begin_s + middle.period_s or time_s >= middle.end_s for time_s, _ in ticks)


def test_a_comparison_cuts_the_same_time_out_of_all(read: type[Reading], timeline: Play) -> None:
    played = {name: timeline(name, 4, 100) for name in ("dualpipe", "1f1b", "zb-h1")}
    figure = compare_gantt(played, zoom="ends")
    shown = [sum(float(one.boxes.width_s().sum()) for one in read(ax).cells.values()) for ax in figure.axes]
    assert all(shown)
    places = [ax.xaxis.get_transform().transform(np.array([0, 20, 250, 300])).tolist() for ax in figure.axes]
    assert places == [places[0]] * 3
    assert all(any(text.get_text().startswith("×") for text in ax.texts) for ax in figure.axes)


def test_numbers_and_transfers_keep_to_the_ends(read: type[Reading], timeline: Play) -> None:
    played = timeline("1f1b", 4, 100, UniformCosts(1, 1, 1, transfer_s=0.25))
    ax = gantt(played, zoom="ends", transfers=True)
    found = {int(number) for _, _, number in read(ax).numbers()}
    assert {0, 99} < found
    assert 50 not in found


def test_where_nothing_repeats_all_is_drawn_and_a_line_says_so(timeline: Play) -> None:
    played = timeline("dualpipe", 8, 20)
    with pytest.warns(UserWarning, match=r"^zoom: no middle of dualpipe repeats on every rank, so the whole is drawn$"):
        ax = gantt(played, zoom="ends")
    assert ax.get_xscale() == "linear"
    with pytest.warns(UserWarning, match=r"^zoom: no middle of dualpipe repeats on every rank, so the whole is drawn$"):
        compare_gantt({"a": timeline("1f1b", 4, 100), "b": played}, zoom="ends")
    apart = {"a": timeline("gpipe", 4, 100), "b": timeline("1f1b", 4, 20)}  # 1F1B is done where GPipe turns back
    with pytest.warns(UserWarning, match=r"^zoom: these runs have no middle in common that repeats, so the whole is"):
        compare_gantt(apart, zoom="ends")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"zoom": "end"}, "zoom: must be ends, got 'end'"),
        ({"zoom": "ends", "to_s": 3.0}, "zoom: ends shows where a whole run begins and ends; leave to out"),
        (
            {"zoom": "ends", "from_s": 1.0, "micro_batches": [1]},
            "zoom: ends shows where a whole run begins and ends; leave from and micro-batches out",
        ),
    ],
)
def test_ends_of_a_part_are_refused(timeline: Play, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError) as refusal:
        gantt(timeline("1f1b", 4, 8), **options)
    assert str(refusal.value) == reason
