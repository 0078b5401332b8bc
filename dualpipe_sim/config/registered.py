"""Costs of a kind that a user registered: the fields of its class are the keys.

Fields that hold a ``Job`` or a ``Gpu`` are no keys: they get what ``model:``, ``training:`` and ``gpu:`` say. Nor is
one that holds a ``Cluster``: an experiment tells costs its cluster by their ``on_cluster``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin

from dualpipe_sim.base.records import FieldError, key_of
from dualpipe_sim.config.cost_section import Registered
from dualpipe_sim.config.job import SECTIONS, gpu_of, job_of, refuse_unread
from dualpipe_sim.config.records import Record, read_values, section_of, types_of
from dualpipe_sim.config.schema import Root
from dualpipe_sim.costs.phases import Costs
from dualpipe_sim.costs.registry import cost_model
from dualpipe_sim.errors import UserError
from dualpipe_sim.hardware.cluster import Cluster
from dualpipe_sim.hardware.gpu import Gpu
from dualpipe_sim.model.job import Job

_BUILT = {Job: job_of, Gpu: gpu_of}


def registered_costs(root: Root, section: Registered) -> Costs:
    """Return costs of a registered kind.

    Raises:
        UserError: keys or values that do not fit the class, or what the class itself refuses.

    """
    model = cost_model(section.kind)
    try:
        keys = section_of_costs(model)
    except UserError as error:
        raise UserError(f"costs: {error}") from error
    told = _told(model)
    refuse_unread(root, set(told.values()))
    values = read_values(keys, _by_key(model, section.model_extra or {}), "costs")
    for field in fields(model):
        cls = told.get(field.name)
        if cls in _BUILT and (_is_required(field) or any(getattr(root, key) is not None for key in SECTIONS[cls])):
            values[field.name] = _BUILT[cls](root)
    return _make(model, values)


def section_of_costs(model: type) -> type[Record]:
    """Return the section whose keys are the fields of a registered cost model.

    Raises:
        UserError: a class whose fields are not known, or cannot be written in a configuration.

    """
    if not is_dataclass(model):
        raise UserError(f"{model.__qualname__} is no dataclass, so its keys are not known; make it one")
    told = _told(model)
    for field in fields(model):
        if told.get(field.name) is Cluster and _is_required(field):
            raise UserError(
                f"{model.__qualname__}.{field.name} needs a default, such as None; a method on_cluster(cluster) is "
                "told the experiment's cluster"
            )
    return section_of(model, without=frozenset(told))


def _told(model: type) -> dict[str, type]:
    """Return the fields that hold a job, a GPU or a cluster, or None, and which of them."""
    holds = {name: _choices(hint) for name, hint in types_of(model).items()}
    return {name: cls for name, choices in holds.items() for cls in (Job, Gpu, Cluster) if cls in choices}


def _choices(hint: object) -> tuple[object, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _is_required(field: Field[Any]) -> bool:
    return field.init and field.default is MISSING and field.default_factory is MISSING


def _by_key(model: Any, given: Mapping[str, object]) -> dict[str, object]:  # noqa: ANN401 - some dataclass
    """Return what is given by the keys, where it may be by the fields' own names, which say the unit too."""
    keys = {field.name: key_of(field.name) for field in fields(model)}
    by_key: dict[str, object] = {}
    for name, value in given.items():
        key = keys.get(name, name)
        if key in by_key:
            raise UserError(f"costs.{name}: is given twice, with the unit in the key and without; leave one out")
        by_key[key] = value
    return by_key


def _make(model: type, values: Mapping[str, object]) -> Costs:
    try:
        return cast("Costs", model(**values))
    except FieldError as error:
        raise UserError(f"costs.{error.key}: {error.what}") from error
    except ValueError as error:
        raise UserError(f"costs: {error}") from error
    except Exception as error:
        raise UserError(f"costs: {model.__qualname__} raised {type(error).__name__}: {error}") from error
