"""Models, GPUs and clusters that come with the package, and mappings that start from one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import cast

from dualpipe_sim.config.yaml_text import Data, read_yaml
from dualpipe_sim.errors import ConfigError, UserError, did_you_mean, plain, quoted
from dualpipe_sim.model.attention.registry import USUAL

_FEW_RANKS = 8
_LARGE, _LARGE_DENSE, _HUGE = 100e9, 25e9, 300e9
"""Parameters from which a model of experts takes hundreds of GPUs, a dense one tensor parallelism, any both."""

_MOST = 0.7e9
"""Parameters of a model of experts over its GPUs, from which these have more memory than an H100."""

FOLDERS = {"model": "models", "gpu": "gpus", "cluster": "clusters"}
"""The sections that may name a preset, and where their presets are."""


@cache
def presets(section: str) -> dict[str, Path]:
    """Return the presets of ``model``, ``gpu`` or ``cluster`` by name."""
    folder = Path(__file__).parent.parent / "presets" / FOLDERS[section]
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def with_presets_named(data: Data) -> Data:
    """Return a configuration in which a preset's bare name is a mapping, so that keys in it can be set."""
    named = {section: {"preset": data[section]} for section in FOLDERS if isinstance(data.get(section), str)}
    return data | named


def with_presets(data: Data, source: str) -> Data:
    """Return a configuration with the values of presets and files that it names; what stands beside replaces them.

    Raises:
        ConfigError: there is no such preset, or a file cannot be read.

    """
    whole = _with_usual(with_presets_named(data))
    model = whole.get("model")
    if isinstance(model, Mapping) and "hf" in model:
        if "preset" in model:
            raise ConfigError(f"{source}: model: a preset and hf are both something to begin with; take one")
        own = {key: value for key, value in model.items() if key != "hf"}
        whole["model"] = _merge(_imported(model["hf"], source), own)
    for section, keys in _TABLES.items():
        if section in whole:
            whole[section] = _named_from(whole[section], keys, source)
    for section in FOLDERS:
        given = whole.get(section)
        if isinstance(given, Mapping) and "preset" in given:
            own = {key: value for key, value in given.items() if key != "preset"}
            whole[section] = _merge(_below(section, given, source), own)
    return whole


def _below(section: str, given: Mapping[str, object], source: str) -> Mapping[str, object]:
    """Return the preset of a section, a GPU's without the tables in whose place rates are stated beside it."""
    preset = read_preset(section, given["preset"], source)
    stated = {name for name in ("gemm", "attention") if name in given}
    kernels = preset.get("kernels")
    if section != "gpu" or not stated or not isinstance(kernels, Mapping):
        return preset
    left = {key: value for key, value in kernels.items() if key.partition("_")[0] not in stated}
    return {**preset, "kernels": left}


_TABLES = {"gpu": ("kernels", "gemm", "attention"), "cluster": ("", "collectives")}
"""Keys of sections that may name a CSV file: the section inside, then its keys."""


def _named_from(given: object, keys: tuple[str, ...], source: str) -> object:
    """Return a section in which tables that are files are named from where the configuration is."""
    inside, *names = keys
    holder = given.get(inside) if inside and isinstance(given, Mapping) else given
    if not isinstance(given, Mapping) or not isinstance(holder, Mapping):
        return given
    files = {name: holder[name] for name in names if str(holder.get(name, "")).endswith(".csv")}
    found = {name: str(Path(source).parent / str(path)) for name, path in files.items()}
    return {**given, inside: {**holder, **found}} if inside else {**given, **found}


def _with_usual(data: Data) -> Data:
    """Return a configuration with what goes without saying: costs by layer of a model, the usual cluster of a GPU."""
    whole = dict(data)
    if whole.get("model") is not None:
        whole.setdefault("costs", {"kind": "layers"})
    costs, gpu = whole.get("costs"), whole.get("gpu")
    if isinstance(costs, Mapping) and costs.get("kind") == "layers" and isinstance(gpu, Mapping):
        usual = gpu.get("cluster") or _usual_cluster(gpu.get("preset"))
        if usual and whole.get("cluster") is None:
            whole["cluster"] = {"preset": usual}
    return whole


def _imported(path: object, source: str) -> Mapping[str, object]:
    """Return the model of a Hugging Face ``config.json``, named from where the configuration is."""
    from dualpipe_sim.model.huggingface import read_model

    if not isinstance(path, str):
        raise ConfigError(f"{source}: model.hf: must be a path to a config.json, got {quoted(path)}")
    try:
        return read_model(Path(source).parent / path)
    except UserError as error:
        raise ConfigError(f"{source}: model.hf: {error}") from error


