"""Comparisons on equal terms: DeepSeek's table counts stages, and memory limits hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dualpipe_sim.config import load_experiment
from dualpipe_sim.equal_terms import at_equal_stages, within_memory
from dualpipe_sim.experiment import Experiment
from dualpipe_sim.pictures.plot import bubble_against_activations
from dualpipe_sim.result import Result


def experiment(
    *schedules: str | dict[str, Any], ranks: int = 8, micro_batches: int = 32, **costs: object
) -> Experiment:
    unit = {"forward": 1, "backward_input": 1, "backward_weight": 1}
    return load_experiment(
        {
            "pipeline": {"ranks": ranks, "micro_batches": micro_batches},
            "schedule": "1f1b",
            "compare": list(schedules),
            "costs": {**unit, **costs},
        }
    )


def idle_s(run: Result) -> float:
    assert run.idle_s_by_cause is not None
    return float(max(sum(causes) for causes in zip(*run.idle_s_by_cause.values(), strict=True)))


def test_deepseeks_table_at_eight_stages() -> None:
    """PP = 8: bubbles (PP-1)(F+B), (PP-1)(F+B-2W), (PP/2-1)(F&B+B-3W); activations PP, PP, PP+1, PP+1; devices.

    https://github.com/deepseek-ai/DualPipe, at unit costs and F&B = 3.
    """
    table = {run.schedule: run for run in at_equal_stages(experiment("1f1b", "zb-h1", "dualpipe", "dualpipev"))}
    bubbles = {name: idle_s(run) for name, run in table.items()}
    assert bubbles == {"1f1b": 21, "zb-h1": 7, "dualpipe": 6, "dualpipev": 6}
    in_flight = {name: max(run.peak_in_flight_by_rank or []) for name, run in table.items()}
    assert in_flight == {"1f1b": 8, "zb-h1": 8, "dualpipe": 9, "dualpipev": 9}
    assert {name: run.ranks for name, run in table.items()} == {"1f1b": 8, "zb-h1": 8, "dualpipe": 8, "dualpipev": 4}


def test_uneven_depth_keeps_its_total_on_fewer_ranks() -> None:
    """A stage is the same eighth of the model on 8 ranks and on 4: one micro-batch passes them in the same time."""
    forward = [1, 2, 3, 4, 5, 6, 7, 8]
    uneven = experiment("gpipe", "looped-bfs", micro_batches=1, forward=forward, backward_input=0, backward_weight=0)
    assert {run.makespan_s for run in at_equal_stages(uneven)} == {36.0}


def test_stages_that_no_whole_number_of_ranks_holds_are_refused() -> None:
    (run,) = at_equal_stages(experiment({"name": "interleaved-1f1b", "stages_per_rank": 3}))
    assert run.error == "interleaved-1f1b has 3 stages a rank: their number must be a multiple, got 8"


@pytest.mark.parametrize("limit", [5, 8, 11])
def test_no_schedule_goes_over_the_limit(limit: int) -> None:
    names = ("gpipe", "1f1b", "interleaved-1f1b", "zb-v", "v-half", "v-min", "hanayo", "chimera", "dualpipe", "zb-auto")
    runs = within_memory(experiment(*names), limit)
    assert len(runs) == len(names)
    for run in runs:
        if run.error is None:
            assert max(run.peak_activations_by_rank or []) <= limit
        else:
            assert f"more than the {limit} allowed" in run.error


def test_more_memory_never_hurts() -> None:
    names = ("interleaved-1f1b", "hanayo", "chimera", "zb-auto")
    fastest: dict[str, float] = {}
    for limit in (8, 10, 12, 16):
        for run in within_memory(experiment(*names), limit):
            if run.makespan_s is not None:
                assert run.makespan_s <= fastest.get(run.schedule, float("inf")) + 1e-9
                fastest[run.schedule] = run.makespan_s
    assert set(fastest) == set(names)


def test_options_that_a_comparison_gives_stay() -> None:
    (run,) = within_memory(experiment({"name": "interleaved-1f1b", "stages_per_rank": 4}), 100)
    assert run.options["stages_per_rank"] == 4


def test_the_chart_has_a_point_for_each_run_and_a_front() -> None:
    runs = within_memory(experiment("1f1b", "zb-h1", "v-min", "gpipe"), 8)
    axes = bubble_against_activations(runs)
    front, *points = axes.get_lines()
    assert [line.get_label() for line in points] == ["zb-h1", "v-min", "1f1b"]
    # v-min idles 2P - 2.5 = 13.5 and ZB-H1 P - 1 = 7 beside 96 of work
    np.testing.assert_allclose(np.asarray(front.get_xydata()), [(4, 100 * 13.5 / 109.5), (8, 100 * 7 / 103)])


def test_one_schedule_at_two_sizes_is_two_charts() -> None:
    runs = at_equal_stages(experiment("dualpipe", {"name": "dualpipe", "micro_batches": 40}))
    assert len(runs.gantt().axes) == 2
