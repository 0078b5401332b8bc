"""Configurations as they are read: files, settings over them, and what every mistake says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim import ConfigError, simulate
from dualpipe_sim.config import load_experiment, packaged_configs
from dualpipe_sim.config.json_schema import json_schema
from dualpipe_sim.config.load import read_config
from dualpipe_sim.config.yaml_text import parse_yaml
from dualpipe_sim.costs.uniform import UniformCosts

GOOD = """\
pipeline: {ranks: 4, micro_batches: 8}
schedule: 1f1b
costs: {forward: 1 ms, backward_input: 1 ms, backward_weight: 1 ms}
"""


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
        (
            GOOD.replace("forward: 1 ms", "forward: []"),
            "costs.forward: must be a time or a list of times, got an empty",
        ),
        (
            GOOD.replace("costs: {", "costs: {kind: unifrm, "),
            "costs: kind must be 'uniform', 'profile', 'layers' or 'measured'",
        ),
        (GOOD + "compare: 1f1b\n", "compare: must be a list, got '1f1b'"),
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


BAD: list[object] = [
    *(10**400, -(10**400), 16**6000, 10**30, True, float("nan"), float("inf"), "", "1e400 s", "9" * 5000),
    *("x" * 100_000, "a\0b", "\n", None, [], [[]], {}, {"\0": 1}, {"x" * 1000: 1}, {10**400: 1}, {True: 1}, b"\xff"),
]


@pytest.mark.parametrize(
    ("config", "key"),
    [
        *(("small", key) for key in ("costs", "costs.forward", "costs.kind", "costs.transfer", "costs.overlapped")),
        *(("small", key) for key in ("schedule", "pipeline", "pipeline.ranks", "pipeline.layout", "noise.jitter")),
        *(
            ("small", key)
            for key in ("compare", "cluster", "cluster.mapping", "cluster.nvlink.bandwidth", "noise.seed")
        ),
        *(("deepseek_v3", key) for key in ("model", "model.preset", "model.hidden", "model.activation", "gpu.gemm")),
        *(("deepseek_v3", key) for key in ("model.dropout", "gpu.hbm", "gpu.kernel_gap", "training.routing_skew")),
        *(
            ("deepseek_v3", key)
            for key in ("cluster.alltoall", "cluster.alltoall.launch", "costs.measured.mlp_forward")
        ),
        *(("small", key) for key in ("sweep", "sweep.grid", "sweep.zip", "plan.schedules", "parallel.data")),
    ],
)
def test_a_bad_value_is_refused_in_one_short_line(config: str, key: str) -> None:
    refused = 0
    for value in BAD:
        try:
            load_experiment(config, {key: value})
        except ConfigError as error:
            message = str(error).partition(".yaml: ")[2]
            assert message.isprintable()
            assert 0 < len(message) < 500  # (the names of all schedules are in one of them)
            refused += 1
    assert refused > len(BAD) // 2


@pytest.mark.parametrize(
    "config",
    ["x" * 300, "x" * 300 + ".yaml", "a\0b", "a\0b.yaml"],
    ids=["long", "long.yaml", "NUL", "NUL.yaml"],
)
def test_a_name_that_no_file_can_have_is_refused(config: str) -> None:
    with pytest.raises(ConfigError):
        load_experiment(config)


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
@pytest.mark.parametrize("key", ["costs", "schedule"])
def test_a_file_of_such_a_name_is_refused(key: str, name: str) -> None:
    section = {"costs": {"kind": "measured", "file": name}, "schedule": {"file": name}}[key]
    with pytest.raises(ConfigError, match=r"cannot be read: (embedded null byte|File name too long)"):
        load_experiment("small", {key: section})


def test_what_repeats_without_end_is_quoted_in_part(tmp_path: Path) -> None:
    """Four lists of nine times the one before: eleven would be refused as they are read."""
    lists = ["&a0 [1, 1]"] + [f"&a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 5)]
    aliases = ", ".join(f"k{i}: {one}" for i, one in enumerate(lists))
    file = tmp_path / "mine.yaml"
    for key, value in (
        ("costs", "*a4"),
        ("schedule", "{name: hanayo, waves: *a4}"),
        ("engine", "*a4"),
        ("gpu", "*a4"),
    ):
        kept = [line for line in GOOD.splitlines() if not line.startswith(key)]
        file.write_text("\n".join([f"sweep: {{grid: {{{aliases}}}}}", *kept, f"{key}: {value}"]))
        with pytest.raises(ConfigError, match=f"mine.yaml: {key}") as caught:
            load_experiment(file)
        assert len(str(caught.value)) < 400


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


@pytest.mark.parametrize("name", sorted(packaged_configs()))
def test_every_packaged_config_loads(name: str) -> None:
    assert load_experiment(name).choices


SHORT: dict[str, Any] = {
    "model": "llama3-70b",
    "gpu": "h100",
    "parallel": {"tensor": 8, "pipeline": 8},
    "training": {"global_batch": 64, "sequence_length": 8192},
    "schedule": "1f1b",
}


def test_five_keys_are_a_whole_experiment() -> None:
    """What goes without saying: costs by layer, BF16, the cluster that an H100 usually stands in."""
    whole = SHORT | {"costs": {"kind": "layers"}, "cluster": "h100-ib"}
    whole["training"] = {**SHORT["training"], "precision": "bf16"}
    short, full = load_experiment(SHORT), load_experiment(whole)
    assert short.cluster == full.cluster
    assert short.cost_model == full.cost_model
    jsonschema.validate(SHORT, json_schema())


def test_another_cluster_or_other_costs_are_taken_as_they_are() -> None:
    own = {"gpus_per_node": 4, "nvlink": {"bandwidth": "1 GB/s"}, "infiniband": {"bandwidth": "1 GB/s"}}
    assert load_experiment(SHORT, {"cluster": own}).cluster.gpus_per_node == 4
    pipeline = {"ranks": 2, "micro_batches": 4}
    uniform = load_experiment({"schedule": "1f1b", "costs": {"forward": 1, "backward": 2}, "pipeline": pipeline})
    assert uniform.cluster == load_experiment("figure5").cluster
    with pytest.raises(ConfigError, match="config: costs: is missing"):
        load_experiment({"schedule": "1f1b", "pipeline": pipeline})


def test_what_is_there_twice_is_set_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("a: &a {x: 1}\nb: *a\n")
    assert read_config(file, {"a.x": 2})[0] == {"a": {"x": 2}, "b": {"x": 1}}


def test_a_mapping_that_would_be_endless_written_out_is_refused() -> None:
    inner: list[object] = [1, 1]
    for _ in range(30):
        inner = [inner] * 9
    with pytest.raises(ConfigError, match=r"^config: is nested more than 64 levels deep, or has more than 1,000,000"):
        read_config({"costs": inner})
    itself: list[object] = []
    itself.append(itself)
    with pytest.raises(ConfigError, match="perhaps it holds itself"):
        read_config({"costs": {"a": itself}})


def test_half_a_character_is_no_text_and_two_halves_are_one() -> None:
    """As JSON, which is YAML, writes what is beyond the first 65,536 characters."""
    assert parse_yaml(r'"\ud83d\udf01"', "mine.yaml") == "\N{ALCHEMICAL SYMBOL FOR AIR}"
    for text in (r'"\ud83d"', r'"\udf01\ud83d"', r'{"\ud800": 1}'):
        with pytest.raises(ConfigError, match=r"^mine.yaml: line 1, column [12]: .* is no text: it holds half"):
            parse_yaml(text, "mine.yaml")
    for config in ({"a\udcff": 1}, {"cluster": {"name": "\ud800"}}, {"compare": ["\ud800"]}):
        with pytest.raises(ConfigError, match="is no text: it holds half a character"):
            load_experiment(config)


def test_what_has_no_end_is_one_line() -> None:
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    itself: list[object] = []
    itself.append(itself)
    for schedule in (deep, itself):
        with pytest.raises(ConfigError):
            load_experiment("figure5", {"schedule": schedule})
    many: object = "1f1b"
    for _ in range(40):  # 2^40 names, written out
        many = [many, many]
    with pytest.raises(ConfigError, match="has more than 1,000,000 values"):
        load_experiment({"schedule": many, "pipeline": {"ranks": 2, "micro_batches": 2}, "costs": {"forward": 1}})
