"""Gantt charts: what is drawn where, in which colour, with which number."""

from __future__ import annotations

import colorsys
import subprocess
import sys
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from dualpipe_sim import build
from dualpipe_sim.arrays import FloatArray
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine.discrete_event import play
from dualpipe_sim.errors import UserError
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import B, F, I, W
from dualpipe_sim.order.placement import opposed
from dualpipe_sim.order.text import parse_order
from dualpipe_sim.pictures.palette import KIND_STYLES, PAIR_BORDER, THEMES, fill, ink_on
from dualpipe_sim.pictures.plot import compare_gantt, gantt, save
from dualpipe_sim.pictures.plot.artists import CellLabels, CellPolygons
from dualpipe_sim.pictures.plot.units import fitting_unit, format_time

UNIT = UniformCosts(1, 1, 1)


def timeline(name: str, ranks: int, micro_batches: int, costs: UniformCosts = UNIT, **options: int) -> Timeline:
    return play(lower(build(name, ranks, micro_batches, **options), costs))


def looks(ax: Axes) -> dict[str, CellPolygons]:
    """The cells of a chart by what they are labelled: kind, whether in a pair, shade."""
    return {str(one.get_label()): one for one in ax.collections if isinstance(one, CellPolygons)}


def cells(ax: Axes) -> dict[str, CellPolygons]:
    return {label: one for label, one in looks(ax).items() if label != "pairs"}


def numbers(ax: Axes) -> CellLabels:
    """The micro-batches' numbers, which are drawn before the names of phases."""
    return next(artist for artist in ax.get_children() if isinstance(artist, CellLabels))


def text_of(labels: CellLabels, cell: int) -> str:
    return str(labels.labels.texts[labels.labels.text[cell]])


def drawn(chart: Axes | Figure, dpi: float = 100) -> RendererBase:
    """Draw a figure, or that of an Axes."""
    figure: Any = chart.figure
    figure.set_dpi(dpi)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    renderer: RendererBase = canvas.get_renderer()
    return renderer


def pixels(chart: Axes | Figure) -> NDArray[np.uint8]:
    """What a figure, or that of an Axes, looks like, shape ``(lines, columns, 3)``."""
    renderer: Any = drawn(chart)
    return np.asarray(renderer.buffer_rgba())[..., :3]


def face(cells: CellPolygons) -> tuple[float, float, float]:
    colours: Any = cells.get_facecolor()
    return to_rgb(tuple(colours[0]))


def border(cells: CellPolygons) -> tuple[float, float, float]:
    colours: Any = cells.get_edgecolor()
    return to_rgb(tuple(colours[0]))


def border_pt(cells: CellPolygons) -> float:
    return float(np.ravel(np.asarray(cells.get_linewidth(), dtype=float))[0])


def shown(ax: Axes) -> list[tuple[int, float, str]]:
    """(row, middle, number) of every number that is drawn."""
    found = numbers(ax)
    at, _ = found.shown(drawn(ax))
    return [(int(found.boxes.row[one]), float(found.boxes.middle_s()[one]), text_of(found, one)) for one in at.tolist()]


def tick_labels(ax: Axes, axis: str) -> list[str]:
    drawn(ax)
    ticks = ax.get_xticklabels() if axis == "x" else ax.get_yticklabels()
    return [tick.get_text() for tick in ticks]


@pytest.fixture(scope="module")
def figure5() -> Axes:
    return gantt(timeline("dualpipe", 8, 20))


# Cells: how many, where, how long


def test_figure_5_has_as_many_cells_of_each_kind_as_the_eight_steps_say(figure5: Axes) -> None:
    # On rank r with h = 4, q = min(r, 7 - r), m = 1 on the middle ranks 3 and 4:
    # 3h-q-1+m forwards alone, 20-(3h-q-1)-m pairs, h+m full backwards alone, 2h-q-1 of I and of W.
    forwards = [11, 10, 9, 9, 9, 9, 10, 11]
    pairs = [9, 10, 11, 11, 11, 11, 10, 9]
    backwards = [4, 4, 4, 5, 5, 4, 4, 4]
    split = [7, 6, 5, 4, 4, 5, 6, 7]

    def by_rank(kind: str) -> list[int]:
        rows = [one.boxes.row for label, one in looks(figure5).items() if label.startswith(kind)]
        counts: list[int] = np.bincount(np.concatenate(rows), minlength=8).tolist()
        return counts

    assert by_rank("F shade") == forwards
    assert by_rank("B shade") == backwards
    assert by_rank("I shade") == by_rank("W shade") == split
    assert by_rank("F in pairs") == by_rank("B in pairs") == by_rank("pairs") == pairs


