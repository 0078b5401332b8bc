"""The engines: timelines by hand, one answer from both, and what must hold of any answer."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, get_args, get_origin
from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dualpipe_sim.analysis import metrics
from dualpipe_sim.analysis.critical_path import critical_path
from dualpipe_sim.costs.uniform import Cost, UniformCosts
from dualpipe_sim.engine import by_node, discrete_event, longest_path
from dualpipe_sim.errors import DeadlockError, UserError
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.hardware.cluster import Cluster
from dualpipe_sim.order.placement import Placement, v_shape
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.order.text import parse_order
from dualpipe_sim.schedules.registry import build, schedules, spec
from tests.plays import longest_path_each_way
from tests.strategies import RandomPhases, topologies

Play = Callable[[TaskGraph], Timeline]


def play_compiled(graph: TaskGraph) -> Timeline:
    with mock.patch.object(by_node, "WORTH_NODES", 0):
        return longest_path.play(graph)


ENGINES = {module.NAME: module.play for module in (discrete_event, longest_path)} | {"compiled": play_compiled}

on_both_engines = pytest.mark.parametrize("play", ENGINES.values(), ids=ENGINES)


def ops(timeline: Timeline) -> dict[str, tuple[float, float]]:
    """Start and end of everything that ran, by its text form."""
    graph = timeline.graph
    times = zip(timeline.start_s.tolist(), timeline.end_s.tolist(), strict=True)
    return {graph.label(node): time for node, time in enumerate(times)}


# --- by hand ---------------------------------------------------------------------------------------------------------


@on_both_engines
def test_1f1b_on_two_ranks(play: Play) -> None:
    graph = lower(parse_order("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n"), UniformCosts(1, 1.5, 0.5, transfer_s=0.5))
    assert ops(play(graph)) == {
        "0F0": (0, 1),
        "0F1": (1, 2),
        "0SEND_F0": (1, 1.5),
        "0SEND_F1": (2, 2.5),
        "1F0": (1.5, 2.5),
        "1B0": (2.5, 4.5),
        "1SEND_B0": (4.5, 5),
        "1F1": (4.5, 5.5),
        "1B1": (5.5, 7.5),
        "1SEND_B1": (7.5, 8),
        "0B0": (5, 7),
        "0B1": (8, 10),
    }


@on_both_engines
def test_a_backward_for_the_input_sends_before_the_weights_are_done(play: Play) -> None:
    graph = lower(parse_order("0F0,0I0,0W0\n1F0,1I0,1W0\n"), UniformCosts(1, 2, 4, transfer_s=1))
    times = ops(play(graph))
    assert times == times | {"1SEND_B0": (5, 6), "1W0": (5, 9), "0I0": (6, 8), "0W0": (8, 12)}


@on_both_engines
def test_both_outputs_of_a_pair_leave_at_its_end(play: Play) -> None:
    two_pipes = Placement(2, ((0, 1), (0, 1)))
    text = "0F0,2F0,(0F1;2B0)OVERLAP_F_B,0B0,0B1\n1F0,3F0,3B0,1B0,1F1,1B1\n"
    graph = lower(parse_order(text, two_pipes), UniformCosts(1, 1, 1, overlapped=2.5, transfer_s=0.25))
    times = ops(play(graph))
    assert times == times | {
        "3B0": (3.25, 5.25),
        "(0F1;2B0)OVERLAP_F_B": (5.5, 8),
        "0SEND_F1": (8, 8.25),
        "0B0": (8, 10),
        "1F1": (8.25, 9.25),
    }


@on_both_engines
def test_any_number_of_transfers_is_under_way_at_once(play: Play) -> None:
    graph = lower(parse_order("0F0,0F1,0B0,0B1\n1F0,1F1,1B0,1B1\n"), UniformCosts(1, 1, 1, transfer_s=5))
    times = ops(play(graph))
    assert times == times | {"0SEND_F0": (1, 6), "0SEND_F1": (2, 7), "1F0": (6, 7), "1F1": (7, 8)}


@on_both_engines
def test_stages_of_one_rank_hand_over_at_no_cost(play: Play) -> None:
    graph = lower(parse_order("0F0,1F0,1B0,0B0\n"), UniformCosts(2, 1, 1, transfer_s=5))
    assert ops(play(graph)) == {"0F0": (0, 1), "1F0": (1, 2), "1B0": (2, 3), "0B0": (3, 4)}


@on_both_engines
def test_figure_5_of_the_deepseek_v3_report(play: Play) -> None:
    """DualPipe, 8 ranks, 20 micro-batches, F = I = W = 1: the last op ends at 66 (https://arxiv.org/abs/2412.19437)."""
    timeline = play(lower(build("dualpipe", 8, 20), UniformCosts(1, 1, 1)))
    assert timeline.makespan_s == 66
    assert metrics.idle_s(timeline).tolist() == [6] * 8


# --- circles ---------------------------------------------------------------------------------------------------------

CIRCLES = {
    "0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n": "rank 1 runs 1B0 after 1F1, which waits for 0F1; "
    "rank 0 runs 0F1 after 0B0, which waits for 1B0; one of these must change",
    "0F0,0B0\n1B0,1F0\n": "rank 1 runs 1F0 after 1B0, which waits for 1F0; this must change",
    "0F0,0B0,0F1,0B1\n1F0,(1F1;1B0)OVERLAP_F_B,1B1\n": "rank 1 runs (1F1;1B0)OVERLAP_F_B, which waits for 0F1; "
    "rank 0 runs 0F1 after 0B0, which waits for 1B0; one of these must change",
    "(0F0;0B0)OVERLAP_F_B\n": "rank 0 runs (0F0;0B0)OVERLAP_F_B, which waits for itself; this must change",
}


@on_both_engines
@pytest.mark.parametrize(("text", "circle"), CIRCLES.items())
def test_an_order_that_waits_for_itself_is_reported_with_the_circle(play: Play, text: str, circle: str) -> None:
    with pytest.raises(DeadlockError) as error:
        play(lower(parse_order(text), UniformCosts(1, 1, 1, transfer_s=0.1)))
    assert str(error.value) == f"file: the order deadlocks: {circle}"


@on_both_engines
def test_a_circle_over_three_ranks_names_all_of_them(play: Play) -> None:
    around = Placement(3, ((0, 1), (1, 2), (2, 0)))
    text = "5F0,0F0,5B0,0B0\n1F0,2F0,1B0,2B0\n3F0,4F0,3B0,4B0\n"
    with pytest.raises(DeadlockError) as error:
        play(lower(parse_order(text, around), UniformCosts(1, 1, 1)))
    assert str(error.value) == (
        "file: the order deadlocks: rank 2 runs 4F0 after 3F0, which waits for 2F0; "
        "rank 1 runs 2F0 after 1F0, which waits for 0F0; "
        "rank 0 runs 0F0 after 5F0, which waits for 4F0; one of these must change"
    )


def test_many_scenarios_of_a_circle_are_refused_before_the_first_is_played() -> None:
    graph = lower(parse_order("0F0,0B0\n1B0,1F0\n"), UniformCosts(1, 1, 1))
    with pytest.raises(DeadlockError, match=r"rank 1 runs 1F0 after 1B0, which waits for 1F0"):
        longest_path.play_many(graph, [graph.duration_s])


# --- over the registry -----------------------------------------------------------------------------------------------

RANKS, MICRO_BATCHES = range(1, 9), range(1, 21)
SIZES = {
    name: [(ranks, many) for ranks in RANKS for many in MICRO_BATCHES if one.accepts(ranks, many)]
    for name, one in schedules().items()
}
seconds = st.floats(0, 100, allow_subnormal=False)


@st.composite
def orders(draw: st.DrawFn) -> Schedule:
    """Draw any registered schedule at any small size that it accepts, with any of its options that are words."""
    name = draw(st.sampled_from(sorted(SIZES)))
    ranks, micro_batches = draw(st.sampled_from(SIZES[name]))
    options = {
        option: draw(st.sampled_from(get_args(parameter.annotation)))
        for option, parameter in spec(name).options.items()
        if get_origin(parameter.annotation) is Literal
    }
    assume(spec(name).accepts(ranks, micro_batches, **options))
    return build(name, ranks, micro_batches, **options)


def a_cost(ranks: int) -> st.SearchStrategy[Cost]:
    return seconds | st.tuples(*[seconds] * ranks)


@st.composite
def uniform_costs(draw: st.DrawFn, ranks: int) -> UniformCosts:
    """Draw costs even or uneven in depth, with transfers as a time or as bytes."""
    size_bytes = draw(st.none() | st.floats(0, 1e9))
    return UniformCosts(
        forward=draw(a_cost(ranks)),
        backward_input=draw(a_cost(ranks)),
        backward_weight=draw(a_cost(ranks)),
        overlapped=draw(st.none() | a_cost(ranks)),
        transfer_s=draw(seconds) if size_bytes is None else None,
        transfer_bytes=size_bytes or 0.0,
    )


@st.composite
def graphs(draw: st.DrawFn) -> TaskGraph:
    """Draw a schedule at stage-level costs."""
    order = draw(orders())
    return lower(order, draw(uniform_costs(order.ranks)), draw(topologies(order.ranks)))


@st.composite
def layered_graphs(draw: st.DrawFn) -> TaskGraph:
    """Draw a schedule at costs of several phases a task."""
    costs = RandomPhases(draw(st.integers(0, 2**32)), draw(seconds))
    return lower(draw(orders()), costs)


@given(graphs() | layered_graphs())
def test_both_engines_agree_to_the_last_bit(graph: TaskGraph) -> None:
    played, computed = discrete_event.play(graph), longest_path_each_way(graph)
    assert np.array_equal(played.start_s, computed.start_s)
    assert np.array_equal(played.end_s, computed.end_s)
    assert (played.engine, computed.engine) == ("simpy", "longest-path")


@given(graphs() | layered_graphs(), st.integers(0, 2**32))
def test_scenarios_played_together_are_the_scenarios_played_alone(graph: TaskGraph, seed: int) -> None:
    durations_s = np.random.default_rng(seed).uniform(0, 3, (3, graph.nodes))
    for row, together in zip(durations_s, longest_path.play_many(graph, durations_s), strict=True):
        alone = longest_path_each_way(replace(graph, duration_s=row))
        assert np.array_equal(alone.start_s, together.start_s)
        assert np.array_equal(alone.end_s, together.end_s)


@given(graphs() | layered_graphs())
def test_the_critical_paths_durations_sum_to_the_makespan(graph: TaskGraph) -> None:
    timeline = longest_path.play(graph)
    on_path = graph.duration_s[critical_path(timeline).nodes]
    assert on_path.sum() == pytest.approx(timeline.makespan_s, rel=1e-9)


@given(graphs() | layered_graphs())
def test_no_lane_runs_two_things_at_once_and_nothing_starts_before_what_it_waits_for(graph: TaskGraph) -> None:
    timeline = longest_path.play(graph)
    before, after = graph.edges
    assert (timeline.start_s[after] >= timeline.end_s[before]).all()
    behind = np.flatnonzero(graph.previous_on_lane >= 0)
    assert (timeline.start_s[behind] >= timeline.end_s[graph.previous_on_lane[behind]]).all()
    first = timeline.first_task_of_rank[:-1]
    same_rank = np.delete(np.arange(len(timeline.rank)), first)
    assert (timeline.task_start_s[same_rank] >= timeline.task_end_s[same_rank - 1]).all()


@given(graphs())
def test_the_makespan_is_at_least_the_busiest_ranks_work(graph: TaskGraph) -> None:
    work_s = np.bincount(graph.schedule.rank_of_task, weights=graph.duration_s[: graph.first_transfer])
    assert longest_path.play(graph).makespan_s >= work_s.max() * (1 - 1e-12)


@given(graphs())
def test_the_makespan_is_at_least_one_micro_batchs_way_through_its_pipe_and_back(graph: TaskGraph) -> None:
    schedule = graph.schedule
    in_time = schedule.kind < 3  # all but W, which nobody waits for, and R, which may run before its turn
    task_s = graph.duration_s[: graph.first_transfer][schedule.task_of_op]
    units = schedule.micro_batches * schedule.slices
    whose = schedule.placement.pipe_of_stage[schedule.stage] * units + schedule.unit
    way_s = np.bincount(whose[in_time], weights=task_s[in_time])
    way_s += np.bincount(
        whose[graph.transfers.producer], weights=graph.duration_s[graph.first_transfer :], minlength=len(way_s)
    )
    assert longest_path.play(graph).makespan_s >= way_s.max() * (1 - 1e-12)


@given(graphs() | layered_graphs(), st.floats(1e-6, 1e6))
def test_scaling_all_costs_scales_all_times(graph: TaskGraph, by: float) -> None:
    scaled = longest_path.play(replace(graph, duration_s=graph.duration_s * by))
    np.testing.assert_allclose(scaled.end_s, longest_path.play(graph).end_s * by, rtol=1e-9)


@given(orders(), st.data())
@pytest.mark.slow
def test_more_bandwidth_never_hurts(order: Schedule, data: st.DataObject) -> None:
    costs = replace(data.draw(uniform_costs(order.ranks)), transfer_s=None, transfer_bytes=1e8)
    slow = data.draw(topologies(order.ranks))
    faster = [
        replace(link, bytes_per_s=link.bytes_per_s * data.draw(st.floats(1, 10)))
        for link in (slow.cluster.nvlink, slow.cluster.infiniband)
    ]
    fast = replace(slow.cluster, nvlink=faster[0], infiniband=faster[1]).topology(order.ranks)
    makespans = [longest_path.play(lower(order, costs, topology)).makespan_s for topology in (fast, slow)]
    assert makespans[0] <= makespans[1] * (1 + 1e-12)


@given(graphs())
@pytest.mark.slow
def test_the_same_graph_gives_the_same_timeline(graph: TaskGraph) -> None:
    for play in ENGINES.values():
        assert np.array_equal(play(graph).end_s, play(graph).end_s)


@given(graphs() | layered_graphs())
def test_idle_time_by_cause_sums_to_idle_time(graph: TaskGraph) -> None:
    timeline = longest_path.play(graph)
    by_cause = metrics.idle_s_by_cause(timeline)
    scale = max(timeline.makespan_s, 1e-300)
    for seconds_by_rank in by_cause.values():
        assert (seconds_by_rank >= -1e-9 * scale).all()
    np.testing.assert_allclose(sum(by_cause.values()), metrics.idle_s(timeline), rtol=0, atol=1e-9 * scale)


@pytest.mark.thorough
@pytest.mark.parametrize("name", schedules())
def test_the_engines_agree_at_sizes_of_published_runs(name: str) -> None:
    ranks, micro_batches = (16, 128)
    costs = UniformCosts(0.0587, 0.0779, 0.0253, 0.1243, transfer_s=None, transfer_bytes=4096 * 7168 * 2)
    graph = lower(build(name, ranks, micro_batches), costs, Cluster().topology(ranks))
    assert np.array_equal(discrete_event.play(graph).end_s, longest_path.play(graph).end_s)


# --- many scenarios --------------------------------------------------------------------------------------------------


def test_makespans_of_many_scenarios_come_in_their_order_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = lower(build("gpipe", 1, 2), UniformCosts(1, 1, 1))
    monkeypatch.setattr(longest_path, "_BLOCK_CELLS", 0)
    monkeypatch.setattr(longest_path, "_FEWEST", 2)
    factors = np.array([3.0, 1.0, 4.0, 1.5, 9.0])
    makespans_s = longest_path.makespans_s(graph, (graph.duration_s * factor for factor in factors))
    assert makespans_s.tolist() == (6 * factors).tolist()


@pytest.mark.parametrize(
    ("durations_s", "message"),
    [
        ([[1.0, 2.0], [1.0, -0.5]], "scenario 1: 0B0 takes -0.5 s; times must be finite and 0 or more"),
        ([[float("nan"), 2.0]], "scenario 0: 0F0 takes nan s; times must be finite and 0 or more"),
        ([[1.0, 2.0, 3.0]], "scenarios need a duration for each of the graph's 2 nodes"),
    ],
)
def test_scenarios_that_are_no_times_are_refused(durations_s: list[list[float]], message: str) -> None:
    graph = lower(parse_order("0F0,0B0\n"), UniformCosts(1, 1, 1))
    with pytest.raises(UserError) as error:
        longest_path.makespans_s(graph, np.array(durations_s))
    assert str(error.value) == message


def test_both_engines_play_a_v_with_its_turn_on_one_rank() -> None:
    text = "0F0,3F0,3B0,0B0\n1F0,2F0,2B0,1B0\n"
    graph = lower(parse_order(text, v_shape(2)), UniformCosts(2, 2, 2, transfer_s=1))
    for play in ENGINES.values():
        times = ops(play(graph))
        assert times == times | {"2F0": (3, 4), "3F0": (5, 6), "2B0": (9, 11), "1B0": (11, 13), "0B0": (14, 16)}
