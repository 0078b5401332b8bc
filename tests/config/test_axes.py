"""The points of a sweep: which there are, in which order, and what is no axis."""

from __future__ import annotations

import pytest

from dualpipe_sim import ConfigError, UserError
from dualpipe_sim.config.axes import factors_of, parse_over, points_of, with_axes


def test_points_are_the_product_of_schedules_grid_zip_and_list_the_last_varying_fastest() -> None:
    factors = factors_of(
        {
            "list": [{"c": 5}, {"c": 6, "d": 7}],
            "zip": {"a": [1, 2], "b": [3, 4]},
            "grid": {"x": [0]},
            "schedules": ["gpipe", {"name": "hanayo", "waves": 2}],
        }
    )
    tail = [
        {"x": 0, "a": 1, "b": 3, "c": 5},
        {"x": 0, "a": 1, "b": 3, "c": 6, "d": 7},
        {"x": 0, "a": 2, "b": 4, "c": 5},
        {"x": 0, "a": 2, "b": 4, "c": 6, "d": 7},
    ]
    schedules = ["gpipe", {"name": "hanayo", "waves": 2}]
    assert points_of(factors) == [{"schedule": schedule, **point} for schedule in schedules for point in tail]


def test_an_axis_of_the_command_line_replaces_that_of_the_grid_and_varies_fastest() -> None:
    factors = with_axes(factors_of({"grid": {"pipeline.ranks": [2, 4], "x": [1, 2]}}), {"ranks": [8, 16]})
    assert points_of(factors) == [
        {"x": 1, "pipeline.ranks": 8},
        {"x": 1, "pipeline.ranks": 16},
        {"x": 2, "pipeline.ranks": 8},
        {"x": 2, "pipeline.ranks": 16},
    ]


def test_a_point_that_occurs_twice_is_one() -> None:
    assert points_of(with_axes((), {"x": [1, 2, 1]})) == [{"x": 1}, {"x": 2}]


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("pipeline.micro_batches=16,32,64", ("pipeline.micro_batches", [16, 32, 64])),
        ("costs.transfer=1 ms, 5 us", ("costs.transfer", ["1 ms", "5 us"])),
        ("schedules=1f1b,{name: hanayo, waves: 2}", ("schedules", ["1f1b", {"name": "hanayo", "waves": 2}])),
        ("x=[1, 2]", ("x", [[1, 2]])),
        ("costs.forward=[1, 2], [3, 4]", ("costs.forward", [[1, 2], [3, 4]])),
    ],
)
def test_over_is_a_key_and_a_list_in_yaml(text: str, axis: tuple[str, object]) -> None:
    assert parse_over(text) == axis


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pipeline.ranks", "--over pipeline.ranks: must be key=value,value,…, like pipeline.micro_batches=16,32,64"),
        ("pipeline.ranks=", "--over pipeline.ranks=: must be key=value,value"),
        ("=2,4", "--over =2,4: must be key=value,value"),
        ("pipeline.ranks=[1,", "--over pipeline.ranks: line 1, column"),
    ],
)
def test_an_axis_that_cannot_be_read(text: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        parse_over(text)
    assert str(raised.value).startswith(said)


def test_a_value_that_holds_itself_is_refused() -> None:
    itself: list[object] = []
    itself.append(itself)
    with pytest.raises(ConfigError, match="sweep: a value is nested too deeply, perhaps in itself"):
        points_of(with_axes((), {"costs.forward": [1, itself]}))
