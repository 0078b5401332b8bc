"""Training jobs of torchtitan (https://github.com/pytorch/torchtitan), from TOML or the JSON that it writes of it.

Keys, defaults and what they do are those of its releases up to 0.2.2 (``torchtitan/config/job_config.py``; in 0.1.0
``torchtitan/config_manager.py``); later ones configure in Python. Models by flavor are in ``torchtitan/models/*``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

from dualpipe_sim.base.files import read_text
from dualpipe_sim.base.json_text import DEEPEST, checked_settings, parse_settings
from dualpipe_sim.errors import UserError, did_you_mean, plain, quoted
from dualpipe_sim.importers.imported import Imported, Keys
from dualpipe_sim.importers.settings import Settings
from dualpipe_sim.importers.torchtitan_models import FLAVORS, Flavor

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]


def read(path: Path, *, gpus: int | None = None, gpu: str | None = None) -> Imported:
    r"""Return the configuration that a torchtitan job makes, and what of the job it does not say.

    >>> _ = Path("job.toml").write_text('[model]\nflavor = "8B"\n[parallelism]\ntensor_parallel_degree = 2\n')
    >>> config, unread = read(Path("job.toml"), gpus=8)
    >>> config["model"], config["parallel"]["fsdp"], config["training"]["global_batch"]
    ('llama3-8b', 4, 32)

    Args:
        path: the job, TOML or JSON.
        gpus: all GPUs; the job says them only where ``data_parallel_shard_degree`` is given.
        gpu: a GPU's preset; default: h100.

    Returns:
        A configuration, and a line for each setting that changes time or memory and is not in it.

    Raises:
        UserError: it cannot be read, or torchtitan or this importer does not know what it says.

    """
    job = _Job(_settings(path), path)
    if job.get("fault_tolerance.enable", default=False):
        job.note("fault_tolerance.enable", "a step is one without TorchFT here")
    job.ignore("fault_tolerance.")
    flavor, compiled = _flavor(job), _compiled(job)
    degrees = _degrees(job, gpus, moe=flavor.moe)
    stages = _stages(job, flavor.layers, degrees.pipeline)
    batch = _batch(job, degrees)
    config: Keys = {
        "pipeline": {**stages.layout, **_runtime(job, stages, batch, degrees)},
        "schedule": stages.schedule,
        "model": flavor.named,
        "gpu": gpu or "h100",
        "stack": "torch-compile" if compiled else "torch-eager",
        "parallel": _parallel(job, degrees, compiled=compiled),
        "training": {
            "sequence_length": job.count("training.seq_len", 2048),
            "micro_batch_size": batch.micro,
            "global_batch": batch.step,
            "precision": _precision(job, moe=flavor.moe),
            "recompute": _recompute(job, flavor.layers, stages.number),
            "optimizer": _optimizer(job),
            **_offload(job),
        },
    }
    if batch.passes > 1 and stages.of_file:
        del config["training"]["global_batch"]  # the order in the file says how many micro-batches there are
    _note_passes(job, batch.passes, stages)
    return Imported(config, (*job.unread, *job.rest()))


# --- the file ------------------------------------------------------------------------------------------------------

_OLD_PLACES = ("experimental", "training")
"""Where parallelism's degrees were before 0.1.0."""


class _Job(Settings):
    """A job's settings by dotted key; what nobody asks for is not modelled."""

    def get(self, *keys: str, default: Any = None) -> Any:  # noqa: ANN401 - whatever is there
        """Return and take out a setting by any of its names; null is as good as nothing."""
        found = [self.values.pop(name) for name in self._names(keys) if name in self.values]
        return next((value for value in found if value is not None), default)

    @staticmethod
    def _names(keys: tuple[str, ...]) -> Iterator[str]:
        for key in keys:
            section, _, name = key.partition(".")
            yield key
            yield from (f"{place}.{name}" for place in _OLD_PLACES if section == "parallelism")

    def ignore(self, *beginnings: str) -> None:
        """Leave out settings that mean nothing here."""
        self.values = {key: value for key, value in self.values.items() if not key.startswith(beginnings)}

    def rest(self) -> Iterator[str]:
        """Yield a line for each setting left that may matter and is not off."""
        for key, value in self.values.items():
            if value == _NEUTRAL.get(key) or value in (False, None, "", [], {}) or _HARMLESS.fullmatch(key):
                continue
            yield f"{plain(key)}: {quoted(value)}: {_WHY.get(key, 'is not modelled')}"