def test_figure_5_ends_at_66_with_six_idle_units_on_every_rank(figure5: Axes) -> None:
    assert figure5.get_xlim() == (0, 66)
    boxes = [one.boxes for one in cells(figure5).values()]
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
    name: str, times: tuple[int, int, int], transfer: int
) -> None:
    # Every rank does one rank's share of the model for every micro-batch, however a schedule cuts it.
    ax = gantt(timeline(name, 4, 8, UniformCosts(*times, transfer_s=transfer)))
    boxes = [one.boxes for one in cells(ax).values()]
    area = sum(np.bincount(one.row, weights=one.width_s(), minlength=4) for one in boxes)
    assert area == pytest.approx(np.full(4, 8 * sum(times)))


def test_cells_are_drawn_around_their_rank_s_row_from_start_to_end() -> None:
    ax = gantt(timeline("1f1b", 2, 1))
    outlines = {
        label: [np.asarray(path.vertices)[:4].tolist() for path in one.get_paths()] for label, one in looks(ax).items()
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


def test_a_pair_is_one_box_of_a_forward_and_a_backward_in_proportion_to_what_each_lasts_alone() -> None:
    # Alone F lasts 2 and B 1 + 3; the pair gains and lasts 3, so its forward takes a third of 3.
    ax = gantt(timeline("dualpipe", 2, 8, UniformCosts(2, 1, 3, overlapped=3)))
    found = looks(ax)
    pairs = found["pairs"].boxes
    assert pairs.width_s() == pytest.approx(np.full(len(pairs.row), 3))
    assert border(found["pairs"]) == to_rgb(PAIR_BORDER)
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


def test_a_pair_is_cut_in_half_where_one_of_its_ops_never_runs_alone() -> None:
    order = "3F0,(0F0;3B0)OVERLAP_F_B,0B0\n2F0,1F0,1B0,2B0\n"
    ax = gantt(play(lower(parse_order(order, opposed(2)), UNIT)))
    forward, backward = looks(ax)["F in pairs, shade 0"].boxes, looks(ax)["B in pairs, shade 1"].boxes
    assert forward.width_s() == backward.width_s() == [1.5]
    assert forward.end_s == backward.begin_s


def test_ops_that_take_no_time_are_not_drawn() -> None:
    ax = gantt(timeline("zb-h1", 2, 4, UniformCosts(1, 1, 0)))
    assert {label[0] for label in looks(ax)} == {"F", "I"}
    nothing = gantt(timeline("zb-h1", 2, 4, UniformCosts(0, 0, 0)))
    drawn(nothing)
    assert looks(nothing) == {}


# Colours and borders


def test_kinds_have_the_colours_that_the_field_knows_and_borders_of_their_own(figure5: Axes) -> None:
    def hue(colour: str) -> float:
        return 360 * colorsys.rgb_to_hsv(*to_rgb(colour))[0]

    hues = {kind: {hue(one.light), hue(one.dark)} for kind, one in KIND_STYLES.items()}
    assert all(20 <= one <= 45 for one in hues[F])  # orange
    assert all(90 <= one <= 150 for one in hues[B])  # green
    assert all(150 < one <= 185 for one in hues[I])  # bluish green
    assert all(210 <= one <= 240 for one in hues[W])  # blue
    assert len({one.border for one in KIND_STYLES.values()} | {PAIR_BORDER}) == 5
    for label, one in cells(figure5).items():
        kind, shade = "FBIW".index(label[0]), int(label[-1])
        assert face(one) == to_rgb(fill(kind, shade, 2))
        if "pairs" not in label:
            assert border(one) == to_rgb(KIND_STYLES[kind].border)


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
    name: str, ranks: int, options: dict[str, int], shades: int
) -> None:
    ax = gantt(timeline(name, ranks, 8, UNIT, **options))
    forward = {label[-1]: face(one) for label, one in cells(ax).items() if label[0] == "F"}
    assert sorted(forward) == [str(shade) for shade in range(shades)]
    assert len(set(forward.values())) == shades


