"""Charts of a sweep show the papers' bubbles in the right cells and curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dualpipe_sim import SweepTable, UserError, sweep
from dualpipe_sim.pictures.plot import bubble_curves, bubble_heatmap, save

CONFIG: dict[str, object] = {
    "pipeline": {"ranks": 2, "micro_batches": 2},
    "schedule": "1f1b",
    "costs": {"forward": "1 s", "backward_input": "1 s", "backward_weight": "1 s"},
}
RANKS, MICRO_BATCHES = (2, 4, 8), (4, 8, 16, 32)


def bubble_1f1b(ranks: int, micro_batches: int) -> float:
    """1F1B without transfers idles for P - 1 of M + P - 1 forwards and backwards (https://arxiv.org/abs/2104.04473)."""
    return (ranks - 1) / (micro_batches + ranks - 1)


@pytest.fixture(scope="module")
def table() -> SweepTable:
    over = {"schedules": ["1f1b", "dualpipe"], "ranks": reversed(RANKS), "micro_batches": MICRO_BATCHES}
    return sweep(CONFIG, over)


def cells(ax: Axes) -> dict[tuple[str, str], str]:
    """The number in each cell, by its row's and column's label."""
    x, y = ([label.get_text() for label in axis.get_ticklabels()] for axis in (ax.xaxis, ax.yaxis))
    return {(y[round(text.get_position()[1])], x[round(text.get_position()[0])]): text.get_text() for text in ax.texts}


def test_a_heat_map_has_the_papers_number_in_each_cell(table: SweepTable) -> None:
    ax = bubble_heatmap(table.where(schedule="1f1b"))
    assert cells(ax) == {
        (str(ranks), str(micro_batches)): f"{100 * bubble_1f1b(ranks, micro_batches):.1f}"
        for ranks in RANKS
        for micro_batches in MICRO_BATCHES
    }
    assert [label.get_text() for label in ax.get_yticklabels()] == ["2", "4", "8"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("micro-batches of a step", "pipeline ranks")


def test_a_heat_map_crosses_out_what_failed(table: SweepTable) -> None:
    """DualPipe needs twice as many micro-batches as ranks."""
    ax = bubble_heatmap(table.where(schedule="dualpipe"))
    crosses = np.column_stack(ax.lines[0].get_data()).tolist()
    assert {(RANKS[int(y)], MICRO_BATCHES[int(x)]) for x, y in crosses} == {(4, 4), (8, 4), (8, 8)}
    assert len(cells(ax)) == 12 - 3


def test_a_heat_map_of_schedules_reads_from_the_top(table: SweepTable) -> None:
    ax = bubble_heatmap(table.where(ranks=2), y="schedule")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["1f1b", "dualpipe"]
    assert ax.yaxis_inverted()
    assert cells(ax)["1f1b", "8"] == f"{100 / 9:.1f}"


def test_curves_are_the_papers(table: SweepTable) -> None:
    ax = bubble_curves(table)
    curves = {str(line.get_label()): line.get_data() for line in ax.lines}
    assert list(curves) == [f"{name}, {ranks} ranks" for name in ("1f1b", "dualpipe") for ranks in (8, 4, 2)]
    for ranks in RANKS:
        x, y = curves[f"1f1b, {ranks} ranks"]
        assert np.asarray(x).tolist() == list(MICRO_BATCHES)
        assert np.asarray(y).tolist() == pytest.approx(
            [100 * bubble_1f1b(ranks, micro_batches) for micro_batches in MICRO_BATCHES]
        )
    assert np.asarray(curves["dualpipe, 8 ranks"][0]).tolist() == [16, 32]
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(curves)


def test_words_stand_side_by_side_and_numbers_to_scale() -> None:
    transfers = ["1 us", "1 ms", "1 s"]
    ax = bubble_curves(sweep(CONFIG, {"costs.transfer": transfers}), x="costs.transfer")
    assert [label.get_text() for label in ax.get_xticklabels()] == transfers
    assert [line.get_label() for line in ax.lines] == ["1f1b"]
    ax = bubble_curves(sweep(CONFIG, {"costs.transfer": [3, 0, 1]}), x="costs.transfer")
    assert np.asarray(ax.lines[0].get_xdata()).tolist() == [0, 1, 3]


def test_they_draw_on_a_given_axes_and_return_it(table: SweepTable, tmp_path: Path) -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert bubble_heatmap(table.where(schedule="1f1b"), left) is left
    assert bubble_curves(table, right) is right
    save(figure, tmp_path / "both.png")
    for theme in ("light", "dark"):
        save(bubble_curves(table, theme=theme).figure, tmp_path / f"{theme}.svg")
    assert (tmp_path / "light.svg").read_bytes() != (tmp_path / "dark.svg").read_bytes()


def test_rows_may_come_from_anywhere(table: SweepTable) -> None:
    records: list[Mapping[str, Any]] = [{str(key): value for key, value in row.items()} for row in table]
    assert len(bubble_curves(records).lines) == 6


@pytest.mark.parametrize(
    ("where", "keys", "said"),
    [
        ({}, {}, "several points have micro_batches 4 and ranks 8: they differ in schedule; pick one value"),
        ({"schedule": "1f1b"}, {"x": "micro_batch"}, "the rows have no micro_batch; did you mean 'micro_batches'?"),
        ({"schedule": "gpipe"}, {}, "there is no row to draw"),
    ],
)
def test_what_cannot_be_a_heat_map(table: SweepTable, where: Any, keys: Any, said: str) -> None:  # noqa: ANN401
    with pytest.raises(UserError) as raised:
        bubble_heatmap(table.where(**where), **keys)
    assert str(raised.value).startswith(said)


def test_a_sweep_that_failed_whole_has_no_curves(table: SweepTable) -> None:
    with pytest.raises(UserError, match="every point of the sweep failed"):
        bubble_curves(table.where(schedule="dualpipe", ranks=8, micro_batches=4))
