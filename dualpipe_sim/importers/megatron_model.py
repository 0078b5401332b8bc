"""Models by Megatron-LM's arguments."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from math import ceil

from dualpipe_sim.errors import quoted
from dualpipe_sim.importers.arguments import Arguments
from dualpipe_sim.importers.imported import Keys
from dualpipe_sim.importers.shell import worked_out


def model_of(args: Arguments, tensor: int) -> Keys:
    """Return the keys of ``model``.

    Args:
        args: the arguments.
        tensor: GPUs of a tensor-parallel group, for which the vocabulary is padded.

    Raises:
        UserError: an argument that is missing, or that Megatron refuses.

    """
    hidden, hybrid = args.whole("hidden-size"), _hybrid_pattern(args)
    layers = args.whole("num-layers", len(hybrid) or None)
    swiglu, relu2 = args.given("swiglu"), args.given("squared-relu")
    usual_ffn = int(4 * hidden * 2 / 3 / 64) * 64 if swiglu else 4 * hidden
    keys: Keys = {
        "hidden": hidden,
        "layers": len(hybrid) or layers,
        "vocabulary": _vocabulary(args, tensor),
        "ffn": args.whole("ffn-hidden-size", usual_ffn),
        "activation": "swiglu" if swiglu else "relu2" if relu2 else "geglu" if args.given("quick-geglu") else "gelu",
        "norm": "rms" if args.text("normalization", "LayerNorm") == "RMSNorm" else "layer",
        "tied_embedding": not args.given("untie-embeddings-and-output-weights"),
        "attention": _softmax(args, hidden),
    }
    positions = args.text("position-embedding-type", "learned_absolute")
    keys["positions"] = {"learned_absolute": "learned", "none": "none"}.get(positions or "", "rotary")
    if keys["positions"] == "learned":
        keys["max_positions"] = args.whole("max-position-embeddings")
    if not args.given("disable-bias-linear"):
        keys["ffn_bias"] = True
    hidden_dropout, attention_dropout = (args.fraction(f"{where}-dropout", 0.0) for where in ("hidden", "attention"))
    if hidden_dropout or attention_dropout:
        keys["dropout"] = True
    if args.given("num-experts"):
        keys["experts"] = _experts(args, biased="ffn_bias" in keys)
    if args.given("mtp-num-layers"):
        keys["mtp_depth"] = args.whole("mtp-num-layers")
    return keys | _layers(args, keys)


_VOCABULARIES = {
    r"llama-?2|mixtral|mistral-7b": 32000,
    r"llama-?3": 128256,
    r"llama-?4": 202048,
    r"qwen-?[23]": 151936,
    r"deepseek-v2": 102400,
    r"deepseek-(v3|r1)(?!-distill)": 129280,
    r"kimi-k2": 163840,
    r"gpt-oss": 201088,
    r"nemotron-(3|h|nano)": 131072,
}
"""Rows of the embeddings of models that tokenizers are named after (their ``config.json``)."""


def _vocabulary(args: Arguments, tensor: int) -> int:
    """Return the vocabulary, padded as Megatron pads it so that tensor parallelism cuts it evenly."""
    multiple = args.whole("make-vocab-size-divisible-by", 128, least=1) * tensor
    if args.given("padded-vocab-size"):
        return args.whole("padded-vocab-size")
    size = args.whole("vocab-size") if args.given("vocab-size") else _of_tokenizer(args)
    return ceil(size / multiple) * multiple


def _of_tokenizer(args: Arguments) -> int:
    """Return the vocabulary of a tokenizer that is known."""
    kind = "GPT2BPETokenizer" if "merge-file" in args.flags else ""
    usual = {"GPT2BPETokenizer": 50257, "Llama2Tokenizer": 32000}.get(str(args.flags.get("tokenizer-type", kind)))
    if usual is not None:
        return usual
    name = str(args.flags.get("tokenizer-model", "")).lower()
    for pattern, size in _VOCABULARIES.items():
        if re.search(pattern, name):
            args.note("vocab-size", f"is not there; {size:,} is taken, by the name of the tokenizer")
            return size
    raise args.wrong("vocab-size", "is missing, and the tokenizer does not say it; give --set vocab-size=N")


def _softmax(args: Arguments, hidden: int) -> Keys:
    heads = args.whole("num-attention-heads", least=1)
    if hidden % heads and not args.given("kv-channels"):
        raise args.wrong("num-attention-heads", f"{heads} do not divide a hidden size of {hidden}; give --kv-channels")
    head = args.whole("kv-channels", hidden // heads)
    biased = not args.given("disable-bias-linear")
    of_qkv = args.given("add-qkv-bias")
    bias = "all" if biased else "qkv" if of_qkv else "none"
    keys: Keys = {"heads": heads}
    if args.given("multi-latent-attention"):
        keys |= {
            "qk_head": args.whole("qk-head-dim", 128),
            "rope_head": args.whole("qk-pos-emb-head-dim", 64),
            "v_head": args.whole("v-head-dim", 128),
            "q_lora": args.whole("q-lora-rank", 0) if args.given("q-lora-rank") else 0,
            "kv_lora": args.whole("kv-lora-rank", 32),
        }
        args.pass_over("qk-layernorm", "kv-channels")
    else:
        keys |= {"qk_head": head, "v_head": head}
        groups = args.whole("num-query-groups", 1)
        if args.given("group-query-attention"):
            keys["kv_heads"] = groups
        if args.given("qk-layernorm"):
            keys["qk_norm"] = "head"
    if bias != "none":
        keys["bias"] = bias
    if args.given("attention-output-gate"):
        keys["gated"] = True
    if args.text("softmax-type", "vanilla") == "learnable":
        keys["sinks"] = True
    return keys


def _experts(args: Arguments, *, biased: bool) -> Keys:
    keys: Keys = {
        "routed": args.whole("num-experts"),
        "active": args.whole("moe-router-topk", 2),
        "ffn": args.whole("moe-ffn-hidden-size", args.whole("ffn-hidden-size", 4 * args.whole("hidden-size"))),
    }
    if args.given("moe-shared-expert-intermediate-size"):
        keys |= {"shared": 1, "shared_ffn": args.whole("moe-shared-expert-intermediate-size")}
        keys["shared_gate"] = args.given("moe-shared-expert-gate")
    if args.given("moe-router-num-groups"):
        keys["groups"] = args.whole("moe-router-num-groups")
        keys["group_limit"] = args.whole("moe-router-group-topk", keys["groups"])
    if biased:
        keys |= {"bias": True, "router_bias": True}
    return keys


_HYBRID: Mapping[str, str] = {"M": "mamba2", "*": "softmax", "-": "dense", "E": "moe"}
"""Letters of ``--hybrid-layer-pattern``, each a layer of one block."""


def _layers(args: Arguments, model: Keys) -> Keys:
    """Return the pattern of layers and its kinds, or how many dense ones there are before those with experts."""
    hybrid = _hybrid_pattern(args)
    if hybrid:
        return _hybrid(args, model, hybrid)
    count = model["layers"]
    ffns = _moe_layers(args, count) if "experts" in model else ["dense"] * count
    attentions, kinds = _attentions(args, count)
    if not kinds:
        dense = ffns.index("moe") if "moe" in ffns else count
        if "dense" not in ffns[dense:]:
            return {"dense_layers": dense} if "experts" in model and dense else {}
        return {"pattern": "".join("m" if ffn == "moe" else "d" for ffn in ffns)}
    letters: dict[tuple[str, str], str] = {}
    of_letter: Keys = {}
    for attention, ffn in zip(attentions, ffns, strict=True):
        letter = letters.setdefault((attention, ffn), "abcdefghij"[len(letters)])
        of_letter.setdefault(letter, {"ffn": ffn} | ({"attention": kinds[attention]} if kinds[attention] else {}))
    return {"pattern": "".join(letters[one] for one in zip(attentions, ffns, strict=True)), "kinds": of_letter}


def _hybrid_pattern(args: Arguments) -> str:
    """Return a letter a layer, or none where the model is no hybrid."""
    return "".join(_hybrid_parts(args)[0].split("|"))


def _hybrid_parts(args: Arguments) -> list[str]:
    """Return the pattern of the layers, with bars between stages, and those of multi-token prediction's passes."""
    pattern = args.text("hybrid-layer-pattern") or args.text("hybrid-override-pattern") or ""
    return pattern.replace(" ", "").split("/")