def test_dualpipe_s_first_pipe_is_light_and_enters_on_rank_0_and_its_second_dark_on_the_last(figure5: Axes) -> None:
    first, second = looks(figure5)["F shade 0"].boxes, looks(figure5)["F shade 1"].boxes
    assert first.row[np.argmin(first.begin_s)] == 0
    assert second.row[np.argmin(second.begin_s)] == 7
    assert luminance(fill(F, 0, 2)) > luminance(fill(F, 1, 2))


# Machado, Oliveira & Fernandes 2009, "A Physiologically-based Model for Simulation of Color Vision Deficiency",
# severity 1.0: matrices on linear RGB.
SEEN_BY = {
    "everybody": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}


def linear(colour: str) -> FloatArray:
    channels = np.array(to_rgb(colour))
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def lab(rgb: FloatArray) -> FloatArray:
    """CIE L*a*b* under D65 of a colour in linear RGB: distances are about as large as they look."""
    xyz = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]]) @ rgb.clip(0, 1)
    x, y, z = np.cbrt(xyz / [0.9505, 1.0, 1.0888])  # all of the palette is bright enough for the cube root alone
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eyes", SEEN_BY)
@pytest.mark.parametrize("shades", [1, 2, 4])
def test_kinds_and_shades_stay_apart_for_the_colour_blind(eyes: str, shades: int) -> None:
    # 2.3 is a just noticeable difference (Mahy et al. 1994): kinds keep six of them apart, anything from idle five,
    # and shades two.
    seen = {
        (kind, shade): lab(SEEN_BY[eyes] @ linear(fill(kind, shade, shades)))
        for kind in KIND_STYLES
        for shade in range(shades)
    }
    grounds = [lab(SEEN_BY[eyes] @ linear(theme.ground)) for theme in THEMES.values()]
    for (one, colour), (other, another) in combinations(seen.items(), 2):
        distance = float(np.linalg.norm(colour - another))
        assert distance > 2.3 * (6 if one[0] != other[0] else 2), (one, other)
    for ground in grounds:
        assert min(float(np.linalg.norm(colour - ground)) for colour in seen.values()) > 2.3 * 5


@pytest.mark.parametrize("shades", [1, 2, 4])
def test_numbers_contrast_with_their_cells(shades: int) -> None:
    # WCAG 2 asks 3:1 of large text and 4.5:1 of any text.
    for ground in (fill(kind, shade, shades) for kind in KIND_STYLES for shade in range(shades)):
        dark, light = sorted((luminance(ground), luminance(ink_on(ground))))
        assert (light + 0.05) / (dark + 0.05) >= 4.5


# Numbers


def test_figure_5_numbers_the_micro_batches_of_the_first_pipe_only(figure5: Axes) -> None:
    found = shown(figure5)
    # ten forwards and ten backwards on each of 8 ranks; of 40 + 4 backwards in two parts the first pipe has half
    assert len(found) == 8 * 20 + (7 + 6 + 5 + 4 + 4 + 5 + 6 + 7) // 2
    assert {text for _, _, text in found} == {str(number) for number in range(10)}
    on_rank_0 = [text for row, _, text in sorted(found) if row == 0]
    # Seven forwards ahead and three in pairs; backwards 0-5 whole, 6-9 in two parts.
    assert " ".join(on_rank_0) == "0 1 2 3 4 5 6 7 0 8 1 9 2 3 4 5 6 6 7 7 8 8 9 9"


def test_numbers_can_be_asked_for_all_pipes_or_for_none() -> None:
    played = timeline("dualpipe", 2, 4)
    auto, every, none = (gantt(played, numbers=which) for which in ("auto", "all", "none"))
    assert len(shown(every)) == 2 * len(shown(auto))
    assert shown(none) == []


def test_numbers_vanish_where_cells_are_crowded_and_come_back_on_zooming_in() -> None:
    ax = gantt(timeline("1f1b", 8, 256))
    assert shown(ax) == []
    ax.set_xlim(0, 30)
    found = shown(ax)
    assert (0, 0.5, "0") in found
    assert all(0 <= middle <= 30 for _, middle, _ in found)


