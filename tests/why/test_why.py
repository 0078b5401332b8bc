"""Why a step takes as long: slopes against other runs, sums against papers' formulas, the whole against its parts."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dualpipe_sim import ScheduleError, simulate
from dualpipe_sim.costs.measured import MeasuredCosts, OpTime
from dualpipe_sim.order.ops import B, F
from dualpipe_sim.schedules.theory import FORMULAS, closed_form
from dualpipe_sim.why import Why, why
from dualpipe_sim.why.bubble import WHERE

TIMES = st.floats(0.5, 3.0)
KEY_OF_LETTER = {"F": "forward", "I": "backward_input", "W": "backward_weight", "X": "overlapped", "C": "transfer"}
UNEVEN = {"forward": 1.0, "backward_input": 1.07, "backward_weight": 0.83}
"""Times in no corner, with which most formulas hold."""


def costs(found: Why) -> dict[str, Any]:
    return {one.key: one for one in (*found.costs, *found.hardware)}


# --- slopes ----------------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(["1f1b", "gpipe", "zb-h1", "dualpipe", "interleaved-1f1b", "chimera", "v-half", "stp"]),
    st.integers(2, 6), st.integers(1, 12), TIMES, TIMES, TIMES, st.floats(0.0, 0.5),
)  # fmt: skip
def test_costs_on_the_critical_path_are_the_step_and_lie_between_the_slopes(
    name: str, ranks: int, batches: int, forward: float, backward_input: float, backward_weight: float, transfer: float
) -> None:
    times: dict[str, Any] = {"forward": forward, "backward_input": backward_input, "backward_weight": backward_weight}
    try:
        found = why(schedule=name, ranks=ranks, micro_batches=batches, transfer=transfer, **times)
    except ScheduleError:
        assume(False)
        raise
    assert sum(one.path_s or 0.0 for one in found.costs) == pytest.approx(found.step_s)
    assert sum(found.path.seconds_by_part().values()) == pytest.approx(found.step_s)
    for one in found.costs:
        assert one.path_s is not None
        assert one.less_s - 1e-7 * found.step_s <= one.path_s <= one.more_s + 1e-7 * found.step_s
    # a maximum of sums grows the faster the further, and no faster than by all of the cost
    for one in (*found.costs, *found.hardware):
        assert one.less_s <= one.more_s + 1e-7 * found.step_s
        assert found.step_s - one.less_s / 2 - 1e-7 * found.step_s <= one.halved_s <= found.step_s * (1 + 1e-12)
    assert costs(found)["compute"].more_s + (found.step_s - sum(one.more_s for one in found.costs)) >= -1e-6


@pytest.mark.parametrize("schedule", ["1f1b", "zb-h1", "dualpipe", "interleaved-1f1b"])
def test_slopes_are_those_of_other_configurations(schedule: str) -> None:
    """The step of a configuration with a thousandth more of one key, by a run of its own."""
    given: dict[str, Any] = {
        "schedule": schedule, "ranks": 4, "micro_batches": 12, "overlapped": 2.71, "transfer": 0.013, **UNEVEN,
    }  # fmt: skip
    found = costs(why(**given))
    step_s = simulate(**given).makespan_s
    for letter, key in KEY_OF_LETTER.items():
        seconds = simulate(**{**given, key: given[key] * 1.001}).makespan_s
        assert seconds is not None
        assert step_s is not None
        cost = found.get("transfer" if letter == "C" else letter)
        slope = 0.0 if cost is None else cost.more_s
        if letter in "IW" and "B" in found:  # a backward in one piece is both
            slope = found["B"].more_s * given[key] / (given["backward_input"] + given["backward_weight"])
        assert (seconds - step_s) / 0.001 == pytest.approx(slope, abs=1e-6), letter
        halved = simulate(**{**given, key: given[key] / 2}).makespan_s
        if cost is not None:
            assert halved == pytest.approx(cost.halved_s), letter


@pytest.mark.parametrize("schedule", ["1f1b", "dualpipe"])
def test_by_layer_links_and_all_to_alls_are_as_in_other_configurations(schedule: str) -> None:
    given: dict[str, Any] = {"schedule": schedule, "micro_batches": 36, "pipeline.layout": "even"}
    found = why("deepseek_v3", **given)
    links = {"infiniband.bandwidth": 50e9, "nvlink.bandwidth": 160e9}
    for key, bandwidth in links.items():
        slower, twice = (
            simulate("deepseek_v3", **given, **{f"cluster.{key}": bandwidth * factor}).step_time_s
            for factor in (1 / 1.0001, 2)
        )
        assert slower is not None
        assert (slower - found.step_s) / 0.0001 == pytest.approx(costs(found)[key].more_s, rel=0.01)
        assert twice == pytest.approx(costs(found)[key].halved_s)
    smooth = [one for one in found.costs if one.less_s == pytest.approx(one.more_s, rel=1e-3)]
    assert len(smooth) >= 4
    assert {"F", "I", "W", "alltoall", "transfer"} <= {one.key for one in found.costs}
    after_s = found.step_s - (found.result.makespan_s or 0.0)
    assert sum(one.path_s or 0.0 for one in found.costs) == pytest.approx(found.step_s, abs=after_s + 1e-9)


def test_a_slow_host_is_all_that_its_step_depends_on() -> None:
    ops: dict[tuple[int, int], OpTime] = {
        (kind, stage): OpTime(1.0, 0.0, 5.0, 2.0) for kind in (F, B) for stage in range(4)
    }
    given = MeasuredCosts(source="costs.yaml", stages=4, pipes=1, ops=ops)
    run = why(schedule="1f1b", ranks=4, micro_batches=8, costs=given)
    found = costs(run)
    assert (found["host"].path_s, found["host"].more_s, found["host"].halved_s) == (110, 110, 58)
    assert (found["B"].path_s, found["B"].more_s, found["F"].more_s) == (3, 3, 0)
    assert run.bubble.slopes is None
    assert "it is no sum here: ops wait for their host" in run.bubble_table().text(200)


def test_where_links_are_shared_steps_are_played() -> None:
    given: dict[str, Any] = {"schedule": "gpipe", "micro_batches": 4, "contention": "fair"}
    found = why("deepseek_v3", **given)
    assert found.result.engine == "simpy"
    assert found.bubble.slopes is None
    assert "links or SMs are shared" in found.bubble_table().text(200)
    link = costs(found)["infiniband.bandwidth"]
    twice = simulate("deepseek_v3", **given, **{"cluster.infiniband.bandwidth": 100e9})
    assert link.halved_s == pytest.approx(twice.step_time_s)
    assert 0 < link.more_s < found.step_s


# --- the bubble ------------------------------------------------------------------------------------------------------


def gradient(name: str, ranks: int, batches: int, times: dict[str, float], letter: str) -> float:
    """The slope of a published formula."""
    values = []
    for little in (-1e-6, 1e-6):
        changed = {**times, **({letter: times[letter] + little} if letter in times else {})}
        form = closed_form(
            name, ranks, batches, forward=changed["F"], backward_input=changed["I"], backward_weight=changed["W"],
            overlapped=changed["X"], transfer_s=changed["C"],
        )  # fmt: skip
        assert form is not None
        assert form.bubble_s is not None
        values.append(form.bubble_s)
    return (values[1] - values[0]) / 2e-6


EXACT = [
    "gpipe", "1f1b", "interleaved-1f1b", "looped-bfs", "seq1f1b", "terapipe", "vocab-1f1b", "zb-h1", "zb-h2", "gis",
    "chimera", "dualpipe", "dualpipev",
]  # fmt: skip
"""Schedules whose published bubble is exact at times that are not all alike; of the others it is at F = I = W alone."""


@pytest.mark.parametrize(("name", "size"), [*product(EXACT, [(4, 16), (8, 24)])])
def test_the_sum_derived_from_a_timeline_is_the_published_formula(name: str, size: tuple[int, int]) -> None:
    """Letter by letter: how the simulated bubble grows with each time, against how the formula does."""
    ranks, batches = size
    times = {"F": 1.0, "I": 1.0, "W": 0.83, "X": 2.5, "C": 0.0}
    if name == "zb-h2":
        times["C"] = 0.05
    named: dict[str, Any] = {KEY_OF_LETTER[letter]: one for letter, one in times.items()}
    found = why(schedule=name, ranks=ranks, micro_batches=batches, **named)
    assert found.result.theory is not None
    published_s = found.result.theory["bubble_s"] if name != "zb-h2" else (ranks - 1) * (2 + 0.1 - 2 * 0.83)
    assert found.bubble.seconds == pytest.approx(published_s)
    assert found.bubble.slopes is not None
    summed = {key: sum(found.bubble.slopes[where].get(key, 0.0) for where in WHERE) for key in found.bubble.one_s}
    backward = summed.pop("B", 0.0)
    letters = {letter: summed.get("transfer" if letter == "C" else letter, 0.0) for letter in times}
    letters["I"] += backward
    letters["W"] += backward
    expected = {letter: gradient(name, ranks, batches, times, letter) for letter in times}
    if FORMULAS[name].over == "makespan" and name in {"dualpipe", "dualpipev"}:
        # the formula is the one for I = F, where X + B - 3W and X + F - 2W are the same
        letters["I"], letters["F"] = letters["I"] + letters["F"], 0.0
        expected["I"], expected["F"] = expected["I"] + expected["F"], 0.0
    expected["C"] = expected["C"] if name == "zb-h2" else 0.0
    assert letters == pytest.approx(expected, abs=1e-4)


@given(st.sampled_from(sorted(FORMULAS)), st.integers(2, 6), st.integers(1, 14), TIMES, TIMES)
def test_waits_and_sums_are_the_idle_time(name: str, ranks: int, batches: int, forward: float, backward: float) -> None:
    try:
        found = why(schedule=name, ranks=ranks, micro_batches=batches, forward=forward, backward=backward)
    except ScheduleError:
        assume(False)
        raise
    bubble, result = found.bubble, found.result
    idle_s = sum(seconds[bubble.rank] for seconds in (result.idle_s_by_cause or {}).values())
    if (result.theory or {})["over"] == "makespan":
        assert bubble.seconds == pytest.approx(idle_s, abs=1e-9)
        assert bubble.seconds == pytest.approx(max(result.bubble_ratio_by_rank or []) * (result.makespan_s or 0.0))
    assert bubble.seconds <= idle_s + 1e-9
    for before, after in zip(bubble.waits[:-1], bubble.waits[1:], strict=True):
        assert before.end_s <= after.begin_s
        assert tuple(WHERE).index(before.where) <= tuple(WHERE).index(after.where)
    if bubble.slopes is not None:
        for where in WHERE:
            summed = sum(slope * bubble.one_s[key] for key, slope in bubble.slopes[where].items())
            assert summed == pytest.approx(bubble.seconds_in(where), abs=2e-5 * (result.makespan_s or 0.0))


def test_the_parts_of_1f1b_are_those_that_people_draw() -> None:
    """Rank 0 waits for the first micro-batch's backwards to come up, then for a forward in each round of the drain."""
    bubble = why(schedule="1f1b", ranks=4, micro_batches=8, forward=1.0, backward=2.0).bubble
    assert [(where, bubble.seconds_in(where), bubble.in_letters(where)) for where in WHERE] == [
        ("warm_up", 6.0, "3 B"), ("steady", 0.0, "0"), ("drain", 3.0, "3 F"),
    ]  # fmt: skip
    assert [wait.op for wait in bubble.waits] == ["0B0", "0B5", "0B6", "0B7"]
