"""Models, GPUs and clusters that come with the package, and mappings that start from one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from dualpipe_sim.config.yaml_text import Data, read_yaml
from dualpipe_sim.errors import ConfigError, did_you_mean, plain, quoted

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


def read_preset(section: str, name: object, source: str) -> Mapping[str, object]:
    """Return a preset's mapping, which is read once and shared.

    Raises:
        ConfigError: there is no such preset.

    """
    known = presets(section)
    if not isinstance(name, str) or name not in known:
        hint = did_you_mean(plain(name), known) or f" (there are: {', '.join(known)})"
        raise ConfigError(f"{source}: {section}: there is no preset {quoted(name)}{hint}")
    return _read(known[name])


@cache
def _read(path: Path) -> Data:
    return read_yaml(path)


def _merge(below: Mapping[str, object], above: Mapping[str, object]) -> Data:
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(inner, value) if both else value  # type: ignore[arg-type]
    return merged