def test_numbers_never_reach_out_of_their_cells() -> None:
    ax = gantt(timeline("zb-h1", 4, 120, UniformCosts(3, 2, 1)))
    ax.set_xlim(300, 400)
    renderer = drawn(ax)
    found = numbers(ax)
    at, size_pt = found.shown(renderer)
    assert len(at) > 0
    for one in at.tolist():
        text = Text(text=text_of(found, one), size=size_pt)
        text.set_figure(ax.figure)
        room = ax.transData.transform([[found.boxes.begin_s[one], 0], [found.boxes.end_s[one], 1]])
        extent = text.get_window_extent(renderer)
        assert extent.width < room[1, 0] - room[0, 0]
        assert extent.height < abs(room[1, 1] - room[0, 1])


def test_an_unknown_choice_of_numbers_is_refused() -> None:
    with pytest.raises(UserError, match=r"^numbers: 'al' is not one of auto, all, none; did you mean 'all'\?$"):
        gantt(timeline("gpipe", 1, 1), numbers="al")  # type: ignore[arg-type]


# Axes, title, legend


def test_rank_0_is_on_top_and_time_runs_to_the_right(figure5: Axes) -> None:
    assert figure5.get_ylim() == (7.5, -0.5)
    assert tick_labels(figure5, "y") == [f"rank {rank}" for rank in range(8)]
    assert figure5.get_xlabel() == "time (s)"
    assert tick_labels(figure5, "x")[0] == "0"


def test_the_title_gives_sizes_bubble_and_makespan(figure5: Axes) -> None:
    # 6 idle of 66
    assert figure5.get_title(loc="left") == "dualpipe: 8 ranks × 20 micro-batches, bubble 9.1 %, 66 s"
    alone = gantt(timeline("gpipe", 1, 1))
    assert alone.get_title(loc="left") == "gpipe: 1 rank × 1 micro-batch, bubble 0.0 %, 3 s"
    assert gantt(timeline("gpipe", 1, 1), title="mine").get_title(loc="left") == "mine"


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


def test_the_time_axis_counts_in_the_unit_that_it_names() -> None:
    ax = gantt(timeline("1f1b", 2, 4, UniformCosts(0.001, 0.001, 0.001)))
    assert ax.get_xlabel() == "time (ms)"
    assert ax.get_xlim()[1] == pytest.approx(0.015)  # (P-1)(F+B) + 4·(F+B)
    labels = dict(zip(np.round(ax.get_xticks(), 9).tolist(), tick_labels(ax, "x"), strict=True))
    assert (labels[0.002], labels[0.014]) == ("2", "14")


def test_where_rows_are_lower_than_their_labels_only_some_are_labelled() -> None:
    ax = gantt(timeline("gpipe", 128, 4))
    labels = tick_labels(ax, "y")
    assert labels[:2] != ["rank 0", "rank 1"]
    assert labels[0] == "rank 0"
    extents = [tick.get_window_extent() for tick in ax.get_yticklabels()]
    assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(extents))


def test_the_legend_names_what_is_drawn_and_nothing_else(figure5: Axes) -> None:
    def entries(ax: Axes) -> list[str]:
        found = ax.get_legend()
        assert found is not None
        return [text.get_text() for text in found.get_texts()]

    assert entries(figure5) == [
        "forward",
        "backward",
        "backward for input",
        "backward for weights",
        "overlapped forward & backward",
        "idle",
        "pipe 0 (numbered), pipe 1",
    ]
    assert entries(gantt(timeline("1f1b", 2, 4), transfers=True)) == [
        "forward",
        "backward",
        "idle",
        "activations sent",
        "gradients sent",
    ]
    interleaved = timeline("interleaved-1f1b", 2, 4, stages_per_rank=3)
    assert entries(gantt(interleaved))[-1] == "a rank's 3 stages, shallowest first"


