"""The page's controls: which keys of a configuration have one, and of each what the configuration's schema says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from dualpipe_sim.config.json_schema import Schema, json_schema
from dualpipe_sim.config.load import packaged_configs
from dualpipe_sim.config.presets import FOLDERS, read_preset
from dualpipe_sim.config.yaml_text import Data, as_yaml
from dualpipe_sim.errors import UserError
from dualpipe_sim.runtimes.registry import IDEAL, runtimes
from dualpipe_sim.schedules.registry import schedules

_DEFS = "#/$defs/"
_MOST_USUAL = {"ranks": 64, "pipeline": 64, "micro_batches": 256}
"""Where a slider of whole numbers ends if its value is not above: at what fits a screen."""
_LINKS = tuple(f"cluster.{link}.{key}" for link in ("nvlink", "infiniband") for key in ("bandwidth", "latency"))
_BY_LAYER = (
    ("model and GPUs", ("model", "gpu", "cluster", "training.precision", "training.sequence_length")),
    ("links", _LINKS),
    (
        "parallelism",
        (
            "parallel.tensor", "parallel.context", "parallel.expert", "parallel.expert_tensor", "parallel.data",
            "parallel.zero", "training.micro_batch_size", "training.recompute", "overlap.communication_sms",
        ),
    ),
)  # fmt: skip
_UNIFORM = (
    (
        "times of an op",
        (
            "costs.forward", "costs.backward", "costs.backward_input", "costs.backward_weight", "costs.overlapped",
            "costs.transfer",
        ),
    ),
    ("links", ("cluster.gpus_per_node", *_LINKS)),
)  # fmt: skip
_OTHER = (("links", _LINKS),)
_MORE = (("how it runs", ("pipeline.layout", "pipeline.transfers", "pipeline.runtime", "contention")),)


def controls_of(data: Data) -> list[dict[str, object]]:
    """Return the page's controls for a configuration, group after group.

    Each has ``path``, the key that it sets; ``group`` and ``label``; ``about``, what the key means; ``value``, as YAML;
    ``unit`` of a bare number; ``choices``, its words, if there are any; ``whole`` and ``least``, if it takes numbers
    that are whole; ``most``, where a slider of these ends.
    """
    costs = data.get("costs") or {"kind": "layers" if data.get("model") else "uniform"}
    kind = costs.get("kind", "uniform") if isinstance(costs, Mapping) else ""
    whole = _with_preset_values(data)
    groups = {"layers": _BY_LAYER, "uniform": _UNIFORM}.get(str(kind), _OTHER)
    sizes = (("pipeline", tuple(_given(whole, paths) for paths in _SIZES)),)
    return [
        _control(path, group, whole, str(kind))
        for group, paths in (*sizes, *groups, *_MORE)
        for path in _one_backward(paths, costs)
        if path not in _LINKS or _at(whole, path) is not None
    ]


_SIZES = (("pipeline.ranks", "parallel.pipeline"), ("pipeline.micro_batches", "training.global_batch"))
"""Either key may say it."""


def words() -> dict[str, list[str]]:
    """Return the names that the page offers: configurations, schedules, keys."""
    return {
        "configs": list(packaged_configs()),
        "schedules": list(schedules()),
        "keys": sorted(dict.fromkeys(_paths("", json_schema(), 0))),
    }


def _one_backward(paths: tuple[str, ...], costs: object) -> tuple[str, ...]:
    """Return keys without a backward's halves where it is given whole, and else without the whole."""
    whole = isinstance(costs, Mapping) and costs.get("backward") is not None
    left = ("costs.backward_input", "costs.backward_weight") if whole else ("costs.backward",)
    return tuple(path for path in paths if path not in left)


def _given(data: Data, paths: tuple[str, ...]) -> str:
    return next((path for path in paths if _at(data, path) is not None), paths[0])


def _control(path: str, group: str, data: Data, kind: str) -> dict[str, object]:
    value, about = _at(data, path), _fixed(path, kind)
    if path in FOLDERS and isinstance(value, Mapping):  # what stands beside the preset stays
        value = value.get("preset")
        about = {**_fixed(f"{path}.preset", kind), "label": about["label"], "about": about["about"]}
    shown = about["default"] if value is None else value
    unit = str(about["unit"]) if path in _LINKS else ""
    control = {**about, "group": group, "value": _written(shown, unit)}
    if "least" in about:
        usual = _MOST_USUAL.get(path.rpartition(".")[2], 16)
        control |= {"whole": True, "most": max(usual, 4 * shown if isinstance(shown, int) else 0)}
    return control


