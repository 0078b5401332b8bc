"""Every key of a configuration: explained, with an example that works, and the page that lists them is current."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dualpipe_sim.base.plugins import load_plugin
from dualpipe_sim.config import load_experiment
from dualpipe_sim.config.keys import Key, all_keys, keys_below
from dualpipe_sim.config.presets import FOLDERS, presets
from dualpipe_sim.config.yaml_text import parse_yaml
from dualpipe_sim.errors import UserError
from tests.pages import script

if TYPE_CHECKING:
    from tests.conftest import CommandLine

DOCS = Path(__file__).parents[2] / "docs"
KEYS = [key for key in all_keys() if not key.section]

UNIFORM: dict[str, Any] = {
    "pipeline": {"ranks": 4, "micro_batches": 4},
    "schedule": "1f1b",
    "costs": {"kind": "uniform", "forward": "10 ms", "backward_input": "11 ms", "backward_weight": "10 ms"},
}
GPT_2 = {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257, "n_positions": 1024}
COSTS_FILE = "stages: {0: {F: 1, B: 2}}"


def base_of(key: Key, folder: Path) -> dict[str, Any] | str:
    """Return a configuration in which the key's example is to be set."""
    if key.path.startswith("costs[measured]"):
        (folder / "costs.yaml").write_text(COSTS_FILE)
        return {**UNIFORM, "costs": {"kind": "measured", "file": str(folder / "costs.yaml")}}
    if key.path.startswith("costs[profile]"):
        return {**UNIFORM, "costs": {"kind": "profile", "layers": [{"forward": 1, "backward": 2, "count": 24}]}}
    if key.path.startswith("costs[uniform]") or key.path in ("cluster.mapping", "sweep", "plugins", "pipeline.ranks"):
        return UNIFORM
    if key.path.startswith("costs[layers]") or key.path.partition(".")[0] in (
        "overlap",
        "training",
        "parallel",
        "measured",
    ):
        return "deepseek_v3"
    return "deepseek_v3" if key.path.startswith(("model", "gpu", "cluster", "plan")) else UNIFORM


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.path)
def test_every_key_is_explained_with_an_example_that_works(
    key: Key, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").touch()
    load_plugin("mine.py")  # the example of plugins
    assert key.meaning
    assert key.example
    if key.path == "costs[measured].file":
        (tmp_path / "costs.yaml").write_text(COSTS_FILE)
    path = ".".join(part.partition("[")[0] for part in key.path.split("."))
    overrides = {path: parse_yaml(key.example, "the example")}
    if key.path == "costs[uniform].backward":
        overrides |= {"costs.backward": overrides[path]}
    elif key.path.startswith("parallel.pipeline"):
        overrides["pipeline.ranks"] = overrides[path]
    elif key.path == "training.global_batch":
        overrides["pipeline.micro_batches"] = 120
    if key.path == "cluster.oversubscription":
        overrides |= {"cluster.gpus_per_pod": 64}
    if key.path in ("training.recompute.layers", "training.recompute.together"):
        overrides |= {"training.recompute.full": True}
    if key.path.startswith("gpu.gemm.fp4"):
        overrides = {"gpu": {"preset": "b200"}, "cluster": {"preset": "b200-ib"}, **overrides}
    if key.path.startswith("model."):
        overrides = {"parallel.expert": 1, "pipeline.layout": "even", "model.experts.group_limit": 1, **overrides}
    if key.path in ("model.pattern", "model.kinds"):
        overrides |= {"model.dense_layers": 0, "model.pattern": example_of("model.pattern")}
        overrides["model.kinds"] = example_of("model.kinds")
    if key.path == "model.hf":
        (tmp_path / "config.json").write_text(json.dumps(GPT_2))
        overrides = {"model": {"hf": str(tmp_path / "config.json")}, "parallel.expert": 1, "pipeline.layout": "even"}
    if key.path.startswith("model.attention["):
        overrides |= attention_around(key)
    load_experiment(base_of(key, tmp_path), overrides)


def example_of(path: str) -> Any:  # noqa: ANN401 - whatever YAML says
    """Return the example of a key."""
    return parse_yaml(next(key.example or "" for key in KEYS if key.path == path), "the example")


def attention_around(key: Key) -> dict[str, Any]:
    """Return what an example of attention needs beside it: all keys of its kind, or of its part, none of latents."""
    above, _, name = key.path.rpartition(".")
    if above == "model.attention[softmax]":
        latents = ("kv_heads", "qk_norm")
        return {"model.attention.kv_lora": 0, "model.attention.q_lora": 0} if name in latents else {}
    place = ".".join(part.partition("[")[0] for part in above.split("."))
    beside = {one.path.rpartition(".")[2]: example_of(one.path) for one in KEYS if one.path.rpartition(".")[0] == above}
    return {place: beside, f"{place}.{name}": beside[name]}


def test_the_page_of_all_keys_is_current() -> None:
    generator = script(DOCS / "make_yaml.py")
    assert (DOCS / "yaml.md").read_text(encoding="utf-8") == generator.page(), "run: python docs/make_yaml.py"


@pytest.mark.parametrize("section", ["model", "gpu", "cluster", "training"])
def test_the_command_explains_a_section(command_line: CommandLine, section: str) -> None:
    said = command_line("schema", section).stdout
    for key in keys_below(section):
        assert key.path in said
    assert "must be given" in said or section == "cluster"


def test_a_key_that_there_is_not_is_one_line(command_line: CommandLine) -> None:
    done = command_line("schema", "trainin")
    assert (done.returncode, done.stderr) == (
        2,
        "dualpipe-sim: trainin: no key of a configuration; did you mean 'training'?\n",
    )
    with pytest.raises(UserError, match=r"no key of a configuration \(sections: pipeline, costs, model"):
        keys_below("qqq")


@pytest.mark.thorough
@pytest.mark.parametrize("name", [name for section in FOLDERS for name in presets(section)])
def test_every_preset_is_something_to_begin_with(command_line: CommandLine, tmp_path: Path, name: str) -> None:
    file = tmp_path / "mine.yaml"
    done = command_line("init", file, "--from", name)
    assert (done.returncode, done.stdout) == (0, f"{file} is written; try: dualpipe-sim compare {file}\n")
    experiment = load_experiment(file)
    assert len(experiment.choices) == 5
    done = command_line("run", file)
    assert done.returncode == 0, done.stderr
    assert "does not fit" not in done.stdout
