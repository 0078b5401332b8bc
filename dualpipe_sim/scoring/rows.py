"""Measured runs, a row each (:mod:`dualpipe_sim.importers.published`): what class each is of, what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, Literal, TypeAlias

from dualpipe_sim.base.files import read_text
from dualpipe_sim.config.yaml_text import parse_yaml
from dualpipe_sim.errors import UserError, quoted
from dualpipe_sim.importers.machines import gpu_named

Class: TypeAlias = Literal["megatron-dense", "dense", "moe"]
CLASSES: tuple[Class, ...] = ("megatron-dense", "dense", "moe")
"""Kinds of runs that are scored apart; ``dense`` holds all without experts, those of Megatron's kind among them."""

MeasuredRow: TypeAlias = Mapping[str, Any]

_MEGATRON = ("megatron", "megascale", "nemo")
_GIB = 2.0**30


def read_rows(path: Path) -> list[MeasuredRow]:
    """Return the runs of a YAML file: a list, under ``runs:`` or alone, of mappings.

    Raises:
        UserError: it cannot be read, or holds no such list.

    """
    data: object = parse_yaml(read_text(path), str(path))
    runs = data.get("runs") if isinstance(data, Mapping) else data
    if not isinstance(runs, Sequence) or isinstance(runs, str) or not runs:
        raise UserError(f"{path}: runs: must be a list of runs, got {quoted(runs)}")
    for place, run in enumerate(runs):
        if not isinstance(run, Mapping):
            raise UserError(f"{path}: runs[{place}]: must be a mapping, got {quoted(run)}")
    return list(runs)


def class_of(row: MeasuredRow) -> Class:
    """Return the class of a run.

    >>> class_of({"framework": "NeMo 24.07", "parallel": {"tp": 4}, "model": {}})
    'megatron-dense'
    >>> class_of({"framework": "NeMo AutoModel", "parallel": {}, "model": {"experts": {"routed": 8}}})
    'moe'
    """
    parallel, model = row.get("parallel"), row.get("model")
    if isinstance(model, Mapping) and model.get("experts"):
        return "moe"
    framework = str(row.get("framework", "")).lower()
    cut: Mapping[str, Any] = parallel if isinstance(parallel, Mapping) else {}
    sharded = _above(cut.get("zero"), 2) or _above(cut.get("fsdp"), 1)
    megatron = framework.startswith(_MEGATRON) and "automodel" not in framework
    return "megatron-dense" if megatron and not sharded else "dense"


def _above(value: object, least: int) -> bool:
    return isinstance(value, (int, float)) and value > least


def gpu_of(row: MeasuredRow) -> str:
    """Return the GPU of a run: a preset's name, else the row's own word, empty where it says none.

    >>> gpu_of({"cluster": {"gpu": "h100-80g-sxm"}}), gpu_of({"cluster": {"gpu": "abacus"}}), gpu_of({})
    ('h100', 'abacus', '')
    """
    cluster = row.get("cluster")
    name = cluster.get("gpu") if isinstance(cluster, Mapping) else None
    try:
        return gpu_named(str(name or ""))
    except UserError:
        return str(name or "")


def counts(row: MeasuredRow) -> bool:
    """Return whether a run's error counts: not where it is said to be no fair comparison (``score: false``)."""
    return bool(row.get("score", True))


def measured_step_s(row: MeasuredRow) -> float | None:
    """Return the measured seconds of a step, or None.

    Raises:
        UserError: they are no seconds.

    """
    return _measured(row, "step_time_s")


def measured_bytes(row: MeasuredRow) -> float | None:
    """Return the measured peak of allocated bytes of the fullest GPU, or None; errors as for the step."""
    size_gib = _measured(row, "memory_alloc_gib")
    return None if size_gib is None else size_gib * _GIB


def _measured(row: MeasuredRow, key: str) -> float | None:
    found = row.get("measured")
    value = found.get(key) if isinstance(found, Mapping) else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value) or value <= 0:
        raise UserError(f"{row.get('id', 'a run')}: measured.{key}: must be a number above zero, got {quoted(value)}")
    return float(value)