_HARMLESS = re.compile(
    r"(job|profiling|metrics|lr_scheduler|checkpoint|comm|memory_estimation|validation)\.(?!custom_config_module).*"
    r"|model\.(hf_assets_path|tokenizer_path|tokenizer_flavor|print_after_conversion)"
    r"|optimizer\.(lr|beta1|beta2|eps|weight_decay)"
    r"|training\.(dataset|dataset_path|steps|warmup_steps|max_norm|gc_freq|gc_debug|seed|dataloader\..*)"
    r"|debug\.(seed|deterministic_warn_only|moe_force_load_balance)"
    r"|activation_checkpoint\.(preserve_rng_state|determinism_check|visualize_memory_budget_pareto)"
)
"""Settings that change neither time nor memory of a step, or, as clipping's ``max_norm``, hardly."""

_NEUTRAL: Keys = {
    "optimizer.implementation": "fused",
    "training.mixed_precision_reduce": "float32",
    "parallelism.expert_parallel_comm_backend": "standard",
}
"""What settings say that change nothing."""

_WHY = {
    "parallelism.disable_loss_parallel": "the loss is computed with the vocabulary shared out here",
    "parallelism.expert_parallel_comm_backend": "the all-to-alls are NCCL's here",
    "parallelism.context_parallel_load_balancer": "each GPU has a share of a sequence's start and end here",
    "optimizer.implementation": "the optimizer is fused here",
    "training.mixed_precision_reduce": "gradients are reduced as the optimizer has them here",
    **dict.fromkeys(
        ("quantize.linear.float8.enable_fsdp_float8_all_gather", "float8.enable_fsdp_float8_all_gather"),
        "weights are gathered in BF16 here",
    ),
}
"""What is done instead of what a setting says."""


_PART = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*"""
_MANY_PARTS = re.compile(rf"(?<![\w-])(?:{_PART}){{{DEEPEST}}}")
"""The beginning of a key of TOML that is nested more deeply than any job's."""


def _settings(path: Path) -> Keys:
    text = read_text(path)
    values: object = parse_settings(text, str(path)) if text.lstrip().startswith("{") else _toml(text, path)
    if not isinstance(values, Mapping) or not all(isinstance(section, Mapping) for section in values.values()):
        raise UserError(f"{path}: is no job of torchtitan, which has sections such as [model] and [parallelism]")
    if "model_spec" in values:
        raise UserError(f"{path}: model_spec: is of a torchtitan later than 0.2.2, whose configurations are Python")
    if not {"model", "training", "parallelism"} & values.keys():
        raise UserError(f"{path}: is no job of torchtitan, which has sections such as [model] and [parallelism]")
    return dict(_flat(values))


def _toml(text: str, path: Path) -> object:
    if _MANY_PARTS.search(text):  # which take the square of their number to read
        raise UserError(f"{path}: has a key of more than {DEEPEST} parts, as no job of torchtitan has")
    try:
        return checked_settings(tomllib.loads(text), str(path))
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is neither TOML nor JSON: {' '.join(str(error).split())}") from error


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


# --- the model -----------------------------------------------------------------------------------------------------


_MASKED = re.compile(r"_(flex|varlen)(_attn)?$")


def _flavor(job: _Job) -> Flavor:
    name, flavor = str(job.get("model.name", default="llama3")), str(job.get("model.flavor", default="debugmodel"))
    family = name.rpartition(".")[2].removesuffix("_ft")
    if family not in FLAVORS:
        hint = did_you_mean(family, FLAVORS) or f" (known: {', '.join(FLAVORS)})"
        raise job.wrong("model.name", f"models called {quoted(name)} are not known{hint}")
    if family != name:
        job.note("model.name", f"{name}: is taken as {family}, without what the experiment changes")
    known, kind = FLAVORS[family], _MASKED.sub("", flavor.lower())
    if kind not in known:
        hint = did_you_mean(kind, known) or f" (known: {', '.join(known)})"
        raise job.wrong("model.flavor", f"there is no {quoted(flavor)} of {family}{hint}")
    if kind != flavor.lower():
        job.note("model.flavor", f"{flavor}: attention is causal over the whole sequence here, not within documents")
    return known[kind]


