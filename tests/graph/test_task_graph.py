"""The task graph: every op waits for what training needs, for nothing else, and says what is wrong with an order."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.costs.phases import Costs, Phase
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine import longest_path
from dualpipe_sim.errors import ScheduleError, UserError
from dualpipe_sim.graph.lowering import durations_s, lower
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.hardware.cluster import Cluster, Link
from dualpipe_sim.order.ops import B, F, I, Kind, L, O, Op, R, S, T, TaskShape, W
from dualpipe_sim.order.placement import Placement, loop, opposed
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.order.text import parse_order
from dualpipe_sim.schedules.registry import build, schedules, spec

UNIT = UniformCosts(1.0, 1.0, 1.0, transfer_s=0.5)
TWO_PIPES = Placement(2, ((0, 1), (0, 1)))
PAIR = "0F0,2F0,(0F1;2B0)OVERLAP_F_B,0B0,0B1\n1F0,3F0,3B0,1B0,1F1,1B1\n"
ONCE = "every stage needs one F and one B, or I and W, for each micro-batch of its pipe"


def edges_by_label(graph: TaskGraph) -> set[tuple[str, str]]:
    """Every wait of a graph, the order of lanes included, in the text form's words."""
    return {(graph.label(before), graph.label(after)) for before, after in graph.to_networkx().edges}


def test_one_micro_batch_over_two_ranks_is_a_chain_with_two_transfers() -> None:
    graph = lower(parse_order("0F0,0B0\n1F0,1B0\n"), UNIT)
    assert edges_by_label(graph) == {
        ("0F0", "0SEND_F0"),
        ("0SEND_F0", "1F0"),
        ("1F0", "1B0"),
        ("1B0", "1SEND_B0"),
        ("1SEND_B0", "0B0"),
        ("0F0", "0B0"),
    }


def test_a_networkx_graph_knows_what_its_nodes_are_and_how_long_they_take() -> None:
    nodes = lower(parse_order("0F0,0B0\n1F0,1B0\n"), UNIT).to_networkx().nodes.values()
    said = {node["label"]: node["duration_s"] for node in nodes}
    assert said == {"0F0": 1, "1F0": 1, "0B0": 2, "1B0": 2, "0SEND_F0": 0.5, "1SEND_B0": 0.5}


def test_a_graph_and_its_timeline_are_a_line_each() -> None:
    graph = lower(parse_order("0F0,0B0\n1F0,1B0\n"), UNIT)
    assert repr(graph) == "<TaskGraph file, 2 ranks × 1 micro-batch, 4 phases, 2 transfers, 4 edges>"
    assert repr(longest_path.play(graph)) == "<Timeline file, 2 ranks × 1 micro-batch, 4 tasks, 7 s, longest-path>"


def test_backward_for_the_weights_holds_up_no_other_rank() -> None:
    graph = lower(parse_order("0F0,0I0,0W0\n1F0,1I0,1W0\n"), UNIT)
    assert {after for before, after in edges_by_label(graph) if before == "1W0"} == set()
    assert ("1I0", "1SEND_B0") in edges_by_label(graph)


def test_an_overlapped_pair_waits_for_the_inputs_of_both_halves_and_sends_both_outputs() -> None:
    graph = lower(parse_order(PAIR, TWO_PIPES), UNIT)
    pair = "(0F1;2B0)OVERLAP_F_B"
    waits = edges_by_label(graph)
    assert {before for before, after in waits if after == pair} == {"2F0", "3SEND_B0"}
    assert {after for before, after in waits if before == pair} == {"0B0", "0SEND_F1"}


def test_stages_of_one_rank_hand_over_without_a_transfer() -> None:
    graph = lower(parse_order("0F0,1F0,1B0,0B0\n"), UNIT)
    assert len(graph.transfers) == 0
    assert edges_by_label(graph) == {("0F0", "1F0"), ("1F0", "1B0"), ("1B0", "0B0")}


SIZES = [
    (name, ranks, micro_batches) for name in schedules() for ranks in range(1, 7) for micro_batches in range(1, 13)
]


