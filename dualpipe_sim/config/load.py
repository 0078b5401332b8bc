"""Load an experiment from a file or a mapping, with overrides, and say in one line what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from dualpipe_sim.base.files import about_to_read
from dualpipe_sim.base.json_text import DEEPEST
from dualpipe_sim.base.plugins import load_named
from dualpipe_sim.config.axes import Factor, factors_of
from dualpipe_sim.config.build import build_experiment
from dualpipe_sim.config.cost_section import HALVES
from dualpipe_sim.config.presets import with_presets, with_presets_named
from dualpipe_sim.config.problems import first_problem
from dualpipe_sim.config.schema import Root
from dualpipe_sim.config.short import SHORT, full_key
from dualpipe_sim.config.yaml_text import Data, parse_yaml, read_yaml
from dualpipe_sim.errors import ConfigError, UserError, did_you_mean, is_text, quoted
from dualpipe_sim.experiment import Experiment


def load_experiment(
    config: str | Path | Mapping[str, object] | None,
    overrides: Mapping[str, object] | None = None,
    settings: Iterable[str] = (),
    *,
    source: str = "config",
) -> Experiment:
    """Return the experiment that a configuration describes.

    >>> experiment = load_experiment("figure5", {"pipeline.micro_batches": 40}, settings=["schedule=1f1b"])
    >>> experiment.choice.name, experiment.choice.ranks, experiment.choice.micro_batches
    ('1f1b', 8, 40)

    Args:
        config: a YAML file, the name of a packaged one (``deepseek_v3``), or a mapping of the same shape; None if the
            overrides say all, but for costs: F, I and W take a second each where they say nothing of them.
        overrides: values by dotted key (``{"pipeline.micro_batches": 40}``); a mapping replaces what is there.
        settings: the same as text, ``pipeline.micro_batches=40``, the value in YAML.
        source: what to call a mapping in errors.

    Raises:
        ConfigError: one line with the file, the key, the value and what would be right.

    """
    return experiment_of(*read_config(config, overrides, settings, source=source))


def in_full(overrides: Mapping[str, object]) -> dict[str, object]:
    """Return overrides by dotted key, where they may be by a short one.

    Raises:
        ConfigError: a word that is neither a key nor short for one.

    """
    known = [*SHORT, *Root.keys()]
    for key in overrides:
        if "." not in key and key not in known:
            hint = did_you_mean(key, known) or f" (known: {', '.join(known)}, or any dotted key)"
            raise ConfigError(f"{key}: unknown argument{hint}")
    return {full_key(key): value for key, value in overrides.items()}


_MOST_VALUES = 1_000_000
"""Of a configuration from Python, which may hold long lists; one in YAML has fewer."""

_SAME_RUN = ("compare", "engine", "contention", "measured", "max_memory")
"""What may be set anew while a run stays the one that was measured: how it is played, and what is beside it."""


def read_config(
    config: str | Path | Mapping[str, object] | None,
    overrides: Mapping[str, object] | None = None,
    settings: Iterable[str] = (),
    *,
    source: str = "config",
) -> tuple[Data, str]:
    """Return a configuration as plain data, and what to call it in errors; arguments as for :func:`load_experiment`."""
    data, source = (config or {}, source) if isinstance(config, Mapping | None) else _read(Path(config))
    data = _copy(data, source)
    data = with_presets_named(data)
    over = _copy({**(overrides or {}), **dict(map(_parse_setting, settings))}, source)
    if "costs.backward" in over:
        _drop_halves(data.get("costs"))
    for key, value in over.items():
        _override(data, key, value, source)
    if not all(key.partition(".")[0] in _SAME_RUN or key in ("pipeline.transfers", "pipeline.runtime") for key in over):
        data.pop("measured", None)
    _load_plugins(data.get("plugins", ()), source)
    if config is None:
        data.setdefault("costs", {"forward": 1.0, "backward": 2.0})
    return data, source


def experiment_of(data: Data, source: str) -> Experiment:
    """Return the experiment that plain data describes, as :func:`load_experiment` does."""
    try:
        root = Root.model_validate(with_presets(data, source))
    except ValidationError as error:
        raise ConfigError(f"{source}: {first_problem(error.errors(include_url=False))}") from error
    except RecursionError as error:
        raise ConfigError(f"{source}: is nested too deeply, perhaps in itself") from error
    return build_experiment(root, source)


def sweep_of(data: Data, source: str) -> tuple[Factor, ...]:
    """Return what a configuration's ``sweep:`` section varies, checking nothing else of it."""
    try:
        return factors_of(data.get("sweep"))
    except ValueError as error:
        raise ConfigError(f"{source}: sweep: {error}") from error