# --- degrees -------------------------------------------------------------------------------------------------------


class _Degrees(NamedTuple):
    """How many GPUs share what out."""

    replicate: int
    shard: int
    tensor: int
    pipeline: int
    context: int
    expert: int
    expert_tensor: int

    @property
    def data(self) -> int:
        return self.replicate * self.shard

    @property
    def gpus(self) -> int:
        return self.data * self.tensor * self.pipeline * self.context


def _degrees(job: _Job, gpus: int | None, *, moe: bool) -> _Degrees:
    replicate, tensor, pipeline, context, expert = (
        job.count(f"parallelism.{name}_degree", 1)
        for name in ("data_parallel_replicate", "tensor_parallel", "pipeline_parallel", "context_parallel",
                     "expert_parallel")
    )  # fmt: skip
    shard = job.get("parallelism.data_parallel_shard_degree", default=-1)
    if isinstance(shard, bool) or not isinstance(shard, int) or (shard < 1 and shard != -1):
        raise job.wrong("parallelism.data_parallel_shard_degree", f"must be -1 or from 1 up, got {quoted(shard)}")
    shard = _left(job, shard, gpus, replicate * tensor * pipeline * context)
    # Without expert parallelism, experts are cut as all else is (``apply_moe_ep_tp``).
    expert_tensor = job.count("parallelism.expert_tensor_parallel_degree", 1) if expert > 1 else tensor
    if not moe:
        expert = expert_tensor = 1
    if expert > 1 and expert_tensor not in (1, tensor):
        what = f"must be 1 or tensor_parallel_degree ({tensor}), not {expert_tensor}"
        raise job.wrong("parallelism.expert_tensor_parallel_degree", what)
    if expert == 1:
        job.ignore("parallelism.expert_")
    return _Degrees(replicate, shard, tensor, pipeline, context, expert, expert_tensor)


def _left(job: _Job, shard: int, gpus: int | None, others: int) -> int:
    """Return the GPUs that share weights out, all that are left where the job says -1."""
    key = "parallelism.data_parallel_shard_degree"
    if gpus is None:
        if shard == -1:
            raise job.wrong(key, "takes what is left of all GPUs, which the job does not say; say how many (--gpus)")
        return shard
    if gpus % (others * max(shard, 1)) or (shard > 0 and gpus != others * shard):
        what = f"a multiple of {others}" if shard == -1 else f"{others * shard}"
        raise job.wrong(key, f"the job's degrees need {what} GPUs, not {gpus}")
    return gpus // others


def _parallel(job: _Job, degrees: _Degrees, *, compiled: bool) -> Keys:
    keys: Keys = {"gpus": degrees.gpus, "pipeline": degrees.pipeline, "data": degrees.data}
    sizes = {
        "tensor": degrees.tensor,
        "context": degrees.context,
        "expert": degrees.expert,
        "expert_tensor": degrees.expert_tensor,
    }
    keys |= {key: size for key, size in sizes.items() if size > 1}
    if job.get("parallelism.enable_async_tensor_parallel", default=False) and compiled and degrees.tensor > 1:
        keys["tensor_overlap"] = True  # which takes a compiled model
    keys["zero"] = 0
    rotated = job.word("parallelism.context_parallel_rotate_method", "allgather", ("allgather", "alltoall"))
    if degrees.context > 1:
        # All-to-all passes the keys and values on to the next GPU, as a ring does.
        keys["context_exchange"] = {"allgather": "gather", "alltoall": "ring"}[rotated]
        keys |= _balanced(job)
    else:
        job.ignore("parallelism.context_parallel")
    return keys | _sharded(job, degrees)


def _balanced(job: _Job) -> Keys:
    key = "parallelism.context_parallel_load_balancer"
    if key not in job.values or job.values[key] == "headtail":
        job.ignore(key)
        return {}
    return {} if job.values[key] else {"context_balanced": bool(job.get(key))}


