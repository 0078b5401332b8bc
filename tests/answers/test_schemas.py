"""Answers as JSON: what every command really prints is what its schema says, and a version keeps its keys."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator
from typer.main import get_command

from dualpipe_sim import cli
from dualpipe_sim.answers import VERSIONS, answer, runs, strict_json
from dualpipe_sim.answers.schemas import answer_schema, inside, types_by_path
from dualpipe_sim.config.yaml_text import as_block
from dualpipe_sim.errors import UserError
from dualpipe_sim.result import KEYS
from tests.pages import script

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import CommandLine

DOCS = Path(__file__).parents[2] / "docs"
GENERATOR = script(DOCS / "make_schemas.py")

FREE = ("--set", "costs={forward: 0, backward_input: 0, backward_weight: 0}")  # so that makespans are 0
SMALL_PLAN = ("plan_deepseek_v2_lite", "--set", "plan={schedules: [1f1b, dualpipe], ranks: [2, 4]}")
FILES = {
    "search.yaml": "pipeline: {ranks: 2, micro_batches: 2}\ncosts: {forward: 1, backward: 2}\n"
    "search: {rounds: 1, moves: 10, stages_per_rank: 1}\n",
    "legal.csv": "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n",
    "wrong.csv": "0F0,0B0\n1B0,1F0\n",
    "junk.csv": "0F0,zz\n1F0,1B0\n",
    "config.json": json.dumps(
        {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 512, "intermediate_size": 1024,
            "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 1000,
            "tie_word_embeddings": False,
        }
    ),
    "metric.py": "from dualpipe_sim.analysis import register\n\n\n"
    "@register('ops')\ndef ops(result: object) -> float:\n    return 1.5\n",
}  # fmt: skip
RUN = {
    "model_name": "small", "model": {"layers": 8, "hidden": 256, "heads": 8, "kv_heads": 4, "head_dim": 32, "ffn": 1024,
    "activation": "swiglu", "vocab": 1024, "tied_embedding": False}, "cluster": {"gpu": "h100-80g-sxm", "gpus": 8},
    "parallel": {"tp": 1, "pp": 2, "dp": 4, "zero": 1}, "schedule": "1f1b", "seq_len": 128, "global_batch": 32,
    "micro_batch": 1, "precision": "bf16", "recompute": "none", "framework": "Megatron-Core 0.12",
    "measured": {"step_time_s": 1.0, "memory_gb": 4.0}, "source": "mine",
}  # fmt: skip
FILES["runs.yaml"] = as_block({"runs": [RUN, RUN | {"parallel": "x"}, *(RUN | {"id": f"{one}"} for one in range(5))]})

CALLS = [
    ("run", "figure5"),
    ("run", "figure5", *FREE),
    ("run", "figure5", "--set", "noise={jitter: 0.1, runs: 5}"),
    ("run", "figure5", "--set", "costs={forward: 10 ms, backward: 20 ms, transfer: 1 ms}"),
    ("run", "deepseek_v3", "--set", "pipeline.micro_batches=32"),
    ("run", "deepseek_v3_pair"),
    ("run", "deepseek_v3_stage_level"),
    ("compare", "figure5"),
    ("compare", "figure5", "--format", "json"),
    ("compare", "figure5", "--set", "pipeline.micro_batches=7"),
    ("compare", "eight_ranks", "12", "--by", "memory"),
    ("compare", "deepseek_v3", "--set", "pipeline.micro_batches=32", "--set", "compare=[dualpipe, zb-h1, gpipe]"),
    ("why", "figure5"),
    ("why", "figure5", "--set", "schedule=1f1b", "--set", "costs.transfer=0.5"),
    ("why", "figure5", *FREE),
    ("why", "deepseek_v3_pair"),
    ("memory", "deepseek_v3_pair"),
    ("layers", "deepseek_v2_lite"),
    ("sweep", "figure5", "--over", "pipeline.micro_batches=16,7", "--over", "schedule=1f1b,dualpipe,none"),
    ("robust", "figure5", "--runs", "20"),
    ("robust", "figure5", "--runs", "20", "--set", "pipeline.micro_batches=7"),
    ("robust", "figure5", "--runs", "20", *FREE),
    ("regimes", "figure5", "--x", "costs.transfer=0..2:2", "--y", "ranks=4,5,8"),
    ("regimes", "figure5", "--x", "activations=2..8", "--y", "ranks=4,8"),
    ("plan", *SMALL_PLAN, "--confirm", "1", "--why"),
    ("plan", *SMALL_PLAN, "--confirm", "0", "--set", "gpu.memory=1 GB"),
    ("search", "search.yaml", "-j", "1"),
    ("score", "runs.yaml"),
    ("import", "config.json"),
    ("schedules",),
    ("check", "legal.csv"),
    ("check", "legal.csv", "--micro-batches", "3"),
    ("check", "wrong.csv"),
    ("check", "junk.csv"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of ``CALLS``, in which commands run."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def validated(printed: str, command: str) -> dict[str, Any]:
    """Return what was printed as JSON, which is strict and as the schema of the command says."""
    told: dict[str, Any] = json.loads(printed, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    Draft202012Validator(answer_schema(command)).validate(told)
    assert next(iter(told)) == "schema"
    return told


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_what_is_printed_is_what_the_schema_says(
    command_line: CommandLine, folder: Path, call: tuple[str, ...]
) -> None:
    done = command_line(*call, *([] if "--format" in call else ["--json"]))
    assert done.returncode == (2 if call[0] == "check" and not json.loads(done.stdout)["legal"] else 0), done.stderr
    validated(done.stdout, call[0])


def test_a_measured_run_beside_a_simulated_one(command_line: CommandLine, folder: Path) -> None:
    assert command_line("timeline", "figure5", "-o", "run.csv").returncode == 0
    told = validated(command_line("compare-run", "figure5", "run.csv", "--json").stdout, "compare-run")
    assert told["makespan_s"] == {"simulated": 66, "measured": 66, "error": 0}


@pytest.mark.parametrize("command", ["run", "compare"])
def test_a_registered_metric_is_a_further_key(command_line: CommandLine, folder: Path, command: str) -> None:
    told = validated(command_line("--plugin", "metric.py", command, "figure5", "--json").stdout, command)
    assert (told if command == "run" else told["runs"][0])["ops"] == 1.5


def test_no_metric_takes_the_place_of_the_name(command_line: CommandLine, folder: Path) -> None:
    (folder / "metric.py").write_text(FILES["metric.py"].replace("'ops'", "'schema'"))
    refused = command_line("--plugin", "metric.py", "run", "figure5", "--json")
    assert (refused.returncode, refused.stdout) == (2, "")


def test_every_call_is_of_another_command() -> None:
    assert {call[0] for call in CALLS} | {"compare-run"} == set(VERSIONS)


def test_every_command_that_prints_json_has_a_schema(command_line: CommandLine) -> None:
    assert command_line("--help").returncode == 0  # which loads all commands
    from dualpipe_sim.cli.app import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    with_json = {name for name, one in commands.items() if any("--json" in of.opts for of in one.params)}
    assert with_json == set(VERSIONS)


@pytest.mark.parametrize("command", VERSIONS)
def test_schemas_are_sound_and_every_key_has_a_meaning(command: str) -> None:
    schema = answer_schema(command)
    Draft202012Validator.check_schema(schema)
    for path, place in keyed(schema):
        assert place.get("description"), path
        assert not re.search(r"\bNone\b|:\w+:`", place["description"]), path
        assert ("x-unit" in place) >= bool(re.search(r"_(s|bytes)(_by_\w+)?$", path) and types(place)), path


def keyed(place: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for key, one in place.get("properties", {}).items():
        yield f"{path}.{key}", one
        yield from keyed(one, f"{path}.{key}")
    for one, step in inside(place):
        yield from keyed(one, path + step)


def types(place: dict[str, Any]) -> bool:
    """Whether a place holds numbers, by itself or in lists or mappings of any names."""
    if place.get("properties"):
        return False
    return "number" in str(place.get("type")) or any(types(one) for one, _ in inside(place))


def test_the_keys_of_a_run_are_those_of_its_result() -> None:
    assert tuple(runs.run_keys()) == KEYS


@pytest.mark.parametrize(
    ("break_", "said"),
    [
        (lambda told: told.update(more=1), "'more' was unexpected"),
        (lambda told: told.pop("runs"), "'runs' is a required property"),
        (lambda told: told["runs"][0].pop("makespan_s"), "'makespan_s' is a required property"),
        (lambda told: told["runs"][0].update(makespan_s="66"), "'66' is not of type 'number', 'null'"),
        (lambda told: told["runs"][0]["theory"].update(more=1), "'more' was unexpected"),
        (lambda told: told.update(schema="dualpipe-sim/compare/0"), "'dualpipe-sim/compare/1' was expected"),
    ],
)
def test_another_form_is_refused(command_line: CommandLine, break_: Any, said: str) -> None:  # noqa: ANN401
    told = json.loads(command_line("compare", "figure5", "--json").stdout)
    break_(told)
    assert said in " ".join(error.message for error in Draft202012Validator(answer_schema("compare")).iter_errors(told))


def test_what_is_no_number_is_null() -> None:
    told = answer("check", {"a": float("nan"), "b": [float("inf"), {"c": -float("inf")}], "d": (1.5, "x")})
    assert told == {"schema": "dualpipe-sim/check/1", "a": None, "b": [None, {"c": None}], "d": [1.5, "x"]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        strict_json({"a": float("nan")})


def test_json_is_written_in_one_place() -> None:
    commands = Path(cli.__path__[0]).glob("*.py")
    assert [path.name for path in commands if "json.dump" in path.read_text(encoding="utf-8")] == []


def test_the_schema_of_an_answer_is_printed(command_line: CommandLine) -> None:
    assert json.loads(command_line("schema", "--of", "plan").stdout) == answer_schema("plan")
    for words, said in (
        (("--of", "plam"), "plam: no command of this name prints JSON; did you mean 'plan'?"),
        (("--of", "gantt"), "gantt: no command of this name prints JSON (known: run,"),
        (("training", "--of", "plan"), "give a key or --of COMMAND, not both ('training', 'plan')"),
    ):
        refused = command_line("schema", *words)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert said in refused.stderr


def test_an_unknown_answer_has_no_schema() -> None:
    with pytest.raises(UserError, match="no command of this name prints JSON"):
        answer_schema("gantt")


def test_the_docs_are_up_to_date() -> None:
    """They are written by ``python docs/make_schemas.py``, which refuses other keys of a version that is written."""
    assert GENERATOR.broken(DOCS / "schemas") == []
    there = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "schemas").glob("*.json")}
    assert {name: there.get(name) for name in GENERATOR.files()} == GENERATOR.files()
    assert (DOCS / "json.md").read_text(encoding="utf-8") == GENERATOR.page()


@pytest.mark.parametrize(
    "change",
    [
        lambda keys: keys | {"new": {"type": "number"}},
        lambda keys: {key: one for key, one in keys.items() if key != "bubble_ratio"},
        lambda keys: keys | {"makespan_s": {"type": "string"}},
        lambda keys: keys | {"theory": {"type": ["object", "null"], "properties": {}, "required": []}},
    ],
)
def test_other_keys_are_another_version(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:  # noqa: ANN401
    kept = runs.run_keys()
    monkeypatch.setattr(runs, "run_keys", lambda: change(kept))
    said = GENERATOR.broken(DOCS / "schemas")
    assert {one.partition(":")[0] for one in said} == {"run-1.json", "compare-1.json", "sweep-1.json"}
    monkeypatch.setitem(VERSIONS, "run", 2)
    assert {one.partition(":")[0] for one in GENERATOR.broken(DOCS / "schemas")} == {
        "compare-1.json",
        "sweep-1.json",
    }


def test_every_version_that_was_written_is_kept() -> None:
    """A version's file stays when the next one comes: answers that somebody has stored are of it."""
    for command, version in VERSIONS.items():
        for one in range(1, version + 1):
            kept = json.loads((DOCS / "schemas" / f"{command}-{one}.json").read_text(encoding="utf-8"))
            assert kept["title"] == f"dualpipe-sim/{command}/{one}"
            assert dict(types_by_path(kept))["schema"] == "string"