def read_preset(section: str, name: object, source: str) -> Mapping[str, object]:
    """Return a preset's mapping, which is read once and shared.

    Raises:
        ConfigError: there is no such preset.

    """
    known = presets(section)
    if not isinstance(name, str) or name not in known:
        hint = did_you_mean(plain(name), known) or "; `dualpipe-sim presets` lists them"
        raise ConfigError(f"{source}: {section}: there is no preset {quoted(name)}{hint}")
    return _read(known[name])


@cache
def _read(path: Path) -> Data:
    return read_yaml(path)


_BEGINNING = """\
# Begins with the preset {name}: `dualpipe-sim presets {name}` prints what is in it, and what stands beside `preset:`
# replaces a value. `dualpipe-sim schema {section}` explains every key.
pipeline: {{ranks: {ranks}, micro_batches: {micro_batches}, layout: balanced}}
schedule: dualpipe
compare: [1f1b, {{name: interleaved-1f1b, stages_per_rank: 2}}, zb-h1, dualpipe, dualpipev]
costs: {{kind: layers}}      # times come out of the model's shapes, the GPU's rates and the cluster's links
model: {{preset: {model}}}{scores}
gpu: {{preset: {gpu}}}
cluster: {{preset: {cluster}}}
parallel: {parallel}
training: {{sequence_length: {tokens}, micro_batch_size: 1, precision: {precision}}}
"""
_SPREAD = "{{expert: {expert}, data: {data}}}   # a rank is `data` GPUs, its experts spread over `expert` of them"
_CUT = (
    "{{tensor: {tensor}, data: {data}}}   # a rank is `data` times `tensor` GPUs, which share out each layer's tensors"
)
_SCORES = "   # keeps attention's scores; with FlashAttention: attention: {stored_scores: false}"


def _usual_cluster(gpu: object) -> object:
    """Return the name of the cluster that GPUs of a preset are usually in; nothing where it is no preset."""
    known = presets("gpu")
    return _read(known[gpu]).get("cluster") if isinstance(gpu, str) and gpu in known else None


def _usual_gpu(cluster: str) -> str | None:
    """Return the first preset of a GPU that is usually in a cluster, the shortest name first."""
    return next((gpu for gpu in sorted(presets("gpu"), key=len) if _usual_cluster(gpu) == cluster), None)


def beginning_with(section: str, name: str) -> str:
    """Return the text of a configuration to begin with, of a preset of ``model``, ``gpu`` or ``cluster``."""
    from dualpipe_sim.config.records import read
    from dualpipe_sim.model.architecture import Model

    used = {"model": "gpt-1.5b", "gpu": "h100", "cluster": "h100-ib", section: name}
    if section == "gpu":
        used["cluster"] = str(_usual_cluster(name) or used["cluster"])
    if section == "cluster":
        used["gpu"] = _usual_gpu(name) or used["gpu"]
    given = _read(presets("model")[used["model"]])
    model = read(Model, given, "model")
    parameters, experts = model.parameters().total, model.experts
    large = parameters > (_LARGE if experts else _LARGE_DENSE)
    ranks = 2 * _FEW_RANKS if parameters > _HUGE or (experts and large) else _FEW_RANKS
    routed = experts.routed if experts else 1
    spread = next((gpus for gpus in ((64, 32, 16, 8) if large else (8,)) if routed % gpus == 0), 1)
    if section == "model" and experts and parameters > _MOST * ranks * spread:
        used["gpu"] = "h200"
    scores = _SCORES if cast("Data", given["attention"]).get("stored_scores") else ""
    if large and not experts:
        parallel = _CUT.format(tensor=8, data=ranks // _FEW_RANKS)
    else:
        parallel = _SPREAD.format(expert=spread, data=max(spread, 8))
    sizes = {"ranks": ranks, "micro_batches": 8 * ranks, "parallel": parallel}
    fp8 = experts and ranks > _FEW_RANKS
    run = {"tokens": 1024 if scores else 4096, "precision": "fp8" if fp8 else "bf16"}
    return _BEGINNING.format(name=name, section=section, scores=scores, **used, **sizes, **run)


def _merge(below: Mapping[str, object], above: Mapping[str, object]) -> Data:
    """Lay values over others; a mapping of another kind takes the place of the one below, with other keys."""
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            same = "kind" not in value or value["kind"] == inner.get("kind", USUAL)
            merged[key] = _merge(inner, value) if same else value
        else:
            merged[key] = value
    return merged