def _sharded(job: _Job, degrees: _Degrees) -> Keys:
    """Return FSDP's keys: context-parallel GPUs share weights out, too (``ParallelDims.build_mesh``)."""
    policy = job.word("parallelism.fsdp_reshard_after_forward", "default", ("default", "always", "never"))
    shards = degrees.shard * degrees.context
    if shards == 1:
        if degrees.replicate not in (1, degrees.gpus):
            what = "copies that share nothing out (DDP) go with no other parallelism; make data_parallel_shard_degree 2"
            raise job.wrong("parallelism.data_parallel_replicate_degree", f"{what} or more")
        return {}
    each = policy == "always" or (policy == "default" and degrees.pipeline == 1)
    return {"fsdp": shards, "gathers": "each" if each else "once"}


def _offload(job: _Job) -> Keys:
    key = "training.enable_cpu_offload"
    if not job.get(key, default=False):
        return {}
    job.note(key, "the optimizer's states are on the host here, weights and gradients are not")
    return {"offload": {"optimizer": 1.0}}


# --- the pipeline --------------------------------------------------------------------------------------------------

_SCHEDULES = {
    "1f1b": "1f1b",
    "gpipe": "gpipe",
    "interleaved1f1b": "interleaved-1f1b",
    "loopedbfs": "looped-bfs",
    "interleavedzerobubble": "interleaved-zb",
    "zbvzerobubble": "zb-v",
    "dualpipev": "dualpipev",
}
"""Schedules by the names of ``torch.distributed.pipelining`` in small letters; it asks for no others."""

_SINGLE = ("1f1b", "gpipe", "pipelineschedulesingle")
"""Schedules of one stage a rank; all others have two where nothing is said."""

_V_SHAPED = ("zb-v", "dualpipev")


class _Stages(NamedTuple):
    """A pipeline's schedule, how many stages it has, and the keys that say which holds what."""

    schedule: object
    number: int
    layout: Keys

    @property
    def of_file(self) -> bool:
        """Whether a file has the order."""
        return isinstance(self.schedule, dict) and "file" in self.schedule


def _stages(job: _Job, layers: int, ranks: int) -> _Stages:
    if ranks == 1:
        job.ignore("parallelism.pipeline_parallel", "experimental.pipeline_parallel", "parallelism.module_fqns")
        return _Stages("1f1b", 1, {})
    key = "parallelism.pipeline_parallel_schedule"
    name = str(job.get(key, default="1F1B"))
    file = job.get("parallelism.pipeline_parallel_schedule_csv")
    single = name.lower() in _SINGLE
    layout = _layout(job, layers, ranks, single=single)
    count = len(layout) if isinstance(layout, list) else layout.count("|") + 1
    each, rest = divmod(count, ranks)
    if rest or (single and each > 1):
        raise job.wrong(key, f"{name} on {ranks} ranks cannot have {count} stages; make them {ranks * (2 - single)}")
    if file:
        return _Stages(_of_file(job, file), count, {"layout": layout})
    if name.lower() not in _SCHEDULES:
        hint = did_you_mean(name.lower(), _SCHEDULES) or f" (known: {', '.join(_SCHEDULES)})"
        raise job.wrong(key, f"there is no schedule {quoted(name)}{hint}")
    return _Stages(_schedule(job, _SCHEDULES[name.lower()], each), count, {"layout": layout})


def _schedule(job: _Job, name: str, each: int) -> object:
    key = "parallelism.pipeline_parallel_schedule"
    overlaps = job.get("parallelism.pipeline_parallel_expert_parallel_overlap", default=True)
    if name == "dualpipev" and not overlaps:
        job.note("parallelism.pipeline_parallel_expert_parallel_overlap", "pairs of forward and backward overlap here")
    if name in _V_SHAPED:
        if each != 2:
            raise job.wrong(key, f"{name} has two stages a rank, not {each}")
        return name
    return name if each == 1 else {"name": name, "stages_per_rank": each}


def _of_file(job: _Job, name: object) -> Keys:
    """Return a schedule from a file that is named from where torchtitan runs, or lies beside the job."""
    places = [job.source.parent / str(name), Path(str(name))]
    found = next((place.resolve() for place in places if place.is_file()), None)
    if found is None:
        raise job.wrong("parallelism.pipeline_parallel_schedule_csv", f"there is no file {quoted(name)}")
    return {"file": str(found), "placement": "explicit"}


