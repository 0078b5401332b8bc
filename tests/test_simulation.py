"""From Python: a configuration, objects, or a few arguments; the same numbers and the same messages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from dualpipe_sim import ConfigError, ScheduleError, build, compare, format_order, simulate
from dualpipe_sim.config import load_experiment, packaged_configs
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.experiment import Choice
from dualpipe_sim.hardware.cluster import Cluster, Link
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.runtimes.torch import format_program
from dualpipe_sim.schedules.registry import SCHEDULES, register, schedules
from dualpipe_sim.simulation import build_choice

SIZES: dict[str, Any] = {"ranks": 4, "micro_batches": 8}
ONE_AFTER_ANOTHER_S = (8 + 4 - 1) * 3.0
"""1F1B with F + B of three seconds: all micro-batches, and those of the fill."""


def test_a_few_arguments_are_an_experiment() -> None:
    run = simulate(schedule="dualpipe", ranks=8, micro_batches=20, forward=1.0, backward=2.0)
    assert (run.ranks, run.micro_batches, run.makespan_s) == (8, 20, simulate("figure5").makespan_s)


@pytest.mark.parametrize(
    ("costs", "makespan_s"),
    [
        ({}, ONE_AFTER_ANOTHER_S),
        ({"forward": "10 ms", "backward": "20 ms"}, ONE_AFTER_ANOTHER_S / 100),
        ({"forward": 1, "backward_input": 1.5, "backward_weight": "500 ms"}, ONE_AFTER_ANOTHER_S),
        ({"forward": [1, 1, 1, 1], "backward": [2, 2, 2, 2]}, ONE_AFTER_ANOTHER_S),
    ],
)
def test_times_may_have_units_and_may_be_left_out(costs: dict[str, Any], makespan_s: float) -> None:
    assert simulate(schedule="1f1b", **SIZES, **costs).makespan_s == pytest.approx(makespan_s)


def test_half_of_a_backward_is_for_the_input_and_half_for_the_weights() -> None:
    costs: dict[str, Any] = {"forward": 2, "overlapped": "5 s", "transfer": "100 ms"}
    halves = {"backward_input": 1.5, "backward_weight": 1.5}
    in_full = simulate({"schedule": "zb-h1", "pipeline": SIZES, "costs": {**costs, **halves}})
    assert simulate(schedule="zb-h1", **SIZES, backward=3, **costs).to_dict() == in_full.to_dict()


def test_a_full_backward_stands_for_the_halves_of_a_configuration() -> None:
    twice = {"costs.backward_input": 2, "costs.backward_weight": 2}
    assert simulate("figure5", backward=4).makespan_s == simulate("figure5", **twice).makespan_s


def test_all_schedules_are_compared_at_once() -> None:
    comparison = compare(schedule="all", ranks=4, micro_batches=12, forward=1.0, backward=2.0)
    assert {run.schedule for run in comparison} == set(schedules())
    speeds = [run.micro_batches_per_s or 0.0 for run in comparison]
    assert speeds == sorted(speeds, reverse=True)
    in_yaml = compare({"compare": "all", "pipeline": SIZES, "costs": {"forward": 1, "backward": 2}})
    assert {run.schedule for run in in_yaml} == set(schedules())
    assert [run.schedule for run in compare("figure5", schedule=["gpipe", "zb-h1"])] == ["zb-h1", "gpipe"]


ORDER = build("1f1b", **SIZES)


@pytest.mark.parametrize("rows", [ORDER, format_order(ORDER), format_program(ORDER)])
def test_an_order_says_its_sizes(rows: object) -> None:
    for run in (simulate(schedule=rows), simulate(schedule=rows, **SIZES), compare(schedule=[rows])[0]):
        assert (run.ranks, run.micro_batches, run.makespan_s) == (4, 8, ONE_AFTER_ANOTHER_S)


def test_an_order_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(format_order(ORDER), encoding="utf-8")
    assert simulate(schedule=file).makespan_s == ONE_AFTER_ANOTHER_S
    assert simulate(schedule=str(file)).makespan_s == ONE_AFTER_ANOTHER_S
    config = tmp_path / "mine.yaml"
    config.write_text("schedule: mine.csv\ncosts: {forward: 1, backward: 2}\n", encoding="utf-8")
    assert simulate(config).makespan_s == ONE_AFTER_ANOTHER_S


def test_a_schedule_in_opposite_directions_keeps_its_placement() -> None:
    dualpipe = build("dualpipe", 8, 20)
    assert simulate("figure5", schedule=dualpipe).makespan_s == simulate("figure5").makespan_s
    mixed = compare(schedule=[ORDER, "gpipe"], ranks=4, micro_batches=8)
    assert [(run.schedule, run.micro_batches) for run in mixed] == [("1f1b", 8), ("gpipe", 8)]


def test_objects_say_what_sections_of_a_file_say() -> None:
    data = yaml.safe_load(packaged_configs()["deepseek_v3"].read_text(encoding="utf-8"))
    from_file = load_experiment("deepseek_v3")
    cluster, costs = from_file.cluster, from_file.cost_model
    sizes: dict[str, Any] = {"ranks": from_file.choice.ranks, "micro_batches": from_file.choice.micro_batches}
    made = simulate(schedule=data["schedule"], costs=costs, cluster=cluster, **sizes)
    assert made.step_time_s == simulate("deepseek_v3").step_time_s
    job, gpu = getattr(costs, "job"), getattr(costs, "gpu")  # noqa: B009 - those of costs that have them
    parts = simulate("deepseek_v3", model=job.model, gpu=gpu)
    assert parts.step_time_s == made.step_time_s


def test_the_cluster_of_an_object_carries_transfers() -> None:
    costs = UniformCosts(1.0, 1.0, 1.0, transfer_s=None, transfer_bytes=10e9)
    slow, fast = (Cluster(nvlink=Link(bandwidth, 0.0)) for bandwidth in (10e9, 20e9))
    one = simulate(schedule="1f1b", ranks=2, micro_batches=1, costs=costs, cluster=slow)
    other = simulate(schedule="1f1b", ranks=2, micro_batches=1, costs=costs, cluster=fast)
    assert (one.makespan_s, other.makespan_s) == (6.0 + 2 * 1.0, 6.0 + 2 * 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "config: schedule: is missing"),
        ({"schedule": "1f1b", "micro_batches": 4}, "config: pipeline.ranks: is missing, and so is parallel.pipeline"),
        ({"schedule": "1f1b", "rank": 4}, "rank: unknown argument; did you mean 'ranks'?"),
        (
            {"schedule": ORDER, "ranks": 5},
            "config: schedule: 1f1b has a row for each of 4 ranks, but the pipeline has 5",
        ),
        (
            {"schedule": ORDER, "micro_batches": 9},
            "config: schedule: 1f1b has 8 micro-batches, but pipeline.micro_batches is 9",
        ),
        (
            {"schedule": "0F0,0F2,0B0\n1F0,1B0"},
            "config: schedule: order: rank 0, cell 1: 0F2 names no micro-batch; they go from 0 to 0",
        ),
        ({"schedule": "nowhere.csv"}, "config: nowhere.csv: cannot be read: No such file or directory"),
        (
            {"schedule": "1f1b", **SIZES, "forward": "1 parsec"},
            "config: costs.forward: must be a time like 5 us or 18.5 ms, got '1 parsec'",
        ),
        ({"schedule": "1f1b", **SIZES, "forward": 1}, "config: costs.backward_input: is missing"),
        (
            {"schedule": "1f1b", **SIZES, "forward": 1, "backward": 2, "backward_weight": 1},
            "config: costs: give either backward or backward_weight, not both",
        ),
        (
            {"schedule": "1f1b", **SIZES, "forward": 1, "backward": "two"},
            "config: costs.backward: must be a time like 5 us or 18.5 ms, got 'two'",
        ),
        (
            {"schedule": "1f1b", **SIZES, "costs": UniformCosts(1, 1, 1), "model": "deepseek-v3"},
            "config: model: is only for costs of kind 'layers', but costs.kind is 'UniformCosts'",
        ),
        ({"schedule": "1f1b", **SIZES, "costs": UniformCosts}, "config: costs: must be a mapping of keys, got <class"),
    ],
)
def test_mistakes_read_as_those_of_a_file(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        simulate(**arguments)
    assert str(refused.value).startswith(message)


def test_a_size_that_a_schedule_cannot_do_is_refused_with_the_nearest() -> None:
    with pytest.raises(ScheduleError, match="got 3 ranks and 4 micro-batches; the nearest that works: 2 ranks"):
        simulate(schedule="dualpipe", ranks=3, micro_batches=4)


def test_a_chart_has_every_run_even_where_two_have_the_same_name() -> None:
    runs = compare("figure5", compare=["1f1b", "1f1b", "dualpipe"])
    titles = [axes.get_title(loc="left") for axes in runs.gantt().axes]
    assert [title.partition(":")[0] for title in titles] == ["dualpipe", "1f1b, 8 × 20", "1f1b, 8 × 20 (2)"]


def test_an_order_that_runs_keep_is_played_with_the_times_of_each() -> None:
    runs = [simulate(schedule="1f1b", forward=1.0 * slow, backward=2.0 * slow, **SIZES) for slow in (1, 2)]
    assert runs[0].played.graph.schedule is runs[1].played.graph.schedule
    assert [run.makespan_s for run in runs] == [ONE_AFTER_ANOTHER_S, 2 * ONE_AFTER_ANOTHER_S]


@pytest.mark.parametrize("wrong", [2.0, "2"])
def test_an_option_that_does_not_fit_is_refused_though_an_equal_one_was_kept(wrong: object) -> None:
    experiment = load_experiment({}, {"schedule": "1f1b", "pipeline": SIZES, "costs": UniformCosts(1.0, 1.0, 1.0)})
    fits = Choice("interleaved-1f1b", **SIZES, options={"stages_per_rank": 2})
    assert build_choice(experiment, fits) is build_choice(experiment, fits)
    with pytest.raises(ScheduleError, match="stages_per_rank must be a whole number"):
        build_choice(experiment, replace(fits, options={"stages_per_rank": wrong}))


def test_a_schedule_of_ones_own_is_asked_for_its_order_in_every_run() -> None:
    names = iter(("gpipe", "1f1b"))
    with SCHEDULES.restored():

        @register("in-turn")
        def in_turn(ranks: int, micro_batches: int) -> Schedule:
            return build(next(names), ranks, micro_batches)

        orders = [simulate(schedule="in-turn", **SIZES).played.graph.schedule for _ in range(2)]
    assert orders == [build(name, **SIZES) for name in ("gpipe", "1f1b")]
