"""Bounds: never above what runs, exact where a paper's formula is, and worked out by hand."""

from dataclasses import replace
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dualpipe_sim.analysis import metrics
from dualpipe_sim.analysis.memory import memory_of
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.bounds.limited import MemoryLimit
from dualpipe_sim.bounds.makespan import busiest_rank_s, order_bound_s, placement_bound_s
from dualpipe_sim.bounds.memory import StageBytes, least_memory_bytes, stage_bytes
from dualpipe_sim.bounds.tasks import task_time
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.asked import costs_of_kinds, with_vocabulary_cut
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.costs.load import Load
from dualpipe_sim.costs.phases import Phase
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine import discrete_event, longest_path
from dualpipe_sim.engine.play import play
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.hardware.cluster import Cluster, Link, Topology
from dualpipe_sim.model.footprint import state_by_rank
from dualpipe_sim.order.ops import COPIES, B, F, I, Vocabulary, W
from dualpipe_sim.order.placement import Placement, linear
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import build, schedules, spec
from dualpipe_sim.simulation import run
from tests.plays import asked_by
from tests.strategies import RandomPhases, topologies

ROUNDING = 1 + 1e-9

SIZES = [(1, 1), (2, 4), (2, 6), (4, 8), (4, 9), (4, 12), (6, 12)]
seconds = st.floats(0.01, 100)


@st.composite
def orders(draw: st.DrawFn) -> Schedule:
    """Draw any registered schedule at any small size that it accepts, with any of its options that are words."""
    chosen = schedules()[draw(st.sampled_from(sorted(schedules())))]
    ranks, micro_batches = draw(st.sampled_from(SIZES))
    options = {
        option: draw(st.sampled_from(get_args(parameter.annotation)))
        for option, parameter in chosen.options.items()
        if get_origin(parameter.annotation) is Literal
    }
    assume(chosen.accepts(ranks, micro_batches, **options))
    return build(chosen.name, ranks, micro_batches, **options)


def any_order_bound_s(order: Schedule, costs: Any, topology: Topology | None) -> float:  # noqa: ANN401
    """Return the bound of all orders of an order's micro-batches, or of their slices, each a share of one as long."""
    parts = tuple(count * order.slices for count in order.micro_batches_of_pipe)
    own = costs_of_kinds(costs, order.kind, order.vocabulary)
    return placement_bound_s(order.placement, parts, own, topology, how=order.vocabulary) / order.slices


def a_cost(ranks: int) -> st.SearchStrategy[float | tuple[float, ...]]:
    return seconds | st.tuples(*[seconds] * ranks)


@st.composite
def uniform_costs(draw: st.DrawFn, ranks: int) -> UniformCosts:
    cost = a_cost(ranks)
    times = draw(cost), draw(cost), draw(cost), draw(st.none() | cost), draw(st.none() | seconds)
    return UniformCosts(*times, 1e8, vocab_s=draw(cost), vocab_t=draw(cost))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Schedule, UniformCosts | RandomPhases, Topology]:
    order = draw(orders())
    costs = draw(uniform_costs(order.ranks) | st.builds(RandomPhases, st.integers(0, 2**32)))
    return order, costs, draw(topologies(order.ranks))


@given(cases())
@settings(max_examples=80)
def test_no_bound_is_above_the_makespan(case: tuple[Schedule, UniformCosts | RandomPhases, Topology]) -> None:
    order, costs, topology = case
    makespan_s = longest_path.play(lower(order, costs, topology)).makespan_s * ROUNDING
    stage_costs = costs.on(order.placement)
    assert order_bound_s(order, stage_costs, topology) <= makespan_s
    assert busiest_rank_s(order, stage_costs) <= makespan_s
    assert any_order_bound_s(order, stage_costs, topology) <= makespan_s


class UnderLoad:
    """Costs of a test whose compute takes longer on GPUs that were busy."""

    def __init__(self, costs: UniformCosts | RandomPhases, load: Load) -> None:
        self._costs, self.load = costs, load

    def on(self, placement: Placement) -> "UnderLoad":
        return UnderLoad(self._costs.on(placement), self.load)  # type: ignore[arg-type]

    def with_vocabulary_cut(self, how: Vocabulary) -> "UnderLoad":
        return UnderLoad(with_vocabulary_cut(self._costs, how), self.load)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> object:
        return getattr(self._costs, name)