def _layout(job: _Job, layers: int, ranks: int, *, single: bool) -> list[int] | str:
    modules = job.get("parallelism.module_fqns_per_model_part")
    cuts = job.get("parallelism.pipeline_parallel_split_points")
    end_of = "parallelism.pipeline_parallel_{}_stage_less_layers"
    less = [job.count(end_of.format(end), 1, least=0) for end in ("first", "last")]
    wide = job.get("parallelism.pipeline_parallel_layers_per_stage")
    if modules:
        return _of_modules(job, modules, layers)
    if cuts:
        return _of_cuts(job, cuts, layers)
    stages = ranks * (1 if single else 2)
    if wide is not None:
        if isinstance(wide, bool) or not isinstance(wide, int) or wide < 1:
            raise job.wrong("parallelism.pipeline_parallel_layers_per_stage", f"must be from 1 up, got {quoted(wide)}")
        stages = ceil((layers + sum(less)) / wide)
    return _even(job, layers, stages, less)


def _even(job: _Job, layers: int, stages: int, less: list[int]) -> list[int]:
    """Return equal numbers of layers, embedding and head counted as some (``generate_llm_fqn_per_model_part``)."""
    if stages == 1:
        return [layers]
    each, extra = divmod(layers + sum(less), stages)
    if each < max(1, *less):
        what = f"{stages} stages are too many for {layers} layers, with {less[0]} and {less[1]} less at the ends"
        raise job.wrong("parallelism.pipeline_parallel_degree", what)
    counts = [each + (stage < extra) for stage in range(stages)]
    counts[0] -= less[0]
    counts[-1] -= less[1]
    return counts


def _of_cuts(job: _Job, cuts: object, layers: int) -> list[int]:
    """Return numbers of layers from the names of the layers that begin a stage (0.1.0)."""
    key = "parallelism.pipeline_parallel_split_points"
    names = cuts if isinstance(cuts, list) else str(cuts).split(",")
    starts = [_LAYER.fullmatch(str(name).strip()) for name in names]
    ends = [0, *(int(start[1]) for start in starts if start), layers]
    if None in starts or ends != sorted(ends):
        raise job.wrong(key, f"must be layers in order, such as ['layers.8', 'layers.16'], got {quoted(cuts)}")
    return [end - begin for begin, end in pairwise(ends)]


_MODULES = {"tok_embeddings": "E", "norm": "", "output": "L", "lm_head": "L"}
"""Modules beside layers, with Megatron's letters for them; the final norm goes with the head."""

_LAYER = re.compile(r"layers\.(\d+)")


def _of_modules(job: _Job, parts: object, layers: int) -> list[int] | str:
    """Return numbers of layers from the names of all modules of each stage, or Megatron's letters for them."""
    key = "parallelism.module_fqns_per_model_part"
    if not isinstance(parts, list) or not all(isinstance(part, list) for part in parts):
        raise job.wrong(key, f"must be a list with a list of modules for each stage, got {quoted(parts)}")
    names = [str(name) for part in parts for name in part]
    strange = next((name for name in names if name not in _MODULES and not _LAYER.fullmatch(name)), None)
    if strange is not None:
        raise job.wrong(key, f"{quoted(strange)} is no module such as 'tok_embeddings', 'layers.0', 'norm' or 'output'")
    letters = ["".join(_MODULES.get(str(name), "t") for name in part) for part in parts]
    found = [name for name in names if name not in _MODULES]
    if found != [f"layers.{layer}" for layer in range(layers)] or "".join(letters) != "E" + "t" * layers + "L":
        what = f"must hold tok_embeddings, layers.0 to layers.{layers - 1}, norm and output once each, in order"
        raise job.wrong(key, what)
    if letters[0].startswith("E") and letters[-1].endswith("L"):
        return [stage.count("t") for stage in letters]
    return "|".join(letters)


# --- training ------------------------------------------------------------------------------------------------------


