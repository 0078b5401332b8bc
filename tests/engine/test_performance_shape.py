"""How work grows, counted and not timed: what is vectorised stays so, what is linear stays so, memory is bounded."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import simpy

from dualpipe_sim.analysis import metrics
from dualpipe_sim.base.kept import Kept
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine import by_node, discrete_event, longest_path
from dualpipe_sim.graph import wiring
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.schedules.registry import build

if TYPE_CHECKING:
    from tests.conftest import Calls

COSTS = UniformCosts(0.0587, 0.0779, 0.0253, 0.1243, transfer_s=0.0012)
NAMES = ("dualpipe", "1f1b", "zb-h1")


def graph_of(name: str, ranks: int, micro_batches: int) -> TaskGraph:
    return lower(build(name, ranks, micro_batches), COSTS)


def all_metrics(timeline: Timeline) -> None:
    metrics.bubble_ratio(timeline)
    metrics.span_bubble_ratio(timeline)
    metrics.compute_idle_ratio(timeline)
    metrics.idle_s_by_cause(timeline)
    metrics.peak_in_flight_by_rank(timeline)
    metrics.peak_activations_by_rank(timeline)


def peak_bytes(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", NAMES)
def test_lowering_and_metrics_touch_no_task_one_by_one(
    calls: Calls, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "_KEPT", Kept[Any](most=0, size=lambda _: 1))
    lowered, measured = [], []
    for micro_batches in (16, 32, 320):  # the first time warms up
        schedule = build(name, 8, micro_batches)
        lowered.append(calls(partial(lower, schedule, COSTS)))
        measured.append(calls(partial(all_metrics, longest_path.play(lower(schedule, COSTS)))))
    assert lowered[1] == lowered[2]
    assert measured[1] == measured[2]


@pytest.mark.parametrize("name", NAMES)
def test_an_order_that_was_played_is_lowered_and_played_in_fewer_calls(calls: Calls, name: str) -> None:
    schedule = build(name, 8, 48)
    first, again = (
        (calls(partial(lower, schedule, COSTS)), calls(partial(longest_path.play, lower(schedule, COSTS))))
        for _ in range(2)
    )
    third = calls(partial(longest_path.play, lower(schedule, COSTS)))  # the second time, turns were noted down
    assert again[0] < 0.8 * first[0]
    assert third < 0.5 * first[1] < again[1]


@pytest.mark.parametrize("name", NAMES)
def test_the_longest_path_takes_all_ranks_at_once(calls: Calls, name: str) -> None:
    few, many = graph_of(name, 8, 160), graph_of(name, 32, 160)
    longest_path.play(few)
    growth = calls(partial(longest_path.play, many)) / calls(partial(longest_path.play, few))
    assert many.nodes > 3.9 * few.nodes
    assert growth < 1.5


@pytest.mark.parametrize("name", NAMES)
def test_generating_and_playing_take_as_many_calls_a_task_at_any_length(calls: Calls, name: str) -> None:
    def build_and_play(micro_batches: int) -> None:
        longest_path.play(graph_of(name, 8, micro_batches))

    for work in (partial(build, name, 8), build_and_play):
        work(64)
        assert calls(partial(work, 640)) < 10.5 * calls(partial(work, 64))


@pytest.mark.parametrize("name", NAMES)
def test_simpy_gets_one_timeout_a_phase_and_transfer_and_an_event_only_where_a_rank_waits(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Counter[str]()
    for kind in ("Timeout", "Event"):
        original = getattr(simpy, kind)

        def counting(*args: object, original: type = original, kind: str = kind) -> object:
            made[kind] += 1
            return original(*args)

        monkeypatch.setattr(simpy, kind, counting)
    graph = graph_of(name, 8, 64)
    discrete_event.play(graph)
    assert made["Timeout"] == graph.nodes
    assert 0 < made["Event"] < graph.first_transfer


def test_scenarios_take_the_memory_of_one_block_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of("dualpipe", 4, 16)
    monkeypatch.setattr(longest_path, "_BLOCK_CELLS", 20 * graph.nodes)

    def jitter(scenarios: int) -> Iterator[np.ndarray]:
        random = np.random.default_rng(0)
        for _ in range(scenarios):
            yield graph.duration_s * random.lognormal(0, 0.1, graph.nodes)

    longest_path.makespans_s(graph, jitter(40))
    few, many = (peak_bytes(partial(longest_path.makespans_s, graph, jitter(scenarios))) for scenarios in (40, 400))
    assert many < 1.2 * few


def test_memory_grows_with_tasks_and_no_faster() -> None:
    def name_to_metrics(micro_batches: int) -> None:
        all_metrics(longest_path.play(graph_of("dualpipe", 8, micro_batches)))

    name_to_metrics(64)
    small, large = (peak_bytes(partial(name_to_metrics, micro_batches)) for micro_batches in (256, 2048))
    assert large < 8.5 * small


def test_what_is_played_little_loads_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of("1f1b", 4, 8)
    monkeypatch.setattr(by_node, "COMPILES", True)
    monkeypatch.setattr(by_node, "_PLAYED", [0])
    monkeypatch.setattr(by_node, "WORTH_NODES", 2 * graph.nodes)
    assert [by_node.is_worth_it(graph) for _ in range(4)] == [False, False, True, True]
    monkeypatch.setattr(by_node, "COMPILES", False)
    assert not by_node.is_worth_it(graph)
