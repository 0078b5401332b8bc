"""What a configuration stands for: costs in depth, transfers over links, orders from files, schedules that adapt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dualpipe_sim import ConfigError, UserError, build, compare, format_order, simulate
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.order.ops import F


def costs_of(config: object, **overrides: object) -> UniformCosts:
    costs = load_experiment(config, overrides).costs  # type: ignore[arg-type]
    assert isinstance(costs, UniformCosts)
    return costs


def test_a_transfer_is_a_time_or_bytes() -> None:
    assert costs_of("figure5", **{"costs.transfer": "3 ms"}).transfer_s == 3e-3
    as_bytes = costs_of("figure5", **{"costs.transfer": "3 MB"})
    assert (as_bytes.transfer_s, as_bytes.transfer_bytes) == (None, 3e6)


def test_bytes_cross_nvlink_inside_a_node_and_infiniband_between() -> None:
    """Two ranks: 160 MB take 1 ms + 3 us at 160 GB/s inside a node, 3.2 ms + 5 us at 50 GB/s between nodes."""
    config: dict[str, Any] = {
        "pipeline": {"ranks": 2, "micro_batches": 1},
        "schedule": "gpipe",
        "costs": {"forward": 0, "backward_input": 0, "backward_weight": 0, "transfer": "160 MB"},
    }
    inside = simulate(config, cluster={"gpus_per_node": 8})
    between = simulate(config, cluster={"gpus_per_node": 1})
    assert inside.makespan_s == pytest.approx(2 * (1e-3 + 3e-6))
    assert between.makespan_s == pytest.approx(2 * (3.2e-3 + 5e-6))


def test_a_list_of_costs_is_the_depth_of_the_model() -> None:
    """Stages that cut the model elsewhere than the list does take the integral over their span."""
    config: dict[str, Any] = {
        "pipeline": {"ranks": 2, "micro_batches": 1},
        "schedule": "dualpipev",
        "costs": {"forward": [1, 3], "backward_input": 0, "backward_weight": 0},
    }
    with pytest.raises(UserError, match="at least 2 × ranks"):
        simulate(config)
    # one micro-batch through the V on one lane after the other: all four half stages, 0.5 + 0.5 + 1.5 + 1.5
    v_shaped = simulate(config, schedule={"name": "looped-bfs", "stages_per_rank": 2})
    assert v_shaped.makespan_s == 4.0


def test_a_list_of_costs_may_be_by_stage() -> None:
    """Interleaved stages of 1, 2, 3 and 4 s on two ranks: one micro-batch takes 10 s, as a list of 2 would not say."""
    config: dict[str, Any] = {
        "pipeline": {"ranks": 2, "micro_batches": 2},
        "schedule": {"name": "looped-bfs", "stages_per_rank": 2},
        "costs": {"forward": [1, 2, 3, 4], "backward_input": 0, "backward_weight": 0},
    }
    run = simulate(config)
    assert run.timeline is not None
    stage_s = run.timeline.graph.costs.stage_s[F]  # type: ignore[attr-defined]
    assert list(stage_s) == [1, 2, 3, 4]


def test_a_list_of_costs_that_fits_no_stages_refuses_the_schedule_with_file_and_key(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(
        "pipeline: {ranks: 4, micro_batches: 8}\n"
        "schedule: 1f1b\n"
        "compare: [1f1b, {name: interleaved-1f1b, stages_per_rank: 2}]\n"
        "costs: {forward: 1, backward_input: 1, backward_weight: [1, 1, 1, 1, 1, 1, 1, 1]}\n"
    )
    said = "costs.backward_weight: a list needs one time for each of the 4 ranks' shares of the model"
    with pytest.raises(UserError) as caught:
        simulate(file)
    assert str(caught.value) == f"{file}: {said}, got 8"
    refused, interleaved = sorted(compare(file), key=lambda run: run.error is None)
    assert (refused.schedule, refused.error, interleaved.error) == ("1f1b", f"{said}, got 8", None)
    errors = [run.error or "" for run in compare(file, **{"costs.forward": [1] * 5})]
    assert [error.partition(" needs")[0] for error in errors] == ["costs.forward: a list"] * 2
    with pytest.raises(UserError, match="of the 4 ranks' shares of the model, or of the 8 stages of a pipe, got 5"):
        simulate(file, schedule={"name": "interleaved-1f1b", "stages_per_rank": 2}, **{"costs.forward": [1] * 5})


def test_a_mistake_that_is_no_schedules_is_not_laid_to_all_of_them(unit_config: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"cluster\.mapping names 1 GPU, but the pipeline has a rank 1"):
        compare(unit_config, cluster={"mapping": [0]})


def order_in_a_file(folder: Path, text: str, **pipeline: int) -> Path:
    (folder / "mine.csv").write_text(text)
    file = folder / "mine.yaml"
    sizes = {"ranks": 4, "micro_batches": 8} | pipeline
    file.write_text(
        f"pipeline: {sizes}\n"
        "schedule: {file: mine.csv, placement: bidirectional}\n"
        "compare: [{file: mine.csv, placement: bidirectional}, dualpipe]\n"
        "costs: {forward: 2, backward_input: 3, backward_weight: 1, overlapped: 5, transfer: 0.5}\n"
    )
    return file


def test_an_order_from_a_file_runs_as_the_schedule_that_wrote_it(tmp_path: Path) -> None:
    file = order_in_a_file(tmp_path, format_order(build("dualpipe", 4, 8)))
    from_file, registered = simulate(file), simulate(file, schedule="dualpipe")
    assert from_file.schedule == "mine.csv"
    assert list(from_file.played.end_s) == list(registered.played.end_s)
    assert [run.makespan_s for run in compare(file)] == [registered.makespan_s] * 2


@pytest.mark.parametrize(
    ("broken", "pipeline", "said"),
    [
        (("0F0,", ""), {}, "schedule: mine.csv: rank 0: 0F0 never runs"),
        (("0F0,", "0F0,junk,"), {}, "schedule: mine.csv: rank 0, cell 1: 'junk' is no task"),
        (("", ""), {"ranks": 8}, "schedule: mine.csv has a row for each of 4 ranks, but the pipeline has 8"),
        (("", ""), {"micro_batches": 10}, "schedule: mine.csv has 8 micro-batches, but pipeline.micro_batches is 10"),
    ],
)
def test_a_wrong_order_in_a_file_is_named(
    tmp_path: Path, broken: tuple[str, str], pipeline: dict[str, int], said: str
) -> None:
    text = format_order(build("dualpipe", 4, 8)).replace(*broken, 1)
    with pytest.raises(ConfigError) as caught:
        simulate(order_in_a_file(tmp_path, text, **pipeline))
    assert said in str(caught.value)


def test_a_schedule_that_adapts_gets_the_experiments_times() -> None:
    """ZB-H1's order is the best at its memory for equal times; where W is tiny, waiting for it buys nothing."""
    config: dict[str, Any] = {
        "pipeline": {"ranks": 4, "micro_batches": 12},
        "schedule": "zb-auto",
        "costs": {"forward": 3, "backward_input": 1, "backward_weight": 2, "transfer": 0.25},
    }
    adapted = simulate(config).span_bubble_ratio
    told_otherwise = {"name": "zb-auto", "forward": 1.0, "backward_input": 3.0, "backward_weight": 1.0}
    assert adapted is not None
    assert adapted <= (simulate(config, schedule=told_otherwise).span_bubble_ratio or 0.0)
    assert adapted <= (simulate(config, schedule="zb-h1").span_bubble_ratio or 0.0)
