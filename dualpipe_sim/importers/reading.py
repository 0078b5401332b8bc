"""Which importer a file is for: told by its name, and by what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dualpipe_sim.base.files import read_text
from dualpipe_sim.base.json_text import parse_settings
from dualpipe_sim.config.yaml_text import parse_yaml
from dualpipe_sim.errors import ConfigError, UserError
from dualpipe_sim.importers import megatron, published, simumax, torchtitan
from dualpipe_sim.importers.imported import Imported
from dualpipe_sim.importers.machines import gpu_named
from dualpipe_sim.model.huggingface import read_model


def read(
    path: Path, *, gpu: str | None = None, gpus: int | None = None, settings: Mapping[str, str] | None = None
) -> Imported:
    """Return what a file, or a folder of them, says as a configuration.

    A model's ``config.json`` of Hugging Face's transformers; Megatron-LM's arguments in a script or in YAML; a job of
    torchtitan; SimuMax's files; one published run.

    Args:
        path: the file or folder.
        gpu: the GPU's name, if the file does not say it or is to be on another.
        gpus: all GPUs, likewise.
        settings: of Megatron-LM's arguments alone: a script's variables, or flags, by name.

    Raises:
        UserError: it is of no format that is known, or says what its importer does not know.

    """
    own = None if gpu is None else gpu_named(gpu)
    text = "" if path.is_dir() else read_text(path)
    data = _as_yaml(path, text)
    if isinstance(data, Mapping) and "MODEL_ARGS" in data:
        return megatron.of_mapping(data, str(path), gpu=gpu, gpus=gpus, settings=settings)
    if not isinstance(data, Mapping) and path.suffix != ".toml" and ("--num-layers" in text or "--hidden-size" in text):
        return megatron.of_text(text, str(path), gpu=gpu, gpus=gpus, settings=settings)
    if settings:
        raise UserError(f"{path}: --set: is for Megatron-LM's arguments, and there are none")
    if path.is_dir():
        return _model(path) if (path / "config.json").is_file() else simumax.read(path, gpus=gpus, gpu=own)
    if path.suffix == ".toml":
        return torchtitan.read(path, gpus=gpus, gpu=own)
    if text.lstrip().startswith("{"):
        return _of_json(path, text, own, gpus)
    if isinstance(data, Mapping) and published.is_row(data):
        return published.of_row(data, str(path), gpu=gpu, gpus=gpus)
    raise UserError(
        f"{path}: is nothing known: a config.json, Megatron-LM's arguments (as text, or MODEL_ARGS in YAML), "
        "torchtitan's TOML, SimuMax's JSON, or one published run"
    )


def _model(path: Path) -> Imported:
    return Imported({"model": read_model(path)})


def _of_json(path: Path, text: str, gpu: str | None, gpus: int | None) -> Imported:
    values = parse_settings(text, str(path))
    keys = set(values) if isinstance(values, Mapping) else set()
    if keys & {"head_num", "tp_size", "accelerator"}:
        return simumax.read(path, gpus=gpus, gpu=gpu)
    sections = {"training", "parallelism", "model_spec"}
    if keys & sections and all(isinstance(values[key], Mapping) for key in keys & sections):
        return torchtitan.read(path, gpus=gpus, gpu=gpu)
    return _model(path)


def _as_yaml(path: Path, text: str) -> object:
    """Return what YAML says, of a list of runs or recipes its one; None for what is none."""
    if path.suffix == ".toml" or text.lstrip().startswith("{"):
        return None
    try:
        data: object = parse_yaml(text, str(path))
    except ConfigError:
        if path.suffix in (".yaml", ".yml"):
            raise
        return None  # a script, say
    for key in ("recipes", "runs"):
        many = data.get(key) if isinstance(data, Mapping) else None
        if isinstance(many, list):
            if len(many) != 1 or not isinstance(many[0], Mapping):
                raise UserError(
                    f"{path}: {key}: has {len(many)}, and one is imported at a time; put it in a file alone"
                )
            return many[0]
    return data