def needed_slices(schedule: Schedule, op: Op) -> list[Op]:
    """Ops of the same stage and micro-batch that an op needs: keys and values before it, gradients behind it."""
    if op.kind == F and op.slice:
        return [op._replace(slice=op.slice - 1)]
    later = op.kind == B and op.slice is not None and op.slice + 1 < schedule.slices
    return [op._replace(slice=(op.slice or 0) + 1)] if later else []


def needed_ops(schedule: Schedule, op: Op) -> list[tuple[tuple[Kind, ...], int]]:
    """Kinds and stages that an op needs of its micro-batch, from what training is and not from the program."""
    placement = schedule.placement
    last = len(placement.pipes[placement.pipe_of_stage[op.stage]]) - 1
    depth = placement.depth_of_stage[op.stage]
    everywhere = sorted(min(placement.stages_of_rank(rank)) for rank in range(placement.ranks))
    of_others: dict[Kind, list[tuple[tuple[Kind, ...], int]]] = {
        F: [((F,), op.stage - 1)] if depth > 0 else [],
        W: [((I,), op.stage)],
        R: [((F,), op.stage)],
        O: [((F,), op.stage)],
        L: [((O,), op.stage)],
        S: [((F,), last)],
        T: [((S,), stage) for stage in everywhere],
    }
    if op.kind in of_others:
        return of_others[op.kind]
    if depth < last:
        return [((F,), op.stage), ((B, I), op.stage + 1)]
    passed = {None: [], "two barriers": [T]}.get(schedule.vocabulary, [S])
    return [((F,), op.stage), *(((kind,), stage) for kind in passed for stage in everywhere)]


@given(st.sampled_from([size for size in SIZES if spec(size[0]).accepts(*size[1:])]))
@pytest.mark.slow
def test_each_op_follows_all_that_it_needs_and_no_op_waits_in_a_circle(size: tuple[str, int, int]) -> None:
    name, ranks, micro_batches = size
    schedule = spec(name).build(ranks, micro_batches, {})
    graph = lower(schedule, UNIT)
    waits = graph.to_networkx()
    assert nx.is_directed_acyclic_graph(waits)
    ops = [schedule.op(row) for row in range(len(schedule.rank))]
    before = {task: nx.ancestors(waits, task) for task in range(graph.first_transfer)}
    task_of = dict(zip(ops, schedule.task_of_op.tolist(), strict=True))
    for op in ops:
        for kinds, stage in needed_ops(schedule, op):
            (needed,) = (task_of[o] for o in ops if o.kind in kinds and o[1:] == (stage, *op[2:]))
            assert needed in before[task_of[op]]
        assert {task_of[one] for one in needed_slices(schedule, op)} <= before[task_of[op]]


@given(st.sampled_from([size for size in SIZES if spec(size[0]).accepts(*size[1:])]))
def test_each_boundary_between_ranks_is_crossed_once_each_way_by_each_micro_batch(size: tuple[str, int, int]) -> None:
    name, ranks, micro_batches = size
    schedule = spec(name).build(ranks, micro_batches, {})
    graph = lower(schedule, UNIT)
    crossings = sum(
        2 * micro_batches_of_pipe * sum(here != there for here, there in pairwise(pipe))
        for pipe, micro_batches_of_pipe in zip(schedule.placement.pipes, schedule.micro_batches_of_pipe, strict=True)
    )
    crossings *= schedule.slices
    assert len(graph.transfers) == crossings
    assert len(set(zip(graph.transfers.producer, graph.transfers.consumer, strict=True))) == crossings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0F0,0B0\n1F0\n", f"1B0 on rank 1 never runs (nor 1I0); {ONCE}"),
        ("0F0,0B0,0F1,0B1\n1F0,1B0,1B1\n", f"1F1 on rank 1 never runs; {ONCE}"),
        ("0F0,0I0\n1F0,1B0\n", f"0W0 on rank 0 never runs; {ONCE}"),
        ("0F0,0W0,0B0,0F1,0I1,0W1\n1F0,1B0,1F1,1B1\n", "0W0 on rank 0 needs 0I0, which never runs"),
        ("0F0,0B0,0F0\n1F0,1B0\n", f"0F0 on rank 0 runs twice; {ONCE}"),
        ("0F0,0B0,0I0\n1F0,1B0\n", f"0B0 on rank 0 runs beside 0I0; {ONCE}"),
    ],
)
def test_an_order_that_is_no_training_step_is_refused_with_the_op_and_its_rank(text: str, message: str) -> None:
    with pytest.raises(ScheduleError) as error:
        lower(parse_order(text, loop(2)), UNIT)
    assert str(error.value) == message


