"""Orders of the same tasks, many side by side or one after a move: each as if it were lowered and played by itself."""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim.base.arrays import IntArray
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine import longest_path, many_orders
from dualpipe_sim.engine.after_move import Evaluated, Move
from dualpipe_sim.engine.any_order import AnyOrder
from dualpipe_sim.engine.many_orders import makespans_of_orders
from dualpipe_sim.errors import DeadlockError, UserError
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.hardware.cluster import Topology
from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.ops import COPIES, B, F, I, Op, S, T, W
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.order.text import parse_order
from dualpipe_sim.schedules.registry import build, schedules
from tests.strategies import RandomPhases, topologies

if TYPE_CHECKING:
    from tests.conftest import Calls

WHOLE = ("gpipe", "1f1b", "zb-h1", "interleaved-1f1b", "zb-v", "chimera", "dualpipe")  # no slices, nothing run again
OTHERS = ("seq1f1b", "slimpipe", "1f1b-recompute")


class Setting(NamedTuple):
    """A schedule, what its ops take, and what is between its ranks."""

    schedule: Schedule
    costs: UniformCosts
    topology: Topology | None = None

    @property
    def tasks(self) -> AnyOrder:
        return AnyOrder.of(lower(*self))

    def alone_s(self, schedule: Schedule) -> float:
        """Lower and play an order by itself."""
        try:
            return longest_path.play(lower(schedule, self.costs, self.topology)).makespan_s
        except DeadlockError:
            return inf


seconds = st.floats(0, 3)
costs_with_hops = st.builds(UniformCosts, seconds, seconds, seconds, transfer_s=seconds)
costs_of_bytes = st.builds(
    UniformCosts, seconds, seconds, seconds, transfer_s=st.none(), transfer_bytes=st.floats(0, 1e10)
)
schedules_of = {name: build(name, 4, 8) for name in WHOLE + OTHERS}
some_schedule = st.sampled_from(list(schedules_of.values()))
settings = st.builds(Setting, some_schedule, costs_with_hops, st.none()) | st.builds(
    Setting, some_schedule, costs_of_bytes, topologies(4)
)
seeds = st.integers(0, 2**32)


def disordered(tasks: AnyOrder, seed: int) -> IntArray:
    """Draw orders, the first the schedule's own and each farther from it; the last ones mostly deadlock."""
    random, rank = np.random.default_rng(seed), tasks.schedule.rank_of_task
    places = np.arange(tasks.tasks) + np.linspace(0, 6, 12)[:, None] * random.random((12, tasks.tasks))
    return np.array([np.lexsort((place, rank)) for place in [*places, random.random(tasks.tasks)]])


def inputs(schedule: Schedule, op: Op) -> list[tuple[Op, ...]]:
    """What an op of a whole micro-batch waits for, each as the ops of which one makes it."""
    kind, stage, micro_batch, _ = op
    placement = schedule.placement
    if kind == W:
        return [(Op(I, stage, micro_batch),)]
    if kind == F:
        return [] if placement.is_first[stage] else [(Op(F, stage - 1, micro_batch),)]
    after = [] if placement.is_last[stage] else [(Op(B, stage + 1, micro_batch), Op(I, stage + 1, micro_batch))]
    return [(Op(F, stage, micro_batch),), *after]


def replayed_s(schedule: Schedule, task_s: dict[str, float], hop_s: float) -> float:
    """Play an order task by task, with a dictionary of what ended when."""
    end_s: dict[Op, float] = {}
    rank_of = schedule.placement.rank_of_stage
    lines, free_s = [list(line) for line in schedule.order], [0.0] * schedule.ranks
    moved = True
    while moved:
        moved = False
        for rank, line in enumerate(lines):
            waits = [either for op in line[0].ops for either in inputs(schedule, op)] if line else [()]
            made = [one for either in waits for one in either if one in end_s]
            if len(made) < len(waits):
                continue
            task = line.pop(0)
            arrivals_s = (end_s[one] + hop_s * (rank_of[one.stage] != rank) for one in made)
            free_s[rank] = max(free_s[rank], *arrivals_s, 0.0) + task_s[str(task)]
            end_s.update(dict.fromkeys(task.ops, free_s[rank]))
            moved = True
    return inf if any(lines) else max(free_s)


# --- side by side ----------------------------------------------------------------------------------------------------


@given(settings, seeds)
def test_orders_side_by_side_take_as_long_as_each_alone(setting: Setting, seed: int) -> None:
    tasks = setting.tasks
    orders = disordered(tasks, seed)
    alone_s = [setting.alone_s(tasks.ordered(order)) for order in orders]
    assert makespans_of_orders(tasks, orders).tolist() == alone_s  # to the last bit
    assert alone_s[0] < inf  # (the schedule itself; that others deadlock is claimed below)


