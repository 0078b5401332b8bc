"""The optimum by CP-SAT: what it must be by hand, by trying all orders and by papers, and what it says of schedules."""

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpipe_sim.analysis import metrics
from dualpipe_sim.bounds.limited import MemoryLimit
from dualpipe_sim.bounds.makespan import placement_bound_s
from dualpipe_sim.bounds.optimum import Optimum, optimum, pair_seconds
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine import longest_path
from dualpipe_sim.errors import UserError
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.order import check_schedule
from dualpipe_sim.order.op_times import OpTimes
from dualpipe_sim.order.ops import Pair
from dualpipe_sim.order.placement import Placement, linear, opposed, v_shape
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import build

ROUNDING = 1 + 1e-9


def unit_times(placement: Placement, **times: float) -> OpTimes:
    return OpTimes.uniform(placement, **times)


def best(placement: Placement, micro_batches: tuple[int, ...], *, split: bool = True) -> Optimum:
    found = optimum(placement, micro_batches, unit_times(placement), split=split)
    assert found.proved
    return found


def test_without_split_1f1b_is_optimal() -> None:
    # (M + P - 1)(F + B), the least that a full backward allows; gpipe takes as long.
    assert best(linear(3), (4,), split=False).makespan_s == (4 + 3 - 1) * 3
    assert best(linear(4), (8,), split=False).makespan_s == (8 + 4 - 1) * 3


@pytest.mark.parametrize(("ranks", "micro_batches"), [(2, 4), (4, 8)])
def test_split_leaves_only_the_way_to_the_last_rank(ranks: int, micro_batches: int) -> None:
    # ZB-H2 has no bubble within a rank's span: https://arxiv.org/abs/2401.10241, section 2.3. From time 0 the last rank
    # waits for P - 1 forwards, and that can be reached.
    assert best(linear(ranks), (micro_batches,)).makespan_s == ranks - 1 + 3 * micro_batches


def test_a_memory_limit_of_one_activation() -> None:
    # F F I I on rank 0, and the W of each: (4 + 1) a micro-batch until the last; rank 0 has nothing else to do.
    placement = linear(2)
    found = optimum(placement, (3,), unit_times(placement), memory_limit=1.0)
    assert (found.makespan_s, found.proved) == (15.0, True)


def test_a_limit_below_one_activation_fits_nothing() -> None:
    with pytest.raises(UserError, match="no order fits the memory limit"):
        optimum(linear(2), (3,), unit_times(linear(2)), memory_limit=0.5)


def test_times_without_a_tick_are_refused() -> None:
    times = OpTimes(np.array([1.0, np.pi]), np.ones(2), np.ones(2))
    with pytest.raises(UserError, match="whole multiples of one tick"):
        optimum(linear(2), (1,), times)


small = st.integers(1, 4)


@given(
    placement=st.sampled_from([linear(2), linear(3), v_shape(2), opposed(2)]),
    micro_batches=st.integers(1, 3),
    times=st.tuples(small, small, small, st.integers(0, 3)),
    limit=st.none() | st.integers(1, 4),
)
@settings(max_examples=15)
def test_the_bound_is_never_above_the_optimum_and_the_optimum_plays_as_found(
    placement: Placement, micro_batches: int, times: tuple[int, ...], limit: int | None
) -> None:
    forward, backward_input, backward_weight, transfer = times
    costs = UniformCosts(2.0 * forward, 2.0 * backward_input, 2.0 * backward_weight, transfer_s=float(transfer))
    of_pipe = (micro_batches,) * len(placement.pipes)
    stage_s = costs.on(placement).stage_s
    found = optimum(placement, of_pipe, OpTimes(stage_s[0], stage_s[2], stage_s[3], transfer), memory_limit=limit)
    timeline = longest_path.play(lower(found.schedule, costs))
    assert timeline.makespan_s <= found.makespan_s * ROUNDING
    activations = found.schedule.placement.activations_of_stage
    if limit is not None:
        assert metrics.peak_activations_by_rank(timeline).max() <= limit * ROUNDING
    most = MemoryLimit(activations, np.full(placement.ranks, float(limit or 1e9)), from_start=True)
    assert found.proved
    assert placement_bound_s(placement, of_pipe, costs.on(placement), limit=most) <= found.makespan_s * ROUNDING


