"""Models from config.json: parameters are those of the published weights, and presets are what the files say.

``models.json`` has of each model's ``config.json`` (https://huggingface.co) the keys that matter, and, where it was
counted from the published weights or module definitions, the number of all parameters.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dualpipe_sim import simulate
from dualpipe_sim.config.presets import presets
from dualpipe_sim.config.records import read
from dualpipe_sim.config.yaml_text import read_yaml
from dualpipe_sim.errors import UserError
from dualpipe_sim.model.architecture import Model
from dualpipe_sim.model.huggingface import model_of, read_model

if TYPE_CHECKING:
    from tests.conftest import CommandLine

MODELS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("models.json").read_text(encoding="utf-8"))
COUNTED = {name: about["total"] for name, about in MODELS.items() if "total" in about}

SAID = {
    "qwen3-1.7b": (1.7, None), "qwen3-4b": (4.0, None), "qwen3-14b": (14.8, None), "qwen3-30b-a3b": (30.5, 3.3),
    "mixtral-8x22b": (141, 39), "gpt-oss-120b": (116.8, 5.1), "glm-4.5": (355, 32), "llama4-maverick": (400, 17),
    "kimi-linear-48b-a3b": (48, 3), "minimax-text-01": (456, 45.9),
}  # fmt: skip
"""Billions of parameters, all and active, as the models' cards and reports say of those that nobody counted here."""


def model(name: str) -> Model:
    return read(Model, model_of(MODELS[name]["config"], name), "model")


@pytest.mark.parametrize(("name", "total"), COUNTED.items())
def test_every_parameter_of_the_published_weights_is_counted(name: str, total: int) -> None:
    assert model(name).parameters().total == total


@pytest.mark.parametrize(("name", "said"), SAID.items())
def test_models_are_as_large_as_they_are_said_to_be(name: str, said: tuple[float, float | None]) -> None:
    billions, active = said
    assert model(name).parameters().total / 1e9 == pytest.approx(billions, rel=0.03)
    if active is not None:
        # Cards differ in whether embedding and head count as active.
        ends = model(name).embedding_parameters().total + model(name).head_parameters().total
        assert active * 0.97 < model(name).passed_parameters() / 1e9 < (active + ends / 1e9) * 1.05


@pytest.mark.parametrize("name", MODELS)
def test_presets_are_what_the_published_files_say(name: str) -> None:
    given = read_yaml(presets("model")[name])
    preset, imported = read(Model, given, "model"), model(name)
    assert preset.parameters() == imported.parameters()
    if "pattern" in given:
        assert preset.layer_kinds() == imported.layer_kinds()


def test_parts_are_those_that_were_counted() -> None:
    """By part, from the published weights of three models that have most kinds between them."""
    gpt_oss, next_, nemotron = (
        model(name).parameters() for name in ("gpt-oss-20b", "qwen3-next-80b-a3b", "nemotron-3-nano-30b-a3b")
    )
    assert (gpt_oss.attention, gpt_oss.gate, gpt_oss.routed, gpt_oss.norms) == (
        637_203_456, 2_212_608, 19_116_933_120, 141_120,
    )  # fmt: skip
    assert (next_.attention, next_.shared, next_.gate, next_.norms) == (
        1_213_860_096 + 327_155_712, 151_093_248, 50_331_648, 209_408,
    )  # fmt: skip
    assert (nemotron.attention, nemotron.shared, nemotron.norms) == (1_031_354_688, 458_981_376, 236_672)