def hybrid_stages(args: Arguments) -> list[int]:
    """Return how many layers of a hybrid model each stage has, where bars in its pattern say so."""
    return [len(stage) for stage in _hybrid_parts(args)[0].split("|")]


def _moe_layers(args: Arguments, count: int) -> list[str]:
    """Return which layers have experts: every so many, or as an expression such as ``([0]*3+[1]*58)`` says."""
    return [
        "moe" if one else "dense" for one in _by_layer(args, "moe-layer-freq", count, lambda every, i: i % every == 0)
    ]


def _by_layer(args: Arguments, flag: str, count: int, chosen: Callable[[int, int], bool]) -> list[bool]:
    """Return for each layer whether it is chosen, by how often, or by an expression for all of them."""
    text = args.text(flag, "1") or "1"
    if text.isdigit():
        if int(text) == 0:
            raise args.wrong(flag, "must be 1 or more, or an expression of as many as there are layers")
        return [chosen(int(text), layer) for layer in range(count)]
    try:
        found = worked_out(ast.parse(text.strip(), mode="eval").body, f"{args.source}: --{flag}")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise args.wrong(
            flag, f"must be a number or an expression such as ([0]*3+[1]*58), got {quoted(text)}"
        ) from error
    if not isinstance(found, list) or len(found) != count:
        length = len(found) if isinstance(found, list) else 1
        raise args.wrong(flag, f"says it of {length} layers, but there are {count}")
    return [bool(one) for one in found]


