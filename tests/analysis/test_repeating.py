"""What repeats: what repeats on every rank, how long a period is and how many there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpipe_sim import parse_order, simulate
from dualpipe_sim.analysis.repeating import repeating
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.schedules.registry import schedules

UNIT: dict[str, Any] = {"forward": 1.0, "backward_input": 1.0, "backward_weight": 1.0}


def play(name: str, ranks: int, micro_batches: int, **costs: float) -> Timeline:
    return simulate(schedule=name, ranks=ranks, micro_batches=micro_batches, **{**UNIT, **costs}).played


@pytest.mark.parametrize("name", ["1f1b", "zb-h1", "zb-v"])
def test_a_micro_batch_a_period_takes_all_of_a_rank_s_work(name: str) -> None:
    # without transfers a rank's F, I and W of a micro-batch follow each other without a gap
    middle = repeating(play(name, 4, 100))
    assert middle is not None
    assert middle.period_s == pytest.approx(3)
    assert middle.repeats > 90


def test_transfers_make_as_many_micro_batches_repeat_as_are_in_flight() -> None:
    # 1F1B's first rank has 4 micro-batches in flight, whose way there and back is 4(F + B) + 6 transfers
    middle = repeating(play("1f1b", 4, 100, transfer=0.25))
    assert middle is not None
    assert middle.period_s == pytest.approx(4 * 3 + 6 * 0.25)


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from([name for name in schedules() if name not in {"searched", "zb-auto"}]),
    micro_batches=st.sampled_from([24, 48, 96]),
    times=st.tuples(*[st.integers(1, 4)] * 3),
    transfer=st.sampled_from([0.0, 0.25]),
)
def test_what_is_in_a_period_is_in_the_next_one_on_every_rank(
    name: str, micro_batches: int, times: tuple[int, int, int], transfer: float
) -> None:
    keys = dict(zip(("forward", "backward_input", "backward_weight"), map(float, times), strict=True))
    played = play(name, 4, micro_batches, transfer=transfer, **keys)
    middle = repeating(played)
    if middle is None:
        return
    assert middle.repeats >= 3
    assert 0 <= middle.begin_s < middle.end_s <= played.makespan_s + 1e-9
    schedule, same_s = played.graph.schedule, 1e-6

    def content(period: int) -> list[tuple[int, int, int, float, float]]:
        begin_s = middle.begin_s + period * middle.period_s
        inside = np.flatnonzero(
            (played.task_start_s >= begin_s - same_s)
            & (played.task_start_s < begin_s + middle.period_s - same_s)
            & (played.task_end_s > played.task_start_s)
        )
        op = schedule.first_op[inside]
        found = zip(
            played.rank[inside].tolist(),
            schedule.kind[op].tolist(),
            schedule.stage[op].tolist(),
            (played.task_start_s[inside] - begin_s).tolist(),
            (played.task_end_s[inside] - begin_s).tolist(),
            strict=True,
        )
        return [(rank, kind, stage, round(start, 5) + 0.0, round(end, 5)) for rank, kind, stage, start, end in found]

    assert content(0)
    assert {rank for rank, *_ in content(0)} <= set(range(4))
    for period in (1, middle.repeats // 2, middle.repeats - 1):
        assert content(period) == content(0)


def test_a_run_too_short_or_without_rhythm_has_none() -> None:
    assert repeating(play("dualpipe", 8, 20)) is None
    assert repeating(play("gpipe", 1, 1)) is None
    # what comes twice does not come a third time
    order = parse_order("0F0,0B0,0F1,0F2,0B1,0B2,0F3,0B3\n")
    assert repeating(simulate(schedule=order, **UNIT).played) is None
