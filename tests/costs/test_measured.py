"""Measured costs on stages: whole, cut in other ways, in pipes and in pairs that were not measured."""

from __future__ import annotations

from typing import Any

import pytest

from dualpipe_sim import ScheduleError
from dualpipe_sim.costs.asked import op_seconds
from dualpipe_sim.costs.measured import MeasuredCosts, OpTime, StageMemory
from dualpipe_sim.order.ops import B, F, I, W
from dualpipe_sim.order.placement import Placement, linear, loop, opposed, v_shape


def four_stages(**changes: object) -> MeasuredCosts:
    """Stages whose F takes 1, 2, 3 and 4 seconds, B 10 times that, with launches of 0.1 s."""
    ops = {
        (kind, stage): OpTime(factor * (stage + 1.0), 0.1) for kind, factor in ((F, 1), (B, 10)) for stage in range(4)
    }
    values: dict[str, Any] = {"source": "costs.yaml", "stages": 4, "pipes": 1, "ops": ops, **changes}
    return MeasuredCosts(**values)


def seconds(costs: MeasuredCosts, placement: Placement, kind: int) -> list[float]:
    """Return how long each stage's op of a kind takes alone."""
    return op_seconds(costs.on(placement), kind, placement.stages).tolist()  # type: ignore[no-any-return]


def test_measured_stages_take_their_time_and_their_launch() -> None:
    costs = four_stages().on(linear(4))
    assert [costs.phases(((F, stage),))[0].duration_s for stage in range(4)] == pytest.approx([1.1, 2.1, 3.1, 4.1])
    assert seconds(four_stages(), linear(4), B) == pytest.approx([10.1, 20.1, 30.1, 40.1])
    assert seconds(four_stages(launch=False), linear(4), F) == [1, 2, 3, 4]


def test_other_cuts_take_their_share_and_one_launch() -> None:
    """Two stages hold two measured ones each, eight half of one each, three 4/3 each; the model takes 10 s in all.

    The fourth takes 1 s more than any other: that is behind its layers, so an eighth stage has it.
    """
    assert seconds(four_stages(), linear(2), F) == pytest.approx([3.1, 7.1])
    assert seconds(four_stages(), loop(4, 2), F) == pytest.approx([0.6, 0.6, 1.1, 1.1, 1.6, 1.6, 1.6, 2.6])
    thirds = [1 + 2 / 3 + 0.1, 2 * 2 / 3 + 3 * 2 / 3 + 0.1, 3 / 3 + 4 + 0.1]
    assert seconds(four_stages(), linear(3), F) == pytest.approx(thirds)


def test_what_only_the_last_stage_has_is_at_its_end_in_memory_too() -> None:
    """A stage of layers holds 8 bytes and takes 2 beside; the last one has 4 and 10 more, which its end has if cut."""
    memory = {0: StageMemory(8, 8, 2, 6), 1: StageMemory(12, 12, 12, 6, 5)}
    ops: dict[tuple[int, int], OpTime] = {(kind, stage): OpTime(1.0 + stage) for kind in (F, B) for stage in range(2)}
    costs = MeasuredCosts("costs.yaml", stages=2, pipes=1, ops=ops, memory=memory)
    assert costs.on(linear(2)).memory == (memory[0], memory[1])
    assert costs.on(v_shape(2)).memory == (
        StageMemory(4, 4, 2, 3), StageMemory(4, 4, 2, 3), StageMemory(4, 4, 2, 3), StageMemory(8, 8, 12, 3, 5),
    )  # fmt: skip
    assert seconds(costs, v_shape(2), B) == [0.5, 0.5, 0.5, 1.5]


def test_an_op_has_a_part_of_its_host_however_few_its_layers_are() -> None:
    """Of 5 s of the host, the 2 s that it takes between ops are there once in an op; its layers take the other 3."""
    ops = {(kind, stage): OpTime(1.0, 0.0, 5.0, 2.0) for kind in (F, B) for stage in range(4)}
    costs = four_stages(ops=ops)
    assert [costs.on(linear(stages)).host_s(((F, 0),)) for stages in (4, 2, 8)] == [(5, 2), (8, 2), (3.5, 2)]


def test_a_second_pipe_takes_its_own_times_or_those_of_the_first() -> None:
    assert seconds(four_stages(), opposed(4), F) == pytest.approx([1.1, 2.1, 3.1, 4.1] * 2)
    own = {(F, stage): OpTime(float(stage)) for stage in range(8)}
    two = four_stages(pipes=2, ops=own)
    assert seconds(two, opposed(4), F) == list(range(8))
    assert seconds(two, linear(4), F) == [0, 1, 2, 3]
    assert seconds(two, opposed(2), F) == [1, 5, 9, 13]


def test_a_backward_is_its_halves_and_halves_are_no_backward() -> None:
    split = {
        (kind, stage): OpTime(seconds, 0.1) for kind, seconds in ((F, 1.0), (I, 2.0), (W, 3.0)) for stage in range(4)
    }
    assert seconds(four_stages(ops=split), linear(4), B) == pytest.approx([5.1] * 4)
    with pytest.raises(ScheduleError, match=r"costs\.yaml has no time for I of stage 0, only for F, B; calibrate with"):
        four_stages().on(linear(4)).phases(((I, 0),))
    with pytest.raises(
        ScheduleError, match=r"costs\.yaml has no time for stage 2; calibrate with the traces of all ranks"
    ):
        MeasuredCosts("costs.yaml", 4, 1, {(F, 3): OpTime(1.0)}).on(linear(4)).phases(((F, 2),))


def test_pairs_that_were_not_measured_gain_what_the_others_do() -> None:
    """0F;3B takes 33 s where F and B take 41 s, 3F;0B 10.1 s where they take 14 s: together 43.1/55."""
    pairs = {(0, 3): OpTime(33.0, 0.5), (3, 0): OpTime(10.1)}
    costs = four_stages(pairs=pairs)
    on_v = costs.on(linear(4))
    assert on_v.phases(((F, 0), (B, 3)))[0].duration_s == 33.5
    assert on_v.phases(((F, 1), (B, 1)))[0].duration_s == pytest.approx(22 * 43.1 / 55 + 0.1)
    halves = costs.on(v_shape(4))
    assert halves.phases(((F, 0), (B, 7)))[0].duration_s == pytest.approx((0.5 + 15 + 10) * 43.1 / 55 + 0.1)
    assert four_stages().on(linear(4)).phases(((F, 0), (B, 3)))[0].duration_s == pytest.approx(41.1)
