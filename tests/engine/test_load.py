"""Lengths under load: what an op finds before and beside it, and that lengths and timeline agree in the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpipe_sim import build
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.costs.load import Load
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine import discrete_event, longest_path
from dualpipe_sim.engine.load import beside_messages, busy_before, factor_of, settled
from dualpipe_sim.engine.play import play
from dualpipe_sim.engine.play import settled as settled_by_walk
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.task_graph import Issue, TaskGraph
from dualpipe_sim.runtimes.registry import RUNTIMES, RuntimeInUse
from tests.plays import longest_path_each_way


def torch(version: str = "2.11") -> RuntimeInUse:
    return RUNTIMES.get("torch").with_options({"version": version})


def graph_of(name: str, ranks: int, micro_batches: int, version: str = "2.11", **options: Any) -> TaskGraph:  # noqa: ANN401
    costs = UniformCosts(1.0, 1.0, 1.0, transfer_s=0.25)
    return lower(build(name, ranks, micro_batches, **options), costs, runtime=torch(version))


def busy_by_integral(start_s: Any, end_s: Any, tau_s: float) -> list[float]:  # noqa: ANN401
    """The mean of busy (1) and idle (0) before each op, weighted with exp(-age / tau), summed op by op."""
    return [
        sum(np.exp(-(at - end_s[one]) / tau_s) - np.exp(-(at - start_s[one]) / tau_s) for one in range(place))
        for place, at in enumerate(start_s)
    ]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["1f1b", "gpipe", "interleaved-zb", "zb-v"]),
    st.integers(2, 4),
    st.integers(8, 10),
    st.floats(0.1, 20),
)
def test_how_busy_a_gpu_was_is_a_weighted_mean_of_what_it_did(name: str, ranks: int, many: int, tau_s: float) -> None:
    timeline = play(graph_of(name, ranks, many - many % ranks))
    busy = busy_before(timeline, tau_s)
    for rank in range(ranks):
        here = np.flatnonzero(timeline.rank == rank)
        expected = busy_by_integral(timeline.task_start_s[here], timeline.task_end_s[here], tau_s)
        assert busy[here] == pytest.approx(np.array(expected), abs=1e-12)


@pytest.mark.parametrize("version", ["2.11", "2.13"])
def test_a_message_stands_beside_an_op_from_when_its_own_rank_has_reached_it(version: str) -> None:
    # Rank 1 computes 1F0 from 1.25 s on; its receive of 1F1 is issued before it and moves from 2 s to 2.25 s, when
    # rank 0 has run 0F1. On 2.11's one line the receive stands there from 1.25 s on, when that of 1F0 is through.
    graph = graph_of("gpipe", 2, 2, version)
    timeline = play(graph)
    share = dict(
        zip([graph.label(node) for node in range(graph.first_transfer)], beside_messages(timeline), strict=True)
    )
    assert share["0F1"] == pytest.approx(0.25), "0F0 is on its way for a quarter of 0F1"
    assert share["1F0"] == 0, "torch's GPipe waits for a receive before it issues the next op"


def test_messages_that_overlap_count_once() -> None:
    timeline = play(graph_of("interleaved-zb", 4, 8, stages_per_rank=2))
    share = beside_messages(timeline)
    assert (share >= 0).all()
    assert (share <= 1 + 1e-12).all()
    assert share.max() > 0.5


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["1f1b", "interleaved-zb", "zb-v", "dualpipev"]),
    st.floats(0, 0.5),
    st.floats(0.5, 30),
    st.floats(0, 0.5),
    st.sampled_from(["2.11", "2.13"]),
)
def test_lengths_and_timeline_agree_on_both_engines(
    name: str, beta: float, tau_s: float, gamma: float, version: str
) -> None:
    load = Load(beta, tau_s, gamma)
    cold = graph_of(name, 2, 6, version)
    graph = replace(cold, load=load)
    fast, slow = play(graph, "longest-path"), play(graph, "simpy")
    assert fast.end_s == pytest.approx(slow.end_s, rel=1e-9)
    phases = cold.first_transfer
    expected = cold.duration_s[:phases] * factor_of(fast, load)
    assert fast.end_s[:phases] - fast.start_s[:phases] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["1f1b", "interleaved-zb", "zb-v", "dualpipev"])
@pytest.mark.parametrize("version", ["2.11", "2.13"])
def test_where_messages_slow_nothing_one_walk_of_a_program_finds_what_playing_it_again_and_again_does(
    name: str, version: str
) -> None:
    cold, load = graph_of(name, 2, 8, version), Load(0.25, 3.0)
    found = settled_by_walk(replace(cold, load=load))
    assert found.load is None
    assert found.duration_s == pytest.approx(
        settled(replace(cold, load=load), discrete_event.play).duration_s, rel=1e-9
    )


def test_a_gpu_that_never_rests_is_slower_by_beta_in_the_end() -> None:
    graph = replace(graph_of("gpipe", 1, 200), load=Load(beta=0.25, tau_s=2.0))
    timeline = play(graph)
    length_s = timeline.end_s[: graph.first_transfer] - timeline.start_s[: graph.first_transfer]
    assert length_s[0] == 1.0
    assert length_s[199] == pytest.approx(1.25, rel=1e-6)
    assert length_s[-1] == pytest.approx(2.5, rel=1e-6)


def test_a_graph_without_load_is_played_as_it_is() -> None:
    graph = graph_of("1f1b", 2, 4)
    assert settled(graph, longest_path.play) is graph


@pytest.mark.parametrize("engine", ["longest-path", "simpy"])
@pytest.mark.parametrize("runtime", [None, torch()])
def test_an_op_starts_no_sooner_than_its_host_and_ends_no_sooner(engine: Any, runtime: RuntimeInUse | None) -> None:  # noqa: ANN401
    graph = lower(build("1f1b", 2, 4), UniformCosts(1.0, 1.0, 1.0, transfer_s=0.25), runtime=runtime)
    begin_s, end_s = np.zeros((2, graph.nodes))
    begin_s[: graph.first_transfer] = 3.0 * np.arange(graph.first_transfer)
    end_s[: graph.first_transfer] = begin_s[: graph.first_transfer] + 2.5
    graph = replace(graph, issue=Issue(begin_s, end_s))
    longest_path_each_way(graph)
    timeline = play(graph, engine)
    assert (timeline.start_s >= begin_s - 1e-12).all()
    assert (timeline.end_s >= end_s - 1e-12).all()
    assert timeline.end_s == pytest.approx(play(graph).end_s)
    assert graph.on(Lane.COMPUTE).all()