@cache
def packaged_configs() -> dict[str, Path]:
    """Return the configurations that come with the package, by name.

    >>> sorted(packaged_configs())[:3]
    ['chimera_figure', 'deepseek_v2', 'deepseek_v2_lite']
    """
    package = Path(__file__).parent.parent
    for folder in (package / "configs", package.parent / "configs"):  # in a wheel; in a checkout
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def _read(path: Path) -> tuple[Mapping[str, object], str]:
    if not path.suffix and not _is_there(path):
        packaged = packaged_configs()
        if path.name not in packaged:
            raise ConfigError(
                f"{path}: no such file, and no packaged config of this name{did_you_mean(path.name, packaged)}"
            )
        path = packaged[path.name]
    return read_yaml(path), str(path)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long for a name
        return False


def _copy(config: Mapping[str, object], source: str) -> Data:
    """Copy what an override may change in place, mappings and lists; what is there twice is two things from then on.

    Raises:
        ConfigError: it is too large, written out, or holds a text that no file can.

    """
    values = 0

    def copied(value: object, depth: int) -> object:
        nonlocal values
        values += 1
        if values > _MOST_VALUES or depth > DEEPEST:
            raise ConfigError(
                f"{source}: is nested more than {DEEPEST} levels deep, or has more than {_MOST_VALUES:,} values; "
                "perhaps it holds itself"
            )
        if value is None or isinstance(value, (str, int, float)):
            if isinstance(value, str) and not is_text(value):
                raise ConfigError(f"{source}: {quoted(value)} is no text: it holds half a character")
            return value
        if isinstance(value, Mapping):  # whose keys may be numbers, as those of slow ranks are
            return {copied(key, depth): copied(item, depth + 1) for key, item in value.items()}
        return [copied(item, depth + 1) for item in value] if isinstance(value, list) else value

    return {str(copied(key, 1)): copied(value, 1) for key, value in config.items()}


def _parse_setting(setting: str) -> tuple[str, object]:
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {setting}: must be key=value, like pipeline.micro_batches=40")
    return key, parse_yaml(text, f"--set {key}")


def _load_plugins(plugins: object, source: str) -> None:
    """Run the files that a configuration names, for what they register may be in the rest of it."""
    if not isinstance(plugins, (list, tuple)):
        raise ConfigError(f"{source}: plugins: must be a list of files, got {quoted(plugins)}")
    for place, path in enumerate(plugins):
        if not isinstance(path, (str, Path)):
            raise ConfigError(f"{source}: plugins[{place}]: must be a file's name, got {quoted(path)}")
        try:
            about_to_read(Path(source).parent / path)
            load_named(Path(source).parent / path)
        except UserError as error:
            raise ConfigError(f"{source}: plugins[{place}]: {error}") from error


def _drop_halves(costs: object) -> None:
    """Let a full backward that is given stand for the two halves that a configuration has."""
    if isinstance(costs, dict):
        for half in HALVES:
            costs.pop(half, None)


def _override(data: Data, key: str, value: object, source: str) -> None:
    *parents, last = key.split(".")
    place: object = data
    for position, part in enumerate(parents):
        place = _step(place, part, ".".join(parents[: position + 1]), source)
    if isinstance(place, list):
        place[_position(place, last, key, source)] = value
    else:
        cast("Data", place)[last] = value


def _step(place: object, part: str, path: str, source: str) -> object:
    if isinstance(place, list):
        inner = place[_position(place, part, path, source)]
    else:
        inner = cast("Data", place).setdefault(part, {})
    if not isinstance(inner, (dict, list)):
        raise ConfigError(f"{source}: {path} is {quoted(inner)}, so nothing inside it can be set")
    return inner


def _position(place: list[object], part: str, path: str, source: str) -> int:
    if not part.isdecimal() or int(part) >= len(place):
        raise ConfigError(f"{source}: {path}: the list has entries 0 to {len(place) - 1}, got '{part}'")
    return int(part)
