"""Every key that a configuration may hold: what it means, its unit, its default, and an example.

Read off the JSON Schema, so that editors, the command line and the documentation say the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from dualpipe_sim.config.json_schema import Schema, json_schema
from dualpipe_sim.config.load import packaged_configs
from dualpipe_sim.config.presets import FOLDERS, presets
from dualpipe_sim.config.yaml_text import Data, as_yaml, read_yaml
from dualpipe_sim.errors import UserError, did_you_mean
from dualpipe_sim.model.attention.registry import USUAL

_DEFS = "#/$defs/"


@dataclass(frozen=True)
class Key:
    """One key of a configuration.

    Attributes:
        path: dotted, as ``--set`` takes it; what a kind of costs has is below ``costs[kind]``.
        meaning: what it says.
        unit: of a bare number; empty where it has none.
        default: what holds where it is left out, as YAML, empty for nothing; None where it must be given.
        example: a value as YAML, mostly one of a configuration or preset of the package; None for a section.
        section: whether other keys are inside.
        whole: whether it takes whole numbers only.

    """

    path: str
    meaning: str
    unit: str
    default: str | None
    example: str | None
    section: bool
    whole: bool = False


_OWN_EXAMPLES: Mapping[str, object] = {
    "schedule": "dualpipe",
    "compare": ["1f1b", {"name": "interleaved-1f1b", "stages_per_rank": 2}, "dualpipe"],
    "sweep": {"grid": {"pipeline.micro_batches": [16, 32]}},
    "plugins": ["mine.py"],
    "engine": "simpy",
    "stack": "megatron",
    "pipeline.transfers": "rendezvous",
    "pipeline.runtime": "megatron",
    "gpu.power_limited": True,
    "overlap.alltoall_beside": 2,
    "overlap.delay_wgrad": True,
    "overlap.grad_reduce": False,
    "overlap.param_gather": False,
    "overlap.tp_comm": True,
    "overlap.ep_comm": True,
    "overlap.p2p": True,
    "cluster.gpus_per_pod": 3072,
    "parallel.tensor_overlap": True,
    "parallel.dispatcher": "nccl",
    "training.attention_kernel": "flash-2",
    "training.recompute.alternate": True,
    "cluster.oversubscription": 7,
    "costs[measured].load.beta": 0.2,
    "costs[measured].load.tau": "30 ms",
    "costs[measured].load.gamma": 0.2,
    "costs[measured].host": False,
    "costs[uniform].forward": "10 ms",
    "costs[uniform].backward": "21 ms",
    "costs[uniform].backward_input": "11 ms",
    "costs[uniform].backward_weight": "10 ms",
    "costs[uniform].micro_batch_weights": [1, 1.5, 0.5, 1],
    "costs[uniform].slices": [0.4, 0.3, 0.2, 0.1],
    "costs[uniform].recompute": "9 ms",
    "costs[uniform].vocab_s": "3 ms",
    "costs[uniform].vocab_t": "4 ms",
    "costs[uniform].offload": "12 ms",
    "costs[uniform].all_reduce": "1 ms",
    "costs[uniform].unshard": "5 ms",
    "costs[uniform].reduce_grad": "6 ms",
    "costs[layers].slices": "even",
    "costs[uniform].unitless": True,
    "costs[profile].kind": "profile",
    "costs[profile].layers": [
        {"forward": "2 ms", "backward": "5 ms", "count": 23},
        {"forward": "9 ms", "backward": "20 ms"},
    ],
    "costs[profile].transfer": "0.2 ms",
    "search.activations": 5,
    "search.split": False,
    "search.recompute": True,
    "search.rounds": 8,
    "search.moves": 5000,
    "search.seed": 1,
    "costs[measured].kind": "measured",
    "costs[measured].file": "costs.yaml",
    "costs[measured].transfer": "1.2 ms",
    "costs[measured].micro_batch_weights": [1, 1.5, 0.5, 1],
    "costs[measured].launch": False,
    "costs[layers].transfer": "1.2 ms",
    "costs[layers].measured.dispatch_forward": "2.8 ms",
    "costs[layers].measured.combine_forward": "5.6 ms",
    "costs[layers].measured.combine_gradient": "5.6 ms",
    "costs[layers].measured.dispatch_gradient": "4.3 ms",
    "cluster.mapping": [0, 2, 1, 3],
    "parallel.pipeline": 16,
    "parallel.tensor": 4,
    "parallel.sequence": True,
    "parallel.gpus": 2048,
    "parallel.context": 2,
    "parallel.context_exchange": "gather",
    "parallel.context_balanced": False,
    "parallel.expert_tensor": 2,
    "parallel.zero": 2,
    "parallel.fsdp": 8,
    "parallel.gathers": "once",
    "plan.tensor": [1, 2, 4, 8],
    "plan.context": [1, 2],
    "training.low_precision_weights": True,
    "training.low_precision_attention": True,
    "gpu.peak.fp4": "9000 TFLOPS",
    "gpu.attention.fp8_forward": "900 TFLOPS",
    "gpu.attention.fp8_backward": "700 TFLOPS",
    "gpu.host": "55 GB/s",
    "model.experts.shared_ffn": 2048,
    "model.experts.shared_gate": True,
    "model.experts.bias": True,
    "model.experts.router_bias": True,
    "model.experts.correction_bias": True,
    "model.pattern": "(sssssf)*10ss",
    "model.kinds": {"s": {"attention": {"window": 1024}}, "f": {}},
    "model.ffn_bias": True,
    "model.norm": "layer",
    "model.post_norms": True,
    "model.positions": "none",
    "model.max_positions": 2048,
    "model.head_bias": True,
    "model.hf": "config.json",
    "model.attention[softmax].kind": "softmax",
    "model.attention[softmax].window": 1024,
    "model.attention[softmax].chunk": 8192,
    "model.attention[softmax].indexer.heads": 64,
    "model.attention[softmax].indexer.head": 128,
    "model.attention[softmax].indexer.top_k": 2048,
    "model.attention[softmax].qk_norm": "head",
    "model.attention[softmax].bias": "qkv",
    "model.attention[softmax].gated": True,
    "model.attention[softmax].sinks": True,
    "model.attention[gated-delta].kind": "gated-delta",
    "model.attention[gated-delta].key_heads": 16,
    "model.attention[gated-delta].value_heads": 32,
    "model.attention[gated-delta].key_head": 128,
    "model.attention[gated-delta].value_head": 128,
    "model.attention[gated-delta].conv": 4,
    "model.attention[kimi-delta].kind": "kimi-delta",
    "model.attention[kimi-delta].heads": 32,
    "model.attention[kimi-delta].head": 128,
    "model.attention[kimi-delta].conv": 4,
    "model.attention[lightning].kind": "lightning",
    "model.attention[lightning].heads": 64,
    "model.attention[lightning].head": 128,
    "model.attention[mamba2].kind": "mamba2",
    "model.attention[mamba2].heads": 64,
    "model.attention[mamba2].head": 64,
    "model.attention[mamba2].state": 128,
    "model.attention[mamba2].groups": 8,
    "model.attention[mamba2].conv": 4,
    "model.attention[mamba2].conv_bias": True,
    "model.attention[mamba2].bias": False,
    "model.attention[none].kind": "none",
    "training.global_batch": 15360,
    "training.activation_group": 128,
    "training.weight_group": 128,
    "training.accumulation_interval": 128,
    "training.causal": False,
    "training.routing_skew": 1.12,
    "training.gradient_reduction": "after",
    "training.optimizer.main_weights": "none",
    "training.optimizer.moments": "fp32",
    "training.optimizer.gradients": "bf16",
    "training.optimizer.step": False,
    "training.recompute.norms": False,
    "training.recompute.up_projections": False,
    "training.recompute.activation": False,
    "training.recompute.core": True,
    "training.recompute.full": True,
    "training.recompute.routed_activation": True,
    "training.recompute.shared": True,
    "training.recompute.mlp": True,
    "training.recompute.moe": True,
    "training.recompute.layers": 2,
    "training.recompute.together": 2,
    "training.offload.layers": 2,
    "training.offload.optimizer": 1,
    "overlap.chunk_tokens": 32,
    "noise.jitter": 0.05,
    "noise.seed": 1,
    "noise.runs": 200,
    "noise.slow_ranks": {3: 1.2},
    "scenarios.runs": 5000,
    "scenarios.seed": 1,
    "scenarios.jitter": 0.1,
    "scenarios.stragglers": 0.02,
    "scenarios.slowdown": 0.3,
    "scenarios.slow_links": 0.1,
    "scenarios.link_slowdown": 4,
    "scenarios.routing_skew": 1.3,
    "scenarios.expert_share": 0.4,
    "model.preset": "deepseek-v3",
    "gpu.preset": "h800",
    "cluster.preset": "h800-ib",
    "contention": "fair",
    "max_memory": "8 GB",
    "plan.precision": ["bf16", "fp8"],
}
"""Examples of keys that no configuration of the package has."""


@cache
def all_keys() -> tuple[Key, ...]:
    """Return all keys, each section's own first, then what is inside its sections.

    >>> key = next(key for key in all_keys() if key.path == "cluster.nvlink.latency")
    >>> key.meaning, key.unit, key.default, key.example
    ('end-to-end latency of a small message', 's', '0.0', '3 us')
    """
    schema = json_schema()
    return tuple(_keys("", schema, schema["$defs"]))


def keys_below(path: str) -> tuple[Key, ...]:
    """Return a key and all that are inside it.

    Raises:
        UserError: there is no such key.

    """
    found = tuple(key for key in all_keys() if key.path == path or key.path.startswith((f"{path}.", f"{path}[")))
    if not found:
        hint = did_you_mean(path, [key.path for key in all_keys()])
        raise UserError(f"{path}: no key of a configuration{hint or f' (sections: {_sections_in_words()})'}")
    return found


def _sections_in_words() -> str:
    return ", ".join(key.path for key in all_keys() if key.section and not re.search(r"[.[]", key.path))


def _keys(above: str, section: Schema, defs: Mapping[str, Schema]) -> Iterator[Key]:
    inner: list[tuple[str, Schema]] = []
    for name, place in section.get("properties", {}).items():
        path = f"{above}{name}"
        sections = [*_sections(place, defs)]
        for kind, one in sections:
            inner.append((f"{path}[{kind}]." if kind else f"{path}.", one))
        meaning = place.get("description") or (sections[0][1].get("description", "") if sections else "")
        example = None if sections else _example(path)
        whole = _is_whole(place)
        yield Key(path, _line(meaning), _unit(place), _default(place), example, bool(sections), whole)
        for kind, one in sections:
            if kind:
                yield Key(f"{path}[{kind}]", _line(one.get("description", "")), "", "", None, section=True)
    for path, one in inner:
        yield from _keys(path, one, defs)


def _line(text: object) -> str:
    return " ".join(str(text).split())


def _sections(place: Schema, defs: Mapping[str, Schema]) -> Iterator[tuple[str, Schema]]:
    """Yield what a key's mapping may be, with the word for its kind where there are several."""
    if "$ref" in place:
        one = defs[place["$ref"].removeprefix(_DEFS)]
        if "properties" in one:
            yield str(one["properties"].get("kind", {}).get("const", "")), one
    for choice in (*place.get("anyOf", ()), *place.get("allOf", ()), *place.get("oneOf", ())):
        yield from _sections(choice, defs)