@cache
def best_of(placement: Placement, of_pipe: tuple[int, ...]) -> Optimum:
    return optimum(placement, of_pipe, OpTimes.uniform(placement), within_s=20)


@pytest.mark.parametrize(
    "name", ["gpipe", "1f1b", "zb-h1", "zb-h2", "zb-v", "v-half", "v-min", "dualpipev", "dualpipe", "chimera"]
)
def test_no_schedule_is_faster_than_the_optimum_of_its_placement(name: str) -> None:
    order = build(name, 2, 4)
    makespan_s = longest_path.play(lower(order, UniformCosts(1.0, 1.0, 1.0))).makespan_s
    found = best_of(order.placement, order.micro_batches_of_pipe)
    assert found.bound_s <= makespan_s * ROUNDING
    if name in ("zb-h2", "zb-v"):  # no bubble but the way to the last rank, or back from it
        assert found.proved
        assert makespan_s == pytest.approx(found.makespan_s)


_Task = tuple[tuple[str, int], ...]
"""An op, or a forward and a backward beside it: what each does and to which micro-batch."""


def lines(micro_batches: int, kinds: str, done: tuple[_Task, ...] = ()) -> Iterator[tuple[_Task, ...]]:
    """All orders of one stage's tasks, and all ways to pair a forward with a full backward; forwards come in turn."""
    ran = [op for task in done for op in task]
    if len(ran) == micro_batches * len(kinds):
        yield done
        return
    turn = sum(op[0] == "F" for op in ran)
    forwards = [("F", turn)] if turn < micro_batches else []
    backwards = [
        [(kind, one) for kind in kinds[1:]]
        for one in range(micro_batches)
        if ("F", one) in ran and (kinds[1], one) not in ran
    ]
    weights = [("W", one) for one in range(micro_batches) if ("I", one) in ran and ("W", one) not in ran]
    alone = [*forwards, *(halves[0] for halves in backwards), *weights]
    for task in [*([op] for op in alone), *([op, *halves] for op in forwards for halves in backwards)]:
        yield from lines(micro_batches, kinds, (*done, tuple(task)))


def tried(micro_batches: int, kinds: str, lasts: dict[str, int], pair: int, hop: int) -> int:
    """The shortest makespan of two ranks of one stage each, of all orders of both, played one by one."""
    whole, best = kinds[1], 10**9
    for orders in product(list(lines(micro_batches, kinds)), repeat=2):
        end: dict[tuple[str, int, int], int] = {}
        place, free = [0, 0], [0, 0]
        for rank in (0, 1) * (2 * len(orders[0])):
            while place[rank] < len(orders[rank]):
                task = orders[rank][place[rank]]
                needs = []
                for kind, one in task:
                    if kind == "F" and rank == 1:
                        needs.append((end.get(("F", 0, one)), hop))
                    if kind == whole:
                        needs.append((end.get(("F", rank, one)), 0))
                    if kind == whole and rank == 0:
                        needs.append((end.get((whole, 1, one)), hop))
                    if kind == "W" and len(task) == 1:
                        needs.append((end.get(("I", rank, one)), 0))
                if any(at is None for at, _ in needs):
                    break
                free[rank] = max([free[rank], *(at + later for at, later in needs if at is not None)])
                free[rank] += pair if len(task) > 1 else lasts[task[0][0]]
                end.update({(kind, rank, one): free[rank] for kind, one in task})
                place[rank] += 1
        if place == [len(order) for order in orders]:
            best = min(best, max(free))
    return best


