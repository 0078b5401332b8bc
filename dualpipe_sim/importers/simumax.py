"""Inputs of SimuMax (https://github.com/MooreThreads/SimuMax): a model, a strategy and a system, each a JSON file.

Keys, defaults and what they mean are those of its ``simumax/core/config.py`` of May 2026 (4dcaae5). It models
Megatron-LM, so that is the stack.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dualpipe_sim.base.files import read_text
from dualpipe_sim.base.json_text import parse_settings
from dualpipe_sim.errors import UserError, either, plain, quoted
from dualpipe_sim.importers.imported import Imported, Keys
from dualpipe_sim.importers.settings import Settings


def read(path: Path, *, gpus: int | None = None, gpu: str | None = None) -> Imported:
    """Return the configuration that SimuMax's files make, and what of them it does not say.

    >>> import json
    >>> keys = {"hidden_size": 64, "layer_num": 2, "head_num": 4, "intermediate_size": 96, "vocab_size": 1000}
    >>> _ = Path("tiny.json").write_text(json.dumps(keys | {"use_swiglu": True}))
    >>> config, unread = read(Path("tiny.json"))
    >>> config["model"]["name"], config["model"]["attention"], unread
    ('tiny', {'heads': 4, 'qk_head': 16, 'v_head': 16}, ())

    Args:
        path: a model alone, or a folder with a model, a strategy and a system.
        gpus: all GPUs, if not the strategy's ``world_size``.
        gpu: a GPU's preset, if not the system's.

    Returns:
        A configuration, of a model alone just its ``model``, and a line for each setting that changes time or memory
        and is not in it.

    Raises:
        UserError: a file cannot be read or is missing, or says what SimuMax or this importer does not know.

    """
    if not path.is_dir():
        kind, file = _file(path)
        if kind != "model":
            raise UserError(f"{path}: is a {kind} alone; name a model, or the folder with model, strategy and system")
        return Imported({"model": _model(file, tensor=0)}, tuple(file.rest()))
    files = _folder(path)
    model, strategy, system = (files[kind] for kind in _TELLING)
    if gpus is not None:
        strategy.values["world_size"] = gpus
    keys = _model(model, tensor=strategy.count("tp_size", 1))
    if strategy.get("use_math_sdp", default=False) or not strategy.get("use_flash_sdp", default=True):
        keys["attention"]["stored_scores"] = True
    if strategy.get("enable_dropout", default=False):
        keys["dropout"] = True
    parallel = _parallel(strategy)
    config: Keys = {
        **_pipeline(strategy, keys["layers"], parallel["pipeline"]),
        "model": keys,
        **_machine(system, gpu),
        "stack": "megatron",
        "parallel": parallel,
        "training": _training(strategy, keys["layers"], parallel["pipeline"]),
    }
    return Imported(config, tuple(line for file in files.values() for line in file.rest()))


# --- files ---------------------------------------------------------------------------------------------------------

_TELLING = {
    "model": ("hidden_size", "head_num"),
    "strategy": ("seq_len", "tp_size", "micro_batch_num"),
    "system": ("accelerator",),
}
"""Files by their kind, and keys of which each has one that no other has."""


class _File(Settings):
    """A file's settings by key; what nobody asks for is not modelled."""

    def __init__(self, values: Keys, source: Path, kind: str) -> None:
        super().__init__(values, source)
        self.kind = kind
        self.asked: set[str] = set()

    def get(self, *keys: str, default: Any = None) -> Any:  # noqa: ANN401 - whatever is there
        """Return a setting; null is as good as nothing."""
        self.asked.update(keys)
        found = (self.values.get(key) for key in keys)
        return next((value for value in found if value is not None), default)

    def note(self, key: str, text: str) -> None:
        """Say what of a setting is not modelled."""
        super().note(f"{self.kind}: {key}", text)

    def rest(self) -> Iterator[str]:
        """Yield a line for each setting that is not modelled, and changes something."""
        yield from self.unread
        for key, value in self.values.items():
            if key in self.asked or key in _HARMLESS or value in (_NEUTRAL.get(key, None), None):
                continue
            yield f"{self.kind}: {plain(key)}: {quoted(value)}: {_WHY.get(key, 'is not modelled')}"


