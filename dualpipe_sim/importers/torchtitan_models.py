"""Models of torchtitan by name and flavor (https://github.com/pytorch/torchtitan, ``torchtitan/models/*``)."""

from __future__ import annotations

from typing import NamedTuple

from dualpipe_sim.importers.imported import Keys


class Flavor(NamedTuple):
    """A model: its keys, its number of layers, and whether it has experts."""

    keys: Keys
    layers: int
    moe: bool = False

    @property
    def named(self) -> object:
        """The preset's name where nothing is changed, else keys of ``model``."""
        return self.keys["preset"] if list(self.keys) == ["preset"] else self.keys


def _preset(name: str, depth: int, *, moe: bool = False, **own: object) -> Flavor:
    return Flavor({"preset": name, **own}, depth, moe)


def _small(layers: int, ffn: int, attention: Keys, **own: object) -> Flavor:
    """Return one of the models that torchtitan is tested with, 256 wide with a vocabulary of 2048."""
    shape = {"hidden": 256, "layers": layers, "vocabulary": 2048, "ffn": ffn, "attention": attention}
    return Flavor({"name": "debugmodel", **shape, **own}, layers, "experts" in own)


def _heads(heads: int, size: int, kv_heads: int = 0, **own: object) -> Keys:
    return {"heads": heads, "qk_head": size, "v_head": size, **({"kv_heads": kv_heads} if kv_heads else {}), **own}


_LATENT = {"heads": 16, "qk_head": 128, "rope_head": 64, "v_head": 128, "kv_lora": 512}
_QWEN = _heads(16, 128, 8, qk_norm="head")

FLAVORS: dict[str, dict[str, Flavor]] = {
    "llama3": {
        "debugmodel": _small(6, 768, _heads(16, 16)),  # 8/3 of the width, up to a multiple of 256
        "8b": _preset("llama3-8b", 32),
        "70b": _preset("llama3-70b", 80),
        "405b": _preset("llama3-405b", 126),
    },
    "llama4": {
        # Every second layer has experts; their width is 8/3 of the model's over the two that a token passes.
        "debugmodel": _small(
            6, 768, _heads(16, 16), pattern="dm", experts={"routed": 8, "active": 1, "ffn": 512, "shared": 1}
        ),
        # Without iRoPE every layer attends to the whole sequence.
        "17bx16e": _preset("llama4-scout", 48, moe=True, pattern="m"),
        "17bx16e_irope": _preset("llama4-scout", 48, moe=True),
        "17bx128e": _preset("llama4-maverick", 48, moe=True, pattern="dm"),
        "17bx128e_irope": _preset("llama4-maverick", 48, moe=True),
    },
    "deepseek_v3": {
        "debugmodel": _small(
            6, 1024, _LATENT, dense_layers=1, experts={"routed": 8, "active": 3, "ffn": 256, "shared": 2}
        ),
        "16b": _preset("deepseek-v2-lite", 27, moe=True),
        "236b": _preset("deepseek-v2", 60, moe=True),
        "671b": _preset("deepseek-v3", 61, moe=True, mtp_depth=0),
    },
    "qwen3": {
        "debugmodel": _small(8, 3072, _QWEN, tied_embedding=True),
        "debugmodel_moe": _small(8, 0, _QWEN, experts={"routed": 64, "active": 8, "ffn": 768}),
        "0.6b": _preset("qwen3-0.6b", 28),
        "1.7b": _preset("qwen3-1.7b", 28),
        "4b": _preset("qwen3-4b", 36),
        "8b": _preset("qwen3-8b", 36),
        "14b": _preset("qwen3-14b", 40),
        "32b": _preset("qwen3-32b", 64),
        "30b-a3b": _preset("qwen3-30b-a3b", 48, moe=True),
        "235b-a22b": _preset("qwen3-235b-a22b", 94, moe=True),
    },
    "gpt_oss": {
        "debugmodel": _preset("gpt-oss-20b", 4, moe=True, hidden=256, layers=4, experts={"routed": 8}),
        "20b": _preset("gpt-oss-20b", 24, moe=True),
        "120b": _preset("gpt-oss-120b", 36, moe=True),
    },
}
"""Models by name and flavor, in small letters."""