@pytest.mark.parametrize(("ranks", "micro_batches"), [(2, 4), (4, 8), (8, 20)])
def test_the_legend_lies_below_the_chart_and_inside_the_figure(ranks: int, micro_batches: int) -> None:
    ax = gantt(timeline("dualpipe", ranks, micro_batches), transfers=True)
    renderer = drawn(ax)
    found = ax.get_legend()
    assert found is not None
    legend, figure = found.get_window_extent(renderer), ax.figure.bbox
    assert legend.y1 < ax.xaxis.label.get_window_extent(renderer).y0
    assert figure.x0 <= legend.x0
    assert legend.x1 <= figure.x1
    assert figure.y0 <= legend.y0
    assert ax.bbox.width > 0.8 * figure.width


# Transfers


def transfer_lines(ax: Axes) -> dict[str, list[Any]]:
    """(time, row) of both ends of each transfer, by what it carries."""
    return {
        str(one.get_label()): [segment.tolist() for segment in one.get_segments()]
        for one in ax.collections
        if isinstance(one, LineCollection) and "transfers" in str(one.get_label())
    }


def test_transfers_are_lines_from_the_sender_s_end_to_the_receiver_s_start() -> None:
    ax = gantt(timeline("1f1b", 2, 1, UniformCosts(1, 1, 1, transfer_s=0.5)), transfers=True)
    # 0F0 0-1, sent 1-1.5, 1F0 1.5-2.5, 1B0 2.5-4.5, sent 4.5-5; rows are 0.62 high
    assert transfer_lines(ax) == {
        "transfers after F": [[[1, pytest.approx(0.31)], [1.5, pytest.approx(0.69)]]],
        "transfers after B": [[[4.5, pytest.approx(0.69)], [5, pytest.approx(0.31)]]],
    }


def test_every_boundary_between_ranks_is_crossed_once_each_way_by_every_micro_batch() -> None:
    ax = gantt(timeline("dualpipe", 4, 8), transfers=True)
    assert {label: len(lines) for label, lines in transfer_lines(ax).items()} == {
        "transfers after F": 3 * 8,
        "transfers after B": 3 * 8,
    }
    assert transfer_lines(gantt(timeline("dualpipe", 4, 8))) == {}


# Crowded charts


def test_a_large_chart_is_few_artists_without_borders() -> None:
    ax = gantt(timeline("dualpipe", 64, 512))
    drawn(ax)
    assert len(ax.get_children()) < 40
    assert shown(ax) == []
    assert sum(len(one.boxes.row) for one in cells(ax).values()) == 64 * 2 * 512 + sum(
        2 * (63 - min(rank, 63 - rank)) // 2 for rank in range(64)
    )


def test_borders_thin_out_with_their_cells() -> None:
    ax = gantt(timeline("1f1b", 4, 8))
    forward = looks(ax)["F shade 0"]
    drawn(ax)
    assert border_pt(forward) == 0.6
    ax.set_xlim(0, 150)
    drawn(ax)
    assert 0 < border_pt(forward) < 0.6
    ax.set_xlim(0, 230)
    drawn(ax)
    assert border_pt(forward) == 0


def test_pixels_of_a_crowded_chart_have_the_mean_colour_of_what_they_cover() -> None:
    # GPipe on one rank: all forwards, then all backwards, 1 and 2 each, of 6000 cells on some 1300 pixels.
    ax = gantt(timeline("gpipe", 1, 3000), title="")
    seen = pixels(ax)
    left, right = ax.bbox.x0, ax.bbox.x1
    middle = round(ax.figure.bbox.height - (ax.bbox.y0 + ax.bbox.y1) / 2)
    third = round(left + (right - left) / 3)
    line = seen[middle]
    assert (line[round(left) + 2 : third - 2] == np.round(255 * np.array(to_rgb(fill(F, 0, 1))))).all()
    assert (line[third + 2 : round(right) - 2] == np.round(255 * np.array(to_rgb(fill(B, 0, 1))))).all()

    mixed = gantt(timeline("1f1b", 1, 3000), title="")
    seen = pixels(mixed)
    mean = (np.array(to_rgb(fill(F, 0, 1))) + 2 * np.array(to_rgb(fill(B, 0, 1)))) / 3
    line = seen[middle, round(left) + 2 : round(right) - 2]
    assert np.abs(line.mean(axis=0) - 255 * mean).max() < 1
    assert line.std(axis=0).max() < 25