_HARMLESS = {
    "model_type", "orig_vocab_size", "mem_factor", "moe_dispatcher_policy", "sys_name", "FC8", "_notes",
    "moe_pad_expert_input_to_capacity",  # to the mean of an expert's tokens, as evenly as routing is here
    # what SimuMax writes beside the settings, and derives from them
    "dp_size", "edp_size", "global_batch_size", "parallelism", "recompute_status", "shard_size", "net",
}  # fmt: skip
"""Settings that change neither time nor memory of a step."""

_GROUPS = ("tp", "cp", "pp", "dp", "ep", "etp", "edp")

_NEUTRAL: Keys = {
    "capacity": 1,
    "group_linear_mode": "parallel",
    "fp8": False,
    "order_of_paralielism": "tp-cp-ep-dp-pp",
    "cp_a2a_mode": "async_cp",
    "cache_groupgemm_col_fp8_inputs": False,
    "offload_groupgemm_col_inputs": False,
    "attention_sparse_ratio": 0.0,
    "use_accm_weight": True,
    "recompute_variance": False,
    "use_fused_norm": True,
    "use_fused_swiglu": True,
    "use_fused_grad_accumulation": True,
    "dispatch_probs": False,
    **{f"{kind}_net": "auto" for kind in _GROUPS},
}
"""What settings say that change nothing."""

_WHY = {
    "capacity": "experts have as many tokens as even routing gives them here",
    "attention_sparse_ratio": "attention is causal here, and half as much is computed",
    "enable_straggler_model": "no GPU is slower than another here; give noise",
    "order_of_paralielism": "GPUs are in Megatron's order here",
    **{f"{kind}_net": "links follow from where GPUs are here" for kind in _GROUPS},
}
"""What is done instead of what a setting says."""


def _file(path: Path) -> tuple[str, _File]:
    values: object = parse_settings(read_text(path), str(path))
    if isinstance(values, Mapping):
        for kind, keys in _TELLING.items():
            if any(key in values for key in keys):
                return kind, _File(dict(values), path, kind)
    raise UserError(
        f"{path}: is none of SimuMax's files: a model has hidden_size, a strategy seq_len, a system accelerator"
    )


def _folder(path: Path) -> dict[str, _File]:
    """Return a folder's model, strategy and system, told apart by their keys."""
    found: dict[str, _File] = {}
    for file in sorted(path.glob("*.json")):
        kind, read_file = _file(file)
        if kind in found:
            raise UserError(f"{path}: has two of a {kind}, {found[kind].source.name} and {file.name}; leave one there")
        found[kind] = read_file
    missing = [kind for kind in _TELLING if kind not in found]
    if missing:
        raise UserError(
            f"{path}: has no {' and no '.join(missing)}; it needs a model, a strategy and a system as .json"
        )
    return {kind: found[kind] for kind in _TELLING}


# --- the model -----------------------------------------------------------------------------------------------------


def _model(file: _File, tensor: int) -> Keys:
    """Return the keys of ``model``; with tensor-parallel GPUs its vocabulary is padded as Megatron-LM pads it."""
    experts = file.count("expert_num", 1)
    dense = file.count("dense_layers", 0, least=0)
    width = file.count("intermediate_size", 0 if experts > 1 and not dense else None, least=0)
    keys: Keys = {
        "name": str(file.get("model_name", default=file.source.stem)),
        "hidden": file.count("hidden_size"),
        "layers": file.count("layer_num"),
        "vocabulary": _vocabulary(file, tensor),
        "activation": "swiglu" if file.get("use_swiglu", default=False) else "gelu",
        "attention": _attention(file),
    }
    if experts == 1:
        file.asked |= {"topk", "moe_ffn_hidden_size", "moe_shared_expert_intermediate_size"}
        return keys | {"ffn": width}
    routed: Keys = {
        "routed": experts,
        "active": file.count("topk"),
        "ffn": file.count("moe_ffn_hidden_size", width or None),
    }
    if shared := file.count("moe_shared_expert_intermediate_size", 0, least=0):
        routed |= {"shared": 1, "shared_ffn": shared}  # the width of all of them
    return keys | ({"ffn": width, "dense_layers": dense} if dense else {}) | {"experts": routed}