@given(st.sampled_from(WHOLE), costs_with_hops, seeds)
def test_orders_take_as_long_as_op_by_op(name: str, costs: UniformCosts, seed: int) -> None:
    setting = Setting(schedules_of[name], costs)
    tasks = setting.tasks
    orders = disordered(tasks, seed)
    task_s = {str(tasks.schedule.task(task)): one_s for task, one_s in enumerate(tasks.duration_s.tolist())}
    hop_s = costs.transfer_s
    assert isinstance(hop_s, float)
    alone_s = [replayed_s(tasks.ordered(order), task_s, hop_s) for order in orders]
    assert makespans_of_orders(tasks, orders).tolist() == alone_s


def test_some_orders_are_legal_and_some_deadlock() -> None:
    for schedule in schedules_of.values():
        tasks = Setting(schedule, UniformCosts(1.0, 1.0, 1.0)).tasks
        finite = [np.isfinite(makespans_of_orders(tasks, disordered(tasks, seed))).sum() for seed in range(20)]
        assert 40 < sum(finite) < 220  # of 260


@pytest.mark.parametrize("name", schedules())
def test_every_schedule_is_an_order_of_its_own_tasks(name: str) -> None:
    setting = Setting(build(name, 4, 8), UniformCosts(1.0, 1.25, 0.5, transfer_s=0.125))
    if setting.schedule.of_kinds(S, T, *COPIES).any():
        with pytest.raises(UserError, match="orders side by side"):
            _ = setting.tasks
        return
    tasks = setting.tasks
    itself = np.arange(tasks.tasks)
    assert tasks.ordered(itself) == setting.schedule
    assert makespans_of_orders(tasks, itself[None]).tolist() == [setting.alone_s(setting.schedule)]


def test_by_hand_with_deadlocks_of_every_kind() -> None:
    tasks = AnyOrder.of(lower(parse_order("0F0,0I0,0W0\n1F0,1I0,1W0\n"), UniformCosts(1.0, 2.0, 4.0, transfer_s=0.5)))
    orders = [
        [0, 1, 2, 3, 4, 5],  # 1 + 0.5 + 1 + 2 + 0.5 + 2 + 4
        [0, 2, 1, 3, 4, 5],  # W before its I
        [1, 0, 2, 3, 4, 5],  # I before its F, on the first rank
        [0, 1, 2, 4, 3, 5],  # and on the last one
    ]
    assert makespans_of_orders(tasks, np.array(orders)).tolist() == [11.0, inf, inf, inf]


def test_ranks_that_have_nothing_to_do_are_done() -> None:
    builder = OrderBuilder(Placement(5, ((1, 1, 3),)), (1,))
    for rank, stage, kind in ((1, 0, F), (1, 1, F), (1, 1, B), (1, 0, B), (3, 2, F), (3, 2, B)):
        builder.rank(rank).op(kind, stage, 0)
    tasks = Setting(builder.schedule("two of five"), UniformCosts(3.0, 3.0, 3.0, transfer_s=2.0)).tasks
    orders = np.array([[0, 1, 2, 3, 4, 5], [1, 0, 2, 3, 4, 5]])
    assert makespans_of_orders(tasks, orders).tolist() == [3 * (5 + 10) + 2 + 2, inf]  # (five ranks' shares are on two)
    walk = Evaluated(tasks, orders[0])
    assert (walk.makespan_s, walk.after(Move(0, 1)), walk.after(Move(5, 5))) == (49, inf, 49)


