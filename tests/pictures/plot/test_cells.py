"""Cells of a Gantt: how many, where, how long, in which colour."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb

from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine.discrete_event import play
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.order.ops import B, F, I, R, S, T, W
from dualpipe_sim.order.placement import opposed
from dualpipe_sim.order.text import parse_order
from dualpipe_sim.pictures.palette import KIND_STYLES, PAIR_BORDER, fill, luminance
from dualpipe_sim.pictures.plot import gantt

if TYPE_CHECKING:
    from tests.pictures.plot.conftest import Draw, Play, Reading


def test_figure_5_has_as_many_cells_of_each_kind_as_the_eight_steps_say(read: type[Reading], figure5: Axes) -> None:
    # On rank r with h = 4, q = min(r, 7 - r), m = 1 on the middle ranks 3 and 4:
    # 3h-q-1+m forwards alone, 20-(3h-q-1)-m pairs, h+m full backwards alone, 2h-q-1 of I and of W.
    forwards = [11, 10, 9, 9, 9, 9, 10, 11]
    pairs = [9, 10, 11, 11, 11, 11, 10, 9]
    backwards = [4, 4, 4, 5, 5, 4, 4, 4]
    split = [7, 6, 5, 4, 4, 5, 6, 7]

    def by_rank(kind: str) -> list[int]:
        rows = [one.boxes.row for label, one in read(figure5).cells.items() if label.startswith(kind)]
        counts: list[int] = np.bincount(np.concatenate(rows), minlength=8).tolist()
        return counts

    assert by_rank("F shade") == forwards
    assert by_rank("B shade") == backwards
    assert by_rank("I shade") == by_rank("W shade") == split
    assert by_rank("F in pairs") == by_rank("B in pairs") == by_rank("pairs") == pairs


def test_figure_5_ends_at_66_with_six_idle_units_on_every_rank(read: type[Reading], figure5: Axes) -> None:
    assert figure5.get_xlim() == (0, 66)
    boxes = [one.boxes for one in read(figure5).ops().values()]
    busy = sum(np.bincount(one.row, weights=one.width_s(), minlength=8) for one in boxes)
    assert busy == pytest.approx(np.full(8, 60))
    assert max(one.end_s.max() for one in boxes) == 66
    assert min(one.begin_s.min() for one in boxes) == 0


@settings(max_examples=20)
@given(
    name=st.sampled_from(["gpipe", "1f1b", "zb-h1", "chimera", "interleaved-1f1b", "dualpipe", "dualpipev"]),
    times=st.tuples(*[st.integers(1, 9)] * 3),
    transfer=st.integers(0, 3),
)
def test_the_coloured_area_of_a_rank_is_its_share_of_the_work(
    read: type[Reading], timeline: Play, name: str, times: tuple[int, int, int], transfer: int
) -> None:
    # Every rank does one rank's share of the model for every micro-batch, however a schedule cuts it.
    ax = gantt(timeline(name, 4, 8, UniformCosts(*times, transfer_s=transfer)))
    boxes = [one.boxes for one in read(ax).ops().values()]
    area = sum(np.bincount(one.row, weights=one.width_s(), minlength=4) for one in boxes)
    assert area == pytest.approx(np.full(4, 8 * sum(times)))


def test_cells_are_drawn_around_their_rank_s_row_from_start_to_end(read: type[Reading], timeline: Play) -> None:
    ax = gantt(timeline("1f1b", 2, 1))
    outlines = {
        label: [box[:4] for path in one.get_paths() for box in np.asarray(path.vertices).reshape(-1, 5, 2).tolist()]
        for label, one in read(ax).ops().items()
    }
    # 0F0 0-1, 1F0 1-2, 1B0 2-4, 0B0 4-6
    assert outlines == {
        "F shade 0": [
            [[0, -0.5], [1, -0.5], [1, 0.5], [0, 0.5]],
            [[1, 0.5], [2, 0.5], [2, 1.5], [1, 1.5]],
        ],
        "B shade 0": [
            [[4, -0.5], [6, -0.5], [6, 0.5], [4, 0.5]],
            [[2, 0.5], [4, 0.5], [4, 1.5], [2, 1.5]],
        ],
    }


def test_a_pair_is_one_box_of_a_forward_and_a_backward_in_proportion_to_what_each_lasts_alone(
    read: type[Reading], timeline: Play
) -> None:
    # Alone F lasts 2 and B 1 + 3; the pair gains and lasts 3, so its forward takes a third of 3.
    ax = gantt(timeline("dualpipe", 2, 8, UniformCosts(2, 1, 3, overlapped=3)))
    found = read(ax).cells
    pairs = found["pairs"].boxes
    assert pairs.width_s() == pytest.approx(np.full(len(pairs.row), 3))
    assert read(ax).border("pairs") == to_hex(PAIR_BORDER)
    assert np.size(found["pairs"].get_facecolor()) == 0  # nothing over the two halves
    halves = {
        kind: [one.boxes for label, one in found.items() if label.startswith(f"{kind} in pairs")] for kind in "FB"
    }
    boxes = zip(pairs.row, pairs.begin_s, pairs.end_s, strict=True)
    cuts = [(row, begin, begin + 1, end) for row, begin, end in boxes]
    begins = {(r, round(b, 9), round(e, 9)) for one in halves["F"] for r, b, e in zip(*one, strict=True)}
    ends = {(r, round(b, 9), round(e, 9)) for one in halves["B"] for r, b, e in zip(*one, strict=True)}
    assert begins == {(row, round(begin, 9), round(cut, 9)) for row, begin, cut, _ in cuts}
    assert ends == {(row, round(cut, 9), round(end, 9)) for row, _, cut, end in cuts}


def test_a_pair_is_cut_in_half_where_one_of_its_ops_never_runs_alone(read: type[Reading]) -> None:
    order = "3F0,(0F0;3B0)OVERLAP_F_B,0B0\n2F0,1F0,1B0,2B0\n"
    ax = gantt(play(lower(parse_order(order, opposed(2)), UniformCosts(1, 1, 1))))
    forward, backward = read(ax).cells["F in pairs, shade 0"].boxes, read(ax).cells["B in pairs, shade 1"].boxes
    assert forward.width_s() == backward.width_s() == [1.5]
    assert forward.end_s == backward.begin_s


def test_ops_that_take_no_time_are_not_drawn(read: type[Reading], timeline: Play, drawn: Draw) -> None:
    ax = gantt(timeline("zb-h1", 2, 4, UniformCosts(1, 1, 0)))
    assert {label[0] for label in read(ax).ops()} == {"F", "I"}
    nothing = gantt(timeline("zb-h1", 2, 4, UniformCosts(0, 0, 0)))
    drawn(nothing)
    assert read(nothing).cells == {}
    assert read(nothing).beside() == []


def test_kinds_have_the_colours_that_the_field_knows_and_borders_of_their_own(
    read: type[Reading], figure5: Axes
) -> None:
    def hue(colour: str) -> float:
        return 360 * colorsys.rgb_to_hsv(*to_rgb(colour))[0]

    hues = {kind: {hue(one.light), hue(one.dark)} for kind, one in KIND_STYLES.items()}
    assert all(20 <= one <= 45 for one in hues[F])  # orange
    assert all(90 <= one <= 150 for one in hues[B])  # green
    assert all(150 < one <= 185 for one in hues[I])  # bluish green
    assert all(210 <= one <= 240 for one in hues[W])  # blue
    assert all(250 <= one <= 270 for one in hues[R])  # violet
    assert all(55 <= one <= 65 for one in hues[S])  # yellow
    assert all(320 <= one <= 340 for one in hues[T])  # dark pink
    assert len({one.border for one in KIND_STYLES.values()} | {PAIR_BORDER}) == 8
    chart = read(figure5)
    for label in chart.ops():
        kind, shade = "FBIW".index(label[0]), int(label[-1])
        assert chart.fill(label) == to_hex(fill(kind, shade, 2))
        if "pairs" not in label:
            assert chart.border(label) == to_hex(KIND_STYLES[kind].border)


@pytest.mark.parametrize(
    ("name", "ranks", "options", "shades"),
    [
        ("1f1b", 4, {}, 1),
        ("dualpipe", 4, {}, 2),
        ("chimera", 4, {}, 2),
        ("dualpipev", 4, {}, 2),
        ("interleaved-1f1b", 4, {"stages_per_rank": 3}, 3),
    ],
)
def test_pipes_and_the_turns_of_one_pipe_are_shades_of_their_kind(
    read: type[Reading], timeline: Play, name: str, ranks: int, options: dict[str, int], shades: int
) -> None:
    chart = read(gantt(timeline(name, ranks, 8, **options)))
    forward = {label[-1]: chart.fill(label) for label in chart.ops() if label[0] == "F"}
    assert sorted(forward) == [str(shade) for shade in range(shades)]
    assert len(set(forward.values())) == shades


def test_dualpipe_s_first_pipe_is_light_and_enters_on_rank_0_and_its_second_dark_on_the_last(
    read: type[Reading], figure5: Axes
) -> None:
    first, second = read(figure5).cells["F shade 0"].boxes, read(figure5).cells["F shade 1"].boxes
    assert first.row[np.argmin(first.begin_s)] == 0
    assert second.row[np.argmin(second.begin_s)] == 7
    assert luminance(fill(F, 0, 2)) > luminance(fill(F, 1, 2))