def test_an_op_on_a_rank_that_does_not_hold_its_stage_is_refused() -> None:
    with pytest.raises(ScheduleError, match=r"^1F0 on rank 0 is on the wrong rank: stage 1 sits on rank 1$"):
        lower(parse_order("0F0,1F0,1B0,0B0\n1F1,1B1\n", loop(2)), UNIT)


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        (UniformCosts(float("nan"), 1, 1), "F of stage 0 takes nan s; times must be finite and 0 or more"),
        (UniformCosts(1, float("inf"), 1), "B of stage 0 takes inf s; times must be finite and 0 or more"),
        (UniformCosts(1, 1, 1, transfer_s=-0.1), "a transfer takes -0.1 s; times must be finite and 0 or more"),
    ],
)
def test_times_that_are_no_times_are_refused(costs: Costs, message: str) -> None:
    with pytest.raises(UserError) as error:
        lower(parse_order("0F0,0B0\n1F0,1B0\n"), costs)
    assert str(error.value) == message


def test_a_transfer_given_as_bytes_takes_latency_and_bytes_over_bandwidth_of_its_route() -> None:
    cluster = Cluster(gpus_per_node=2, nvlink=Link(100e9, 2e-6), infiniband=Link(10e9, 6e-6))
    costs = UniformCosts(1, 1, 1, transfer_s=None, transfer_bytes=1e6)
    graph = lower(spec("1f1b").build(4, 1, {}), costs, cluster.topology(4))
    ranks = graph.schedule.rank
    seconds = dict(
        zip(
            zip(ranks[graph.transfers.producer], ranks[graph.transfers.consumer], strict=True),
            graph.duration_s[graph.first_transfer :],
            strict=True,
        )
    )
    inside, between = 2e-6 + 1e6 / 100e9, 6e-6 + 1e6 / 10e9
    expected = {(0, 1): inside, (1, 2): between, (2, 3): inside, (1, 0): inside, (2, 1): between, (3, 2): inside}
    assert seconds == pytest.approx(expected, rel=1e-12)


def test_bytes_without_a_cluster_are_refused() -> None:
    costs = UniformCosts(1, 1, 1, transfer_s=None, transfer_bytes=1e6)
    with pytest.raises(ScheduleError, match=r"given as bytes, so a cluster is needed"):
        lower(spec("1f1b").build(2, 1, {}), costs)


@dataclass(frozen=True)
class Layers:
    """Two layers an op: attention on the compute lane, then an all-to-all that waits for it."""

    transfer_s: float | None = 0.0
    transfer_bytes: float = 0.0

    def on(self, placement: Placement) -> "Layers":  # noqa: ARG002 - the same at every stage
        return self

    def phases(self, task: TaskShape) -> tuple[Phase, ...]:
        phases: list[Phase] = []
        for half, (kind, _) in enumerate(task):
            for layer in range(2):
                before = (len(phases) - 1,) if layer else ()
                phases.append(Phase(Lane.COMPUTE, 2.0, kind, "attn", layer, half, before))
                phases.append(Phase(Lane.ALLTOALL, 1.0, kind, "combine", layer, half, (len(phases) - 1,)))
        return tuple(phases)


def test_a_task_starts_when_every_lane_of_the_one_before_it_is_done() -> None:
    graph = lower(parse_order("0F0,0B0\n"), Layers())
    timeline = longest_path.play(graph)
    assert timeline.task_start_s.tolist() == [0.0, 6.0]
    assert timeline.task_end_s.tolist() == [6.0, 12.0]
    labels = ["0F0 attn F layer 0", "0F0 combine F layer 0", "0F0 attn F layer 1", "0F0 combine F layer 1"]
    assert [graph.label(node) for node in range(4)] == labels
    assert [graph.lane_name(node) for node in range(4)] == ["compute", "alltoall"] * 2


