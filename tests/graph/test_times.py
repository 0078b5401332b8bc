"""Times beyond what can be added up, and formulas beyond what they are about: said, and never a number that is none."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim import simulate
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.errors import UserError
from dualpipe_sim.schedules.theory import closed_form
from dualpipe_sim.why import why


@pytest.mark.parametrize(
    ("forward", "transfer_s", "said"),
    [
        (1e308, 0.0, r"costs: 0F0 takes 1e\+308 s; all times together must be less than 1e\+150 s"),
        (1e150, 0.0, r"costs: 0F0 takes 1e\+150 s; all times together must be less than 1e\+150 s"),
        (1.0, 1e200, r"costs: a transfer takes 1e\+200 s; all times"),
        (math.inf, 0.0, "F of stage 0 takes inf s; times must be finite and 0 or more"),
        (-1.0, 0.0, "F of stage 0 takes -1.0 s; times must be finite and 0 or more"),
        (1.0, math.nan, "a transfer takes nan s; times must be finite and 0 or more"),
    ],
)
def test_costs_of_ones_own_whose_times_are_no_times_are_refused(forward: float, transfer_s: float, said: str) -> None:
    with pytest.raises(UserError, match=said):
        simulate(
            schedule="1f1b", ranks=2, micro_batches=2, costs=UniformCosts(forward, 1.0, 1.0, transfer_s=transfer_s)
        )


_TIMES = st.floats(0, 1e150) | st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(_TIMES, min_size=4, max_size=4), st.sampled_from(["1f1b", "zb-h1", "dualpipe", "zb-v", "hanayo"]))
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_run_is_made_of_numbers_or_refused(times: list[float], schedule: str) -> None:
    try:
        costs = UniformCosts(times[0], times[1], times[2], transfer_s=times[3])
        result = simulate(schedule=schedule, ranks=2, micro_batches=4, costs=costs)
    except UserError:
        return
    assert result.makespan_s is not None
    assert 0 <= result.makespan_s < math.inf
    assert 0 <= (result.bubble_ratio or 0.0) <= 1
    idle_s = (result.idle_s_by_cause or {}).values()
    assert all(seconds >= -1e-9 * result.makespan_s for cause in idle_s for seconds in cause)


@given(
    st.sampled_from(["1f1b", "zb-h1", "zb-h2", "zb-v", "dualpipe", "dualpipev", "interleaved-1f1b", "gpipe", "v-half"]),
    st.lists(st.sampled_from([0.0, 0.1, 1.0, 3.0, 50.0]), min_size=3, max_size=3),
)
def test_no_bubble_is_published_below_zero(name: str, times: list[float]) -> None:
    forward, backward_input, backward_weight = times
    form = closed_form(
        name, 4, 16, forward=forward, backward_input=backward_input, backward_weight=backward_weight, overlapped=None
    )
    assert form is not None
    assert form.bubble_s is None or form.bubble_s >= 0
    assert not (form.is_beyond and form.exact)


def test_a_formula_below_zero_is_no_bubble_and_says_so() -> None:
    # ZB-H1's (P-1)(F+I-W) is -54 s here (https://arxiv.org/abs/2401.10241, table 2)
    told = {
        "pipeline": {"ranks": 4, "micro_batches": 8},
        "schedule": "zb-h1",
        "costs": {"forward": 1.0, "backward_input": 1.0, "backward_weight": 20.0},
    }
    slow = simulate(told)
    assert slow.theory is not None
    assert slow.theory["bubble_s"] is None
    assert str(slow.theory["reason"]).startswith("the formula is below 0 at these times; it holds where ")
    said = why(told).bubble_table()
    assert any("published" in note and "the formula is below 0" in note for note in said.notes)


def test_a_trace_of_more_nanoseconds_than_it_counts_is_refused(tmp_path: Path) -> None:
    from dualpipe_sim.export.chrome import write_chrome

    result = simulate(schedule="1f1b", ranks=2, micro_batches=2, forward=1e10, backward=1.0)
    with pytest.raises(UserError, match=r"takes 3e\+10 s; a trace counts nanoseconds, up to 9.22e\+09 s \(292 years\)"):
        write_chrome(result.played, tmp_path / "trace.json")
