"""How large a schedule says that its order is, against what it writes down."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import pytest

from dualpipe_sim.base.memory import at_most
from dualpipe_sim.errors import ScheduleError, TooLargeError
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import ScheduleSpec, build, register, schedules
from dualpipe_sim.schedules.size import unknown


def _tried(spec: ScheduleSpec) -> list[Mapping[str, object]]:
    return [dict(zip(spec.tries, values, strict=True)) for values in product(*spec.tries.values())]


@pytest.mark.parametrize("spec", [spec for spec in schedules().values() if spec.is_own], ids=lambda spec: spec.name)
def test_an_order_is_at_most_as_large_as_its_schedule_says_and_hardly_smaller(spec: ScheduleSpec) -> None:
    assert spec.size_of is not unknown
    for options in _tried(spec):
        for ranks, micro_batches in ((4, 32), (8, 48)):
            try:
                order = spec.build(ranks, micro_batches, options)
            except ScheduleError:
                continue
            said = spec.size(ranks, micro_batches, options)
            assert 0.9 * len(order.rank) <= said.ops <= 1.6 * len(order.rank), options
            assert len(order.placement.pipes[0]) == said.stages, options
            assert (said.meets > 0) == (order.vocabulary is not None), options


@pytest.mark.parametrize(
    ("name", "ranks", "micro_batches", "options", "what"),
    [
        ("1f1b", 8, 10**9, {}, r"an order of 16,000,000,000 ops takes 2,400.0 GB, but 1.0 GB are free; "),
        ("1f1b", 8, 10**9, {}, "; 416,666 micro-batches would fit"),
        ("slimpipe", 10**5, 10, {}, "; take fewer ranks or stages"),
        ("interleaved-1f1b", 4, 8, {"stages_per_rank": 10**9}, "4,000,000,000 stages are more than an order names"),
        ("hanayo", 4, 8, {"waves": 10**9}, "8,000,000,000 stages are more than an order names"),
        ("seq1f1b", 4, 8, {"slices": 10**8}, "an order of"),
        ("dualpipe", 3, 10**8, {}, "; 1,111,111 micro-batches would fit"),
    ],
)
def test_what_there_is_no_memory_for_is_refused_before_it_is_built(
    name: str, ranks: int, micro_batches: int, options: Mapping[str, object], what: str
) -> None:
    with at_most(1e9), pytest.raises(TooLargeError, match=what):
        build(name, ranks, micro_batches, **options)


@pytest.mark.parametrize("option", [10**18, -(10**18), 10**400])
def test_numbers_beyond_all_sizes_are_no_options(option: int) -> None:
    with pytest.raises(ScheduleError, match="option waves must be a whole number, no larger than 1e"):
        build("hanayo", 4, 8, waves=option)


def test_a_schedule_that_says_nothing_of_its_size_is_taken_to_be_as_large_as_its_options_can_make_it() -> None:
    @register("mine")
    def mine(ranks: int, micro_batches: int, halves: int = 2, name: str = "") -> Schedule:
        return build("1f1b", ranks, micro_batches)

    assert schedules()["mine"].size(4, 8, {"halves": 5}).ops >= 2 * 4 * 8 * 5
    with at_most(1e9), pytest.raises(TooLargeError):
        build("mine", 4, 8, halves=10**7)
