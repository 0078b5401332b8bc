"""Configurations: what is read, and what every mistake says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim import ConfigError, UserError, build, compare, format_order, simulate
from dualpipe_sim.config import load_experiment, packaged_configs
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.units import BYTES, BYTES_PER_S, SECONDS, quantity

GOOD = """\
pipeline: {ranks: 4, micro_batches: 8}
schedule: 1f1b
costs: {forward: 1 ms, backward_input: 1 ms, backward_weight: 1 ms}
"""


def costs_of(config: object, **overrides: object) -> UniformCosts:
    costs = load_experiment(config, overrides).costs  # type: ignore[arg-type]
    assert isinstance(costs, UniformCosts)
    return costs


@pytest.mark.parametrize(
    ("text", "units", "expected"),
    [
        ("18.5 ms", SECONDS, 0.0185),
        ("5us", SECONDS, 5e-6),
        ("5 µs", SECONDS, 5e-6),
        ("1e-3", SECONDS, 1e-3),
        (2, SECONDS, 2.0),
        ("80 GiB", BYTES, 80 * 2**30),
        ("58 MB", BYTES, 58e6),
        ("160 GB/s", BYTES_PER_S, 160e9),
        ("400 Gb/s", BYTES_PER_S, 50e9),
        (1.6e11, BYTES_PER_S, 1.6e11),
    ],
)
def test_a_quantity_has_a_unit_or_is_in_si(text: object, units: dict[str, float], expected: float) -> None:
    assert quantity(text, units, "right") == pytest.approx(expected, rel=1e-15)


@given(st.text(max_size=8) | st.booleans() | st.none() | st.lists(st.integers(), max_size=2))
def test_a_quantity_is_finite_and_not_negative_or_refused(value: object) -> None:
    try:
        number = quantity(value, SECONDS, "a time")
    except ValueError as error:
        assert "must be a time" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert 0 <= number < float("inf")


def mistakes() -> list[tuple[str, str]]:
    """Return (what the file holds, what is said of it)."""
    return [
        (GOOD + "schedule: gpipe\n", "line 4, column 1: the key 'schedule' is there twice"),
        (GOOD + "cluster: !!python/object:os.system {}\n", "line 4, column 10: the tag"),
        (GOOD + "cluster: !secret {}\n", "line 4, column 10: the tag !secret is not allowed here"),
        ("[1, 2", "line 1, column 6: expected ',' or ']', but got '<stream end>'"),
        ("", "must be a mapping of keys like 'pipeline:' and 'schedule:', got nothing"),
        ("? {a: b}\n: 3\n", "line 1, column 3: the key {'a': 'b'} is not a word"),
        (GOOD.replace("schedule: 1f1b\n", ""), "schedule: is missing"),
        (GOOD.replace("1f1b", "dualpip"), "schedule: unknown schedule 'dualpip'; did you mean 'dualpipe'?"),
        (GOOD.replace("1f1b", "[1f1b]"), "schedule: must be a schedule's name, a mapping with 'name'"),
        (
            GOOD.replace("1f1b", "{name: interleaved-1f1b, stages: 2}"),
            "schedule: interleaved-1f1b: unknown option 'stages' (its options: stages_per_rank, group)",
        ),
        (
            GOOD.replace("1f1b", "{name: interleaved-1f1b, stages_per_rank: two}"),
            "schedule: interleaved-1f1b: option stages_per_rank must be a whole number, got 'two'",
        ),
        (GOOD + "compare: [1f1b, gpip]\n", "compare[1]: unknown schedule 'gpip'; did you mean 'gpipe'?"),
        (GOOD + "compare: [{name: gpipe, micro_batches: 0}]\n", "compare[0]: micro_batches must be a whole number"),
        (GOOD.replace("forward:", "forwrd:"), "costs.forwrd: unknown key; did you mean 'forward'?"),
        (GOOD.replace("forward: 1 ms", "forward: -1 ms"), "costs.forward: must be a time like 5 us or 18.5 ms"),
        (GOOD.replace("forward: 1 ms", "forward: .nan"), "costs.forward: must be a time like"),
        (GOOD.replace("forward: 1 ms", "forward: .inf"), "costs.forward: must be a time like"),
        (GOOD.replace("forward: 1 ms", "forward: true"), "costs.forward: must be a time like"),
        (GOOD.replace("forward: 1 ms", "forward: 1 parsec"), "got '1 parsec'"),
        (GOOD.replace("forward: 1 ms", "forward: [1, 2]"), "costs.forward: a list needs one time for each of the 4"),
        (GOOD.replace("ranks: 4", "ranks: 4.5"), "pipeline.ranks: must be a whole number, 1 or more, got 4.5"),
        (GOOD.replace("ranks: 4", "ranks: 0"), "pipeline.ranks: must be a whole number, 1 or more, got 0"),
        (GOOD.replace("ranks: 4", "ranks: yes"), "pipeline.ranks: must be a whole number, 1 or more, got True"),
        (
            GOOD + "cluster: {nvlink: {bandwidth: 160 GB/s, latency_ms: 3}}\n",
            "cluster.nvlink.latency_ms: unknown key; did you mean 'latency'?",
        ),
        (GOOD + "cluster: {nvlink: {bandwidth: 0}}\n", "cluster.nvlink.bandwidth: must be more than zero"),
        (GOOD + "cluster: 8\n", "cluster: must be a mapping of keys, got 8"),
        (GOOD + "cluster: &c {nvlink: *c}\n", "cluster"),
    ]


@pytest.mark.parametrize(("text", "said"), mistakes())
def test_a_mistake_is_one_line_with_file_key_and_value(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_experiment(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None])
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "mine.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"mine\.yaml: (cannot be read|is not UTF-8)"):
        load_experiment(file)


def test_the_nearest_packaged_config_is_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'figure5'"):
        load_experiment("figure_5")


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_junk_is_refused_and_never_crashes(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "junk.yaml"
    file.write_bytes(junk)
    with pytest.raises(ConfigError):
        load_experiment(file)


def test_settings_override_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(GOOD + "compare: [1f1b, gpipe]\n")
    settings = [
        "pipeline.micro_batches=40",
        "costs.transfer=1 ms",
        "compare.1=zb-h1",
        "cluster.nvlink={bandwidth: 300 GB/s}",
    ]
    experiment = load_experiment(file, settings=settings)
    assert experiment.choice.micro_batches == 40
    assert [choice.name for choice in experiment.compare] == ["1f1b", "zb-h1"]
    assert experiment.cluster.nvlink.bytes_per_s == 300e9
    assert isinstance(experiment.costs, UniformCosts)
    assert experiment.costs.transfer_s == 1e-3


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("pipeline", "--set pipeline: must be key=value"),
        ("pipeline.ranks.deep=1", "pipeline.ranks is 4, so nothing inside it can be set"),
        ("pipeline.rank=1", "pipeline.rank: unknown key; did you mean 'ranks'?"),
        ("schedule={", "--set schedule: line 1"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, setting: str, said: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(GOOD)
    with pytest.raises(ConfigError) as caught:
        load_experiment(file, settings=[setting])
    assert said in str(caught.value)


def test_a_mapping_is_not_changed_by_overrides() -> None:
    config: dict[str, Any] = {
        "pipeline": {"ranks": 4, "micro_batches": 8},
        "schedule": "1f1b",
        "costs": {"forward": 1, "backward_input": 1, "backward_weight": 1},
    }
    assert simulate(config, micro_batches=16).micro_batches == 16
    assert simulate(config).micro_batches == 8


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


@pytest.mark.parametrize("name", sorted(packaged_configs()))
def test_every_packaged_config_loads(name: str) -> None:
    assert load_experiment(name).choices


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
