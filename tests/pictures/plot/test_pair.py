"""The inside of a pair, or of an op alone: phases on lanes, and who waits for whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from dualpipe_sim.errors import UserError
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import Pair, W
from dualpipe_sim.pictures.palette import KIND_STYLES
from dualpipe_sim.pictures.plot import (
    pair_figure,
)

if TYPE_CHECKING:
    from tests.pictures.plot.conftest import Play, Reading, TwoLanes


def first_pair(played: Timeline) -> Pair:
    return next(task for row in played.graph.schedule.order for task in row if isinstance(task, Pair))


def test_a_pair_shows_its_two_lanes_from_its_start(read: type[Reading], layered: Timeline) -> None:
    pair = first_pair(layered)
    ax = pair_figure(layered, pair)
    boxes = {name: one.boxes for name, one in read(ax).cells.items()}
    assert boxes["F"].row.tolist() == [0, 1, 0]
    assert list(zip(boxes["F"].begin_s, boxes["F"].end_s, strict=True)) == [(0, 2), (3, 5), (8, 11)]
    assert list(zip(boxes["I"].begin_s, boxes["I"].end_s, strict=True)) == [(0, 3), (3, 7)]
    assert list(zip(boxes["W"].begin_s, boxes["W"].end_s, strict=True)) == [(7, 8)]
    assert ax.get_xlim() == (0, 11)
    assert ax.get_title(loc="left") == f"{pair} on rank 0: 11 s, compute 10 s, all-to-all 5 s, 1 s of it exposed"
    assert {"attn\nF 2", "mlp\nI 5", "mlp\nW 5", "dispatch\nF 2", "combine\nI 5"} <= set(read(ax).texts())
    assert read(ax).fill("W") == KIND_STYLES[W].light


def test_barriers_join_the_lanes_and_are_thick_where_one_waits(read: type[Reading], layered: Timeline) -> None:
    ax = pair_figure(layered, str(first_pair(layered)))
    (barriers,) = (one for one in ax.collections if one.get_label() == "barriers")
    ends = [[round(float(time), 9) for time, _ in line] for line in barriers.get_segments()]  # type: ignore[attr-defined]
    # dispatch F after attn F (the lane is busy with combine I till 3), mlp I after combine I (compute stands still
    # from 2 to 3), mlp F after dispatch F (compute is busy till 8)
    assert ends == [[2, 3], [3, 3], [5, 8]]
    thick, thin = 2.0, 0.7
    assert np.ravel(np.asarray(barriers.get_linewidth())).tolist() == [thin, thick, thin]
    assert "barrier: the lane waits" in read(ax).legend()


def test_an_op_alone_can_be_looked_into_too(layered: Timeline) -> None:
    ax = pair_figure(layered, "0F0")
    assert ax.get_title(loc="left") == "0F0 on rank 0: 7 s, compute 5 s, all-to-all 2 s, 2 s of it exposed"


def test_outputs_under_way_have_a_row_of_their_own(read: type[Reading], timeline: Play, two_lanes: TwoLanes) -> None:
    played = timeline("dualpipe", 4, 8, two_lanes._replace(transfer_s=0.5))
    ax = pair_figure(played)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["compute", "all-to-all", "transfers"]
    assert read(ax).cells["transfers"].boxes.width_s() == pytest.approx([0.5, 0.5])
    assert "sent to another rank" in read(ax).legend()


@pytest.mark.parametrize(
    ("name", "task", "reason"),
    [
        ("dualpipe", "9F9", "pair: 9F9 is no task of this timeline; its first on rank 0 is 0F0"),
        ("dualpipe", "0F0", "pair: 0F0 is not cut into phases; costs of the kind layers cut ops into them"),
        ("gpipe", None, "pair: no forward and backward overlap in this timeline; name an op that runs alone"),
    ],
)
def test_what_cannot_be_looked_into_is_said(timeline: Play, name: str, task: str | None, reason: str) -> None:
    with pytest.raises(UserError) as refusal:
        pair_figure(timeline(name, 2, 8), task)
    assert str(refusal.value) == reason