@given(cases(), st.floats(0, 0.5), st.floats(0.1, 3000), st.sampled_from([0.0, 0.2]))
@settings(max_examples=80)
def test_nor_is_one_above_the_makespan_under_load(
    case: tuple[Schedule, UniformCosts | RandomPhases, Topology], beta: float, tau_s: float, gamma: float
) -> None:
    order, cold, topology = case
    costs: Any = UnderLoad(cold, Load(beta, tau_s, gamma))
    graph = lower(order, costs, topology)
    assert graph.load == costs.load
    makespan_s = play(graph).makespan_s * ROUNDING
    stage_costs = costs.on(order.placement)
    assert order_bound_s(order, stage_costs, topology) <= makespan_s
    assert busiest_rank_s(order, stage_costs) <= makespan_s
    if order.slices == 1:  # (of slices: what is less at first, since a GPU is cold, would be divided too)
        assert any_order_bound_s(order, stage_costs, topology) <= makespan_s


def test_a_rank_that_never_rests_is_bounded_by_what_it_takes() -> None:
    """64 x 3 s at 1.2, less 0.2 x 10 s x e^(2.4 / 10) that it is cold in the beginning."""
    order = build("gpipe", 1, 64)
    costs: Any = UnderLoad(UniformCosts(1.0, 1.0, 1.0), Load(0.2, 10.0))
    makespan_s = play(lower(order, costs)).makespan_s
    bound_s = order_bound_s(order, costs.on(order.placement))
    assert bound_s == pytest.approx(64 * 3 * 1.2 - 0.2 * 10 * np.exp(2 * 1.2 / 10))
    assert 0.98 * makespan_s < bound_s <= makespan_s


def test_an_output_that_is_ready_before_its_task_ends_is_not_waited_for_longer() -> None:
    """The last backward's gradient may leave long before the last rank is done with it."""
    order, costs = build("1f1b", 4, 8), RandomPhases(2**32 - 1)
    topology = Cluster(1, Link(1e6), Link(1e6)).topology(4)
    makespan_s = longest_path.play(lower(order, costs, topology)).makespan_s
    assert order_bound_s(order, costs, topology) <= makespan_s * ROUNDING


@given(cases())
@settings(max_examples=30)
def test_nor_is_one_above_the_makespan_where_links_are_shared(
    case: tuple[Schedule, UniformCosts | RandomPhases, Topology],
) -> None:
    order, costs, topology = case
    played = discrete_event.play(lower(order, costs, topology, contention=True))
    assert order_bound_s(order, costs.on(order.placement), topology) <= played.makespan_s * ROUNDING


@given(cases())
@settings(max_examples=80)
def test_what_an_order_holds_makes_it_no_faster_than_the_bound_within_that_limit(
    case: tuple[Schedule, UniformCosts | RandomPhases, Topology],
) -> None:
    order, costs, topology = case
    # (the limit is of whole micro-batches, and of all that is there from F on: copies to the host make room)
    assume(order.slices == 1 and not order.of_kinds(*COPIES).any())
    timeline = longest_path.play(lower(order, costs, topology))
    limit = MemoryLimit(
        order.placement.activations_of_stage, metrics.peak_activations_by_rank(timeline), from_start=True
    )
    stage_costs = costs.on(order.placement)
    free_s, held_s = (
        placement_bound_s(order.placement, order.micro_batches_of_pipe, stage_costs, topology, limit=one)
        for one in (None, limit)
    )
    assert free_s <= held_s <= timeline.makespan_s * ROUNDING


@pytest.mark.parametrize(("ranks", "micro_batches"), [(1, 3), (4, 8), (8, 32)])
def test_1f1b_is_bounded_by_its_own_length(ranks: int, micro_batches: int) -> None:
    # (M + P - 1)(F + B): Narayanan et al. 2021, https://arxiv.org/abs/2104.04473, section 2.2.1
    order, costs = build("1f1b", ranks, micro_batches), UniformCosts(1.0, 1.25, 0.75)
    bound_s = order_bound_s(order, costs.on(order.placement))
    assert bound_s == pytest.approx((micro_batches + ranks - 1) * 3)


def test_no_order_beats_the_last_ranks_way_there_and_its_work() -> None:
    # Three forwards reach rank 3, which then has eight of F, I and W; or, its W left to the end, eight of F and I, and
    # three I on the way back, then W: 3 + 24 = 27 against 3 + 16 + 3 + 1 = 23.
    costs = UniformCosts(1.0, 1.0, 1.0)
    assert placement_bound_s(linear(4), (8,), costs.on(linear(4))) == 27


def test_with_little_work_it_is_the_way_of_a_micro_batch() -> None:
    # Down four ranks, back up, and one W; transfers of 10 each of the six times.
    costs = UniformCosts(1.0, 2.0, 3.0, transfer_s=10.0)
    assert placement_bound_s(linear(4), (1,), costs.on(linear(4))) == 4 + 8 + 3 + 60