FAMILIES = {  # a small model of each family that has no preset: hidden 8, 2 layers, vocabulary 10, 2 heads of 4
    "qwen2": 10 * 8 * 2 + 8 + 2 * (4 * 64 + 3 * 8 + 3 * 8 * 16 + 16),
    "olmo2": 10 * 8 * 2 + 8 + 2 * (4 * 64 + 3 * 8 * 16 + 16 + 16),
    "gemma2": 10 * 8 + 8 + 2 * (4 * 64 + 3 * 8 * 16 + 32),
    "glm4": 10 * 8 * 2 + 8 + 2 * (4 * 64 + 3 * 8 * 16 + 32),
    "nemotron": 10 * 8 * 2 + 16 + 2 * (4 * 64 + 2 * 8 * 16 + 32),
    "gpt_neox": 10 * 8 * 2 + 16 + 2 * (4 * 64 + 4 * 8 + 2 * 8 * 16 + 16 + 8 + 32),
    "arcee": 10 * 8 * 2 + 8 + 2 * (4 * 64 + 2 * 8 * 16 + 16),
}


@pytest.mark.parametrize(("family", "total"), FAMILIES.items())
def test_families_have_the_maps_biases_and_norms_of_their_modules(family: str, total: int) -> None:
    config = {
        "model_type": family, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 4,
        "num_key_value_heads": 2, "intermediate_size": 16, "vocab_size": 10, "sliding_window": 4,
        "hidden_act": "relu2" if family == "arcee" else "silu",
    }  # fmt: skip
    assert read(Model, model_of(config), "model").parameters().total == total


def test_gpt_2_has_learned_positions_and_its_published_size() -> None:
    config = {
        "model_type": "gpt2",
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "vocab_size": 50257,
        "n_positions": 1024,
    }
    assert read(Model, model_of(config), "model").parameters().total == 124_439_808


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "is no config.json of a model, which has a text model_type"),
        ("{", "is no JSON: Expecting property name enclosed in double quotes"),
        ('{"model_type": "lama"}', "model_type: models of type 'lama' are not known; did you mean 'llama'?"),
        ('{"model_type": "llama"}', "intermediate_size: is missing, which a model of type 'llama' needs"),
        ('{"model_type": "mixtral", "hidden_size": 8}', "num_local_experts: is missing, which a model of type"),
    ],
)
def test_what_is_no_known_model_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        read_model(tmp_path)
    assert str(error.value).startswith(f"{file}: {message}")
    assert "\n" not in str(error.value)


def test_a_configuration_takes_its_model_from_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MODELS["qwen3-0.6b"]["config"]))
    file = tmp_path / "run.yaml"
    file.write_text(
        "pipeline: {ranks: 4, micro_batches: 8}\nschedule: 1f1b\ncosts: {kind: layers}\ngpu: h100\ncluster: h100-ib\n"
        "model: {hf: config.json, layers: 8}\ntraining: {sequence_length: 4096, precision: bf16}\n"
    )
    result = simulate(file)
    assert result.makespan_s
    assert sum(result.layers_by_stage or ()) == 8
    file.write_text(file.read_text().replace("config.json", "none.json"))
    with pytest.raises(UserError, match=r"run\.yaml: model\.hf: .*none\.json: cannot be read: No such file"):
        simulate(file)


def test_the_command_counts_and_writes(command_line: CommandLine, tmp_path: Path) -> None:
    config, out = tmp_path / "Qwen3-8B_config.json", tmp_path / "model.yaml"
    config.write_text(json.dumps(MODELS["qwen3-8b"]["config"]))
    told = json.loads(command_line("import", str(config), "--json", "-o", str(out)).stdout)
    assert told["name"] == "Qwen3-8B"
    assert told["parameters"]["total"] == told["parameters"]["active"] == COUNTED["qwen3-8b"]
    assert sum(told["parameters"]["parts"].values()) == COUNTED["qwen3-8b"]
    assert list(told["parameters"]["parts"]) == [
        "embedding", "attention", "mlp", "experts", "shared", "gate", "norm", "head", "mtp", "other",
    ]  # fmt: skip
    assert read(Model, read_yaml(out)["model"], "model").parameters().total == COUNTED["qwen3-8b"]
    shown = command_line("import", str(config)).stdout
    assert "8,190,735,360" in shown
    refused = command_line("import", str(out))
    assert refused.returncode == 2
    assert "is nothing known" in refused.stderr