def test_a_crowded_chart_has_rank_0_on_top_too() -> None:
    # Rank 0's forwards take 1 each and rank 1's 3, so while rank 1 is busy with them rank 0 has long been done.
    ax = gantt(timeline("gpipe", 2, 2000, UniformCosts((1.0, 3.0), 1, 1)), title="")
    seen = pixels(ax)
    upper, lower = (ax.transData.transform((5000, rank)) for rank in (0, 1))
    assert upper[1] > lower[1]

    def colour(place: FloatArray) -> list[int]:
        found: list[int] = seen[len(seen) - round(place[1]), round(place[0])].tolist()
        return found

    assert colour(upper) == [255, 255, 255]
    assert colour(lower) == np.round(255 * np.array(to_rgb(fill(F, 0, 1)))).tolist()


# Comparisons


def test_a_comparison_stacks_charts_on_one_time_axis() -> None:
    played = {name: timeline(name, 4, 8) for name in ("chimera", "1f1b", "dualpipe")}
    figure = compare_gantt(played, title="Which is fastest?")
    assert [ax.get_title(loc="left").split(":")[0] for ax in figure.axes] == ["chimera", "1f1b", "dualpipe"]
    assert {ax.get_xlim() for ax in figure.axes} == {(0, max(one.makespan_s for one in played.values()))}
    assert [ax.get_xlabel() for ax in figure.axes] == ["", "", "time (s)"]
    drawn(figure)
    assert len({(round(ax.bbox.x0), round(ax.bbox.x1)) for ax in figure.axes}) == 1
    assert sum(ax.get_legend() is not None for ax in figure.axes) == 1
    assert figure.get_suptitle() == "Which is fastest?"


def test_rows_of_a_comparison_are_equally_high_however_many_there_are() -> None:
    figure = compare_gantt({"two": timeline("1f1b", 2, 8), "eight": timeline("1f1b", 8, 8)})
    drawn(figure)
    two, eight = (ax.bbox.height for ax in figure.axes)
    assert eight / two == pytest.approx(4, rel=0.02)


def test_a_comparison_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"^there is no timeline to compare; give at least one$"):
        compare_gantt({})


# Where charts go


def test_a_chart_is_drawn_into_the_axes_it_is_given() -> None:
    figure = Figure()
    upper, lower = figure.subplots(2)
    assert gantt(timeline("1f1b", 2, 4), upper) is upper
    assert len(figure.axes) == 2
    assert not lower.collections


def test_a_notebook_shows_charts_and_comparisons_by_themselves() -> None:
    played = timeline("1f1b", 2, 4)
    charts: list[Any] = [gantt(played), compare_gantt({"1f1b": played})]
    for chart in charts:
        assert chart._repr_png_().startswith(b"\x89PNG")


def test_drawing_and_saving_leave_pyplot_alone(tmp_path: Path) -> None:
    code = f"""
import sys
from dualpipe_sim import build
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine.discrete_event import play
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.pictures.plot import gantt, save
save(gantt(play(lower(build("1f1b", 2, 2), UniformCosts(1, 1, 1)))).figure, {str(tmp_path / "chart.png")!r})
sys.exit("matplotlib.pyplot" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "magic"), [("chart.png", b"\x89PNG\r\n"), ("chart.SVG", b"<?xml"), ("chart.pdf", b"%PDF-")]
)
def test_a_chart_is_saved_in_the_format_of_its_name_and_always_the_same(
    figure5: Axes, tmp_path: Path, name: str, magic: bytes
) -> None:
    figure = figure5.figure
    save(figure, tmp_path / name)
    content = (tmp_path / name).read_bytes()
    assert content.startswith(magic)
    save(figure, str(tmp_path / name))
    assert (tmp_path / name).read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("chart.jpg", "'.jpg' is no format of a chart; use .png, .svg or .pdf"),
        ("chart", "the name does not say its format; use .png, .svg or .pdf"),
        ("no-such-folder/chart.png", "cannot be written: No such file or directory"),
    ],
)
def test_what_cannot_be_saved_is_refused_in_one_sentence(figure5: Axes, tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(UserError) as refusal:
        save(figure5.figure, tmp_path / name)
    assert str(refusal.value) == f"{tmp_path / name}: {reason}"
    assert list(tmp_path.iterdir()) == []
