"""Scenarios: what is drawn, that all schedules meet the same, and what it does to a step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim import UserError, build
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine import discrete_event, longest_path
from dualpipe_sim.engine.scenarios import Drawn, Scenarios, makespans_s
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.order.ops import B, F, I, W
from dualpipe_sim.schedules import schedules

UNIT = UniformCosts(1.0, 1.0, 1.0, transfer_s=0.1)
NOTHING = Scenarios(jitter=0.0, stragglers=0.0, slow_links=0.0)


def graph(name: str = "dualpipe", ranks: int = 4, micro_batches: int = 16, **options: object) -> TaskGraph:
    return lower(build(name, ranks, micro_batches, **options), UNIT)


def factors(played: TaskGraph, scenarios: Scenarios, run: int = 0) -> np.ndarray:
    return Drawn(played, scenarios).durations_s(run) / played.duration_s


def of_ops(played: TaskGraph, drawn: np.ndarray) -> dict[tuple[int, int, int], float]:
    """What was drawn for each op by kind, place in its pipe and number in the step, of tasks that are one op."""
    schedule = played.schedule
    pipe = schedule.placement.pipe_of_stage[schedule.stage]
    number = schedule.micro_batch + np.append(0, np.cumsum(schedule.micro_batches_of_pipe))[pipe]
    depth = schedule.placement.depth_of_stage[schedule.stage]
    rows = [(task, op) for task, op in enumerate(schedule.first_op) if schedule.partner[op] < 0]
    return {(int(schedule.kind[op]), int(depth[op]), int(number[op])): float(drawn[task]) for task, op in rows}


@pytest.mark.parametrize("name", [name for name in schedules() if name not in ("zb-auto", "chimera")])
def test_where_nothing_happens_a_scenario_is_the_plain_run_to_the_last_bit(name: str) -> None:
    plain = graph(name)
    drawn = Drawn(plain, NOTHING, sensitivity=np.full(plain.first_transfer, 0.7))
    np.testing.assert_array_equal(drawn.durations_s(3), plain.duration_s)
    assert makespans_s(drawn, plain, range(2)).tolist() == [longest_path.play(plain).makespan_s] * 2


@given(
    st.integers(0, 2**32), st.integers(0, 500), st.sampled_from(["dualpipe", "zb-h1", "interleaved-1f1b", "seq1f1b"])
)
def test_a_scenario_depends_on_its_number_and_the_seed_alone(seed: int, run: int, name: str) -> None:
    played, told = graph(name), Scenarios(seed=seed)
    one = Drawn(played, told).durations_s(run)
    other = Drawn(played, told)
    other.durations_s(run + 1)
    np.testing.assert_array_equal(one, other.durations_s(run))
    assert not np.array_equal(one, Drawn(played, replace(told, seed=seed + 1)).durations_s(run))
    assert not np.array_equal(one, other.durations_s(run + 1))


def test_schedules_that_cut_the_model_alike_meet_the_same_draws() -> None:
    told = replace(NOTHING, jitter=0.1)
    plain, split, both = (graph(name) for name in ("1f1b", "zb-h1", "dualpipe"))
    ours, theirs, pairs = (of_ops(one, factors(one, told)) for one in (plain, split, both))
    for (kind, depth, number), drawn in ours.items():
        if kind == F:
            assert drawn == theirs[F, depth, number]
        else:  # a full backward is an I and a W
            assert drawn == pytest.approx((theirs[I, depth, number] + theirs[W, depth, number]) / 2)
    assert pairs.items() & theirs.items()  # ops of both of its pipes that run alone
    assert all(drawn == theirs[key] for key, drawn in pairs.items() if key[0] != B)


def test_more_micro_batches_leave_the_draws_of_the_first_as_they_are() -> None:
    told = Scenarios(stragglers=0.5)
    few, many = (of_ops(one, factors(one, told)) for one in (graph("1f1b"), graph("1f1b", micro_batches=23)))
    assert all(many[key] == drawn for key, drawn in few.items())


def test_jitter_is_that_of_a_ranks_share_however_it_is_cut() -> None:
    """Independent parts: the deviation of a sum is the root of the sum of squares, so halves vary root 2 as much."""
    told = replace(NOTHING, jitter=0.1)
    whole, halves = graph("1f1b", 4, 64), graph("interleaved-1f1b", 4, 64, stages_per_rank=2)
    drawn = {}
    for name, one in (("whole", whole), ("halves", halves)):
        of_runs = [of_ops(one, factors(one, told, run)) for run in range(20)]
        drawn[name] = np.array([value for ops in of_runs for key, value in ops.items() if key[0] == F])
    assert drawn["whole"].mean() == pytest.approx(1, abs=0.005)
    assert drawn["whole"].std() == pytest.approx(0.1, rel=0.05)
    assert drawn["halves"].std() == pytest.approx(0.1 * 2**0.5, rel=0.05)
    assert (drawn["whole"] > 0).all()


def test_a_pair_takes_what_its_forward_and_its_backward_do() -> None:
    told = replace(NOTHING, jitter=0.1)
    paired, split = graph("dualpipe", 4, 16), graph("zb-h1", 4, 16)
    own, drawn = of_ops(split, factors(split, told)), factors(paired, told)
    schedule = paired.schedule
    depth = schedule.placement.depth_of_stage
    before = np.array([0, 8])  # two pipes with eight micro-batches each
    pairs = [(task, op) for task, op in enumerate(schedule.first_op) if schedule.partner[op] >= 0]
    assert pairs
    for task, op in pairs:
        forward, backward = schedule.op(int(op)), schedule.op(int(op) + 1)
        number = [one.micro_batch + before[schedule.placement.pipe_of_stage[one.stage]] for one in (forward, backward)]
        f = own[F, depth[forward.stage], number[0]]
        b = own[I, depth[backward.stage], number[1]] + own[W, depth[backward.stage], number[1]]
        assert drawn[task] == pytest.approx((f + b) / 3)  # F, I and W take 1 s each


def test_all_ranks_slow_is_a_flow_shop() -> None:
    """GPipe's forwards, then its backwards, pass from rank to rank in one order: sum of all + (M - 1) x the slowest."""
    played = lower(build("gpipe", 6, 9), UniformCosts(1.0, 1.0, 1.0))
    drawn = Drawn(played, replace(NOTHING, stragglers=1.0, slowdown=0.5))
    for run in range(5):
        phases = drawn.durations_s(run)[: played.first_transfer]
        by_rank = [set(phases[(played.rank == rank) & _forwards(played)].tolist()) for rank in range(6)]
        assert {len(one) for one in by_rank} == {1}
        slowness = np.array([one.pop() for one in by_rank])
        assert (slowness > 1).all()
        expected_s = 3 * (slowness.sum() + 8 * slowness.max())
        assert makespans_s(drawn, played, [run])[0] == pytest.approx(expected_s, rel=1e-12)


