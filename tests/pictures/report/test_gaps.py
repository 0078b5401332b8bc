"""Gaps before tasks, and what is to blame for them."""

from __future__ import annotations

import numpy as np
import pytest

from dualpipe_sim import simulate
from dualpipe_sim.analysis import metrics
from dualpipe_sim.pictures.report.gaps import NO_OP, waits_of


@pytest.mark.parametrize("schedule", ["1f1b", "dualpipe", "zb-h1", "interleaved-1f1b"])
def test_gaps_before_tasks_are_blamed_as_metrics_blame_them(schedule: str) -> None:
    played = simulate("small", schedule=schedule, micro_batches=16).timeline
    assert played is not None
    waits, begin = waits_of(played), played.first_task_of_rank[:-1]
    gap = np.append(0.0, played.task_start_s[1:] - played.task_end_s[:-1])
    gap[begin] = 0.0
    exposed = np.bincount(played.rank, weights=np.minimum(gap, waits.under_way_s))
    assert exposed == pytest.approx(metrics.idle_s_by_cause(played)["exposed_transfer"])
    # Nothing waits for what is not done: the op's task and the way are over when the gap is.
    there = waits.op != NO_OP
    done_s = played.task_end_s[played.graph.schedule.task_of_op[waits.op[there]]] + waits.under_way_s[there]
    assert (done_s <= played.task_start_s[there] + 1e-12).all()