class _Batch(NamedTuple):
    """Sequences of a micro-batch on one GPU and of a step, and how often a step takes a local batch."""

    micro: int
    step: int
    passes: int


def _batch(job: _Job, degrees: _Degrees) -> _Batch:
    local = job.get("training.local_batch_size", "training.batch_size", default=8)
    everywhere = job.get("training.global_batch_size", default=-1)
    for key, value in (("local", local), ("global", everywhere)):
        if isinstance(value, bool) or not isinstance(value, int) or (value < 1 and (key, value) != ("global", -1)):
            raise job.wrong(f"training.{key}_batch_size", f"must be a whole number from 1 up, got {quoted(value)}")
    once = local * degrees.data
    passes, rest = divmod(once if everywhere == -1 else everywhere, once)
    if rest:
        what = f"{everywhere} sequences are no multiple of {local} (local_batch_size) on each of {degrees.data} GPUs"
        raise job.wrong("training.global_batch_size", f"{what}, {once}")
    micro = local if degrees.pipeline == 1 else _of_pipeline(job, local)
    return _Batch(micro, passes * once, passes)


def _runtime(job: _Job, stages: _Stages, batch: _Batch, degrees: _Degrees) -> Keys:
    """Return that torch moves the tensors; its 1F1B refuses sizes that its general runtime plays."""
    if degrees.pipeline == 1:
        return {}
    ranks, key = degrees.pipeline, "parallelism.pipeline_parallel_schedule"
    if stages.schedule != "1f1b" or batch.step // (batch.micro * degrees.data) >= ranks:
        return {"runtime": "torch"}
    job.note(key, f"1F1B: is played here, though torch refuses fewer micro-batches than the {ranks} ranks")
    return {"runtime": {"name": "torch", "loaded": True}}


def _note_passes(job: _Job, passes: int, stages: _Stages) -> None:
    """Note that a step that takes several local batches runs its pipeline from empty to empty for each."""
    if passes > 1 and stages.of_file:
        job.note("training.global_batch_size", f"the order in the file is played once here, not {passes} times")
    elif passes > 1 and stages.number > 1:
        what = f"the pipeline fills and drains once a step here, not once for each of {passes} local batches"
        job.note("training.global_batch_size", what)


def _of_pipeline(job: _Job, local: int) -> int:
    """Return sequences of a pipeline's micro-batch, of which a local batch has a whole number."""
    key = "parallelism.pipeline_parallel_microbatch_size"
    many = job.get("parallelism.pipeline_parallel_microbatches")  # before 0.1.0
    size = local // many if isinstance(many, int) and many > 0 else job.count(key, 1)
    if not size or local % size:
        raise job.wrong(key, f"{local} sequences (training.local_batch_size) are no multiple of {size}")
    return size


def _optimizer(job: _Job) -> Keys:
    """Return what FSDP2 and autocast keep: weights, gradients and moments in FP32 unless all training is in BF16."""
    name = job.get("optimizer.name", default="AdamW")
    if name not in ("Adam", "AdamW"):
        job.note("optimizer.name", f"{name}: is taken as AdamW")
    if job.word("training.dtype", "float32", ("float32", "bfloat16")) == "bfloat16":
        return {"main_weights": "none", "moments": "bf16", "gradients": "bf16"}
    return {"main_weights": "fp32", "moments": "fp32", "gradients": "fp32"}


def _recompute(job: _Job, layers: int, stages: int) -> object:
    key = "activation_checkpoint.mode"
    mode = job.word(key, "selective", ("none", "full", "selective", "memory_budget"))
    option = str(job.get("activation_checkpoint.selective_ac_option", default="2"))
    budget = job.get("activation_checkpoint.memory_budget", default=0.5)
    if mode == "memory_budget":
        job.note(key, f"memory_budget of {budget}: is taken as norms and activations computed again")
        return ["norms", "activation"]
    if mode != "selective" or option != "op":
        job.ignore("activation_checkpoint.per_op_sac")
    if mode != "selective":
        return mode
    return _selective(job, option, layers, stages)


