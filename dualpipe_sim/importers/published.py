"""Published training runs, a row each: model, cluster, parallel degrees, schedule, sizes, precision, recomputation.

What a row does not state is assumed, and each assumption is named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite, prod
from typing import Any

from dualpipe_sim.errors import UserError, quoted
from dualpipe_sim.importers.imported import Imported, Keys, is_of_a_run
from dualpipe_sim.importers.machines import machine
from dualpipe_sim.importers.megatron import MODULES

_PRECISIONS = {
    "fp8": "fp8-tensor",
    "fp8-ds": "fp8-tensor",
    "fp8-cs": "fp8-tensor",
    "fp8-tensorwise": "fp8-tensor",
    "fp8-rowwise": "fp8-tensor",
    "fp8-blockwise": "fp8-block",
    "fp8-deepseek": "fp8",
}
"""Precisions that have another name here."""

_EAGER = ("torchtitan", "llm-foundry", "automodel", "meta, fsdp", "pytorch")
_BEFORE_FLASH = {
    "megatron-lm 2021": "megatron-2021",
    "megatron-lm + deepspeed": "megatron-2021",
    "megatron-deepspeed": "megatron-2021",
    "megatron-lm 2022": "megatron-2022",
    "zero bubble": "megatron-2022",
}
"""Stacks of frameworks, by words in their names, that ran before FlashAttention was in them (2022). DeepSpeed's fork of
Megatron-LM does not sum gradients beside W (https://github.com/deepspeedai/Megatron-DeepSpeed/issues/447)."""


_KERNELS = {"torchtitan": "flash-2", "megascale": "flash-2", "llm-foundry": "flash-1"}
"""Kernels of attention that frameworks, by words in their names, ran with; llm-foundry's was FlashAttention's first
version in Triton (its ``attn_impl: triton`` of 2023)."""


def is_row(data: Mapping[str, Any]) -> bool:
    """Return whether a mapping looks like a published run."""
    return {"model", "cluster", "parallel", "seq_len"} <= set(data) and isinstance(data["model"], Mapping)


def is_megatron(framework: str) -> bool:
    """Return whether Megatron-LM, or what is built on it, ran something.

    >>> is_megatron("NeMo 24.07"), is_megatron("NeMo AutoModel"), is_megatron("torchtitan")
    (True, False, False)
    """
    name = framework.lower()
    return name.startswith(("megatron", "megascale", "nemo")) and "automodel" not in name


def of_row(row: Mapping[str, Any], source: str, *, gpu: str | None = None, gpus: int | None = None) -> Imported:
    """Return the configuration of a published run, and what was assumed for it.

    >>> row = {"model": {"layers": 2, "hidden": 64, "heads": 4, "kv_heads": 4, "head_dim": 16, "ffn": 256,
    ...        "activation": "gelu", "vocab": 1000, "tied_embedding": True},
    ...        "cluster": {"gpu": "a100-80g-sxm", "gpus": 4},
    ...        "parallel": {"tp": 1, "pp": 2, "dp": 2, "zero": 1}, "schedule": "1f1b", "seq_len": 128,
    ...        "global_batch": 8, "micro_batch": 1, "precision": "fp16", "recompute": "full"}
    >>> of_row(row, "runs.yaml").config["parallel"]
    {'pipeline': 2, 'data': 2, 'zero': 1, 'sequence': False}

    Args:
        row: what is published.
        source: what to call it in errors.
        gpu: the GPU, if it is to be another.
        gpus: all GPUs, likewise: with fewer or more that hold the same weights, for the same batch.

    Raises:
        UserError: a size that is missing, or a word that is not known.

    """
    run = _Row(row, source)
    if gpus is not None:
        run = _Row(_on(run, gpus), source)
    cluster = run.mapping("cluster")
    whole = run.whole(cluster, "gpus", "cluster", least=1)
    joined = run.maybe(cluster, "gpus_per_node", "cluster"), run.maybe(cluster, "nvlink_domain", "cluster")
    parallel = _parallel(run, whole)
    config: Keys = {
        **_pipeline(run),
        "stack": _stack(run),
        "model": _model(run),
        **machine(gpu or str(cluster.get("gpu")), whole, gpus_per_node=joined[0], nvlink_domain=joined[1]),
        "parallel": parallel,
        "training": _training(run),
    }
    bandwidth = nic_bytes_per_s(str(cluster.get("interconnect", "")), joined[0] or 8)
    if bandwidth is not None and gpu is None:  # another GPU has a network of its own
        config["cluster"]["infiniband"] = {"bandwidth": bandwidth}
    return Imported(config, tuple(run.assumed))


def _on(run: _Row, gpus: int) -> dict[str, Any]:
    """Return a row on other GPUs, which more or fewer copies of the weights take up."""
    given = run.mapping("parallel")
    sizes = [run.whole(given, short, "parallel", 1, least=1) for short in ("tp", "cp", "pp")]
    if gpus % prod(sizes):
        product = " x ".join(map(str, sizes))
        raise run.wrong("cluster.gpus", f"must be a multiple of tp x cp x pp = {product} = {prod(sizes)}", gpus)
    copies = {"dp": gpus // prod(sizes)}
    if given.get("fsdp") and given.get("fsdp") == given.get("dp"):
        copies["fsdp"] = copies["dp"]
    return {**run.row, "parallel": {**given, **copies}, "cluster": {**run.mapping("cluster"), "gpus": gpus}}


def nic_bytes_per_s(words: str, gpus_per_node: int) -> float | None:
    """Return the bandwidth a GPU that words about a network say, or None where they say none.

    >>> nic_bytes_per_s("8 x HDR200 InfiniBand a node", 8) / 1e9, nic_bytes_per_s("1600 Gb/s RoCE a node", 8) / 1e9
    (25.0, 25.0)
    >>> nic_bytes_per_s("400 Gb/s RDMA a GPU", 8) / 1e9
    50.0
    """
    cards = re.search(r"(\d+) x (?:[A-Z]+)(\d{3})", words)
    if cards:
        return int(cards[1]) * int(cards[2]) * 1e9 / 8 / gpus_per_node
    several = re.search(r"(\d+) x .*?(\d+) Gb/s a node", words)
    if several:
        return int(several[1]) * int(several[2]) * 1e9 / 8 / gpus_per_node
    rate = re.search(r"(\d+) Gb/s", words)
    if not rate:
        return None
    return int(rate[1]) * 1e9 / 8 / (gpus_per_node if "a node" in words else 1)


class _Row:
    """A row that is asked for values, and what was assumed where it has none."""

    def __init__(self, row: Mapping[str, Any], source: str) -> None:
        self.row, self.source = row, f"{source}: {row.get('id', 'the row')}"
        self.assumed: list[str] = []
        self.framework = str(row.get("framework", "")).lower()

    def mapping(self, key: str) -> Mapping[str, Any]:
        """Return a mapping in the row."""
        value = self.row.get(key)
        if not isinstance(value, Mapping):
            raise self.wrong(key, "must be a mapping", value)
        return value

    def whole(
        self, values: Mapping[str, Any], key: str, where: str, default: int | None = None, *, least: int = 0
    ) -> int:
        """Return a whole number of some values; floats that are whole count."""
        value = values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not (isfinite(value) and value % 1 == 0):
            raise self.wrong(f"{where}.{key}", "must be a whole number", value)
        if value < least:
            raise self.wrong(f"{where}.{key}", f"must be {least} or more", value)
        if not is_of_a_run(key, value):
            raise self.wrong(f"{where}.{key}", "must be no more than any run has", value)
        return int(value)

    def maybe(self, values: Mapping[str, Any], key: str, where: str) -> int | None:
        """Return a whole number above zero of some values, or None where it is not stated."""
        return None if values.get(key) is None else self.whole(values, key, where, least=1)

    def part(self, values: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any] | None:
        """Return a mapping of some values, or None where there is none."""
        value = values.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise self.wrong(f"{where}.{key}", "must be a mapping", value)
        return value

    def wrong(self, where: str, what: str, value: object) -> UserError:
        """Return the error of a value."""
        return UserError(f"{self.source}: {where}: {what}, got {quoted(value)}")

    def assume(self, key: str, value: object) -> None:
        """Name something that the row does not state."""
        self.assumed.append(f"{key}: {value}")

    @property
    def eager(self) -> bool:
        """Whether PyTorch's own parallelism ran it."""
        return any(word in self.framework for word in _EAGER)

    @property
    def before_flash(self) -> str | None:
        """The stack of a Megatron-LM that ran it before FlashAttention was there; None for any other."""
        return next((stack for word, stack in _BEFORE_FLASH.items() if word in self.framework), None)


def _stack(run: _Row) -> str:
    given = run.row.get("stack")
    if given is not None:
        return str(given)
    if run.framework.startswith("aleph alpha scaling"):
        return "aleph-scaling-fused" if "rms kernel" in run.framework else "aleph-scaling"
    if "automodel" in run.framework:
        return "transformer-engine"
    if run.eager:
        return "torch-compile" if (run.part(run.row, "overlap", "row") or {}).get("compiled") else "torch-eager"
    return run.before_flash or "megatron"


def _model(run: _Row) -> Keys:
    model = run.mapping("model")
    learned = model.get("position") == "learned"
    experts, window = run.part(model, "experts", "model"), run.part(model, "window", "model")
    keys: Keys = {
        "name": str(run.row.get("model_name", "model")),
        "hidden": run.whole(model, "hidden", "model"),
        "layers": run.whole(model, "layers", "model"),
        "vocabulary": run.whole(model, "vocab", "model"),
        "ffn": run.whole(model, "ffn", "model", 0),
        "activation": str(model.get("activation", "swiglu")),
        "tied_embedding": bool(model.get("tied_embedding", False)),
        "attention": _attention(run, model, biased=learned),
    }
    if learned:
        keys |= {"positions": "learned", "max_positions": run.whole(run.row, "seq_len", "row"), "norm": "layer"}
        keys["ffn_bias"] = True
        if run.before_flash is not None:
            keys["dropout"] = True
    if experts is not None:
        keys["experts"] = _experts(run, experts)
        keys["dense_layers"] = run.whole(model, "dense_layers", "model", 0)
    if window is not None:
        every = run.whole(window, "every", "model.window")
        keys |= {
            "pattern": "s" * (every - 1) + "f",
            "kinds": {"s": {"attention": {"window": window.get("size")}}, "f": {}},
        }
    if run.row.get("mtp_layers"):
        keys["mtp_depth"] = run.whole(run.row, "mtp_layers", "row")
    return keys


def _attention(run: _Row, model: Mapping[str, Any], *, biased: bool) -> Keys:
    heads, mla = run.whole(model, "heads", "model"), run.part(model, "mla", "model")
    if mla is not None:
        return {
            "heads": heads,
            "qk_head": run.whole(mla, "qk_head", "model.mla"),
            "rope_head": run.whole(mla, "rope_head", "model.mla"),
            "v_head": run.whole(mla, "v_head", "model.mla"),
            "q_lora": run.whole(mla, "q_lora", "model.mla", 0),
            "kv_lora": run.whole(mla, "kv_lora", "model.mla"),
        }
    head, kv_heads = run.whole(model, "head_dim", "model"), run.whole(model, "kv_heads", "model", heads)
    keys: Keys = {"heads": heads, "qk_head": head, "v_head": head}
    if kv_heads != heads:
        keys["kv_heads"] = kv_heads
    if biased:
        keys["bias"] = "all"
    kernel = str(run.row.get("attention_kernel", ""))
    if kernel in ("torch", "fused") or (not kernel and run.before_flash is not None):
        keys["stored_scores"] = True
        if not kernel:
            run.assume("attention", "scores are stored, as before FlashAttention")
    return keys


def _experts(run: _Row, experts: Mapping[str, Any]) -> Keys:
    keys = {key: run.whole(experts, key, "model.experts") for key in ("routed", "active", "ffn")}
    shared = run.whole(experts, "shared", "model.experts", 0)
    if shared:
        keys |= {"shared": 1, "shared_ffn": run.whole(experts, "shared_ffn", "model.experts", shared * keys["ffn"])}
    return keys


def _parallel(run: _Row, gpus: int) -> Keys:
    given = run.mapping("parallel")
    degrees = {"tp": "tensor", "cp": "context", "ep": "expert", "etp": "expert_tensor"}
    keys: Keys = {"pipeline": run.whole(given, "pp", "parallel", 1, least=1)}
    keys |= {
        key: size for short, key in degrees.items() if (size := run.whole(given, short, "parallel", 1, least=1)) > 1
    }
    keys |= {"data": run.whole(given, "dp", "parallel", least=1), "zero": run.whole(given, "zero", "parallel", 1)}
    sizes = {key: keys.get(key, 1) for key in ("tensor", "context", "pipeline", "data")}
    if prod(sizes.values()) != gpus:
        product = " x ".join(f"{key} {size}" for key, size in sizes.items())
        raise run.wrong("cluster.gpus", f"must be {product} = {prod(sizes.values())}", gpus)
    keys |= _dispatcher(run) if keys.get("expert", 1) > 1 else {}
    keys["sequence"] = bool(given.get("sp", False)) or "experts" in run.mapping("model")
    fsdp = run.whole(given, "fsdp", "parallel", 0)
    if fsdp > 1:
        keys |= {"fsdp": fsdp, "zero": 1}
    if (fsdp > 1 or keys["zero"] == 3) and "no reshard" in run.framework:
        keys["gathers"] = "once"
    return keys


def _dispatcher(run: _Row) -> Keys:
    """Return how tokens go to experts; the recipes of Megatron Bridge take DeepEP's kernels or those like them."""
    said = str((run.part(run.row, "overlap", "row") or {}).get("dispatcher", "")).lower()
    if said:
        return {"dispatcher": "nccl" if "alltoall" in said else "deepep"}
    if "bridge" in run.framework:
        run.assume("parallel.dispatcher", "deepep")
        return {"dispatcher": "deepep"}
    return {}


def _pipeline(run: _Row) -> Keys:
    """Return pipeline and schedule."""
    given, words = run.mapping("parallel"), str(run.row.get("schedule", "none"))
    ranks = run.whole(given, "pp", "parallel", 1, least=1)
    chunks = run.maybe(given, "vpp", "parallel")
    if chunks is None and words.startswith("interleaved"):
        chunks = 2
        run.assume("parallel.vpp", chunks)
    chunks = chunks or 1
    name, _, variant = words.partition(" ")
    schedule: Keys = {"name": {"none": "1f1b"}.get(name, name)}
    if name == "1f1b" and chunks > 1:
        schedule["name"] = "interleaved-1f1b"
    if schedule["name"].startswith("interleaved"):
        schedule["stages_per_rank"] = chunks
    elif name == "zb-auto":
        # The paper's memory limits: that of 1F1B (ZB-1p), and twice that (https://arxiv.org/abs/2401.10241, section 4).
        schedule["memory_limit"] = ranks * (2 if "2p" in variant else 1)
    stages = ranks * (chunks if "stages_per_rank" in schedule else 1)
    layers = run.whole(run.mapping("model"), "layers", "model")
    pipeline: Keys = {}
    # Aleph Alpha's Scaling sends and receives where Megatron-LM does, each ``torch.distributed.send`` in its turn.
    known = is_megatron(run.framework) or _stack(run).startswith("aleph")
    if ranks > 1 and schedule["name"] in ("1f1b", "interleaved-1f1b") and known:
        early = schedule["name"] != "1f1b" and run.before_flash is not None
        pipeline["runtime"] = {"name": "megatron", "overlap_p2p_comm": False} if early else "megatron"
    if layers % stages:
        pipeline["layout"] = _uneven(layers, stages)
        run.assume("pipeline.layout", pipeline["layout"])
    return {"schedule": schedule} | ({"pipeline": pipeline} if pipeline else {})


def _uneven(layers: int, stages: int) -> object:
    """Return a layout for layers that stages do not divide: with embedding and head as a layer each, or balanced."""
    if (layers + 2) % stages:
        return "balanced"
    each = (layers + 2) // stages
    return [each - 1, *[each] * (stages - 2), each - 1]


def _training(run: _Row) -> Keys:
    row, data = run.row, run.whole(run.mapping("parallel"), "dp", "parallel")
    size = run.maybe(row, "micro_batch", "row")
    if size is None:
        size = 1
        run.assume("micro_batch", size)
    precision = str(row.get("precision", "bf16"))
    keys: Keys = {
        "sequence_length": run.whole(row, "seq_len", "row"),
        "micro_batch_size": size,
        "global_batch": run.whole(row, "global_batch", "row", size * data),
        "precision": _PRECISIONS.get(precision, precision),
        "recompute": _recompute(run),
        **_attention_kernel(run),
        **_gradient_reduction(run),
        "optimizer": _optimizer(run),
    }
    return keys


def _gradient_reduction(run: _Row) -> Keys:
    """Return when gradients are reduced: by early Megatron-LM and Aleph Alpha's Scaling after the last backward."""
    said = (run.part(run.row, "overlap", "row") or {}).get("dp")
    early = _stack(run).startswith(("megatron-202", "aleph"))
    return {"gradient_reduction": "after"} if said is False or (said is None and early) else {}


def _attention_kernel(run: _Row) -> Keys:
    """Return whose kernel attention's core is, where that is said, or software's usual one is not the fastest."""
    said = str(run.row.get("attention_kernel", "")).lower().replace("_", "").replace(" ", "")
    if "attentionv1" in said:
        return {"attention_kernel": "flash-1"}
    if "attention2" in said:
        return {"attention_kernel": "flash-2"}
    usual = next((kernel for word, kernel in _KERNELS.items() if word in run.framework), None)
    if usual is None:
        return {}
    run.assume("attention_kernel", usual)
    return {"attention_kernel": usual}


def _optimizer(run: _Row) -> Keys:
    given = run.row.get("optimizer")
    if isinstance(given, Mapping):
        known = ("main_weights", "moments", "gradients")
        return {key: "none" if value in (None, False) else value for key, value in given.items() if key in known}
    return {"main_weights": "fp32", "moments": "fp32"} | (
        {} if _stack(run).startswith("aleph") else {"gradients": "fp32"}
    )


_NAMES = {**MODULES, "norm": "norms", "act": "activation", "attn": "core"}


def _recompute(run: _Row) -> object:
    given = run.row.get("recompute", "none")
    if isinstance(given, (list, tuple)):
        for name in given:
            if not isinstance(name, str) or name not in _NAMES:
                raise UserError(f"{run.source}: recompute: {quoted(name)} is not known; known: {', '.join(_NAMES)}")
        return [_NAMES[name] for name in given]
    words = str(given)
    if words in ("none", "full", "selective"):
        return words
    if words.startswith("selective") and "torchtitan" in run.framework:
        run.assume("recompute", "norms, activation and every second linear map, torchtitan's selection by op")
        return ["norms", "activation", "alternate"]
    if words.startswith("selective"):
        return ["norms", "activation"] if run.eager else "selective"
    recipe = words == "recipe default" and isinstance(run.mapping("model").get("mla"), Mapping)
    taken: object = ["up_projections"] if recipe else "none"
    run.assume("recompute", taken if isinstance(taken, str) else "MLA's up-projections")
    return taken
