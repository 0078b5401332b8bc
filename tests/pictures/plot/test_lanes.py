"""Lanes below the ops: compute, and all-to-all hidden or exposed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from dualpipe_sim.analysis.alltoall import alltoall_pieces, collective_times
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import B, F, I, W
from dualpipe_sim.pictures.plot import (
    gantt,
)

if TYPE_CHECKING:
    from tests.pictures.plot.conftest import Play, Reading

EXPOSED_ALONE_S: dict[int, float] = {F: 2, B: 3, I: 3, W: 0}

EXPOSED_IN_A_PAIR_S = 1


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
    assert exposed == pytest.approx(collective_times(layered).alltoall.exposed_s)


def test_lanes_show_below_the_ops_where_there_is_all_to_all(
    read: type[Reading], timeline: Play, layered: Timeline
) -> None:
    ax = gantt(layered)
    exposed = collective_times(layered).alltoall.exposed_s.tolist()
    assert read(ax).seconds_by_row("exposed all-to-all") == pytest.approx(dict(enumerate(exposed)))
    # every op computes 5 s, a pair 10 s, and 4 pairs of ranks' micro-batches pass each rank forward and backward
    assert read(ax).seconds_by_row("compute ") == pytest.approx({0: 8 * 10, 1: 8 * 10})
    assert [tick.get_text() for tick in ax.get_yticklabels(minor=True)] == ["ops", "compute", "all-to-all"] * 2
    assert {"all-to-all behind compute", "exposed all-to-all"} <= set(read(ax).legend())
    assert "exposed all-to-all" not in read(gantt(layered, lanes=False)).cells
    assert "exposed all-to-all" not in read(gantt(timeline("dualpipe", 2, 8))).cells


def test_bands_of_a_row_do_not_overlap(read: type[Reading], layered: Timeline) -> None:
    for transfers in (False, True):
        found = read(gantt(layered, transfers=transfers)).cells
        ops, compute, alltoall = (
            np.concatenate([path.vertices for path in found[name].get_paths()])[:, 1] % 1
            for name in ("F shade 0", "compute F shade 0", "hidden all-to-all")
        )
        assert (ops.max() - 0.5) % 1 <= (compute - 0.5).min() % 1
        assert (compute - 0.5).max() % 1 <= (alltoall - 0.5).min() % 1


def test_wide_phases_are_named_and_narrow_ones_not(read: type[Reading], layered: Timeline) -> None:
    near = read(gantt(layered, to_s=12)).texts()
    assert {"attn", "mlp", "dispatch"} <= set(near)
    far = gantt(layered)
    far.set_xlim(0, 20 * layered.makespan_s)
    assert not {"attn", "mlp", "dispatch"} & set(read(far).texts())
