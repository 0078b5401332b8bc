"""Metrics of a user's own: shown wherever a run is, by their names, and refused in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest

from dualpipe_sim import ConfigError, Result, UserError, compare, simulate, sweep
from dualpipe_sim.analysis import register
from dualpipe_sim.analysis.registry import METRICS, Metric


@pytest.fixture(autouse=True)
def no_metrics_left() -> Iterator[None]:
    """Forget the metrics that a test registers."""
    with METRICS.restored():
        yield


def idle_s(result: Result) -> float:
    """Return the seconds in which the ranks wait, all together."""
    assert result.idle_s_by_cause is not None
    return sum(sum(causes) for causes in result.idle_s_by_cause.values())


def test_it_is_a_column_a_key_and_an_attribute(unit_config: dict[str, object]) -> None:
    register("idle_s")(idle_s)
    result = simulate(unit_config)
    # 1F1B idles for (d - 1)(F + I + W) on every rank: 3 s on each of two
    assert result.metrics == {"idle_s": pytest.approx(6)}
    assert json.loads(json.dumps(result.to_dict()))["idle_s"] == pytest.approx(6)
    assert "idle_s" in result._repr_html_()


def test_it_is_a_column_of_sweeps(unit_config: dict[str, object]) -> None:
    register("idle_s")(idle_s)
    table = sweep(unit_config, {"pipeline.micro_batches": [2, 4]})
    assert [row["idle_s"] for row in table] == pytest.approx([6, 6])
    headings, _ = table.summary()
    assert headings.count("idle_s") == 1


def test_a_worker_process_that_lacks_it_says_so(unit_config: dict[str, object]) -> None:
    register("idle_s")(idle_s)
    table = sweep(unit_config, {"pipeline.micro_batches": [2, 4]}, workers=2)
    assert {row["error"] for row in table} == {
        "metric 'idle_s' is not registered in the worker process; name its file under plugins:, or take one worker"
    }


def test_a_refusal_reaches_below_its_heading(unit_config: dict[str, object]) -> None:
    register("idle_s")(idle_s)
    page = compare(unit_config, compare=["1f1b", "chimera"], micro_batches=3)._repr_html_()
    columns = page.count("</th>")
    assert f'colspan="{columns - 2}"' in page  # all but name and size


def test_none_is_asked_of_a_refused_run(unit_config: dict[str, object]) -> None:
    register("idle_s")(idle_s)
    runs = compare(unit_config, compare=["1f1b", "chimera"], micro_batches=3)
    assert [run.metrics for run in runs] == [{"idle_s": pytest.approx(6)}, {}]


def test_it_may_say_nothing(unit_config: dict[str, object]) -> None:
    register("tokens")(lambda result: result.tokens_per_second_per_gpu)
    register("ranks_squared")(lambda result: np.int64(result.ranks) ** 2)
    assert simulate(unit_config).to_dict()["tokens"] is None
    assert json.dumps(simulate(unit_config).to_dict()["ranks_squared"]) == "4"


@pytest.mark.parametrize(
    ("name", "metric", "message"),
    [
        (
            "broken",
            lambda _: 1 / 0,
            r"metric 'broken' fails: .*test_registry.py:\d+: ZeroDivisionError: division",
        ),
        ("words", lambda _: "many", "metric 'words' must return a finite number or None, got 'many'"),
        ("endless", lambda _: float("nan"), "metric 'endless' must return a finite number or None, got nan"),
        ("makespan_s", lambda _: 1.0, "metric 'makespan_s': every run has a key of this name already"),
    ],
)
def test_what_is_wrong_with_it_is_one_line(
    name: str, metric: Metric, message: str, unit_config: dict[str, object]
) -> None:
    register(name)(metric)
    with pytest.raises(UserError, match=message) as refusal:
        simulate(unit_config)
    assert not isinstance(refusal.value, ConfigError)  # the file is not at fault
    assert "\n" not in str(refusal.value)


def test_what_is_wrong_with_its_registration_is_one_line() -> None:
    register("one")(idle_s)
    register("one")(idle_s)  # a notebook's cell that is run again
    with pytest.raises(UserError, match=r"metric 'one' is there already .*take another name, or replace=True"):
        register("one")(lambda _: 1.0)
    register("one", replace=True)(lambda _: 1.0)
    with pytest.raises(UserError, match="a name is one word of letters, digits and _, such as joules_per_token"):
        register("two words")(idle_s)
    with pytest.raises(UserError, match="must be a function of a result, not 3"):
        register("three")(3)  # type: ignore[type-var]