@pytest.mark.parametrize(
    ("micro_batches", "split", "times", "pair"),
    [
        *[(2, False, (1, 1, 1, 0), pair) for pair in (1, 2, 3)],
        *[(3, False, (2, 1, 2, 1), pair) for pair in (2, 3, 4, 5)],
        (3, False, (3, 1, 1, 0), 3),
        (2, True, (2, 1, 2, 1), 2),
        (2, True, (1, 2, 1, 0), 3),
    ],
)
def test_with_pairs_it_is_the_best_of_all_orders(
    micro_batches: int, split: bool, times: tuple[int, int, int, int], pair: int
) -> None:
    forward, into, weight, hop = times
    kinds = "FIW" if split else "FB"
    lasts = {"F": forward, "I": into, "W": weight, "B": into + weight}
    costs = UniformCosts(forward, into, weight, overlapped=pair, transfer_s=float(hop))
    found = with_pairs(linear(2), (micro_batches,), costs, split=split)
    assert found.proved
    assert found.makespan_s == tried(micro_batches, kinds, lasts, pair, hop)


def with_pairs(placement: Placement, of_pipe: tuple[int, ...], costs: UniformCosts, **asked: Any) -> Optimum:  # noqa: ANN401 - what optimum takes
    """The optimum by costs that know pairs; its order is whole, and the engine plays it as found."""
    laid = costs.on(placement)
    times = OpTimes(laid.stage_s[0], laid.stage_s[2], laid.stage_s[3], cast("float", costs.transfer_s))
    found = optimum(placement, of_pipe, times, pair_s=pair_seconds(laid, placement), **asked)
    check_schedule(found.schedule)
    played_s = longest_path.play(lower(found.schedule, costs)).makespan_s
    assert played_s <= found.makespan_s * ROUNDING
    assert played_s == pytest.approx(found.makespan_s) or not found.proved
    return found


def pairs_of(order: Schedule) -> int:
    return sum(isinstance(task, Pair) for line in order.order for task in line)


@pytest.mark.parametrize(
    ("name", "ranks", "micro_batches", "shortest"),
    [("1f1b-overlap", 2, 4, 12), ("1f1b-overlap", 3, 5, 17), ("dualpipe", 2, 4, 10), ("dualpipev", 2, 4, 10.5)],
)
def test_schedules_with_pairs_are_no_faster_than_the_optimum_of_their_placement(
    name: str, ranks: int, micro_batches: int, shortest: float
) -> None:
    order = build(name, ranks, micro_batches)
    costs = UniformCosts(1.0, 1.0, 1.0, overlapped=2.0)
    found = with_pairs(order.placement, order.micro_batches_of_pipe, costs, known=order, split=name != "1f1b-overlap")
    assert found.proved
    assert found.makespan_s == shortest <= longest_path.play(lower(order, costs)).makespan_s
    assert pairs_of(found.schedule)


def test_an_order_that_is_known_is_where_the_search_begins() -> None:
    order = build("dualpipe", 4, 8)
    costs = UniformCosts(1.0, 1.0, 1.0, overlapped=2.0)
    found = with_pairs(order.placement, order.micro_batches_of_pipe, costs, known=order, within_s=0.2, patience_s=60)
    assert found.makespan_s <= longest_path.play(lower(order, costs)).makespan_s


@pytest.mark.parametrize("placement", [linear(3), v_shape(2), opposed(2)])
def test_pairs_as_long_as_both_ops_change_nothing(placement: Placement) -> None:
    of_pipe = (3,) * len(placement.pipes)
    found = with_pairs(placement, of_pipe, UniformCosts(1.0, 2.0, 1.0))
    assert found.makespan_s == optimum(placement, of_pipe, unit_times(placement, backward_input=2.0)).makespan_s
    assert not pairs_of(found.schedule)


def test_pairs_keep_the_memory_limit() -> None:
    # With one activation there is never a forward beside the backward of another micro-batch.
    costs = UniformCosts(1.0, 1.0, 1.0, overlapped=1.0)
    times = [with_pairs(linear(2), (4,), costs, split=False, memory_limit=limit) for limit in (1.0, 2.0, 3.0)]
    assert [pairs_of(found.schedule) > 0 for found in times] == [False, True, True]
    assert times[0].makespan_s == 4 * (1 + 1 + 2 + 2)
    for limit, found in zip((1.0, 2.0, 3.0), times, strict=True):
        assert metrics.peak_activations_by_rank(longest_path.play(lower(found.schedule, costs))).max() <= limit
    assert times[0].makespan_s > times[1].makespan_s > times[2].makespan_s
