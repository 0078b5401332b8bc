"""Models from config.json against the modules of transformers themselves, built on the meta device and counted.

Only where transformers is installed; `make test-all` installs it beside the environment.
"""

from __future__ import annotations

from typing import Any

import pytest

from dualpipe_sim.config.records import read
from dualpipe_sim.model.architecture import Model
from dualpipe_sim.model.huggingface import model_of

torch = pytest.importorskip("torch", reason="torch is not installed; make test-all runs this")
transformers = pytest.importorskip("transformers", reason="transformers is not installed; make test-all runs this")

SMALL = {
    "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 96, "vocab_size": 128, "pad_token_id": None,
}  # fmt: skip
"""Sizes of a small model; what a family has beside, it has as its default."""

OWN: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 64, "n_layer": 4, "n_head": 4, "vocab_size": 128, "n_positions": 32},
    "deepseek_v2": {**SMALL, "num_experts_per_tok": 2, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1},
    "kimi_linear": {}, "mimo_v2_flash": {}, "nemotron_h": {},
}  # fmt: skip

FAMILIES = (
    "arcee", "deepseek_v2", "deepseek_v3", "deepseek_v32", "ernie4_5", "ernie4_5_moe", "gemma", "gemma2", "gemma3_text",
    "glm4", "glm4_moe", "glm_moe_dsa", "gpt2", "gpt_neox", "gpt_oss", "granite", "granitemoe", "kimi_linear", "llama",
    "llama4_text", "mimo_v2_flash", "minimax", "minimax_m2", "mistral", "mixtral", "nemotron", "nemotron_h", "olmo2",
    "olmoe", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next", "seed_oss", "smollm3",
)  # fmt: skip


def counted(config: Any) -> int:  # noqa: ANN401 - of a library that has no types
    """Return the parameters of a model's modules, tied ones once."""
    with torch.device("meta"):
        module = transformers.AutoModelForCausalLM.from_config(config)
    module.tie_weights()
    return sum(parameter.numel() for parameter in {id(one): one for one in module.parameters()}.values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_the_parameters_of_its_modules(family: str) -> None:
    sizes = OWN.get(family, SMALL)
    variants: list[dict[str, Any]] = [{}]
    if family in ("llama", "qwen3", "olmo2", "seed_oss", "nemotron", "smollm3", "granite", "gemma3_text"):
        variants.append({"tie_word_embeddings": True, "head_dim": 32, "attention_bias": True})
    for variant in variants:
        config = transformers.CONFIG_MAPPING[family](**sizes, **variant)
        keys = model_of(config.to_dict() | {"model_type": family})
        assert read(Model, keys, "model").parameters().total == counted(config)