def test_each_half_of_a_pair_sends_its_output_when_its_own_last_phase_ends() -> None:
    graph = lower(parse_order(PAIR, TWO_PIPES), Layers())
    senders = {graph.label(graph.first_transfer + at): graph.label(node) for at, node in enumerate(graph.sender)}
    assert senders["0SEND_F1"] == "0F1 combine F layer 1"
    assert senders["3SEND_B0"] == "3B0 combine B layer 1"


SHAPES: list[Callable[[float, float], Costs]] = [
    lambda a, b: UniformCosts(a, b, 1.0, transfer_s=b),
    lambda a, b: UniformCosts(a, b, 1.0, a + b, transfer_s=None, transfer_bytes=1e6 * a),
]


@given(st.sampled_from(SHAPES), st.floats(0.1, 9), st.floats(0.1, 9))
def test_a_graph_priced_anew_is_the_graph_lowered_anew(
    shape: Callable[[float, float], Costs], a: float, b: float
) -> None:
    schedule, topology = spec("dualpipe").build(4, 8, {}), Cluster(gpus_per_node=2).topology(4)
    graph = lower(schedule, UNIT)
    costs = shape(a, b)
    assert np.array_equal(durations_s(graph, costs, topology), lower(schedule, costs, topology).duration_s)


def test_a_graph_whose_links_are_shared_is_priced_by_playing_only() -> None:
    topology = Cluster(gpus_per_node=2).topology(2)
    costs = UniformCosts(1, 1, 1, transfer_s=None, transfer_bytes=1e6)
    graph = lower(parse_order("0F0,0B0\n1F0,1B0\n"), costs, topology, contention=True)
    with pytest.raises(UserError, match=r"^where links or SMs are shared, durations come from playing; lower the"):
        durations_s(graph, costs, topology)


def test_costs_of_other_phases_cannot_price_a_graph() -> None:
    graph = lower(parse_order("0F0,0B0\n"), UNIT)
    with pytest.raises(UserError, match=r"other phases than the graph's; lower the schedule with them$"):
        durations_s(graph, Layers())


def test_ops_of_opposed_pipes_stand_on_their_own_ranks() -> None:
    graph = lower(spec("dualpipe").build(4, 8, {}), UNIT)
    schedule = graph.schedule
    assert schedule.placement == opposed(4)
    rows = graph.op_of_node[: graph.first_transfer]
    assert (schedule.rank[rows] == graph.rank).all()
    assert (schedule.kind[rows[schedule.partner[rows] >= 0]] == F).all()


@dataclass(frozen=True)
class OnALane(UniformCosts):
    """Costs whose phases run on a lane of choice, or that have none."""

    lane: int | None = None

    def on(self, placement: Placement) -> Any:  # noqa: ANN401, ARG002 - what a stranger may bring
        lane = self.lane

        class Stages:
            transfer_s = 0.0
            transfer_bytes = 0.0

            def phases(self, task: TaskShape) -> tuple[Phase, ...]:
                return () if lane is None else (Phase(cast("Lane", lane), 1.0, task[0][0], "tensor"),)

        return Stages()


@pytest.mark.parametrize("lane", [2, 3, 6, -1])
def test_a_lane_that_no_phase_runs_on_is_named_and_does_not_land_on_the_next_rank(lane: int) -> None:
    lanes = r"compute \(0\), alltoall \(1\), copy \(4\) or data \(5\)"
    message = rf"F of stage 0 has a phase 'tensor' on lane {lane}; phases run on {lanes}"
    with pytest.raises(UserError, match=message):
        lower(build("1f1b", 2, 2), OnALane(1, 1, 1, lane=lane))


def test_a_task_without_phases_is_named() -> None:
    with pytest.raises(UserError, match="the costs have no phases for F of stage 0; a task is one phase at least"):
        lower(build("1f1b", 2, 2), OnALane(1, 1, 1))


def test_costs_that_know_no_model_have_no_attention_to_exchange() -> None:
    assert longest_path.play(lower(build("slimpipe", 2, 2), UNIT)).caveats == ()