@cache
def _fixed(path: str, kind: str) -> Mapping[str, object]:
    """Return what is always the same of a key's control."""
    place = _place(path, kind)
    every = (place, *place.get("anyOf", ()))
    words = path.split(".")[-2 if path in _LINKS else -1 :]
    choices = _choices(place) or _words_of(path)
    whole = not choices and any(one.get("type") == "integer" for one in every)
    return {
        "path": path,
        "label": " ".join(words).replace("micro_batch", "micro-batch").replace("_", " "),
        "about": " ".join(str(place.get("description", "")).split()),
        "default": place.get("default"),
        "unit": next((one["x-unit"] for one in every if "x-unit" in one), ""),
        "choices": choices,
        **({"least": max(one.get("minimum", 0) for one in every)} if whole else {}),
    }


def _written(value: object, unit: str) -> str:
    """Return a value as a control shows it: a preset's number with its unit, in a size that reads well."""
    if unit and isinstance(value, float) and value > 0:
        scale, prefix = next((one for one in _PREFIXES if value >= one[0]), _PREFIXES[-1])
        return f"{value / scale:.6g} {prefix}{unit}"
    return "" if value is None or isinstance(value, dict) else as_yaml(value)


_PREFIXES = ((1e9, "G"), (1e6, "M"), (1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"))


def _words_of(path: str) -> list[str]:
    """Return words of keys that take others, too."""
    return {"pipeline.layout": ["even", "balanced"], "pipeline.runtime": [IDEAL, *runtimes()]}.get(path, [])


def _choices(place: Schema) -> list[str]:
    """Return the words that a key takes, where it takes nothing else but perhaps null or a mapping."""
    found: list[object] = []
    for one in (place, *place.get("anyOf", ())):
        found += one.get("enum", ())
        found += [True, False] if one.get("type") == "boolean" else []
    return [as_yaml(one) for one in found]


@cache
def _schema() -> Schema:
    return json_schema()


def _place(path: str, kind: str) -> Schema:
    """Return what the schema says of a key."""
    place: Schema = _schema()
    for name in path.split("."):
        place = next(
            section["properties"][name]
            for section in _sections(place)
            if name in section.get("properties", {})
            and section["properties"].get("kind", {}).get("const", kind) == kind
        )
    return place


def _sections(place: Schema) -> Iterator[Schema]:
    """Yield what a place may hold that has keys."""
    if "$ref" in place:
        place = _schema()["$defs"][str(place["$ref"]).removeprefix(_DEFS)]
    if "properties" in place:
        yield place
    for choice in (*place.get("anyOf", ()), *place.get("allOf", ()), *place.get("oneOf", ())):
        yield from _sections(choice)


_DEEPEST = 3


def _paths(above: str, section: Schema, depth: int) -> Iterator[str]:
    """Yield the dotted path of every key that is not too deep to be set by hand."""
    for name, place in section.get("properties", {}).items():
        yield f"{above}{name}"
        if depth < _DEEPEST:
            for inner in _sections(place):
                yield from _paths(f"{above}{name}.", inner, depth + 1)


def _with_preset_values(data: Data) -> Data:
    """Return a configuration in which sections have the values of presets that they name, for what a control shows."""
    whole = dict(data)
    gpu = whole.get("gpu")
    if whole.get("cluster") is None and isinstance(gpu, Mapping) and "preset" in gpu:
        whole["cluster"] = {"preset": read_preset("gpu", gpu["preset"], "gpu").get("cluster")}
    for section in FOLDERS:
        given = whole.get(section)
        if isinstance(given, Mapping) and isinstance(given.get("preset"), str):
            try:
                whole[section] = {**read_preset(section, given["preset"], section), **given}
            except UserError:  # which the experiment itself refuses with more words
                continue
    return whole


def _at(data: Any, path: str) -> Any:  # noqa: ANN401 - plain data
    """Return what a configuration has at a key, or None."""
    for name in path.split("."):
        data = data.get(name) if isinstance(data, Mapping) else None
    return data