def _forwards(played: TaskGraph) -> np.ndarray:
    return np.asarray(played.schedule.kind[played.schedule.first_op[played.task]] == F)


def test_as_many_ranks_and_links_are_slow_as_was_said_and_by_as_much() -> None:
    played = graph("1f1b", 16, 16)
    drawn = Drawn(played, replace(NOTHING, stragglers=0.25, slowdown=0.4, slow_links=0.5, link_slowdown=2.0))
    ranks, links = [], []
    for run in range(400):
        factor = drawn.durations_s(run) / played.duration_s
        ranks.append([factor[: played.first_transfer][played.rank == rank].max() for rank in range(16)])
        of_hop = played.schedule.rank[played.transfers.producer]  # activations leave a rank by one link
        forward = played.schedule.kind[played.transfers.producer] == F
        links.append([factor[played.first_transfer :][forward & (of_hop == rank)].max() for rank in range(15)])
    for found, chance, more in ((np.array(ranks), 0.25, 0.4), (np.array(links), 0.5, 2.0)):
        slow = found[found > 1]
        assert len(slow) / found.size == pytest.approx(chance, abs=0.02)
        assert slow.mean() - 1 == pytest.approx(more, rel=0.1)


def test_a_link_is_slow_in_both_directions() -> None:
    played = graph("1f1b", 8, 8)
    factor = factors(played, replace(NOTHING, slow_links=0.5))[played.first_transfer :]
    ends = played.schedule.rank[played.transfers.producer], played.schedule.rank[played.transfers.consumer]
    by_link: dict[tuple[int, int], set[float]] = {}
    for one, other, drawn in zip(*ends, factor.round(12), strict=True):
        by_link.setdefault((min(one, other), max(one, other)), set()).add(drawn)
    assert {len(drawn) for drawn in by_link.values()} == {1}
    assert len({drawn for one in by_link.values() for drawn in one}) > 2


def test_slow_ranks_slow_compute_alone() -> None:
    played = lower(build("po-h", 4, 8), UniformCosts(1.0, 1.0, 1.0, transfer_s=0.1, offload=0.5))
    factor = factors(played, replace(NOTHING, stragglers=1.0))[: played.first_transfer]
    assert (factor[played.on(Lane.COPY)] == 1).all()
    assert (factor[played.on(Lane.COMPUTE)] > 1).all()


def test_simpy_plays_the_same() -> None:
    played = graph("zb-v", 4, 12)
    drawn = Drawn(played, Scenarios(stragglers=0.3, slow_links=0.3))
    ours = makespans_s(drawn, played, range(5))
    theirs = [discrete_event.play(replace(played, duration_s=drawn.durations_s(run))).makespan_s for run in range(5)]
    assert ours.tolist() == theirs


@pytest.mark.parametrize("key", ["stragglers", "slow_links", "expert_share"])
def test_a_chance_above_one_is_refused(key: str) -> None:
    with pytest.raises(UserError, match=rf"^scenarios\.{key}: must be from 0 to 1, like 0.05, got 1.5$"):
        Scenarios(**{key: 1.5})  # type: ignore[arg-type]
