"""Objects as other programs take them: nothing is lost, JSON has it, and pandas is asked for in words."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpipe_sim import UserError, build, compare, simulate, sweep
from dualpipe_sim.base.plain_data import digest, plain_data
from dualpipe_sim.costs import UniformCosts
from dualpipe_sim.hardware import Cluster, Link
from dualpipe_sim.order.ops import F
from dualpipe_sim.plan import Plan, plan
from dualpipe_sim.sweeps import read_table

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(JSON)
@settings(max_examples=40)
def test_what_json_has_stays_as_it_is(value: object) -> None:
    assert plain_data(value) == value
    assert json.loads(json.dumps(plain_data(value))) == value


@dataclass(frozen=True)
class Silent:
    """One of those objects that all look the same."""

    held: object

    def __repr__(self) -> str:
        return "<Silent>"


class Quiet:
    def __init__(self, held: object) -> None:
        self.held = held

    def __repr__(self) -> str:
        return "<Quiet>"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (Path("a") / "b", str(Path("a") / "b")),
        ((1, (2, np.int64(3))), [1, [2, 3]]),
        ({2: Link(1.0)}, {"2": {"Link": {"bytes_per_s": 1.0, "latency_s": 0.0}}}),
        ({F: [Quiet((1, 2))]}, {"F": [{"Quiet": {"held": [1, 2]}}]}),
    ],
)
def test_anything_else_becomes_plain(value: object, plain: object) -> None:
    found = plain_data(value)
    assert json.loads(json.dumps(found)) == plain
    assert repr(found) == repr(plain)  # types, too: True is no 1 and no numpy.bool


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        (1, "1"),
        (None, "None"),
        ([1], [[1]]),
        (Silent(1), Silent(2)),
        (Silent(1), Quiet(1)),
        (Quiet(Silent(1)), Quiet(Silent(2))),
        (np.arange(5000), np.append(np.arange(4999), 0)),
        (build("1f1b", 2, 4), build("gpipe", 2, 4)),
        (Cluster(), Cluster(mapping=(1, 0))),
    ],
)
def test_values_that_differ_have_digests_that_differ(one: object, other: object) -> None:
    assert digest({"x": one}) != digest({"x": other})
    assert digest({"x": one}) == digest({"x": one})


def test_points_of_a_sweep_are_told_apart_by_what_they_hold(unit_config: dict[str, object], tmp_path: Path) -> None:
    """Silent costs are two points; on disk each has its own values, by which rows are found again."""
    config = {key: value for key, value in unit_config.items() if key != "costs"}
    slow, slower = UniformCosts(2.0, 2.0, 2.0), UniformCosts(3.0, 3.0, 3.0)
    file = tmp_path / "table.csv"
    table = sweep(config, {"costs": [slow, slower, UniformCosts(2.0, 2.0, 2.0)]}, output=file)
    assert [row["makespan_s"] for row in table] == [18.0, 27.0]
    assert json.loads(json.dumps(table.to_dict()))["rows"][1]["costs"]["UniformCosts"]["forward"] == 3.0
    assert [row["makespan_s"] for row in table.where(costs=slower)] == [27.0]
    assert read_table(file).to_dict() == table.to_dict()


def a_plan() -> Plan:
    free = "plan={schedules: [1f1b, dualpipe], ranks: [2, 4]}"
    return plan("plan_deepseek_v2_lite", settings=[free], top=2, confirm=0)


TABLES: dict[str, Callable[[], Any]] = {
    "comparison": lambda: compare("figure5", compare=["1f1b", "dualpipe", "gpipe"]),
    "sweep": lambda: sweep("figure5", {"schedule": ["1f1b", "dualpipe"], "ranks": [4, 5]}),
    "plan": a_plan,
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_data_frames_and_json(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = TABLES[name]()
    said = table.to_dict()
    assert json.loads(json.dumps(said)) == said
    rows = said[{"comparison": "runs", "sweep": "rows", "plan": "ranking"}[name]]
    frame = table.to_pandas()
    assert len(frame) == (len(table.rows) if name == "plan" else len(rows))
    assert list(frame.columns) == list(rows[0])
    for column in ("schedule", "options", "bubble_ratio"):
        assert list(frame[column][: len(rows)].dropna()) == [row[column] for row in rows if row[column] is not None]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match=r"to_pandas\(\) needs pandas; pip install 'dualpipe-sim\[notebook\]'"):
        table.to_pandas()


def test_a_run_with_options_that_json_lacks_is_ready_for_it(unit_config: dict[str, object]) -> None:
    run = simulate(unit_config, schedule={"name": "zb-auto", "memory_limit": np.float64(2)}).to_dict()
    assert json.loads(json.dumps(run)) == run
    assert repr(run["options"]) == "{'memory_limit': 2.0}"