def test_one_activation_at_a_time_makes_micro_batches_follow_each_other() -> None:
    # On rank 0 of two a micro-batch is there from F to the end of W: F, F, I, I, W. One at a time, five of them: 25.
    costs, placement = UniformCosts(1.0, 1.0, 1.0), linear(2)
    one = MemoryLimit(np.ones(2), np.ones(2), from_start=True)
    assert placement_bound_s(placement, (5,), costs.on(placement), limit=one) == 25


def test_what_does_not_fit_once_never_runs() -> None:
    costs, placement = UniformCosts(1.0, 1.0, 1.0), linear(2)
    half = MemoryLimit(np.ones(2), np.array([0.5, 2.0]), from_start=True)
    assert placement_bound_s(placement, (5,), costs.on(placement), limit=half) == np.inf


def test_a_pairs_halves_are_ready_when_their_own_phases_end() -> None:
    # compute: attn F 2, mlp I 3, mlp F 1; all-to-all: dispatch F 4 after attn F, which mlp F waits for.
    pair = [Phase(Lane.COMPUTE, 2, F), Phase(Lane.COMPUTE, 3, I, half=1), Phase(Lane.ALLTOALL, 4, F, after=(0,))]
    time = task_time([*pair, Phase(Lane.COMPUTE, 1, F, after=(2,))])
    assert time == (7, 7, 5)


def test_where_sms_are_shared_on_demand_compute_counts_as_if_it_had_them_all() -> None:
    assert task_time([Phase(Lane.COMPUTE, 3, W, alone_s=2.0), Phase(Lane.COMPUTE, 1, B)]).whole_s == 3


# --- a model ---------------------------------------------------------------------------------------------------------

SMALL = {
    "pipeline": {"ranks": 4, "micro_batches": 8},
    "schedule": "1f1b",
    "costs": {"kind": "layers"},
    "model": {"preset": "deepseek-v2-lite", "layers": 9},
    "gpu": "h800",
    "cluster": "h800-ib",
    "parallel": {"expert": 8, "data": 8},
    "training": {"sequence_length": 4096},
}


def layered(name: str, **settings: object) -> tuple[Schedule, LayerCosts, TaskGraph]:
    asked = {key.replace("__", "."): value for key, value in settings.items()}
    experiment = load_experiment(SMALL, asked | asked_by(name))
    assert isinstance(experiment.costs, LayerCosts)
    order = build(name, 4, 8)
    return order, experiment.costs, lower(order, experiment.costs, experiment.topology(4))


def kept_by(costs: LayerCosts, order: Schedule) -> StageBytes:
    """What the model keeps on the placement of an order."""
    costs, placement = replace(costs, vocabulary=order.vocabulary), order.placement
    stage_costs = costs.on(placement)
    state = state_by_rank(costs.job, stage_costs.stage_layers, placement, costs.buffer_bytes)
    return stage_bytes(stage_costs, np.sum(state, axis=0))


@pytest.mark.parametrize("name", sorted(schedules()))
@pytest.mark.parametrize("layout", ["even", "balanced"])
def test_no_bound_is_above_a_step_or_a_peak_of_a_model(name: str, layout: str) -> None:
    if not spec(name).accepts(4, 8):
        pytest.skip("refuses the size")
    order, costs, graph = layered(name, pipeline__layout=layout)
    timeline = longest_path.play(graph)
    topology = costs.links.topology(4, costs.job.parallel.data)
    bound_s = order_bound_s(order, costs.on(order.placement), topology)
    assert bound_s <= timeline.makespan_s * ROUNDING
    free_s = any_order_bound_s(order, costs.on(order.placement), topology)
    assert free_s <= timeline.makespan_s * ROUNDING
    peaks = memory_of(timeline).peak_bytes_by_rank
    assert (least_memory_bytes(order, kept_by(costs, order)) <= peaks).all()


def test_of_1f1b_only_boundaries_are_left_out_of_the_least_memory() -> None:
    order, costs, graph = layered("1f1b")
    peaks = memory_of(longest_path.play(graph)).peak_bytes_by_rank
    boundary_bytes = 4096 * 2048 * 2
    least = least_memory_bytes(order, kept_by(costs, order))
    assert (peaks - least <= 2 * boundary_bytes).all()


def test_a_step_with_shared_sms_and_links_is_no_faster_than_its_bound() -> None:
    experiment = load_experiment(SMALL, {"schedule": "dualpipe", "overlap": {"sharing": "on-demand"}})
    done = run(replace(experiment, contention="fair"), experiment.choice)
    order = build("dualpipe", 4, 8)
    bound_s = order_bound_s(order, experiment.costs.on(order.placement), experiment.topology(4))
    assert done.makespan_s is not None
    assert bound_s <= done.makespan_s * ROUNDING