def _selective(job: _Job, option: str, layers: int, stages: int) -> object:
    """Return what selective checkpointing computes again: all but some ops, or every n-th layer."""
    key = "activation_checkpoint.selective_ac_option"
    job.ignore("activation_checkpoint.per_op_sac")
    if option == "op":
        return ["norms", "activation", "alternate"]
    if not option.isdecimal():
        raise job.wrong(key, f"must be 'op' or a number, got {quoted(option)}")
    every = int(option)
    if every < 2:
        return "full"
    again = max(1, round(layers / stages / every))
    if again * every * stages != layers:
        job.note(key, f"{option}: is taken as the first {again} layers of each stage, computed again whole")
    parts = dict.fromkeys(("norms", "up_projections", "activation"), False)
    return {"full": True, "layers": again, **parts}


def _precision(job: _Job, *, moe: bool) -> str:
    key = "training.mixed_precision_param"
    if job.word(key, "bfloat16", ("bfloat16", "float32")) == "float32":
        job.note(key, "float32: GEMMs are in BF16 here")
    converters = job.get("model.converters", default=[])
    names = [str(name) for name in (converters if isinstance(converters, list) else str(converters).split(",")) if name]
    kinds = {name: "mxfp8" if re.search(r"\bmx\b", name) else "fp8-tensor" for name in names if _QUANTISED.search(name)}
    for name in names:
        if name not in kinds:
            job.note("model.converters", f"{name}: is not modelled")
    if not kinds:
        job.ignore("quantize.", "float8.", "mx.")
        return "bf16"
    _say_what_stays(job, list(kinds), moe=moe)
    return next(iter(kinds.values()))


_QUANTISED = re.compile(r"(^|\.)(float8|mx)$")
_ALWAYS_HIGH = {"output", "lm_head", "router.gate", "moe.router.gate"}
"""Modules that stay in BF16 or higher here in any precision."""


def _say_what_stays(job: _Job, converters: list[str], *, moe: bool) -> None:
    """Note where other GEMMs are in FP8 than here: all of layers but routers', not the head."""
    grouped = any("grouped_mm" in name for name in converters)
    linear = any("grouped_mm" not in name for name in converters)
    job.get("quantize.grouped_mm.float8.fqns", "quantize.grouped_mm.mx.fqns")
    job.get("quantize.grouped_mm.mx.recipe_name", "mx.recipe_name", "quantize.linear.mx.recipe_name")
    if moe and not grouped:
        job.note("model.converters", "experts' GEMMs stay in BF16 there, but are in low precision here, as all others")
    if not linear:
        job.note("model.converters", "only experts' GEMMs are in low precision there, here all are")
        return
    mx = any(name.endswith("mx") for name in converters)
    kept = job.get("quantize.linear.mx.filter_fqns" if mx else "quantize.linear.float8.filter_fqns",
                   "mx.filter_fqns" if mx else "float8.filter_fqns", default=["output"] if mx else [])  # fmt: skip
    kept = kept if isinstance(kept, list) else str(kept).split(",")
    if not {"output", "lm_head"} & set(kept):
        job.note("model.converters", "the head is in low precision there, in BF16 here")
    if others := [str(name) for name in kept if name not in _ALWAYS_HIGH]:
        job.note("quantize filter_fqns", f"{', '.join(others)}: stay in BF16 there, but not here")
    recipe = job.get("quantize.linear.float8.recipe_name", "float8.recipe_name", default="tensorwise")
    if recipe != "tensorwise" and not mx:
        job.note("quantize recipe_name", f"{recipe}: is taken as one scale for a tensor, in all three GEMMs")
    job.ignore("quantize.linear.mx." if not mx else "quantize.linear.float8.", *_CAST)


_CAST = ("float8.precompute", "quantize.linear.float8.precompute", "quantize.linear.mx.mxfp8_dim1", "mx.use_fp8_dim1")
"""How values are cast, which is part of what is measured."""


def _compiled(job: _Job) -> bool:
    """Return whether the model is compiled."""
    components = job.get("compile.components", default=["model", "loss"])
    compiled = components if isinstance(components, list) else [components]
    enabled = bool(job.get("compile.enable", "training.compile", default=False))
    if enabled and "model" not in compiled:
        job.note("compile.components", f"{' and '.join(map(str, compiled))}: as PyTorch runs it without here")
    job.ignore("compile.backend")
    return enabled and "model" in compiled
