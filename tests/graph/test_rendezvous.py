"""Transfers that wait for both sides, as NCCL's sends and receives on one stream do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpipe_sim import build
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine import discrete_event, longest_path
from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.export.chrome import events
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.order.text import parse_order
from dualpipe_sim.simulation import simulate
from tests.plays import longest_path_each_way

NAMES = ("gpipe", "1f1b", "interleaved-1f1b", "interleaved-zb", "zb-h1", "zb-v", "dualpipe", "dualpipev", "hanayo")


def costs(transfer_s: float, forward_s: float = 1.0) -> UniformCosts:
    return UniformCosts(forward=forward_s, backward_input=1.0, backward_weight=1.0, transfer_s=transfer_s)


def spans(timeline: Timeline, lane: str) -> dict[str, tuple[float, float]]:
    return {task: (start, end) for _, on, task, start, end in timeline.rows() if on == lane}


def test_a_receive_that_was_issued_behind_compute_waits_for_it() -> None:
    # Rank 1 issues the receive of the second activation behind 1F0, which ends at 3: though 0F1 is done at 2, the
    # tensor moves from 3 to 4. The gradient leaves when 1B0 is done, at 5.
    schedule = parse_order("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n")
    timeline = longest_path.play(lower(schedule, costs(1.0), rendezvous=True))
    assert spans(timeline, "send")["0SEND_F0"] == (1.0, 2.0)
    computed = spans(timeline, "compute")
    assert computed["1F0"] == (2.0, 3.0)
    assert computed["1B0"] == (3.0, 5.0)
    sent = spans(timeline, "send")
    assert sent["0SEND_F1"] == (3.0, 4.0)
    assert sent["1SEND_B0"] == (5.0, 6.0)
    assert computed["0B0"] == (6.0, 8.0)


def test_a_busy_sender_holds_up_what_it_could_receive() -> None:
    # Two ranks, opposed pipes: both forwards end at 1. Either stream moves one tensor at a time, so the second of the
    # two crossing tensors arrives 2 s after the forwards, where two lanes would have had both there after 1 s.
    schedule = build("dualpipe", ranks=2, micro_batches=4)
    both = [longest_path.play(lower(schedule, costs(1.0), rendezvous=way)) for way in (False, True)]
    first_two = [sorted(span for span in spans(one, "recv").values())[:2] for one in both]
    assert first_two[0] == [(1.0, 2.0), (1.0, 2.0)]
    assert first_two[1] == [(1.0, 2.0), (2.0, 3.0)]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(NAMES),
    st.integers(1, 3),
    st.integers(1, 2),
    st.floats(0.0, 2.0),
    st.floats(0.1, 3.0),
)
@pytest.mark.slow
def test_never_faster_than_async_and_both_engines_agree(
    name: str, half: int, times: int, transfer_s: float, forward_s: float
) -> None:
    ranks = 2 * half
    schedule = build(name, ranks, 2 * ranks * times)
    graph = lower(schedule, costs(transfer_s, forward_s), rendezvous=True)
    ideal = longest_path.play(lower(schedule, costs(transfer_s, forward_s)))
    fast, by_event = longest_path_each_way(graph), discrete_event.play(graph)
    assert fast.makespan_s >= ideal.makespan_s - 1e-9
    np.testing.assert_allclose(fast.start_s, by_event.start_s, atol=1e-9)
    np.testing.assert_allclose(fast.end_s, by_event.end_s, atol=1e-9)
    (many,) = longest_path.play_many(graph, [graph.duration_s])
    np.testing.assert_allclose(many.end_s, fast.end_s, atol=1e-9)
    one_at_a_time(fast, schedule)


def one_at_a_time(timeline: Timeline, schedule: Schedule) -> None:
    """No rank moves two tensors at once."""
    graph = timeline.graph
    begin, end = (times[graph.first_transfer :] for times in (timeline.start_s, timeline.end_s))
    for rank in range(schedule.ranks):
        mine = (schedule.rank[graph.transfers.producer] == rank) | (schedule.rank[graph.transfers.consumer] == rank)
        order = np.argsort(begin[mine], kind="stable")
        assert (begin[mine][order][1:] >= end[mine][order][:-1] - 1e-9).all() or not graph.duration_s[-1]


@pytest.mark.parametrize("rendezvous", [False, True])
def test_one_rank_has_nothing_to_wait_for(rendezvous: bool) -> None:
    graph = lower(build("gpipe", 1, 3), costs(1.0), rendezvous=rendezvous)
    assert longest_path.play(graph).makespan_s == 9.0
    assert discrete_event.play(graph).makespan_s == 9.0


def test_ranks_that_wait_for_each_other_are_named() -> None:
    schedule = parse_order("0B0,0F0\n1F0,1B0\n")
    with pytest.raises(ScheduleError, match="0B0"):
        longest_path.play(lower(schedule, costs(1.0), rendezvous=True))


def test_the_configuration_asks_for_it() -> None:
    config = {
        "pipeline": {"ranks": 4, "micro_batches": 8},
        "schedule": {"name": "interleaved-1f1b", "stages_per_rank": 2},
        "costs": {"forward": "1 ms", "backward_input": "1 ms", "backward_weight": "1 ms", "transfer": "100 us"},
    }
    ideal, same, real = (
        simulate(config, **overrides).makespan_s or 0.0
        for overrides in ({}, {"pipeline.transfers": "async"}, {"pipeline.transfers": "rendezvous"})
    )
    assert same == ideal < real


@pytest.mark.parametrize("name", ["1f1b", "dualpipe"])
def test_layers_on_two_lanes_play_alike_on_both_engines(name: str) -> None:
    size: dict[str, Any] = {"schedule": name, "ranks": 4, "micro_batches": 8, "pipeline.transfers": "rendezvous"}
    ideal = simulate("deepseek_v3", **{**size, "pipeline.transfers": "async"})
    fast, by_event = (simulate("deepseek_v3", engine=engine, **size) for engine in ("longest-path", "simpy"))
    assert fast.timeline is not None
    assert by_event.timeline is not None
    np.testing.assert_allclose(fast.timeline.end_s, by_event.timeline.end_s, rtol=0, atol=1e-9)
    assert (fast.makespan_s or 0.0) >= (ideal.makespan_s or 0.0) - 1e-9
    idle = np.sum(list(fast.idle_s_by_cause.values()), axis=0) if fast.idle_s_by_cause else 0.0
    np.testing.assert_allclose(idle, np.array(fast.bubble_ratio_by_rank) * (fast.makespan_s or 0.0), atol=1e-9)


def test_links_can_be_shared_too() -> None:
    size: dict[str, Any] = {"schedule": "dualpipe", "ranks": 4, "micro_batches": 8, "contention": "fair"}
    shared = simulate("deepseek_v3", **size, **{"pipeline.transfers": "rendezvous"})
    assert shared.engine == "simpy"


def test_an_arrow_of_the_trace_goes_from_op_to_op() -> None:
    timeline = longest_path.play(lower(build("interleaved-1f1b", 4, 8), costs(0.5), rendezvous=True))
    kinds = [event["ph"] for event in events(timeline)]
    arrows = {kind: kinds.count(kind) for kind in "sf"}
    assert arrows["s"] == arrows["f"] == len(timeline.graph.transfers)
