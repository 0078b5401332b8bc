"""Sweeps: what a row says, and mistakes that are said before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from dualpipe_sim import UserError, build, simulate
from dualpipe_sim.batch.points import POINT
from dualpipe_sim.config.load import experiment_of, read_config
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.sweeps import SweepTable, sweep


def test_axes_may_be_arrays_and_ranges(unit_config: dict[str, object]) -> None:
    np = pytest.importorskip("numpy")
    over = {"ranks": np.array([2, 3]), "micro_batches": range(2, 4)}
    assert [(row["ranks"], row["micro_batches"]) for row in sweep(unit_config, over)] == [
        (2, 2),
        (2, 3),
        (3, 2),
        (3, 3),
    ]


@pytest.mark.parametrize(
    ("section", "over", "said"),
    [
        ({}, {}, "config: sweep: is missing, so nothing varies"),
        ({"gird": {}}, {}, "config: sweep: gird: unknown key; did you mean 'grid'?"),
        ([1], {}, "config: sweep: must be a mapping of schedules, grid, zip, list, got [1]"),
        ({"grid": {"x": 4}}, {}, "config: sweep: grid: x: must be a list of values, got 4"),
        ({"grid": {"x": []}}, {}, "config: sweep: grid: x: must have at least one value, got none"),
        (
            {"zip": {"x": [1], "y": [1, 2]}},
            {},
            "config: sweep: zip: lists that go together must be equally long; x",
        ),
        ({"list": {"x": 1}}, {}, "config: sweep: list: must be a list of mappings of dotted keys to values, got"),
        ({"list": [3]}, {}, "config: sweep: list[0]: must be a mapping of dotted keys to values, got 3"),
        ({"schedules": "1f1b"}, {}, "config: sweep: schedules: schedule: must be a list of values, got '1f1b'"),
        ({"grid": {"x": [1]}, "list": [{"x": 1}]}, {}, "sweep: x is varied twice"),
        ({}, {"ranks": 4}, "over: pipeline.ranks: must be a list of values, got 4"),
        ({}, {"pipelin.ranks": [4]}, "config: pipelin: unknown key; did you mean 'pipeline'?"),
        ({}, {"costs.forward": ["fast", "slow"]}, "config: costs.forward: must be a time like 5 us"),
    ],
)
def test_a_mistake_in_the_axes_is_said_before_anything_runs(
    unit_config: dict[str, object], section: object, over: Mapping[str, object], said: str
) -> None:
    with pytest.raises(UserError) as raised:
        sweep({**unit_config, "sweep": section}, over)
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)


def test_a_run_checks_the_section_too(unit_config: dict[str, object]) -> None:
    with pytest.raises(UserError, match="config: sweep: gird: unknown key"):
        experiment_of(*read_config({**unit_config, "sweep": {"gird": {}}}))


def test_overrides_inside_lists_do_not_leak_into_other_points(unit_config: dict[str, object]) -> None:
    config = {**unit_config, "costs": {"forward": ["1 s", "1 s"], "backward_input": "1 s", "backward_weight": "1 s"}}
    points = {"list": [{"costs.forward.0": "9 s"}, {"costs.forward.1": "1 s"}]}
    slow, plain = sweep({**config, "sweep": points})
    assert plain["makespan_s"] == simulate(config).makespan_s != slow["makespan_s"]
    assert config["costs"] == {"forward": ["1 s", "1 s"], "backward_input": "1 s", "backward_weight": "1 s"}


def test_a_row_holds_the_axes_every_key_of_the_run_and_the_points_name(unit_config: dict[str, object]) -> None:
    over = {"schedules": ["1f1b", "gpipe"], "costs.transfer": ["1 s", "2 s"]}
    table = sweep(unit_config, over)
    for row, (schedule, transfer) in zip(
        table, [("1f1b", "1 s"), ("1f1b", "2 s"), ("gpipe", "1 s"), ("gpipe", "2 s")], strict=True
    ):
        run = simulate(unit_config, schedule=schedule, **{"costs.transfer": transfer}).to_dict()
        assert row == {"costs.transfer": transfer, **run, POINT: row[POINT]}
    assert len({row[POINT] for row in table}) == 4


def test_a_point_that_fails_is_a_row_with_its_reason(unit_config: dict[str, object]) -> None:
    odd, fine, unknown = sweep(unit_config, {"schedules": ["dualpipe", "1f1b", {"name": "1f2b", "x": 1}]})
    assert str(odd["error"]).startswith("dualpipe needs an even number of ranks")
    assert (odd["schedule"], odd["ranks"], odd["makespan_s"]) == ("dualpipe", 2, None)
    assert fine["error"] is None
    assert str(unknown["error"]).startswith("schedule: unknown schedule '1f2b'; did you mean '1f1b'?")
    assert (unknown["schedule"], unknown["options"]) == ("1f2b", {"x": 1})


def test_a_packaged_config_sweeps_as_its_section_says() -> None:
    data, source = read_config("sweep_schedules")
    table = sweep(data, {"pipeline.micro_batches": [64]})
    assert isinstance(table, SweepTable)
    assert source.endswith("sweep_schedules.yaml")
    assert {row["error"] for row in table} == {None}
    assert len(table) == 6 * 3 * 2


def test_objects_vary_as_values_do(tmp_path: Path) -> None:
    one, other = build("1f1b", 2, 4), build("gpipe", 2, 4)
    config = {"schedule": one, "costs": UniformCosts(1.0, 1.0, 1.0)}
    file = tmp_path / "table.jsonl"
    over = {"schedules": [one, other, "zb-h1"], "ranks": [2], "micro_batches": [4]}
    table = sweep(config, over, output=file)
    assert [row["makespan_s"] for row in table] == [15.0, 15.0, 13.0]
    seen: list[int] = []
    again = sweep(config, over, output=file, resume=True, progress=lambda done, _total: seen.append(done))
    assert ([row["point"] for row in again], seen) == ([row["point"] for row in table], [3])
    slower = {**config, "costs": UniformCosts(1.0, 1.0, 2.0)}
    with pytest.raises(UserError, match="another configuration"):
        sweep(slower, over, output=file, resume=True)
