"""Gaps before tasks, and what is to blame for them."""

from __future__ import annotations

import numpy as np
import pytest

from dualpipe_sim import simulate
from dualpipe_sim.analysis.gaps import NO_OP, gaps_of
from dualpipe_sim.graph.timeline import Timeline


def played(config: str | dict[str, object] = "small", **overrides: object) -> Timeline:
    timeline = simulate(config, **overrides).timeline
    assert timeline is not None
    return timeline


@pytest.mark.parametrize("transfers", ["async", "rendezvous"])
@pytest.mark.parametrize("schedule", ["1f1b", "dualpipe", "zb-h1", "interleaved-1f1b"])
def test_every_second_of_a_gap_has_one_cause(schedule: str, transfers: str) -> None:
    timeline = played(schedule=schedule, micro_batches=16, **{"pipeline.transfers": transfers})
    gaps = gaps_of(timeline)
    gap = np.append(0.0, timeline.task_start_s[1:] - timeline.task_end_s[:-1])
    gap[timeline.first_task_of_rank[:-1]] = 0.0
    assert sum(gaps.seconds_by_cause.values()) == pytest.approx(gap, abs=1e-15)
    assert all((seconds >= 0).all() for seconds in gaps.seconds_by_cause.values())
    assert gaps.seconds_by_cause["blocked"].any() == (transfers == "rendezvous")
    # Nothing waits for what is not done: the op's task is over when the gap is.
    there = gaps.op != NO_OP
    done_s = timeline.task_end_s[timeline.graph.schedule.task_of_op[gaps.op[there]]]
    assert (done_s + gaps.seconds_by_cause["exposed_transfer"][there] <= timeline.task_start_s[there] + 1e-12).all()


def test_a_tensor_that_is_there_but_stands_behind_others_is_blocked() -> None:
    # After pytorch/pytorch#165664 and #188833: interleaved 1F1B, 8 ranks of two stages, 16 micro-batches, F = I = W
    # = 1 s, transfers of 0.1 s. On rank 0's stream the send of 0F1 stands behind the receive of 8F0. Rank 1 idles
    # from 1.1 s + 1 s on before 1F1, though 0F1 was done at 2 s.
    second = {"forward": "1 s", "backward_input": "1 s", "backward_weight": "1 s", "transfer": "100 ms"}
    config = {"schedule": {"name": "interleaved-1f1b", "stages_per_rank": 2}, "costs": {"kind": "uniform", **second}}
    timeline = played(config | {"pipeline": {"ranks": 8, "micro_batches": 16, "transfers": "rendezvous"}})
    gaps, schedule = gaps_of(timeline), timeline.graph.schedule
    task = [str(schedule.task(index)) for index in range(len(timeline.rank))].index("1F1")
    seconds = {cause: round(float(of_task[task]), 9) for cause, of_task in gaps.seconds_by_cause.items()}
    assert seconds == {"exposed_transfer": 0.1, "blocked": 3.7, "exposed_alltoall": 0.0, "host": 0.0, "waiting": 0.0}
    assert str(schedule.op(int(gaps.op[task]))) == "0F1"
