"""Terms of the bubble, marked on the chart: which waits they are, how long together, and where that is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection

from dualpipe_sim.pictures.plot import Term, gantt
from dualpipe_sim.why import why

if TYPE_CHECKING:
    from tests.pictures.plot.conftest import Draw, Play


def framed(ax: Axes) -> dict[str, list[tuple[float, float]]]:
    """(begin, end) of every wait that is framed, by its term."""
    found = [one for one in ax.collections if str(one.get_label()).startswith("term: ")]
    return {
        str(one.get_label())[len("term: ") :]: [
            (float(box[0, 0]), float(box[1, 0]))
            for path in one.get_paths()
            for box in np.asarray(path.vertices).reshape(-1, 5, 2)
        ]
        for one in found
        if isinstance(one, PathCollection)
    }


def test_1f1b_s_bubble_is_7_b_before_its_first_backward_and_7_f_after_its_last_forward() -> None:
    # (P - 1)(F + B) on 8 ranks, all of it on rank 0
    ax = why("figure5", schedule="1f1b").gantt()
    waits = framed(ax)
    assert waits["warm-up"] == [(8.0, 22.0)]
    assert waits["drain"] == [(60.0 + 3 * at, 61.0 + 3 * at) for at in range(7)]
    assert [text.get_text() for text in ax.texts] == ["warm-up: 14 = 7 B", "drain: 7 in 7 waits = 7 F"]
    lines = [np.asarray(one.get_xdata()).tolist() for one in ax.lines if one.get_label() == "dimension"]
    assert lines == [[8.0, 22.0], [60.0, 79.0]]


@pytest.mark.parametrize("name", ["dualpipe", "1f1b", "zb-h1", "chimera", "interleaved-1f1b"])
def test_framed_waits_are_the_bubble(name: str) -> None:
    found = why("figure5", schedule=name, micro_batches=24)
    waits = framed(found.gantt())
    assert sum(end_s - begin_s for one in waits.values() for begin_s, end_s in one) == pytest.approx(
        found.bubble.seconds
    )


def test_texts_above_a_chart_never_lie_on_each_other_or_on_the_title(timeline: Play, drawn: Draw) -> None:
    terms = [
        Term("warm-up", 2, ((0.0, 2.0),), "2 = 2 F"),
        Term("steady state", 2, ((8.0, 8.5),), "0.5 = 1 F + 1 X - 1 I - 1 W"),
        Term("drain", 2, ((24.0, 25.0), (30.0, 33.0)), "4 in 2 waits = 1 I + 2 X - 5 W"),
    ]
    ax = gantt(timeline("1f1b", 4, 8), terms=terms)
    renderer = drawn(ax)
    boxes = [text.get_window_extent(renderer) for text in ax.texts]
    assert len(boxes) == 3
    title = ax._left_title.get_window_extent(renderer)  # type: ignore[attr-defined]
    assert all(not one.overlaps(other) for place, one in enumerate(boxes) for other in [*boxes[:place], title])
    assert all(one.y0 > ax.bbox.y1 for one in boxes)


def test_terms_of_a_rank_or_a_time_that_is_not_shown_are_left_out(timeline: Play) -> None:
    terms = [Term("warm-up", 0, ((0.0, 2.0),), "2"), Term("drain", 3, ((30.0, 33.0),), "3")]
    ax = gantt(timeline("1f1b", 4, 8), terms=terms, ranks=[2, 3], to_s=31)
    assert [text.get_text() for text in ax.texts] == ["drain: 3"]
    assert set(framed(ax)) == {"drain"}
    assert not gantt(timeline("1f1b", 4, 8), terms=terms, ranks=[1]).texts
