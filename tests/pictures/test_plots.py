"""Charts beside the plain Gantt: lanes, zoom, themes, memory, idle time, the inside of a pair, bubbles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from dualpipe_sim import build
from dualpipe_sim.analysis import metrics, occupancy
from dualpipe_sim.analysis.alltoall import alltoall_pieces, alltoall_time
from dualpipe_sim.analysis.occupancy import Occupancy
from dualpipe_sim.arrays import FloatArray
from dualpipe_sim.costs.phases import Costs, Phase
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine.longest_path import play
from dualpipe_sim.errors import UserError
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.lanes import Lane
from dualpipe_sim.order.ops import B, F, I, Kind, Pair, TaskShape, W
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.pictures.palette import CAUSE_STYLES, KIND_STYLES, THEMES, luminance
from dualpipe_sim.pictures.plot import (
    activations_over_time,
    bubble_against_activations,
    compare_gantt,
    gantt,
    idle_by_cause,
    memory_over_time,
    pair_figure,
    save,
)
from dualpipe_sim.pictures.plot.artists import CellLabels, CellPolygons

BASELINES = Path(__file__).parent / "baselines"
UNIT = UniformCosts(1, 1, 1)


class _TwoLanes(NamedTuple):
    """One MoE layer a stage, in round numbers. Alone, an op takes its phases one after the other.

    In a pair::

        compute     attn F 2 .  mlp I 4   mlp W 1  mlp F 3     ends after 0-2, 3-7, 7-8, 8-11
        alltoall    combine I 3, dispatch F 2                  0-3, 3-5

    so that of its five seconds of all-to-all the third second is exposed, and it lasts 11.
    """

    transfer_s: float = 0.0
    transfer_bytes: float = 0.0

    def on(self, placement: Placement) -> _TwoLanes:  # noqa: ARG002
        return self

    def phases(self, task: TaskShape) -> tuple[Phase, ...]:
        if len(task) == 2:
            return (
                Phase(Lane.ALLTOALL, 3, I, "combine", 5, half=1),
                Phase(Lane.COMPUTE, 2, F, "attn", 2),
                Phase(Lane.ALLTOALL, 2, F, "dispatch", 2, after=(1,)),
                Phase(Lane.COMPUTE, 4, I, "mlp", 5, half=1, after=(0,)),
                Phase(Lane.COMPUTE, 1, W, "mlp", 5, half=1),
                Phase(Lane.COMPUTE, 3, F, "mlp", 2, after=(2,)),
            )
        ((kind, _),) = task
        combine, mlp = Phase(Lane.ALLTOALL, 3, I, "combine", 5), Phase(Lane.COMPUTE, 4, I, "mlp", 5, after=(0,))
        return {
            F: (
                Phase(Lane.COMPUTE, 2, F, "attn", 2),
                Phase(Lane.ALLTOALL, 2, F, "dispatch", 2, after=(0,)),
                Phase(Lane.COMPUTE, 3, F, "mlp", 2, after=(1,)),
            ),
            B: (combine, mlp, Phase(Lane.COMPUTE, 1, W, "mlp", 5)),
            I: (combine, mlp),
            W: (Phase(Lane.COMPUTE, 1, W, "mlp", 5),),
        }[Kind(kind)]


EXPOSED_ALONE_S: dict[int, float] = {F: 2, B: 3, I: 3, W: 0}
EXPOSED_IN_A_PAIR_S = 1


def timeline(name: str, ranks: int, micro_batches: int, costs: Costs = UNIT, **options: int) -> Timeline:
    return play(lower(build(name, ranks, micro_batches, **options), costs))


@pytest.fixture(scope="module")
def layered() -> Timeline:
    return timeline("dualpipe", 2, 8, _TwoLanes())


def drawn(chart: Axes | Figure) -> RendererBase:
    figure: Any = chart.figure
    figure.set_dpi(100)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    renderer: RendererBase = canvas.get_renderer()
    return renderer


def groups(ax: Axes) -> dict[str, CellPolygons]:
    return {str(one.get_label()): one for one in ax.collections if isinstance(one, CellPolygons)}


def seconds_by_row(ax: Axes, label: str) -> dict[int, float]:
    """How long the boxes of some groups last, on each row."""
    boxes = [one.boxes for name, one in groups(ax).items() if name.startswith(label)]
    rows = {row for one in boxes for row in one.row.tolist()}
    return {row: float(sum(one.width_s()[one.row == row].sum() for one in boxes)) for row in sorted(rows)}


def shown_texts(ax: Axes) -> list[str]:
    """Everything that cells say where they are drawn now."""
    renderer = drawn(ax)
    texts = []
    for labels in ax.get_children():
        if isinstance(labels, CellLabels):
            at, _ = labels.shown(renderer)
            texts += [labels.labels.texts[labels.labels.text[one]] for one in at.tolist()]
    return texts


def legend_of(ax: Axes) -> list[str]:
    found = ax.get_legend()
    return [] if found is None else [text.get_text() for text in found.get_texts()]


def face(one: Any) -> str:  # noqa: ANN401
    return to_hex(one.get_facecolor()[0])


# Hidden and exposed all-to-all


def test_what_is_exposed_of_each_op_and_pair_is_as_worked_out_by_hand(layered: Timeline) -> None:
    schedule, pieces = layered.graph.schedule, alltoall_pieces(layered)
    seconds = np.bincount(
        layered.graph.task[pieces.node],
        weights=np.where(pieces.exposed, pieces.end_s - pieces.begin_s, 0.0),
        minlength=len(schedule.first_op),
    )
    for task, found in enumerate(seconds.tolist()):
        row = int(schedule.first_op[task])
        alone = schedule.partner[row] < 0
        assert found == (EXPOSED_ALONE_S[int(schedule.kind[row])] if alone else EXPOSED_IN_A_PAIR_S)


def test_pieces_are_all_of_the_all_to_all_and_exposed_as_training_counts_it(layered: Timeline) -> None:
    graph, pieces = layered.graph, alltoall_pieces(layered)
    alltoall = np.flatnonzero(graph.on(Lane.ALLTOALL))
    whole = (layered.end_s - layered.start_s)[alltoall]
    assert np.bincount(pieces.node, weights=pieces.end_s - pieces.begin_s)[alltoall] == pytest.approx(whole)
    rank = layered.rank[graph.task[pieces.node]]
    exposed = np.bincount(rank, weights=np.where(pieces.exposed, pieces.end_s - pieces.begin_s, 0.0))
    assert exposed == pytest.approx(alltoall_time(layered).exposed_s)


def test_lanes_show_below_the_ops_where_there_is_all_to_all(layered: Timeline) -> None:
    ax = gantt(layered)
    exposed = alltoall_time(layered).exposed_s.tolist()
    assert seconds_by_row(ax, "exposed all-to-all") == pytest.approx(dict(enumerate(exposed)))
    # every op computes 5 s, a pair 10 s, and 4 pairs of ranks' micro-batches pass each rank forward and backward
    assert seconds_by_row(ax, "compute ") == pytest.approx({0: 8 * 10, 1: 8 * 10})
    assert [tick.get_text() for tick in ax.get_yticklabels(minor=True)] == ["ops", "compute", "all-to-all"] * 2
    assert {"all-to-all behind compute", "exposed all-to-all"} <= set(legend_of(ax))
    assert "exposed all-to-all" not in groups(gantt(layered, lanes=False))
    assert "exposed all-to-all" not in groups(gantt(timeline("dualpipe", 2, 8)))


def test_bands_of_a_row_do_not_overlap(layered: Timeline) -> None:
    for transfers in (False, True):
        found = groups(gantt(layered, transfers=transfers))
        ops, compute, alltoall = (
            np.concatenate([path.vertices for path in found[name].get_paths()])[:, 1] % 1
            for name in ("F shade 0", "compute F shade 0", "hidden all-to-all")
        )
        assert (ops.max() - 0.5) % 1 <= (compute - 0.5).min() % 1
        assert (compute - 0.5).max() % 1 <= (alltoall - 0.5).min() % 1


def test_wide_phases_are_named_and_narrow_ones_not(layered: Timeline) -> None:
    near = shown_texts(gantt(layered, to_s=12))
    assert {"attn", "mlp", "dispatch"} <= set(near)
    far = gantt(layered)
    far.set_xlim(0, 20 * layered.makespan_s)
    assert not {"attn", "mlp", "dispatch"} & set(shown_texts(far))


# Machado, Oliveira & Fernandes 2009, severity 1.0, on linear RGB, as for the kinds' colours.
SEEN_BY = {
    "everybody": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}


def lab(colour: str, eyes: str) -> FloatArray:
    """CIE L*a*b* under D65 of a colour as some eyes see it."""
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    xyz = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]])
    x, y, z = np.cbrt(np.maximum(xyz @ (SEEN_BY[eyes] @ linear).clip(0, 1) / [0.9505, 1.0, 1.0888], 0.009))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eyes", SEEN_BY)
@pytest.mark.parametrize("theme", THEMES)
def test_hidden_exposed_and_idle_stay_apart_for_all_eyes_on_both_grounds(eyes: str, theme: str) -> None:
    # Ten just noticeable differences (2.3, Mahy et al. 1994) between hidden and exposed, five from the ground.
    look = THEMES[theme]  # type: ignore[index]
    hidden, exposed, ground = (lab(colour, eyes) for colour in (look.hidden, look.exposed, look.ground))
    assert np.linalg.norm(hidden - exposed) > 2.3 * 10
    assert min(np.linalg.norm(hidden - ground), np.linalg.norm(exposed - ground)) > 2.3 * 5


@pytest.mark.parametrize("eyes", SEEN_BY)
def test_causes_of_idle_time_stay_apart_for_all_eyes(eyes: str) -> None:
    seen = [lab(one.fill, eyes) for one in CAUSE_STYLES.values()]
    nearest = min(np.linalg.norm(a - b) for place, a in enumerate(seen) for b in seen[:place])
    assert nearest > 2.3 * 5


# Zoom


def test_a_zoom_shows_the_ranks_and_the_time_asked_for() -> None:
    ax = gantt(timeline("1f1b", 4, 8), ranks=[1, 3], from_s=2, to_s=9)
    assert ax.get_xlim() == (2, 9)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["rank 1", "rank 3"]
    # rank 1: 1F0 1-2, 1F1 2-3, 1F2 3-4, 1B0 8-10; rank 3: 3F0 3-4, 3B0 4-6, 3F1 6-7, 3B1 7-9
    assert seconds_by_row(ax, "F") == {0: 2, 1: 2}
    assert seconds_by_row(ax, "B") == {0: 2, 1: 4}


def test_other_micro_batches_are_grey_and_the_chart_as_long_as_those_asked_for() -> None:
    ax = gantt(timeline("1f1b", 2, 4), micro_batches=[1], transfers=True)
    # rank 0: 0F0 0-1, 0F1 1-2, 0B0 4-6, 0F2 6-7, 0B1 7-9; rank 1: 1F0 1-2, 1B0 2-4, 1F1 4-5, 1B1 5-7
    assert ax.get_xlim() == (1, 9)
    assert seconds_by_row(ax, "F") == {0: 1, 1: 1}
    assert seconds_by_row(ax, "B") == {0: 2, 1: 2}
    assert face(groups(ax)["other micro-batches"]) == THEMES["light"].faded
    assert "other micro-batches" in legend_of(ax)
    lines = [one for one in ax.collections if isinstance(one, LineCollection) and "transfers" in str(one.get_label())]
    assert [len(one.get_segments()) for one in lines] == [1, 1]
    assert set(shown_texts(ax)) == {"1"}


def test_other_micro_batches_are_grey_on_the_lanes_too(layered: Timeline) -> None:
    ax = gantt(layered, micro_batches=[0], from_s=0, to_s=layered.makespan_s)
    whole = sum(seconds_by_row(gantt(layered), "exposed all-to-all").values())
    asked = sum(seconds_by_row(ax, "exposed all-to-all").values())
    assert 0 < asked < whole
    assert sum(seconds_by_row(ax, "other all-to-all").values()) > 0


def test_a_pair_keeps_its_border_where_either_half_was_asked_for() -> None:
    played = timeline("dualpipe", 2, 8)
    schedule = played.graph.schedule
    pairs = {str(task) for row in schedule.order for task in row if isinstance(task, Pair)}
    with_0 = [pair for pair in pairs if "F0;" in pair or pair.endswith("B0)OVERLAP_F_B")]
    ax = gantt(played, micro_batches=[0], from_s=0, to_s=played.makespan_s)
    assert len(groups(ax)["pairs"].boxes.row) == len(with_0) > 0


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
def test_a_zoom_at_what_there_is_not_is_refused(zoom: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError) as refusal:
        gantt(timeline("1f1b", 4, 8), **zoom)  # lasts (8 + 3)·3
    assert str(refusal.value) == reason


def test_a_comparison_zooms_all_its_charts_alike() -> None:
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


# Themes


CHARTS: dict[str, Callable[[Timeline, Axes | None, Any], Axes]] = {
    "gantt": lambda played, ax, theme: gantt(played, ax, transfers=True, theme=theme),
    "activations_over_time": lambda played, ax, theme: activations_over_time(played, ax, theme=theme),
    "idle_by_cause": lambda played, ax, theme: idle_by_cause(played, ax, theme=theme),
    "pair_figure": lambda played, ax, theme: pair_figure(played, None, ax, theme=theme),
    "bubble_against_activations": lambda played, ax, theme: bubble_against_activations([run(played)], ax, theme=theme),
}


class _Run(NamedTuple):
    label: str
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
def test_every_chart_takes_an_axes_and_returns_it(chart: str, layered: Timeline) -> None:
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


# Memory


def test_activations_of_1f1b_fall_from_rank_to_rank_and_of_gpipe_they_do_not() -> None:
    # Rank r of 1F1B holds P - r micro-batches at most, of GPipe all of them (Narayanan et al. 2021, section 2.2).
    for name, peaks in (("1f1b", ["4", "3", "2", "1"]), ("gpipe", ["8", "8", "8", "8"])):
        ax = activations_over_time(timeline(name, 4, 8))
        assert [text.get_text() for text in ax.texts] == [*peaks, "peak"]


def test_activations_are_steps_from_the_start_of_f_to_the_end_of_b() -> None:
    # 0F0 0-1, 0F1 1-2, 0B0 2-4, 0B1 4-6 (1F1B on one rank is F B F B; GPipe is F F B B)
    (held,) = occupancy.activations_over_time(timeline("gpipe", 1, 2))
    at = {time: float(amount) for time, amount in zip(held.at_s.tolist(), held.total.tolist(), strict=True)}
    assert at == {0.0: 1, 1.0: 2, 2.0: 2, 4.0: 1, 6.0: 0}


@pytest.mark.parametrize("name", ["1f1b", "dualpipe", "zb-h1", "interleaved-1f1b"])
def test_the_most_that_is_held_is_the_peak_that_metrics_count(name: str) -> None:
    played = timeline(name, 4, 8, UniformCosts(2, 3, 1, transfer_s=0.5))
    peaks = [one.total.max() for one in occupancy.activations_over_time(played)]
    assert peaks == pytest.approx(metrics.peak_activations_by_rank(played))
    assert [one.total[-1] for one in occupancy.activations_over_time(played)] == [0] * 4


def two_kinds(highest: float) -> list[Occupancy]:
    at_s = np.array([0.0, 1.0, 3.0])
    return [Occupancy(at_s, {"weights": np.full(3, 30e9), "activations": np.array([0.0, highest - 30e9, 0.0])})]


def test_bytes_stack_by_kind_to_one_scale_below_the_limit() -> None:
    ax = memory_over_time(two_kinds(60e9), 4.0, limit=80e9, title="one rank")
    areas = {str(one.get_label()): one.get_paths()[0].vertices for one in ax.collections if type(one) is PolyCollection}
    # The limit of 80 GB, which is the most there is, stands 0.9 of the row above its floor at 0.5.
    heights = {kind: (0.5 - np.asarray(corners)[:, 1]) / 0.9 * 80e9 for kind, corners in areas.items()}
    assert heights["weights"].max() == pytest.approx(30e9)
    assert heights["activations"].max() == pytest.approx(60e9)
    (limit,) = (one for one in ax.collections if one.get_label() == "limit")
    assert limit.get_segments()[0][:, 1] == pytest.approx([-0.4, -0.4])  # type: ignore[attr-defined]
    assert legend_of(ax) == ["weights", "activations", "limit, 80 GB"]
    assert ax.texts[0].get_text() == "60 GB"


def test_a_rank_over_the_limit_is_said_in_its_colour() -> None:
    below, above = (memory_over_time(two_kinds(most), 4.0, limit=80e9).texts[0] for most in (60e9, 90e9))
    assert (below.get_color(), below.get_fontweight()) == (THEMES["light"].ink, "normal")
    assert (above.get_color(), above.get_fontweight()) == (THEMES["light"].limit, "bold")


def test_memory_of_no_rank_is_refused() -> None:
    with pytest.raises(UserError, match=r"^there is no rank whose memory to draw; give at least one$"):
        memory_over_time([], 1.0)


# Idle time


def test_idle_time_of_1f1b_is_stacked_by_cause() -> None:
    # Unit F and 2 of B without transfers: warm-up r, drain 2r, and the rest of (P-1)·3 waiting.
    ax = idle_by_cause(timeline("1f1b", 4, 8))
    bars: Any = {container.get_label(): container for container in ax.containers}
    widths = {cause: [bar.get_width() for bar in found] for cause, found in bars.items()}
    assert widths == {"warm_up": [0, 1, 2, 3], "drain": [0, 2, 4, 6], "waiting": [9, 6, 3, 0]}
    lefts = [bar.get_x() for bar in bars["waiting"]]
    assert lefts == [0, 3, 6, 9]
    assert [text.get_text() for text in ax.texts] == [f"{100 * 9 / 33:.1f} %"] * 4
    assert legend_of(ax) == ["warm-up", "drain", "waiting for an op upstream"]


def test_a_run_without_idle_time_has_no_bars() -> None:
    ax = idle_by_cause(timeline("gpipe", 1, 4))
    drawn(ax)
    assert not ax.containers
    assert legend_of(ax) == []


# Inside a pair


def first_pair(played: Timeline) -> Pair:
    return next(task for row in played.graph.schedule.order for task in row if isinstance(task, Pair))


def test_a_pair_shows_its_two_lanes_from_its_start(layered: Timeline) -> None:
    pair = first_pair(layered)
    ax = pair_figure(layered, pair)
    boxes = {name: one.boxes for name, one in groups(ax).items()}
    assert boxes["F"].row.tolist() == [0, 1, 0]
    assert list(zip(boxes["F"].begin_s, boxes["F"].end_s, strict=True)) == [(0, 2), (3, 5), (8, 11)]
    assert list(zip(boxes["I"].begin_s, boxes["I"].end_s, strict=True)) == [(0, 3), (3, 7)]
    assert list(zip(boxes["W"].begin_s, boxes["W"].end_s, strict=True)) == [(7, 8)]
    assert ax.get_xlim() == (0, 11)
    assert ax.get_title(loc="left") == f"{pair} on rank 0: 11 s, compute 10 s, all-to-all 5 s, 1 s of it exposed"
    assert {"attn\nF 2", "mlp\nI 5", "mlp\nW 5", "dispatch\nF 2", "combine\nI 5"} <= set(shown_texts(ax))
    assert face(groups(ax)["W"]) == KIND_STYLES[W].light


def test_barriers_join_the_lanes_and_are_thick_where_one_waits(layered: Timeline) -> None:
    ax = pair_figure(layered, str(first_pair(layered)))
    (barriers,) = (one for one in ax.collections if one.get_label() == "barriers")
    ends = [[round(float(time), 9) for time, _ in line] for line in barriers.get_segments()]  # type: ignore[attr-defined]
    # dispatch F after attn F (the lane is busy with combine I till 3), mlp I after combine I (compute stands still
    # from 2 to 3), mlp F after dispatch F (compute is busy till 8)
    assert ends == [[2, 3], [3, 3], [5, 8]]
    thick, thin = 2.0, 0.7
    assert np.ravel(np.asarray(barriers.get_linewidth())).tolist() == [thin, thick, thin]
    assert "barrier: the lane waits" in legend_of(ax)


def test_an_op_alone_can_be_looked_into_too(layered: Timeline) -> None:
    ax = pair_figure(layered, "0F0")
    assert ax.get_title(loc="left") == "0F0 on rank 0: 7 s, compute 5 s, all-to-all 2 s, 2 s of it exposed"


def test_outputs_under_way_have_a_row_of_their_own() -> None:
    played = timeline("dualpipe", 4, 8, _TwoLanes(transfer_s=0.5))
    ax = pair_figure(played)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["compute", "all-to-all", "transfers"]
    assert groups(ax)["transfers"].boxes.width_s() == pytest.approx([0.5, 0.5])
    assert "sent to another rank" in legend_of(ax)


@pytest.mark.parametrize(
    ("name", "task", "reason"),
    [
        ("dualpipe", "9F9", "pair: 9F9 is no task of this timeline; its first on rank 0 is 0F0"),
        ("dualpipe", "0F0", "pair: 0F0 is not cut into phases; costs of the kind layers cut ops into them"),
        ("gpipe", None, "pair: no forward and backward overlap in this timeline; name an op that runs alone"),
    ],
)
def test_what_cannot_be_looked_into_is_said(name: str, task: str | None, reason: str) -> None:
    with pytest.raises(UserError) as refusal:
        pair_figure(timeline(name, 2, 8), task)
    assert str(refusal.value) == reason


# Bubbles


def test_the_front_joins_the_runs_that_no_other_beats() -> None:
    runs = [_Run("a", 0.1, [4.0, 8.0]), _Run("b", 0.3, [2.0]), _Run("c", 0.4, [4.0]), _Run("d", None, None)]
    ax = bubble_against_activations(runs)
    front = ax.lines[0]
    assert np.asarray(front.get_xydata()).tolist() == [[2, 30], [8, 10]]
    assert [line.get_label() for line in ax.lines[1:]] == ["a", "b", "c"]


def test_bubbles_of_nothing_are_refused() -> None:
    with pytest.raises(UserError, match=r"^there is no run to draw; give at least one that was not refused$"):
        bubble_against_activations([_Run("chimera", None, None)])


# Whole pictures. They are drawn anew by ``python tests/pictures/test_plots.py``: look at them before committing.


def pictures() -> dict[str, Axes | Figure]:
    unit, lanes = timeline("dualpipe", 8, 20), timeline("dualpipe", 2, 8, _TwoLanes())
    transfer = UniformCosts(1, 1, 1, transfer_s=0.25)
    return {
        "figure5.png": gantt(unit),
        "comparison.png": compare_gantt(
            {name: timeline(name, 4, 8, transfer) for name in ("1f1b", "dualpipe")}, transfers=True
        ),
        "lanes.png": gantt(lanes),
        "zoom_dark.png": gantt(unit, ranks=range(3), from_s=10, to_s=30, micro_batches=range(4), theme="dark"),
        "pair.png": pair_figure(lanes),
        "activations_dark.png": activations_over_time(unit, theme="dark"),
        "idle.png": idle_by_cause(timeline("zb-h1", 4, 8, transfer)),
    }


def picture(chart: Axes | Figure) -> Image.Image:
    """A picture whose Axes stand where no font's size can move them."""
    figure: Any = chart.figure
    figure.set_layout_engine("none")
    share = 0.75 / len(figure.axes)
    for place, ax in enumerate(figure.axes):
        ax.set_position((0.07, 0.95 - (place + 1) * share, 0.85, share - 0.06))
    renderer: Any = drawn(chart)
    return Image.fromarray(np.asarray(renderer.buffer_rgba())[..., :3])


def test_pictures_look_as_they_did() -> None:
    # Every version of FreeType draws text a little differently: that hardly moves the mean of a block of pixels,
    # but a colour, cell, border or number gone wrong does.
    def blocks(image: Image.Image) -> FloatArray:
        return np.asarray(image.reduce(8), dtype=float)

    for name, chart in pictures().items():
        was, is_now = Image.open(BASELINES / name).convert("RGB"), picture(chart)
        assert is_now.size == was.size, name
        difference = np.abs(blocks(is_now) - blocks(was))
        assert difference.mean() < 1.6, name
        assert np.percentile(difference, 98) < 24, name


if __name__ == "__main__":
    for file, shown in pictures().items():
        picture(shown).save(BASELINES / file, optimize=True)
