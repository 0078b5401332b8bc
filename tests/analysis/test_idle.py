"""Idle time as spans: as much of each cause as is summed elsewhere, and nothing but idle time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dualpipe_sim import simulate
from dualpipe_sim.analysis.idle import idle_spans
from dualpipe_sim.analysis.metrics import idle_s_by_cause
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.schedules.registry import schedules

COSTS: dict[str, Any] = {"forward": 1.0, "backward_input": 1.3, "backward_weight": 0.6, "transfer": 0.2}


def seconds_of(timeline: Timeline) -> dict[str, list[float]]:
    spans = idle_spans(timeline)
    return {
        cause: np.bincount(
            spans.rank[spans.cause == place],
            weights=(spans.end_s - spans.begin_s)[spans.cause == place],
            minlength=timeline.ranks,
        ).tolist()
        for place, cause in enumerate(spans.causes)
    }


@pytest.mark.parametrize("name", [name for name in schedules() if name != "searched"])
def test_spans_of_a_cause_sum_to_its_idle_time_on_every_rank(name: str) -> None:
    timeline = simulate(schedule=name, ranks=4, micro_batches=12, **COSTS).played
    summed = idle_s_by_cause(timeline)
    found = seconds_of(timeline)
    assert {cause: one for cause, one in found.items() if any(one)} == {
        cause: pytest.approx(seconds, abs=1e-9) for cause, seconds in summed.items() if (seconds > 1e-12).any()
    }


@pytest.mark.parametrize("config", ["figure5", "deepseek_v3_pair"])
def test_spans_and_ops_of_a_rank_fill_the_makespan_without_overlap(config: str) -> None:
    timeline = simulate(config).played
    spans = idle_spans(timeline)
    for rank in range(timeline.ranks):
        of_rank, tasks = spans.rank == rank, timeline.rank == rank
        begins_s = np.append(spans.begin_s[of_rank], timeline.task_start_s[tasks])
        ends_s = np.append(spans.end_s[of_rank], timeline.task_end_s[tasks])
        in_order = np.lexsort((ends_s, begins_s))
        assert begins_s[in_order][0] == 0
        assert begins_s[in_order][1:] == pytest.approx(ends_s[in_order][:-1], abs=1e-9)
        assert ends_s[in_order][-1] == pytest.approx(timeline.makespan_s)


def test_what_held_an_op_up_last_lies_right_before_it() -> None:
    # 0F0 0-1, sent 1-1.5, 1F0 1.5-2.5, 1B0 2.5-4.5, sent 4.5-5, 0B0 5-7: rank 0 waits from 1 on, from 4.5 on for the
    # gradient that is under way.
    timeline = simulate(
        schedule="1f1b", ranks=2, micro_batches=1, forward=1.0, backward_input=1.0, backward_weight=1.0, transfer=0.5
    ).played
    spans = idle_spans(timeline)
    found = {
        (spans.causes[cause], rank, begin_s, end_s)
        for cause, rank, begin_s, end_s in zip(*(column.tolist() for column in spans[1:]), strict=True)
    }
    assert found == {
        ("waiting", 0, 1.0, 4.5),
        ("exposed_transfer", 0, 4.5, 5.0),
        ("warm_up", 1, 0.0, 1.5),
        ("drain", 1, 4.5, 7.0),
    }
