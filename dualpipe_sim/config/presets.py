"""Models, GPUs and clusters that come with the package, and mappings that start from one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Union, get_args, get_origin, get_type_hints

from dualpipe_sim.config.yaml_text import Data, read_yaml
from dualpipe_sim.errors import ConfigError, did_you_mean
from dualpipe_sim.records import key_of
from dualpipe_sim.units import BYTES, BYTES_PER_S, FLOP_PER_S, SECONDS, quantity

FOLDERS = {"model": "models", "gpu": "gpus", "cluster": "clusters"}
"""The sections that may name a preset, and where their presets are."""

_UNITS = {
    "_flops_per_s": (FLOP_PER_S, "a rate like 989 TFLOPS"),
    "_bytes_per_s": (BYTES_PER_S, "a bandwidth like 160 GB/s"),
    "_bytes": (BYTES, "a size like 80 GiB"),
    "_s": (SECONDS, "a time like 5 us"),
}


def presets(section: str) -> dict[str, Path]:
    """Return the presets of ``model``, ``gpu`` or ``cluster`` by name."""
    folder = Path(__file__).parent.parent / "presets" / FOLDERS[section]
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def with_presets_named(data: Data) -> Data:
    """Return a configuration in which a preset's bare name is a mapping, so that keys in it can be set."""
    named = {section: {"preset": data[section]} for section in FOLDERS if isinstance(data.get(section), str)}
    return data | named


def with_presets(data: Data, source: str) -> Data:
    """Return a configuration with the values of the presets that it names; what stands beside a name replaces them.

    Raises:
        ConfigError: there is no such preset.

    """
    whole = with_presets_named(data)
    for section in FOLDERS:
        given = whole.get(section)
        if isinstance(given, Mapping) and "preset" in given:
            own = {key: value for key, value in given.items() if key != "preset"}
            whole[section] = _merge(read_preset(section, given["preset"], source), own)
    return whole


def read_preset(section: str, name: object, source: str) -> Data:
    """Return a preset's mapping.

    Raises:
        ConfigError: there is no such preset.

    """
    known = presets(section)
    if name not in known:
        hint = did_you_mean(str(name), known) or f" (there are: {', '.join(known)})"
        raise ConfigError(f"{source}: {section}: there is no preset {name!r}{hint}")
    return read_yaml(known[str(name)])


def in_base_units(cls: type, given: object, where: str) -> object:
    """Return a mapping for :func:`dualpipe_sim.records.build` with quantities as numbers in SI base units.

    Raises:
        ConfigError: a text that is no such quantity.

    """
    if not isinstance(given, Mapping):
        return given
    types = get_type_hints(cls)
    known = {key_of(field.name): field.name for field in fields(cls)}
    plain = dict(given)
    for key, value in given.items():
        if key not in known:
            continue
        inner = _dataclass_in(types[known[key]])
        if inner is not None:
            plain[key] = in_base_units(inner, value, f"{where}.{key}")
        elif isinstance(value, str):
            plain[key] = _number(known[key], value, f"{where}.{key}")
    return plain


def _number(field: str, value: str, where: str) -> object:
    suffix = next((suffix for suffix in _UNITS if field.endswith(suffix)), None)
    if suffix is None:
        return value
    try:
        return quantity(value, *_UNITS[suffix])
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def _dataclass_in(hint: object) -> type | None:
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return next((choice for choice in choices if isinstance(choice, type) and is_dataclass(choice)), None)


def _merge(below: Mapping[str, object], above: Mapping[str, object]) -> Data:
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(inner, value) if both else value  # type: ignore[arg-type]
    return merged