def _unit(place: Schema) -> str:
    return str(place.get("x-unit") or next((_unit(one) for one in place.get("anyOf", ()) if _unit(one)), ""))


def _is_whole(place: Schema) -> bool:
    kinds = {one.get("type") for one in (place, *place.get("anyOf", ()))}
    return "integer" in kinds and kinds.isdisjoint(("number", "string", "array"))


def _default(place: Schema) -> str | None:
    """Return what holds where a key is left out, as YAML: nothing for none, None where it must be given."""
    if "default" not in place:
        return None if "enum" not in place else ""
    value = place["default"]
    return "" if value is None or isinstance(value, dict) else as_yaml(value)


def _example(path: str) -> str | None:
    if path in _OWN_EXAMPLES:
        return as_yaml(_OWN_EXAMPLES[path])
    return next((as_yaml(value) for data in _packaged() if (value := _at(data, path)) is not None), None)


@cache
def _packaged() -> tuple[Data, ...]:
    """Return what comes with the package: configurations, then presets as the section that names them."""
    wholes = [read_yaml(path) for path in packaged_configs().values()]
    for section in FOLDERS:
        wholes += [{section: read_yaml(path)} for path in presets(section).values()]
    return tuple(wholes)


_USUAL_KIND = {"costs": "uniform", "attention": USUAL}
"""The kind of a section that names none."""


def _at(data: object, path: str) -> object:
    """Return what a configuration has at a path; a section of several kinds must be its own."""
    for part in path.split("."):
        name, _, kind = part.removesuffix("]").partition("[")
        data = data.get(name) if isinstance(data, Mapping) else None
        if kind and not (isinstance(data, Mapping) and data.get("kind", _USUAL_KIND[name]) == kind):
            return None
    return data