@pytest.mark.parametrize("cells", [1, 700, 10**6])
def test_blocks_of_any_size_give_the_same(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = Setting(schedules_of["zb-h1"], UniformCosts(1.0, 1.25, 0.5, transfer_s=0.125)).tasks
    orders = np.concatenate([disordered(tasks, seed) for seed in range(4)])
    one_by_one = [makespans_of_orders(tasks, order[None])[0] for order in orders]
    monkeypatch.setattr(many_orders, "_BLOCK_CELLS", cells)
    assert makespans_of_orders(tasks, orders).tolist() == one_by_one
    assert makespans_of_orders(tasks, orders[:0]).tolist() == []


def test_a_block_of_orders_takes_as_many_calls_as_one(calls: Calls) -> None:
    tasks = Setting(build("1f1b", 8, 32), UniformCosts(1.0, 1.0, 1.0)).tasks
    itself = np.arange(tasks.tasks)[None]
    _, one, many = (calls(partial(makespans_of_orders, tasks, itself.repeat(count, 0))) for count in (1, 1, 200))
    assert many == one  # (the first time warms up)


def test_what_is_no_order_is_refused() -> None:
    tasks = Setting(schedules_of["1f1b"], UniformCosts(1.0, 1.0, 1.0)).tasks
    right = np.arange(64)
    doubled, astray, beyond, wrapped = (right.copy() for _ in range(4))
    doubled[1] = 0
    astray[[0, 63]] = astray[[63, 0]]
    beyond[63] = 64
    wrapped[0] = 2**32
    for wrong in (doubled, astray, beyond, wrapped):
        with pytest.raises(UserError, match=r"^order 1 must hold each of the 64 tasks once, on the task's own rank$"):
            makespans_of_orders(tasks, np.stack([right, wrong]))
        with pytest.raises(UserError, match="must hold each"):
            Evaluated(tasks, wrong)
    for shape in (right, right[None, 1:], right[None].astype(float)):
        with pytest.raises(UserError, match=r"^orders must be integers of shape \(orders, 64\), got "):
            makespans_of_orders(tasks, shape)


def test_times_that_depend_on_the_order_are_refused() -> None:
    schedule, costs = schedules_of["1f1b"], UniformCosts(1.0, 1.0, 1.0)
    with pytest.raises(UserError, match="every task must be one phase of compute"):
        AnyOrder.of(lower(schedule, RandomPhases(0)))
    with pytest.raises(UserError, match="times must not depend on the order"):
        AnyOrder.of(lower(schedule, costs, rendezvous=True))


# --- after a move ----------------------------------------------------------------------------------------------------


def after(order: IntArray, move: Move) -> IntArray:
    changed = order.tolist()
    changed.insert(move.to, changed.pop(move.place))
    return np.array(changed)


def drawn_moves(tasks: AnyOrder, random: np.random.Generator, count: int) -> list[Move]:
    """Draw moves of which half are swaps of neighbours and the others go anywhere on the rank, or nowhere."""
    rank = tasks.schedule.rank_of_task
    places = random.integers(0, tasks.tasks, (count, 2))
    places[::2, 1] = places[::2, 0] + random.choice([-1, 1], len(places[::2]))
    inside = (places >= 0).all(axis=1) & (places < tasks.tasks).all(axis=1)
    return [Move(place, to) for place, to in places[inside].tolist() if rank[place] == rank[to]]


@given(settings, seeds)
def test_after_each_of_many_moves_the_makespan_is_that_of_the_whole(setting: Setting, seed: int) -> None:
    tasks, random = setting.tasks, np.random.default_rng(seed)
    order = np.arange(tasks.tasks)
    walk = Evaluated(tasks, order)
    for _ in range(6):  # every other time from an order that moves have led to
        moves = drawn_moves(tasks, random, 60)
        expected_s = makespans_of_orders(tasks, np.array([after(order, move) for move in moves])).tolist()
        assert [walk.after(move) for move in moves] == expected_s  # to the last bit
        for move, makespan_s in zip(moves, expected_s, strict=True):
            if makespan_s < inf:
                before_s = walk.after(move)
                walk.make(move)
                order = after(order, move)
                assert walk.makespan_s == before_s == makespan_s
                break
        assert walk.order.tolist() == order.tolist()


@given(settings, seeds)
def test_moves_there_and_back_again_change_nothing(setting: Setting, seed: int) -> None:
    tasks, random = setting.tasks, np.random.default_rng(seed)
    walk = Evaluated(tasks, np.arange(tasks.tasks))
    at_first_s = walk.makespan_s
    made = []
    for move in drawn_moves(tasks, random, 60):
        if walk.after(move) < inf:
            walk.make(move)
            made.append(move)
    assert walk.makespan_s == makespans_of_orders(tasks, walk.order[None])[0]
    for move in reversed(made):
        walk.make(Move(move.to, move.place))
    assert walk.order.tolist() == list(range(tasks.tasks))
    assert walk.makespan_s == at_first_s


def test_both_show_themselves_in_a_line() -> None:
    tasks = Setting(schedules_of["1f1b"], UniformCosts(1.0, 1.0, 1.0)).tasks
    assert repr(tasks) == "<AnyOrder 1f1b, 4 ranks × 8 micro-batches, 64 tasks, 1 slot>"
    walk = Evaluated(tasks, np.arange(64))
    assert repr(walk) == "<Evaluated 1f1b, 4 ranks × 8 micro-batches, makespan_s=33>"  # (8 + 4 - 1) · (1 + 2)


def test_a_move_that_deadlocks_is_not_made() -> None:
    tasks = Setting(parse_order("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n"), UniformCosts(1.0, 1.0, 1.0)).tasks
    walk = Evaluated(tasks, np.arange(8))
    with pytest.raises(DeadlockError, match=r"the order deadlocks with 0B0 in the place of 0F0$"):
        walk.make(Move(2, 0))
    assert (walk.order.tolist(), walk.makespan_s) == (list(range(8)), 9.0)
    with pytest.raises(DeadlockError, match=r"the order deadlocks: 0B0 waits for ever$"):
        Evaluated(tasks, np.array([2, 0, 1, 3, 4, 5, 6, 7]))


@pytest.mark.parametrize("move", [Move(3, 4), Move(-1, 0), Move(7, 8)])
def test_a_move_to_no_place_of_the_rank_is_refused(move: Move) -> None:
    tasks = Setting(parse_order("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n"), UniformCosts(1.0, 1.0, 1.0)).tasks
    with pytest.raises(
        UserError, match=rf"between two places of one rank, of 8 in all; got {move.place} and {move.to}$"
    ):
        Evaluated(tasks, np.arange(8)).after(move)
