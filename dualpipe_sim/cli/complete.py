"""What the shell offers where a name is half written: schedules, configurations, presets, keys and their values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_SUFFIXES = {".yaml", ".yml"}


def schedule_names(incomplete: str) -> list[str]:
    """Return the registered schedules that begin so."""
    from dualpipe_sim.schedules.registry import schedules

    return _beginning(incomplete, schedules())


def runtime_names(incomplete: str) -> list[str]:
    """Return the registered runtimes that begin so."""
    from dualpipe_sim.runtimes.registry import runtimes

    return _beginning(incomplete, runtimes())


def config_names(incomplete: str) -> list[str]:
    """Return the packaged configurations that begin so, and files and folders beside."""
    from dualpipe_sim.config.load import packaged_configs

    return [*_beginning(incomplete, packaged_configs()), *_files(incomplete)]


def preset_names(incomplete: str) -> list[str]:
    """Return the presets that begin so."""
    from dualpipe_sim.config.presets import FOLDERS, presets

    return _beginning(incomplete, (name for section in FOLDERS for name in presets(section)))


def beginnings(incomplete: str) -> list[str]:
    """Return what a configuration may begin with: packaged ones, presets, files."""
    return [*preset_names(incomplete), *config_names(incomplete)]


def key_names(incomplete: str) -> list[str]:
    """Return the keys of a configuration that begin so, as ``schema`` takes them."""
    from dualpipe_sim.config.keys import all_keys

    return _beginning(incomplete, (key.path for key in all_keys()))


def answer_names(incomplete: str) -> list[str]:
    """Return the commands that answer as JSON and begin so."""
    from dualpipe_sim.answers import VERSIONS

    return _beginning(incomplete, VERSIONS)


def settings(incomplete: str) -> list[str]:
    """Return what ``--set`` may go on with: keys, and behind a key's "=" the words that it takes."""
    key, equals, value = incomplete.partition("=")
    if equals:
        return [f"{key}={word}" for word in _beginning(value, _values(key))]
    from dualpipe_sim.config.keys import all_keys

    keys = (re.sub(r"\[\w+\]", "", key.path) for key in all_keys())
    return [f"{one}=" for one in _beginning(incomplete, dict.fromkeys(keys))]


def _values(key: str) -> Iterable[str]:
    """Return the words that a key may have; none where it takes numbers or anything else."""
    from dualpipe_sim.config.json_schema import json_schema
    from dualpipe_sim.config.presets import FOLDERS, presets

    section = key.removesuffix(".preset")
    if section in FOLDERS:
        return presets(section)
    if key in ("schedule", "schedule.name"):
        return schedule_names("")
    schema = json_schema()
    place = schema
    for part in key.split("."):
        place = next((one["properties"][part] for one in _mappings(place, schema) if part in one["properties"]), {})
    words = [place, *place.get("anyOf", ())]
    booleans = ("true", "false") if any(one.get("type") == "boolean" for one in words) else ()
    return [*(str(word) for one in words for word in one.get("enum", ())), *booleans]


def _mappings(place: dict[str, object], schema: dict[str, object]) -> Iterator[dict[str, dict[str, dict[str, object]]]]:
    """Yield the mappings that a place of the schema may be."""
    if "properties" in place:
        yield place  # type: ignore[misc]
    if "$ref" in place:
        defs: dict[str, dict[str, object]] = schema["$defs"]  # type: ignore[assignment]
        yield from _mappings(defs[str(place["$ref"]).rpartition("/")[2]], schema)
    for several in ("anyOf", "oneOf", "allOf"):
        for one in place.get(several, ()):  # type: ignore[attr-defined]
            yield from _mappings(one, schema)


def _files(incomplete: str) -> list[str]:
    """Return the configuration files and the folders whose paths begin so."""
    folder = Path(incomplete).parent if not incomplete.endswith("/") else Path(incomplete)
    begin = "" if incomplete.endswith("/") else Path(incomplete).name
    try:
        there = sorted(path for path in folder.iterdir() if path.name.startswith(begin))
    except OSError:
        return []
    names = (f"{path}/" if path.is_dir() else str(path) for path in there if path.is_dir() or path.suffix in _SUFFIXES)
    return _beginning("", names)


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    # (a shell writes what is offered to its terminal as it is)
    return [name for name in names if name.startswith(incomplete) and name.isprintable()]
