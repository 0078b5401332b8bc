"""Models from the ``config.json`` of Hugging Face's transformers, by their ``model_type``.

What a family's modules hold is not in the file but in its code (https://github.com/huggingface/transformers, or the
model's own repository): which maps have biases, which norms there are. So each family is a function here, and a family
that is not known is refused. Multi-token prediction is read where the file tells its depth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

from dualpipe_sim.base.files import about_to_read, read_text
from dualpipe_sim.base.json_text import parse_settings
from dualpipe_sim.errors import UserError, did_you_mean, quoted
from dualpipe_sim.model.pattern import MOST_LAYERS

Keys: TypeAlias = dict[str, Any]
"""Plain values by key: of a ``config.json``, or of ``model``."""

_TELLING = ("mlp_bias", "lm_head_bias", "moe_latent_size", "index_topk")
"""Keys that change what a model is made of; one that a family does not read must not be set."""

_WORDS = ("model_type", "hidden_act", "_name_or_path", "hybrid_override_pattern")
_LISTS = (
    "layer_types", "mlp_layer_types", "mlp_only_layers", "moe_layer_freq", "moe_layers", "layers_block_type",
    "no_rope_layers", "hybrid_layer_pattern", "attn_type_list",
)  # fmt: skip
_KINDS: Mapping[str, tuple[Any, str]] = {
    **dict.fromkeys(_WORDS, (str, "a text")),
    **dict.fromkeys(_LISTS, ((list, int), "a list, or a whole number")),
    "linear_attn_config": (Mapping, "a mapping"),
}
"""What keys hold in all families, and in words; others hold a whole number."""
_LARGEST = 10**9
"""Beyond any model's width, vocabulary or number of experts."""

_FAMILIES: dict[str, Callable[[_Config], Keys]] = {}