def _attentions(args: Arguments, count: int) -> tuple[list[str], dict[str, Keys]]:
    """Return the name of each layer's attention, and the kinds by name where there are several; none for one alone."""
    if args.given("window-size"):
        window = args.words("window-size")
        args.text("window-attn-skip-freq", "0")
        size = int(window[0].strip("()")) if window and window[0].strip("()").isdigit() else 0
        windowed = _by_layer(args, "window-attn-skip-freq", count, lambda every, i: (i + 1) % every != 0)
        if not args.given("window-attn-skip-freq"):
            windowed = [True] * count
        return ["window" if one else "full" for one in windowed], {"window": {"window": size}, "full": {}}
    if args.given("linear-attention-type") or args.given("experimental-attention-variant"):
        kind = args.text("linear-attention-type") or args.text("experimental-attention-variant")
        if kind != "gated_delta_net":
            raise args.wrong("linear-attention-type", f"{quoted(kind)} is not known; gated_delta_net is")
        linear = {
            "kind": "gated-delta",
            "key_heads": args.whole("linear-num-key-heads", 16),
            "value_heads": args.whole("linear-num-value-heads", 32),
            "key_head": args.whole("linear-key-head-dim", 128),
            "value_head": args.whole("linear-value-head-dim", 128),
            "conv": args.whole("linear-conv-kernel-dim", 4),
        }
        if not args.given("linear-attention-freq"):
            raise args.wrong("linear-attention-freq", "is missing, and says which layers are linear")
        is_linear = _by_layer(args, "linear-attention-freq", count, lambda every, i: (i + 1) % every != 0)
        return ["linear" if one else "full" for one in is_linear], {"linear": linear, "full": {}}
    return [""] * count, {}


def _hybrid(args: Arguments, model: Keys, pattern: str) -> Keys:
    """Return the pattern of a hybrid model, each of whose layers is one block."""
    unknown = next((letter for letter in pattern if letter not in _HYBRID), None)
    if unknown:
        raise args.wrong("hybrid-layer-pattern", f"{unknown} is no kind of layer ({quoted(pattern)})")
    head = args.whole("mamba-head-dim", 64, least=1)
    passes = _hybrid_parts(args)[1:]
    if any(passes):
        args.note("hybrid-layer-pattern", f"a pass of multi-token prediction has one layer, not {quoted(passes[0])}")
    mamba = {
        "kind": "mamba2",
        "heads": args.whole("mamba-num-heads", model["hidden"] * 2 // head),
        "head": head,
        "state": args.whole("mamba-state-dim", 128),
        "groups": args.whole("mamba-num-groups", 8),
        "conv": 4,
        "conv_bias": True,
        "bias": False,
    }
    kinds: Keys = {
        "M": {"attention": mamba, "ffn": "none"},
        "A": {"ffn": "none"},
        "F": {"attention": {"kind": "none"}, "ffn": "dense"},
        "E": {"attention": {"kind": "none"}, "ffn": "moe"},
    }
    letters = pattern.replace("*", "A").replace("-", "F")
    keys: Keys = {"pattern": letters, "kinds": {letter: kinds[letter] for letter in dict.fromkeys(letters)}}
    return keys | ({"mtp_depth": len(passes)} if passes and passes[0] else {})