def _vocabulary(file: _File, tensor: int) -> int:
    rows, unit = file.count("vocab_size"), file.count("make_vocab_size_divisible_by", 128) * tensor
    if not tensor or not file.get("padded_vocab_size", default=True):
        return rows
    return -(-rows // unit) * unit


def _attention(file: _File) -> Keys:
    heads = file.count("head_num")
    latent = file.word("attention_type", "mha", ("mha", "gqa", "mla")) == "mla"
    file.asked |= {"head_size", "kv_head_num", *_LATENT.values()}
    if latent:
        sizes = {key: file.count(name, 0 if key == "q_lora" else None, least=0) for key, name in _LATENT.items()}
        return {"heads": heads, **sizes}
    head = file.count("head_size", file.count("hidden_size") // heads)
    groups = file.count("kv_head_num", heads)
    return {"heads": heads, "qk_head": head, "v_head": head, **({"kv_heads": groups} if groups != heads else {})}


_LATENT = {
    "qk_head": "qk_head_dim",
    "rope_head": "qk_pos_emb_head_dim",
    "v_head": "v_head_dim",
    "q_lora": "q_lora_rank",
    "kv_lora": "kv_lora_rank",
}


# --- the system ----------------------------------------------------------------------------------------------------

_GPUS = ("gb300", "gb200", "b300", "b200", "h800", "h200", "h100", "h20", "a100", "mi300x")
"""GPUs as a system's name may begin or hold them, those that others begin with first."""

_CLUSTERS = {"gb300": "gb300-nvl72", "gb200": "gb200-nvl72", "h200": "h100-ib", "mi300x": "mi300x-rocm"}
"""Their usual clusters, where the name does not follow from the GPU's."""

_USUAL_NODE = 8


def _machine(file: _File, gpu: str | None) -> Keys:
    """Return GPU and cluster by the system's name; its tables of efficiencies are SimuMax's own way to predict."""
    name = str(file.get("sys_name", default=file.source.stem))
    known = next((one for one in _GPUS if one in name.lower()), None)
    file.asked |= {"accelerator", "networks", "num_per_node"}
    if gpu is None and known is None:
        raise file.wrong(
            "sys_name", f"{quoted(name)} names no GPU that is known ({', '.join(_GPUS)}); give one (--gpu)"
        )
    accelerator, networks = (file.get(key) for key in ("accelerator", "networks"))
    memory = accelerator.get("mem_gbs") if isinstance(accelerator, Mapping) else None
    chosen = gpu or _by_memory(str(known), memory)
    keys: Keys = {"gpu": chosen}
    file.note("accelerator", f"rates, efficiencies and the memory of {memory} GB are those of {chosen} here")
    if isinstance(networks, Mapping) and networks.get("intra_with_pcie"):
        file.note("networks.intra_with_pcie", "GPUs of a node are behind NVLink here")
    node = file.count("num_per_node", _USUAL_NODE)
    if node != _USUAL_NODE and known:
        keys["cluster"] = {"preset": _CLUSTERS.get(known, f"{known}-ib"), "gpus_per_node": node}
    return keys


def _by_memory(known: str, memory: object) -> str:
    return "a100-40g" if known == "a100" and isinstance(memory, (int, float)) and memory <= 40 else known


# --- the strategy --------------------------------------------------------------------------------------------------


def _parallel(file: _File) -> Keys:
    sizes = {key: file.count(f"{short}_size", 1) for key, short in _SIZES.items()}
    gpus = file.count("world_size", 8)
    each = sizes["pipeline"] * sizes["tensor"] * sizes["context"]
    if gpus % each:
        raise file.wrong("world_size", f"{gpus} GPUs are no multiple of {each}, tp_size x cp_size x pp_size")
    zero = file.count("zero_state", 1, least=0)
    if zero not in (0, 1, 2, 3):
        raise file.wrong("zero_state", f"must be 0, 1, 2 or 3, got {zero}")
    keys: Keys = {"gpus": gpus, "data": gpus // each, **sizes, "zero": zero}
    keys["sequence"] = bool(file.get("enable_sequence_parallel", default=True))
    exchange = {"a2a": "all-to-all", "all_gather": "gather"}[file.word("cp_comm_type", "a2a", ("a2a", "all_gather"))]
    return keys | ({"context_exchange": exchange} if sizes["context"] > 1 else {})


_SIZES = {"pipeline": "pp", "tensor": "tp", "context": "cp", "expert": "ep", "expert_tensor": "etp"}


def _pipeline(file: _File, layers: int, ranks: int) -> Keys:
    """Return the sections ``pipeline`` and ``schedule``."""
    turns = file.count("interleaving_size", 1)
    group = file.get("microbatch_group_size_per_vp_stage")
    beside = bool(file.get("pp_comm_async", default=True))
    keys: Keys = {"ranks": ranks, "micro_batches": file.count("micro_batch_num")}
    counts = _layout(file, layers, ranks, turns)
    if ranks == 1:
        return {"pipeline": keys, "schedule": "1f1b"}
    keys["layout"] = counts
    if turns == 1:
        return {"pipeline": keys | {"runtime": "megatron"}, "schedule": "1f1b"}
    keys["runtime"] = "megatron" if beside else {"name": "megatron", "overlap_p2p_comm": False}
    # Megatron runs as many micro-batches through a stage, before the next stage's turn, as there are ranks.
    return {
        "pipeline": keys,
        "schedule": {"name": "interleaved-1f1b", "stages_per_rank": turns, "group": group or ranks},
    }


def _layout(file: _File, layers: int, ranks: int, turns: int) -> list[int]:
    """Return the number of layers of each stage, as Megatron-LM cuts a model (``get_num_layers_to_build``)."""
    first, last = (
        file.get("num_layers_in_first_pipeline_stage"),
        file.get("num_layers_in_last_pipeline_stage"),
    )
    before, after = (bool(file.get(f"account_for_{end}_in_pipeline_split")) for end in ("embedding", "loss"))
    if ranks == 1:
        return [layers]
    if first is None and last is None:
        of_rank = [_share(file, "layers", layers + before + after, ranks)] * ranks
    elif before or after:
        end = "account_for_embedding_in_pipeline_split" if before else "account_for_loss_in_pipeline_split"
        raise file.wrong(end, "goes with no number of layers in the first or last stage; leave one of them out")
    else:
        of_rank = _uneven(file, layers, ranks)
    counts = [_share(file, "layers of a rank", of_rank[stage % ranks], turns) for stage in range(ranks * turns)]
    counts[0] -= before
    counts[-1] -= after
    return counts


def _uneven(file: _File, layers: int, ranks: int) -> list[int]:
    """Return layers by rank where the first or the last has a number of its own."""
    own = {
        rank: file.count(f"num_layers_in_{end}_pipeline_stage")
        for rank, end in ((0, "first"), (ranks - 1, "last"))
        if file.get(f"num_layers_in_{end}_pipeline_stage") is not None
    }
    left, others = layers - sum(own.values()), ranks - len(own)
    if left < others or (left and not others):
        key = "num_layers_in_first_pipeline_stage" if 0 in own else "num_layers_in_last_pipeline_stage"
        raise file.wrong(key, f"leaves {left} of {layers} layers to {others} other stages, which have one or more each")
    each = _share(file, "layers left", left, others) if others else 0
    return [own.get(rank, each) for rank in range(ranks)]


def _share(file: _File, what: str, layers: int, over: int) -> int:
    if layers % over:
        raise file.wrong(
            "pp_size", f"{layers} {what} cannot be shared out evenly over {over}; give layers or stages that can"
        )
    return layers // over


def _training(file: _File, layers: int, ranks: int) -> Keys:
    precision = {"bf16": "bf16", "fp16": "fp16"}[file.word("dtype", "bf16", ("bf16", "fp16"))]
    if file.get("fp8", default=False):
        precision = "fp8-tensor"
        file.note("fp8", "is taken as fp8-tensor; SimuMax has 8-bit operands without a recipe")
    low = file.get("grad_reduce_in_bf16", default=False) or not file.get("use_fp32_accum_grad", default=True)
    keys: Keys = {
        "sequence_length": file.count("seq_len"),
        "micro_batch_size": file.count("micro_batch_size"),
        "precision": precision,
        "recompute": _recompute(file, -(-layers // (ranks * file.count("interleaving_size", 1)))),
        "optimizer": {"main_weights": "fp32", "moments": "fp32", "gradients": "bf16" if low else "fp32"},
    }
    if not file.get("overlap_grad_reduce", default=True):
        keys["gradient_reduction"] = "after"
    if not file.get("cross_entropy_loss_fusion", default=False):
        file.note("cross_entropy_loss_fusion", "the loss is fused here, which keeps less of the logits")
    file.asked |= {key for key in file.values if key.startswith("te_") and key != "te_version"}
    return keys


_FLAGS = ("attn_recompute", "mla_rms_recompute", "mlp_recompute", "mlp_rms_recompute")

_MODULES = {
    "layernorm": "norms",
    "mla_up_proj": "up_projections",
    "moe_act": "routed_activation",
    "mlp": "mlp",
    "moe": "moe",
}
"""Megatron-LM's modules to recompute, by keys of ``training.recompute``."""


def _recompute(file: _File, stage_layers: int) -> object:
    """Return what is computed again of a stage of so many layers."""
    granularity = file.get("recompute_granularity")
    layers = file.count("recompute_layer_num", 0, least=0)
    flags = {flag: bool(file.get(flag)) for flag in _FLAGS}
    modules = file.get("megatron_recompute_modules", default=[]) if file.get("megatron_recompute") else []
    if not file.get("enable_recompute", default=True) or not layers or granularity is None:
        file.asked.add("recompute_variance")
        return "none"
    if granularity == "full_block":
        return "full" if layers >= stage_layers else {
            "full": True, "layers": layers, **dict.fromkeys(("norms", "up_projections", "activation"), False)
        }  # fmt: skip
    names = _parts(file, str(granularity), flags, modules)
    if names and layers < stage_layers:
        file.note("recompute_layer_num", f"{layers}: all {stage_layers} layers of a stage recompute the same here")
    return names or "none"


def _parts(file: _File, granularity: str, flags: Mapping[str, bool], modules: list[str]) -> list[str]:
    """Return the keys of ``training.recompute`` that are nearest, and note where they are not the same."""
    known = ("full_block", "attn_only", "mlp_only", "sdp_only", "selective_recompute")
    if granularity not in known:
        raise file.wrong("recompute_granularity", f"must be {either(known)}, got {quoted(granularity)}")
    if modules:
        modules = [str(module) for module in modules]
        strange = next((module for module in modules if module not in _MODULES), None)
        if strange is not None:
            raise file.wrong("megatron_recompute_modules", f"must be of {', '.join(_MODULES)}, got {quoted(strange)}")
        return [_MODULES[module] for module in modules]
    attention, down, ffn, norm = (flags[flag] for flag in _FLAGS)
    names = {
        "attn_only": ["up_projections", "core"],
        "sdp_only": ["core"],
        "mlp_only": ["norms", "mlp", "moe", "shared"],
        "selective_recompute": ["up_projections", "core"] * attention
        + ["norms"] * (down or norm)
        + ["mlp", "moe"] * ffn
        + ["shared"] * norm,
    }[granularity]
    if names and granularity != "sdp_only":
        file.note("recompute_granularity", f"{granularity}: is taken as {', '.join(names)}")
    return names
