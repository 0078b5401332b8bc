"""Runs by Megatron-LM's arguments (https://github.com/NVIDIA/Megatron-LM, ``megatron/training/arguments.py``).

They stand in shell scripts as ``--flag value``, or in YAML as ``MODEL_ARGS: {--flag: value}``, as in the Megatron MoE
Model Zoo. What an argument means where it is left out is Megatron's own default. Flags that change neither time nor
memory are passed over; others that are not modelled, or not known, are named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dualpipe_sim.errors import UserError, quoted
from dualpipe_sim.importers.arguments import Arguments, value_of
from dualpipe_sim.importers.imported import Imported, Keys
from dualpipe_sim.importers.machines import machine
from dualpipe_sim.importers.megatron_model import hybrid_stages, model_of
from dualpipe_sim.importers.shell import flags_of
from dualpipe_sim.model.pattern import unroll

_BEGINNINGS = """
DDP-impl activation-func-clamp adam adlr apply-layernorm-1p async attention-backend auto-detect barrier calculate-per
check- ckpt clip-grad config cross-entropy cuda-graph data dataloader decoupled-lr decoupled-min-lr deterministic
disable-straggler dist-ckpt distributed-backend distributed-timeout dump ema empty-unused-memory enable-cuda
enable-experimental enable-gpt-oss enable-msc end-weight eod eval exit export finetune fp8-amax fp8-interval
fp8-margin fsdp-double-buffer fsdp-manual genfile glu-linear-offset hf- high-priority inference init iter load log lr
manual-gc master max-tokens-to-oom merge-file min-lr mock moe-aux moe-deepep moe-enable-deepep moe-flex moe-grouped
moe-hybridep moe-input-jitter moe-per-layer moe-permute moe-router-bias moe-router-dtype moe-router-enable
moe-router-force moe-router-fusion moe-router-load moe-router-padding moe-router-pre moe-router-score
moe-router-topk-scaling moe-z-loss mscale mtp-loss nccl nnodes no-bias no-check no-create
no-gradient no-load no-masked no-mmap no-persist no-position-embedding no-rope no-save no-use-tokenizer node
norm-epsilon nproc num-dataset num-samples num-workers onnx out-seq-length override per-split perform
pretrained-checkpoint profile prompt- rampup rank rdzv record- redirects rerun reset result rope rotary sample- save
seed special-tokens split standalone start-weight straggler te-rng tee temperature tensorboard test- tiktoken timing
tokenizer top-k top-p tp-comm-bootstrap train- transformer-impl trust-remote-code use-checkpoint use-cpu-init
use-dist-ckpt use-flash use-fused-weighted use-legacy use-mcore use-nccl-ub use-persistent use-pytorch use-rope
use-rotary use-te use-tp-pp-dp valid vocab-file wandb weight-decay world
"""
_NEITHER = tuple(_BEGINNINGS.split())
"""How flags begin that change neither time nor memory here: what is trained on, logged, saved; numerics; launching."""

_NOT_MODELLED = {
    "moe-shared-expert-overlap": "shared experts do not run beside the all-to-alls of a lone op",
    "fine-grained-activation-offloading": "activations of whole layers alone are offloaded",
    "first-last-layers-bf16": "all layers have one precision",
    "mtp-use-repeated-layer": "each multi-token prediction module has a layer of its own",
    "moe-expert-capacity-factor": "no token is dropped",
    "moe-pad-expert-input-to-capacity": "experts are not padded",
    "hierarchical-context-parallel-sizes": "a context-parallel group is one ring",
    "external-cuda-graph": "the host takes no time",
    "apply-query-key-layer-scaling": "scores are not kept in FP32",
    "attention-softmax-in-fp32": "scores are not kept in FP32",
    "log-max-attention-logit": "it takes no time",
    "moe-latent-size": "experts read the hidden state itself",
}
"""Flags that change time or memory and are not modelled, with what happens instead."""

_GOES_WITH = {
    "offload-modules",
    "num-layers-at-start-in-bf16",
    "num-layers-at-end-in-bf16",
    "mtp-hybrid-override-pattern",
    "moe-token-drop-policy",
}
"""Flags that say more of one that is named already."""


def of_text(
    text: str,
    source: str,
    *,
    gpu: str | None = None,
    gpus: int | None = None,
    settings: Mapping[str, str] | None = None,
) -> Imported:
    """Return the configuration of arguments in a text, such as a shell script.

    >>> run = of_text("--num-layers 2 --hidden-size 64 --num-attention-heads 4 --seq-length 128 --vocab-size 1000 "
    ...               "--max-position-embeddings 128 --micro-batch-size 1 --global-batch-size 8", "x.sh", gpus=4)
    >>> run.config["parallel"]["data"], run.config["training"]["global_batch"]
    (4, 8)

    Args:
        text: the text; comments, assignments of variables, arrays and other words are understood or passed over.
        source: what to call it in errors.
        gpu: the GPU's name.
        gpus: all GPUs; None for what ``torchrun`` is told in the text.
        settings: what the script gets from outside, by name: variables in capitals, flags otherwise.

    Raises:
        UserError: an argument that is missing, or that Megatron refuses.

    """
    args = Arguments({"attention-dropout": 0.1, "hidden-dropout": 0.1, **flags_of(text, source, settings)}, source)
    return _imported(args, {"gpu": gpu, "gpus": _launched(args) if gpus is None else gpus, "model": Path(source).stem})


def of_mapping(
    data: Mapping[str, Any],
    source: str,
    *,
    gpu: str | None = None,
    gpus: int | None = None,
    settings: Mapping[str, str] | None = None,
) -> Imported:
    """Return the configuration of a mapping with ``MODEL_ARGS``; arguments as for :func:`of_text`.

    ``gpu``, ``gpus``, ``gpus_per_node`` and ``nvlink_domain`` beside it say the machine, ``model`` a name.
    """
    given = data.get("MODEL_ARGS")
    if not isinstance(given, Mapping):
        raise UserError(f"{source}: MODEL_ARGS: must be a mapping of flags to values, got {quoted(given)}")
    flags = {
        str(flag).lstrip("-").replace("_", "-"): value_of(value)
        for flag, value in {**given, **(settings or {})}.items()
    }
    own = {"gpu": gpu, "gpus": gpus}
    around = {**data, **{key: value for key, value in own.items() if value is not None}}
    return _imported(Arguments({flag: one for flag, one in flags.items() if one is not False}, source), around)


def _launched(args: Arguments) -> int | None:
    """Return the GPUs that ``torchrun`` is told of, or None where it is not told numbers."""
    each, nodes = (str(args.flags.get(flag, default)) for flag, default in (("nproc-per-node", ""), ("nnodes", "1")))
    numbers = all(re.fullmatch(r"\d{1,7}", one) for one in (each, nodes))
    return int(each) * int(nodes) if numbers else None


def _imported(args: Arguments, around: Mapping[str, Any]) -> Imported:
    gpus = around.get("gpus")
    if not isinstance(gpus, int) or isinstance(gpus, bool) or gpus < 1:
        raise UserError(f"{args.source}: gpus: how many there are is not said; give --gpus")
    parallel = _parallel(args, gpus)
    model = {
        "name": str(around.get("model") or "model").rpartition("/")[2].lower(),
        **model_of(args, parallel["tensor"]),
    }
    pipeline, schedule = _schedule(args, parallel, model)
    joined = {key: around.get(key) for key in ("gpus_per_node", "nvlink_domain")}
    for key, value in joined.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise UserError(f"{args.source}: {key}: must be a whole number of GPUs, got {quoted(value)}")
    config: Keys = {
        "pipeline": pipeline,
        "schedule": schedule,
        "stack": "megatron",
        "model": model,
        **machine(str(around.get("gpu") or "h100"), gpus, **joined),
        "parallel": parallel,
        "training": _training(args, parallel),
    }
    if args.given("overlap-moe-expert-parallel-comm") and "runtime" not in pipeline:  # which else says it
        config["overlap"] = {"delay_wgrad": args.given("delay-wgrad-compute")}
    return Imported(config, (*args.notes, *args.left(_NOT_MODELLED, _NEITHER, _GOES_WITH)))


def _parallel(args: Arguments, gpus: int) -> Keys:
    tensor, pipeline = (
        args.whole("tensor-model-parallel-size", 1, least=1),
        args.whole("pipeline-model-parallel-size", 1, least=1),
    )
    context = args.whole("context-parallel-size", 1, least=1)
    together = tensor * pipeline * context
    if gpus % together:
        sizes = f"tensor {tensor} x pipeline {pipeline} x context {context}"
        raise UserError(f"{args.source}: {gpus} GPUs are no multiple of {sizes} = {together}")
    keys: Keys = {"pipeline": pipeline, "tensor": tensor, "data": gpus // together}
    if args.given("sequence-parallel") or tensor > 1:
        keys["sequence"] = args.given("sequence-parallel")
    if args.given("tp-comm-overlap") and tensor > 1:
        keys["tensor_overlap"] = True
    if tensor > 1 and args.given("num-experts") and not keys["sequence"]:
        raise args.wrong("sequence-parallel", "is missing; experts need it beside tensor parallelism")
    exchanges = args.words("cp-comm-type") or [""]
    if context > 1:
        named = {"a2a": "all-to-all", "allgather": "gather", "all-gather": "gather"}
        keys |= {"context": context, "context_exchange": named.get(exchanges[0], "ring")}
    kind = args.text("moe-token-dispatcher-type", "allgather") or ""
    if args.given("num-experts"):
        keys["expert"] = args.whole("expert-model-parallel-size", 1, least=1)
        keys["expert_tensor"] = args.whole("expert-tensor-parallel-size", tensor, least=1)
        if kind in ("flex", "alltoall") and keys["expert"] > 1:
            keys["dispatcher"] = "deepep" if kind == "flex" else "nccl"
        spread, stage = keys["expert"] * keys["expert_tensor"], gpus // pipeline
        if stage % spread:
            sizes = f"expert-parallel {keys['expert']} x expert-tensor-parallel {keys['expert_tensor']}"
            raise UserError(f"{args.source}: {sizes} does not divide the {stage} GPUs of a pipeline stage")
    return keys | _sharding(args, keys)


def _sharding(args: Arguments, parallel: Keys) -> Keys:
    """Return what those that hold the same parameters share out."""
    sharded = args.given("use-distributed-optimizer")
    instances = args.whole("num-distributed-optimizer-instances", 1, least=1)
    if not (args.given("use-megatron-fsdp") or args.given("use-torch-fsdp2") or args.given("use-custom-fsdp")):
        args.text("data-parallel-sharding-strategy")
        return {"zero": int(sharded)}
    levels = {"no_shard": 0, "optim": 1, "optim_grads": 2, "optim_grads_params": 3}
    strategy = args.text("data-parallel-sharding-strategy", "optim_grads_params") or ""
    if strategy not in levels:
        raise args.wrong(
            "data-parallel-sharding-strategy", f"must be one of {', '.join(levels)}, got {quoted(strategy)}"
        )
    keys: Keys = {"zero": levels[strategy]}
    holders = parallel["data"] * parallel.get("context", 1)
    if holders % instances:
        raise args.wrong("num-distributed-optimizer-instances", f"{instances} do not share {holders} GPUs out evenly")
    if instances > 1 and levels[strategy] == 3:
        keys["fsdp"] = holders // instances
    if levels[strategy] == 3:
        keys["gathers"] = "each"
    if levels[strategy] == 3 and args.given("overlap-moe-expert-parallel-comm"):
        keys["gathers"] = "once"
        args.note("overlap-moe-expert-parallel-comm", "with it weights are gathered once a step here, and stay")
    return keys


def _schedule(args: Arguments, parallel: Keys, model: Keys) -> tuple[Keys, object]:
    ranks, combined = parallel["pipeline"], args.given("overlap-moe-expert-parallel-comm")
    pipeline: Keys = {}
    layout, virtual = _layout(args, ranks, model["layers"])
    if layout is not None:
        pipeline["layout"] = layout
    name = f"{'interleaved-1f1b' if virtual > 1 else '1f1b'}{'-overlap' if combined else ''}"
    schedule: Keys = {"name": name}
    if virtual > 1:
        schedule["stages_per_rank"] = virtual
    if args.given("delay-wgrad-compute") and not combined:
        raise args.wrong("delay-wgrad-compute", "needs --overlap-moe-expert-parallel-comm")
    if ranks > 1 and name != "1f1b-overlap":
        options = {"delay_wgrad_compute": True} if args.given("delay-wgrad-compute") else {}
        if args.given("overlap-p2p-communication-warmup-flush"):
            options["overlap_p2p_comm_warmup_flush"] = True
        if args.given("no-overlap-p2p-communication"):
            options["overlap_p2p_comm"] = False
        pipeline["runtime"] = {"name": "megatron", **options}
    if args.given("microbatch-group-size-per-virtual-pipeline-stage"):
        schedule["group"] = args.whole("microbatch-group-size-per-virtual-pipeline-stage")
    return pipeline, schedule


def _layout(args: Arguments, ranks: int, layers: int) -> tuple[str | list[int] | None, int]:
    """Return the layout, and how many stages a rank has.

    The layout is Megatron's string, numbers of layers, or None for equal ones.
    """
    text, hybrid = args.text("pipeline-model-parallel-layout"), hybrid_stages(args)
    ends = [args.given(f"account-for-{end}-in-pipeline-split") for end in ("embedding", "loss")]
    virtual = _virtual_stages(args, ranks, layers + sum(ends))
    first, last = (args.text(f"decoder-{end}-pipeline-num-layers") for end in ("first", "last"))
    if ranks == 1:
        return None, 1
    if text is not None:
        text = re.sub(r"\\(.)", r"\1", text)
        found = unroll(text, f"{args.source}: --pipeline-model-parallel-layout").count("|") + 1
        return text, _stages_of_rank(args, "pipeline-model-parallel-layout", found, ranks, virtual)
    if len(hybrid) > 1:
        return hybrid, _stages_of_rank(args, "hybrid-layer-pattern", len(hybrid), ranks, virtual)
    stages = ranks * (virtual or 1)
    if first or last:
        return _given_ends(args, stages, layers), virtual or 1
    whole = layers + sum(ends)
    if whole % stages:
        counted = " with embedding and loss" if any(ends) else ""
        raise UserError(f"{args.source}: --num-layers: {layers}{counted} are not shared out evenly by {stages} stages")
    counts = [whole // stages] * stages
    counts[0] -= ends[0]
    counts[-1] -= ends[1]
    return counts if any(ends) else None, virtual or 1


def _virtual_stages(args: Arguments, ranks: int, layers: int) -> int | None:
    """Return the stages of a rank, or None where they are not said; embedding and loss may count as layers."""
    virtual = args.whole("num-virtual-stages-per-pipeline-rank", 0)
    each = args.whole("num-layers-per-virtual-pipeline-stage", 0)
    if args.given("num-virtual-stages-per-pipeline-rank") and ranks > 1:
        return args.whole("num-virtual-stages-per-pipeline-rank", virtual, least=1)
    if not args.given("num-layers-per-virtual-pipeline-stage") or ranks == 1:
        return None
    if not each or layers % (ranks * each):
        raise args.wrong(
            "num-layers-per-virtual-pipeline-stage", f"{each} x {ranks} ranks do not divide {layers} layers"
        )
    return layers // (ranks * each)


def _stages_of_rank(args: Arguments, flag: str, found: int, ranks: int, virtual: int | None) -> int:
    """Return the stages of a rank where a flag names all of them."""
    if found % ranks or (virtual is not None and found != ranks * virtual):
        of_pipeline = ranks * virtual if virtual else f"a multiple of {ranks}"
        raise args.wrong(flag, f"has {found} stages, the pipeline {of_pipeline}")
    return found // ranks


def _given_ends(args: Arguments, stages: int, layers: int) -> list[int]:
    """Return the layers of each stage where those of the first or last rank are said.

    Megatron says them of a rank, whose virtual stages share them out.
    """
    ranks = args.whole("pipeline-model-parallel-size", 1, least=1)
    virtual = stages // ranks
    said = {
        end: args.whole(flag)
        for end, flag in ((0, "decoder-first-pipeline-num-layers"), (-1, "decoder-last-pipeline-num-layers"))
        if args.given(flag)
    }
    others = ranks - len(said)
    left = layers - sum(said.values())
    if left < 0 or (others and left % (others * virtual)) or any(one % virtual for one in said.values()):
        raise UserError(
            f"{args.source}: {left} layers are not shared out evenly by the {others} ranks between the ends"
        )
    of_rank = [left // others if others else 0] * ranks
    for end, count in said.items():
        of_rank[end] = count
    return [of_rank[stage % ranks] // virtual for stage in range(stages)]


def _training(args: Arguments, parallel: Keys) -> Keys:
    size = args.whole("micro-batch-size", 1, least=1)
    at_once = size * parallel["data"]
    batch = args.whole("global-batch-size", at_once)
    if batch % at_once or not batch:
        raise UserError(
            f"{args.source}: global batch {batch} is no multiple of micro-batch {size} x data-parallel "
            f"{parallel['data']}"
        )
    most = args.whole("max-position-embeddings", 0)
    length = args.whole("seq-length", most) or args.whole("seq-length")
    if most and length > most:
        raise args.wrong("seq-length", f"{length} tokens are more than --max-position-embeddings {most}")
    keys: Keys = {
        "sequence_length": length,
        "micro_batch_size": size,
        "global_batch": batch,
        **_precision(args),
        "recompute": _recompute(args),
        "optimizer": _optimizer(args),
        "gradient_reduction": "overlapped" if args.given("overlap-grad-reduce") else "after",
    }
    args.pass_over("overlap-param-gather", "attention-mask-in-dataloader", "cpu-offloading")
    offload: Keys = {}
    if args.given("cpu-offloading-num-layers"):
        offload["layers"] = args.whole("cpu-offloading-num-layers")
    if args.given("optimizer-cpu-offload"):
        offload["optimizer"] = args.fraction("optimizer-offload-fraction", 1.0)
    return keys | ({"offload": offload} if offload else {})


_FP8 = {"mxfp8": "mxfp8", "blockwise": "fp8-block", "tensorwise": "fp8-tensor", "delayed": "fp8-tensor"}


def _precision(args: Arguments) -> Keys:
    if not args.given("bf16") and not args.given("fp16"):
        args.note("bf16", "is not there, nor is --fp16; training in FP32 is not modelled and taken as BF16")
    keys: Keys = {"precision": "fp16" if args.given("fp16") else "bf16"}
    if args.given("fp4-format") or args.given("fp4-recipe"):
        args.text("fp4-format"), args.text("fp4-recipe")
        keys["precision"] = "nvfp4"
    elif args.given("fp8-format") or args.given("fp8-recipe"):
        recipe = args.text("fp8-recipe", "delayed") or ""
        if recipe not in _FP8:
            raise args.wrong("fp8-recipe", f"must be one of {', '.join(_FP8)}, got {quoted(recipe)}")
        keys["precision"] = _FP8[recipe]
    args.pass_over("fp8-recipe", "fp4-recipe")
    if args.given("fp8-param-gather") or args.given("fp4-param-gather"):
        keys["low_precision_weights"] = True
    if args.given("fp8-dot-product-attention") or args.given("fp8-multi-head-attention"):
        keys["low_precision_attention"] = True
    return keys


MODULES = {
    "core_attn": "core",
    "moe_act": "routed_activation",
    "layernorm": "norms",
    "mla_up_proj": "up_projections",
    "mlp": "mlp",
    "moe": "moe",
    "shared_experts": "shared",
}


def _recompute(args: Arguments) -> object:
    granularity = args.text("recompute-granularity")
    method, modules = args.text("recompute-method"), args.words("recompute-modules")
    layers = args.whole("recompute-num-layers", 0)
    if args.given("recompute-activations") or args.given("moe-layer-recompute"):
        granularity = "selective"
    if args.given("moe-layer-recompute"):
        modules = [*modules, "moe"]
    if granularity is None:
        return "none"
    if granularity == "selective":
        known = [MODULES[module] for module in modules or ["core_attn"] if module in MODULES]
        for module in modules:
            if module not in MODULES:
                args.note("recompute-modules", f"{module} is not known here, and not recomputed")
        return known or "none"
    if granularity != "full":
        raise args.wrong("recompute-granularity", f"must be full or selective, got {quoted(granularity)}")
    if method == "block":
        nothing = dict.fromkeys(("norms", "up_projections", "activation"), False)
        return {"full": True, "layers": layers, **nothing} if layers else "none"
    return {"full": True, "together": layers} if layers > 1 else "full"


_DTYPES = {"fp32": "fp32", "fp16": "bf16", "bf16": "bf16", "fp8": "bf16"}


def _optimizer(args: Arguments) -> Keys:
    kind = args.text("optimizer", "adam") or "adam"
    aware = args.given("use-precision-aware-optimizer")
    moments = [args.text(flag, "fp32") or "fp32" for flag in ("exp-avg-dtype", "exp-avg-sq-dtype")]
    gradients = args.text("main-grads-dtype", "fp32") or "fp32"
    main = args.text("main-params-dtype", "fp32") or "fp32"
    if args.given("grad-reduce-in-bf16"):
        gradients = "bf16"
    args.pass_over("accumulate-allreduce-grads-in-fp32")
    if kind == "sgd":
        return {"main_weights": "fp32", "moments": "none", "gradients": _DTYPES.get(gradients, "fp32")}
    if kind != "adam":
        args.note("optimizer", f"{kind} is taken as Adam, with two moments and its time")
    if aware and "fp8" in moments:
        args.note("exp-avg-dtype", "moments in FP8 are taken as BF16")
    of_moments = max((_DTYPES.get(one, "fp32") for one in moments), default="fp32") if aware else "fp32"
    return {
        "main_weights": _DTYPES.get(main, "fp32"),
        "moments": of_moments,
        "gradients": _DTYPES.get(gradients, "fp32"),
    }