class _Config:
    """A ``config.json`` that is asked for keys, and says which one is missing."""

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        self.values, self.source = values, source
        self.asked: set[str] = set()

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401 - whatever JSON has there
        self.asked.add(key)
        value = self.values.get(key)
        if value is None:
            raise UserError(f"{self.source}: {key}: is missing, which a model of type {quoted(self.type)} needs")
        return self._usual(key, value)

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - whatever JSON has there
        """Return a value, or another where there is none or it is null."""
        self.asked.add(key)
        value = self.values.get(key)
        return default if value is None else self._usual(key, value)

    def _usual(self, key: str, value: Any) -> Any:  # noqa: ANN401 - whatever JSON has there
        """Return a value that is of the kind that its key has in all families, in a size that a model may have."""
        kind, words = _KINDS.get(key, (int, "a whole number"))
        if isinstance(value, int):
            fits = -1 <= value <= (MOST_LAYERS if "layer" in key or "dense" in key else _LARGEST)  # -1: the last layer
        else:
            fits = isinstance(value, kind) and len(value) <= MOST_LAYERS
        if not (fits and isinstance(value, kind)):
            raise UserError(f"{self.source}: {key}: must be {words} of a model's size, got {quoted(value)}")
        return value

    def first(self, *keys: str) -> Any:  # noqa: ANN401 - whatever JSON has there
        """Return the value of the first key that is there: transformers renamed some."""
        return next((self[key] for key in keys if self.values.get(key) is not None), None) or self[keys[0]]

    @property
    def type(self) -> str:
        """The family's name."""
        return str(self.values.get("model_type", ""))

    @property
    def head(self) -> int:
        """Dimensions of a head, which are an equal share of the width where nothing is said."""
        return int(self.get("head_dim") or self["hidden_size"] // self["num_attention_heads"])


def read_model(path: Path) -> Keys:
    """Return the keys of ``model`` for a ``config.json``, or for a folder that has one.

    Raises:
        UserError: it cannot be read, its family is not known, or a key is missing.

    """
    about_to_read(path)
    file = path / "config.json" if path.is_dir() else path
    values = parse_settings(read_text(file), str(file))
    if not isinstance(values, Mapping) or not isinstance(values.get("model_type"), str):
        raise UserError(f"{file}: is no config.json of a model, which has a text model_type")
    keys = model_of(values, str(file))
    if keys["name"] == values["model_type"]:  # it says no more of itself, but its file or folder may
        stem = file.stem.removesuffix("_config")
        keys["name"] = (stem if stem != "config" else file.resolve().parent.name).rpartition("--")[2] or keys["name"]
    return keys


def model_of(values: Mapping[str, Any], source: str = "config.json") -> Keys:
    """Return the keys of ``model`` for what a ``config.json`` says.

    >>> keys = model_of({"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    ...                  "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 1000})
    >>> keys["attention"]
    {'heads': 4, 'kv_heads': 2, 'qk_head': 16, 'v_head': 16}

    Raises:
        UserError: its family is not known, or a key is missing.

    """
    inner = values.get("text_config")
    if isinstance(inner, Mapping) and inner.get("model_type"):  # of a model that sees and hears, what reads and writes
        values = {"tie_word_embeddings": values.get("tie_word_embeddings"), **inner}
    config = _Config(values, source)
    if config.type not in _FAMILIES:
        hint = did_you_mean(config.type, _FAMILIES) or f" (known: {', '.join(sorted(_FAMILIES))})"
        raise UserError(f"{source}: model_type: models of type {quoted(config.type)} are not known{hint}")
    keys: Keys = {"name": str(config.get("_name_or_path") or config.type)}
    try:
        keys |= _FAMILIES[config.type](config)
    except (ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        what = f"its values do not fit each other as those of type {quoted(config.type)} do"
        raise UserError(f"{source}: {what}: {quoted(str(error))}") from error
    unread = next((key for key in _TELLING if values.get(key) and key not in config.asked), None)
    if unread is not None:
        what = f"{quoted(values[unread])} is not known of models of type {quoted(config.type)}"
        raise UserError(f"{source}: {unread}: {what}")
    return {key: value for key, value in keys.items() if value is not None}


def _family(*types: str) -> Callable[[Callable[[_Config], Keys]], Callable[[_Config], Keys]]:
    def add(read: Callable[[_Config], Keys]) -> Callable[[_Config], Keys]:
        _FAMILIES.update(dict.fromkeys(types, read))
        return read

    return add


# --- what most families share ----------------------------------------------------------------------------------------


def _base(config: _Config, *, tied: bool = False, **own: Any) -> Keys:  # noqa: ANN401 - keys of a model
    """Return width, depth and vocabulary, with what a family says itself."""
    keys: Keys = {
        "hidden": config["hidden_size"],
        "layers": own.get("layers") or config["num_hidden_layers"],
        "vocabulary": config["vocab_size"],
        "tied_embedding": bool(config.get("tie_word_embeddings", tied)),
    }
    return keys | own


def _heads(config: _Config, **own: Any) -> Keys:  # noqa: ANN401 - keys of an attention
    """Return attention of groups of heads."""
    heads, shared = config["num_attention_heads"], config.get("num_key_value_heads")
    grouped = {"kv_heads": shared} if shared and shared != heads else {}
    return {"heads": heads, **grouped, "qk_head": config.head, "v_head": config.head} | own


def _experts(config: _Config, routed: str, width: str, active: str = "num_experts_per_tok", **own: Any) -> Keys:  # noqa: ANN401
    known = config.first(routed, "num_local_experts", "num_experts", "n_routed_experts")
    return {"routed": known, "active": config[active], "ffn": config[width]} | {
        key: value for key, value in own.items() if value
    }


def _bias(config: _Config, *, of: str, default: bool = False) -> Keys:
    return {"bias": of} if config.get("attention_bias", default) else {}


def _window(config: _Config) -> Keys:
    return {"window": config["sliding_window"]} if config.get("sliding_window") else {}


def _mtp(config: _Config) -> Keys:
    depth = config.get("num_nextn_predict_layers", 0)
    return {"mtp_depth": depth} if depth else {}


def _pattern(letters: Sequence[str]) -> str:
    """Return letters as short as repeats make them: the shortest beginning that, repeated, gives them all."""
    text = "".join(letters)
    period = next(size for size in range(1, len(text) + 1) if (text[:size] * len(text))[: len(text)] == text)
    short, count = "", 0
    for place, letter in enumerate(text[:period] + " "):
        if place and letter != text[:period][place - 1]:
            short += text[place - 1] + (f"*{count}" if count > 3 else text[place - 1] * (count - 1))
            count = 0
        count += 1
    return short


# --- dense models ----------------------------------------------------------------------------------------------------


@_family("llama", "mistral", "smollm3", "granite", "phi3", "arcee")
def _llama(config: _Config) -> Keys:
    squared = config.get("hidden_act") == "relu2"
    biased = {} if config.type in ("mistral", "phi3") else _bias(config, of="all")
    window = _window(config) if config.type == "mistral" else {}
    return _base(
        config,
        tied=config.type in ("smollm3", "granite"),
        ffn=config["intermediate_size"],
        activation="relu2" if squared else "swiglu",
        ffn_bias=config.type not in ("mistral", "phi3") and bool(config.get("mlp_bias", False)),
        attention=_heads(config, **biased, **window),
    )


@_family("qwen2", "seed_oss")
def _qwen2(config: _Config) -> Keys:
    biased = {"bias": "qkv"} if config.type == "qwen2" or config.get("attention_bias", True) else {}
    if config.get("attention_out_bias", False):
        biased = {"bias": "all"}
    ffn_bias = config.type == "seed_oss" and bool(config.get("mlp_bias", False))
    return _base(config, ffn=config["intermediate_size"], ffn_bias=ffn_bias, attention=_heads(config, **biased))


@_family("qwen3")
def _qwen3(config: _Config) -> Keys:
    attention = _heads(config, qk_norm="head", **_bias(config, of="all"))
    return _base(config, ffn=config["intermediate_size"], attention=attention)


@_family("gemma", "gemma2", "gemma3_text", "gemma3")
def _gemma(config: _Config) -> Keys:
    first = config.type == "gemma"
    normed = {"qk_norm": "head"} if config.type.startswith("gemma3") else {}
    keys = _base(
        config,
        tied=True,
        ffn=config["intermediate_size"],
        activation="geglu",
        post_norms=not first,
        attention=_heads(config, **normed, **_bias(config, of="all")),
    )
    if first:
        return keys
    every = config.get("sliding_window_pattern", 6 if normed else 2)
    letters = [
        "f" if one == "full_attention" else "s"
        for one in config.get(
            "layer_types",
            ["sliding_attention" if (layer + 1) % every else "full_attention" for layer in range(keys["layers"])],
        )
    ]
    kinds = {"s": {"attention": {"window": config["sliding_window"]}}, "f": {}}
    return keys | {"pattern": _pattern(letters), "kinds": kinds}


@_family("olmo2")
def _olmo2(config: _Config) -> Keys:
    attention = _heads(config, qk_norm="all", **_bias(config, of="all"))
    return _base(config, ffn=config["intermediate_size"], attention=attention)


@_family("glm4")
def _glm4(config: _Config) -> Keys:
    attention = _heads(config, **_bias(config, of="qkv"))
    return _base(config, ffn=config["intermediate_size"], post_norms=True, attention=attention)


@_family("ernie4_5")
def _ernie(config: _Config) -> Keys:
    biased = bool(config.get("use_bias", False))
    attention = _heads(config, **({"bias": "all"} if biased else {}))
    return _base(config, tied=True, ffn=config["intermediate_size"], ffn_bias=biased, attention=attention)


@_family("nemotron")
def _nemotron(config: _Config) -> Keys:
    return _base(
        config,
        ffn=config["intermediate_size"],
        activation="relu2",
        norm="layer",
        ffn_bias=bool(config.get("mlp_bias", False)),
        attention=_heads(config, **_bias(config, of="all")),
    )


@_family("gpt2")
def _gpt2(config: _Config) -> Keys:
    hidden, heads = config["n_embd"], config["n_head"]
    return {
        "hidden": hidden,
        "layers": config["n_layer"],
        "vocabulary": config["vocab_size"],
        "tied_embedding": bool(config.get("tie_word_embeddings", True)),
        "ffn": config.get("n_inner", 4 * hidden),
        "activation": "gelu",
        "ffn_bias": True,
        "norm": "layer",
        "positions": "learned",
        "max_positions": config["n_positions"],
        "attention": {"heads": heads, "qk_head": hidden // heads, "v_head": hidden // heads, "bias": "all"},
    }


@_family("gpt_neox")
def _gpt_neox(config: _Config) -> Keys:
    heads = config["num_attention_heads"]
    head = config["hidden_size"] // heads
    attention = {"heads": heads, "qk_head": head, "v_head": head} | _bias(config, of="all", default=True)
    return _base(
        config,
        ffn=config["intermediate_size"],
        activation="gelu",
        ffn_bias=True,
        norm="layer",
        attention=attention,
    )


# --- mixtures of experts ---------------------------------------------------------------------------------------------


@_family("mixtral", "granitemoe")
def _mixtral(config: _Config) -> Keys:
    return _base(
        config,
        tied=config.type == "granitemoe",
        experts=_experts(config, "num_local_experts", "intermediate_size"),
        attention=_heads(config, **_window(config), **({} if config.type == "mixtral" else _bias(config, of="all"))),
    )


@_family("phimoe")
def _phimoe(config: _Config) -> Keys:
    return _base(
        config,
        norm="layer",
        head_bias=bool(config.get("lm_head_bias", False)),
        experts=_experts(config, "num_local_experts", "intermediate_size"),
        attention=_heads(config, **_bias(config, of="all")),
    )


@_family("olmoe")
def _olmoe(config: _Config) -> Keys:
    return _base(
        config,
        experts=_experts(config, "num_experts", "intermediate_size"),
        attention=_heads(config, qk_norm="all", **_bias(config, of="all")),
    )


def _sparse(config: _Config, dense: Callable[[int], bool]) -> Keys:
    """Return which layers are dense: the first ones, or a pattern."""
    layers = config["num_hidden_layers"]
    letters = ["d" if dense(layer) else "m" for layer in range(layers)]
    first = next((layer for layer, letter in enumerate(letters) if letter == "m"), layers)
    if "d" not in letters[first:]:
        return {"dense_layers": first, "ffn": config["intermediate_size"]} if first else {}
    return {"pattern": _pattern(letters), "ffn": config["intermediate_size"]}


@_family("qwen2_moe", "qwen3_moe")
def _qwen_moe(config: _Config) -> Keys:
    step, only_dense = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers", [])
    old = config.type == "qwen2_moe"
    shared = config.get("shared_expert_intermediate_size", 0) if old else 0
    experts = _experts(
        config, "num_experts", "moe_intermediate_size", shared=int(bool(shared)), shared_ffn=shared,
        shared_gate=bool(shared),
    )  # fmt: skip
    own = {"bias": "qkv"} if old else {"qk_norm": "head", **_bias(config, of="all")}
    dense = _sparse(config, lambda layer: layer in only_dense or (layer + 1) % step != 0)
    return _base(config, experts=experts, attention=_heads(config, **own), **dense)


@_family("gpt_oss")
def _gpt_oss(config: _Config) -> Keys:
    letters = ["s" if one == "sliding_attention" else "f" for one in config["layer_types"]]
    return _base(
        config,
        experts=_experts(config, "num_local_experts", "intermediate_size", bias=True, router_bias=True),
        attention=_heads(config, sinks=True, **_bias(config, of="all", default=True)),
        pattern=_pattern(letters),
        kinds={"s": {"attention": {"window": config["sliding_window"]}}, "f": {}},
    )


@_family("llama4_text", "llama4")
def _llama4(config: _Config) -> Keys:
    layers, step = config["num_hidden_layers"], config.get("interleave_moe_layer_step", 1)
    sparse = config.get("moe_layers", [layer for layer in range(layers) if (layer + 1) % step == 0])
    chunked_layers = config.get("no_rope_layers") or [(layer + 1) % 4 != 0 for layer in range(layers)]  # 0: no rotary
    letters = ["C" if chunked else "F" for chunked in chunked_layers]
    letters = [letter if layer in sparse else letter.lower() for layer, letter in enumerate(letters)]
    chunked = {"attention": {"chunk": config.get("attention_chunk_size", 8192)}}
    kinds = {"C": chunked, "F": {}, "c": chunked | {"ffn": "dense"}, "f": {"ffn": "dense"}}
    return _base(
        config,
        ffn=config.get("intermediate_size_mlp") if len(sparse) < layers else None,
        experts=_experts(
            config, "num_local_experts", "intermediate_size", shared=1, shared_ffn=config["intermediate_size"]
        ),
        attention=_heads(config, **_bias(config, of="all")),
        pattern=_pattern(letters),
        kinds={letter: kind for letter, kind in kinds.items() if letter in letters},
    )


@_family("ernie4_5_moe")
def _ernie_moe(config: _Config) -> Keys:
    layers, step = config["num_hidden_layers"], config.get("moe_layer_interval", 1)
    start, end = config.get("moe_layer_start_index", 1), config.get("moe_layer_end_index", -1)
    end = layers - 1 if end == -1 else end
    number = config.get("moe_num_shared_experts", 0)
    experts = _experts(config, "moe_num_experts", "moe_intermediate_size", "moe_k", shared=number, correction_bias=True)
    biased = bool(config.get("use_bias", False))
    dense = _sparse(config, lambda layer: not (start <= layer <= end and (layer + 1) % step == 0))
    attention = _heads(config, **({"bias": "all"} if biased else {}))
    return _base(config, tied=True, ffn_bias=biased, experts=experts, attention=attention, **dense)


@_family("dots1", "glm4_moe")
def _dots(config: _Config) -> Keys:
    glm = config.type == "glm4_moe"
    normed = {"qk_norm": "head"} if config.get("use_qk_norm", not glm) else {}
    return _base(
        config,
        experts=_experts(config, "n_routed_experts", "moe_intermediate_size", shared=config.get("n_shared_experts", 0)),
        attention=_heads(config, **normed, **_bias(config, of="qkv" if glm else "all")),
        **_first_dense(config),
        **_mtp(config),
    )


def _dense_layers(config: _Config) -> set[int]:
    """Return which layers are dense, from a list of kinds or as the first ones."""
    kinds = config.get("mlp_layer_types")
    if kinds is not None:
        return {layer for layer, kind in enumerate(kinds) if kind == "dense"}
    return set(range(config.get("first_k_dense_replace", 0)))


def _first_dense(config: _Config) -> Keys:
    dense = _dense_layers(config)
    return _sparse(config, lambda layer: layer in dense)


@_family("bailing_moe", "bailing_moe_v2")
def _bailing(config: _Config) -> Keys:
    number = config.get("num_shared_experts", 0)
    shared = config.get("moe_shared_expert_intermediate_size", config["moe_intermediate_size"])
    experts = _experts(
        config, "num_experts", "moe_intermediate_size", shared=number,
        shared_ffn=shared if number and shared != config["moe_intermediate_size"] else 0,
    )  # fmt: skip
    normed = {"qk_norm": "head"} if config.get("use_qk_norm", False) else {}
    biased = {"bias": "all" if config.get("use_bias", False) else "qkv"} if config.get("use_qkv_bias", False) else {}
    return _base(config, experts=experts, attention=_heads(config, **normed, **biased), **_first_dense(config))


@_family("minimax_m2")
def _minimax_m2(config: _Config) -> Keys:
    normed = {"qk_norm": "all"} if config.get("use_qk_norm", True) else {}
    depth = config.get("num_mtp_modules", 0) * config.get("mtp_transformer_layers", 1)
    return _base(
        config,
        experts=_experts(config, "num_local_experts", "intermediate_size"),
        attention=_heads(config, **normed),
        mtp_depth=depth if config.get("use_mtp", False) and depth else None,
    )


@_family("mimo_v2_flash")
def _mimo(config: _Config) -> Keys:
    attention = _heads(config) | {"v_head": config.get("v_head_dim", config.head)}
    attention |= {"sinks": True} if config.get("add_full_attention_sink_bias", False) else {}
    heads = config.get("swa_num_attention_heads", config["num_attention_heads"])
    groups = config.get("swa_num_key_value_heads", 2 * config["num_key_value_heads"])
    sliding = {
        "heads": heads,
        "kv_heads": 0 if groups == heads else groups,
        "qk_head": config.get("swa_head_dim", config.head),
        "v_head": config.get("swa_v_head_dim", attention["v_head"]),
        "window": config["sliding_window"],
        "sinks": bool(config.get("add_swa_attention_sink_bias", True)),
    }
    windows = config.get("hybrid_layer_pattern") or [one != "full_attention" for one in config["layer_types"]]
    letters = ["S" if window else "F" for window in windows]
    dense = {layer for layer, moe in enumerate(config.get("moe_layer_freq", [])) if not moe} or _dense_layers(config)
    letters = [letter.lower() if layer in dense else letter for layer, letter in enumerate(letters)]
    kinds = {
        "S": {"attention": sliding},
        "F": {},
        "s": {"attention": sliding, "ffn": "dense"},
        "f": {"ffn": "dense"},
    }
    return _base(
        config,
        ffn=config["intermediate_size"],
        experts=_experts(config, "n_routed_experts", "moe_intermediate_size", shared=config.get("n_shared_experts", 0)),
        attention=attention,
        pattern=_pattern(letters),
        kinds={letter: kind for letter, kind in kinds.items() if letter in letters},
    )


# --- attention from latents ------------------------------------------------------------------------------------------


def _latents(config: _Config) -> Keys:
    keys = {
        "heads": config["num_attention_heads"],
        "qk_head": config["qk_nope_head_dim"],
        "rope_head": config["qk_rope_head_dim"],
        "v_head": config["v_head_dim"],
        "q_lora": config.get("q_lora_rank", 0),
        "kv_lora": config["kv_lora_rank"],
    }
    return keys | _bias(config, of="all")


@_family("deepseek_v2", "deepseek_v3", "kimi_k2", "deepseek_v32", "glm_moe_dsa")
def _deepseek(config: _Config) -> Keys:
    attention = _latents(config)
    if config.get("index_topk"):
        attention["indexer"] = {
            "heads": config["index_n_heads"],
            "head": config["index_head_dim"],
            "top_k": config["index_topk"],
        }
    groups, limit = config.get("n_group", 1), config.get("topk_group", 1)
    experts = _experts(
        config, "n_routed_experts", "moe_intermediate_size", shared=config.get("n_shared_experts", 0),
        groups=groups if groups > 1 else 0, group_limit=limit if groups > 1 else 0,
    )  # fmt: skip
    return _base(config, experts=experts, attention=attention, **_first_dense(config), **_mtp(config))


# --- hybrids ---------------------------------------------------------------------------------------------------------


@_family("qwen3_next")
def _qwen3_next(config: _Config) -> Keys:
    every = config.get("full_attention_interval", 4)
    layers = config["num_hidden_layers"]
    types = config.get(
        "layer_types",
        ["linear_attention" if (layer + 1) % every else "full_attention" for layer in range(layers)],
    )
    linear = {
        "kind": "gated-delta",
        "key_heads": config["linear_num_key_heads"],
        "value_heads": config["linear_num_value_heads"],
        "key_head": config["linear_key_head_dim"],
        "value_head": config["linear_value_head_dim"],
        "conv": config.get("linear_conv_kernel_dim", 4),
    }
    shared = config["shared_expert_intermediate_size"]
    return _base(
        config,
        experts=_experts(config, "num_experts", "moe_intermediate_size", shared=1, shared_ffn=shared, shared_gate=True),
        attention=_heads(config, qk_norm="head", gated=True, **_bias(config, of="all")),
        pattern=_pattern(["l" if one == "linear_attention" else "f" for one in types]),
        kinds={"l": {"attention": linear}, "f": {}},
    )


@_family("kimi_linear")
def _kimi_linear(config: _Config) -> Keys:
    linear = cast("Mapping[str, Any]", config.get("linear_attn_config", {}))
    layers = config["num_hidden_layers"]
    delta = {
        "kind": "kimi-delta",
        "heads": linear.get("num_heads") or config["linear_num_heads"],
        "head": linear.get("head_dim") or config["linear_head_dim"],
        "conv": linear.get("short_conv_kernel_size") or config.get("linear_conv_kernel_dim", 4),
    }
    if linear:
        full = set(linear["full_attn_layers"])  # counted from 1
        letters = ["F" if layer in full else "L" for layer in range(1, layers + 1)]
    else:
        letters = ["F" if one == "full_attention" else "L" for one in config["layer_types"]]
    dense = _dense_layers(config)
    letters = [letter.lower() if layer in dense else letter for layer, letter in enumerate(letters)]
    kinds = {
        "L": {"attention": delta},
        "F": {},
        "l": {"attention": delta, "ffn": "dense"},
        "f": {"ffn": "dense"},
    }
    experts = _experts(
        config, "num_experts", "moe_intermediate_size", "num_experts_per_token",
        shared=config.get("num_shared_experts", 0),
    )  # fmt: skip
    return _base(
        config,
        ffn=config["intermediate_size"] if dense else None,
        experts=experts,
        attention=_latents(config),
        pattern=_pattern(letters),
        kinds={letter: kind for letter, kind in kinds.items() if letter in letters},
    )


@_family("minimax", "minimax_text_01", "minimax_m1")
def _minimax(config: _Config) -> Keys:
    types = config.get("attn_type_list") or [
        int(one == "full_attention") for one in cast("Sequence[str]", config["layer_types"])
    ]
    lightning = {"kind": "lightning", "heads": config["num_attention_heads"], "head": config.head}
    return _base(
        config,
        experts=_experts(config, "num_local_experts", "intermediate_size"),
        attention=_heads(config),
        pattern=_pattern(["f" if full else "l" for full in types]),
        kinds={"l": {"attention": lightning}, "f": {}},
    )


@_family("nemotron_h")
def _nemotron_h(config: _Config) -> Keys:
    mamba = {
        "kind": "mamba2",
        "heads": config["mamba_num_heads"],
        "head": config["mamba_head_dim"],
        "state": config["ssm_state_size"],
        "groups": config["n_groups"],
        "conv": config.get("conv_kernel", 4),
        "conv_bias": bool(config.get("use_conv_bias", True)),
        "bias": bool(config.get("mamba_proj_bias", False)),
    }
    if config.get("moe_latent_size"):
        raise UserError(f"{config.source}: moe_latent_size: experts behind a latent are not known here")
    blocks = {"linear_attention": "M", "mamba": "M", "full_attention": "A", "attention": "A", "moe": "E", "mlp": "D"}
    listed = "".join(blocks.get(one, "?") for one in config.get("layers_block_type", []))
    pattern = listed or str(config["hybrid_override_pattern"]).replace("*", "A").replace("-", "D")
    kinds: Keys = {
        "M": {"attention": mamba, "ffn": "none"},
        "A": {"ffn": "none"},
        "E": {"attention": {"kind": "none"}, "ffn": "moe"},
        "D": {"attention": {"kind": "none"}, "ffn": "dense"},
    }
    unknown = sorted(set(pattern) - set(kinds))
    if unknown:
        raise UserError(f"{config.source}: hybrid_override_pattern: {quoted(unknown[0])} is no kind of layer")
    experts: Keys = {}
    if "E" in pattern:
        shared = config.get("n_shared_experts", 0)
        width = config.get("moe_shared_expert_intermediate_size", 0) if shared else 0
        experts["experts"] = _experts(
            config, "n_routed_experts", "moe_intermediate_size", shared=shared, shared_ffn=width
        )
    return (
        _base(
            config,
            layers=len(pattern),
            ffn=config["intermediate_size"] if "D" in pattern else None,
            activation="relu2",
            ffn_bias=bool(config.get("mlp_bias", False)),
            attention=_heads(config, **_bias(config, of="all")),
            pattern=_pattern(list(pattern)),
            kinds={letter: kind for letter, kind in kinds.items() if letter in pattern},
        )
        | experts
    )
