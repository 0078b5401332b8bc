"""The cost models there are, by the kind that a configuration names: ``costs: {kind: uniform, …}``."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from dualpipe_sim.errors import UserError, did_you_mean

CostModel = TypeVar("CostModel", bound=type[Any])

_PACKAGE = "dualpipe_sim.costs"
_KINDS: dict[str, type[Any]] = {}


def register(kind: str, *, replace: bool = False) -> Callable[[CostModel], CostModel]:
    """Add a cost model, a class with ``on(placement)``, under a kind.

    A configuration makes one where it is a dataclass. Its fields are the keys, without the unit that a name ends with:
    ``forward_s: float`` is read from ``costs: {kind: mine, forward: 2 ms}``. A field that holds a ``Job`` or a ``Gpu``
    gets what the sections ``model:``, ``training:`` and ``gpu:`` say.

    Args:
        kind: what configurations call it.
        replace: whether it may take the place of another one.

    Raises:
        UserError: no class with ``on``, no kind, or one that is taken.

    """

    def add(model: CostModel) -> CostModel:
        _check(kind, model)
        if not model.__module__.startswith(f"{_PACKAGE}."):
            _load_own()  # so that a clash with one of them is seen
        known = _KINDS.get(kind)
        if known is not None and not replace and _name(known) != _name(model):
            raise UserError(
                f"costs of kind '{kind}' are there already ({_name(known)}); take another word, or replace=True"
            )
        _KINDS[kind] = model
        return model

    return add


def cost_models() -> Mapping[str, type[Any]]:
    """Return all registered cost models by kind, in alphabetical order."""
    _load_own()
    return dict(sorted(_KINDS.items()))


def cost_model(kind: str) -> type[Any]:
    """Return a registered cost model, or say which kind may be meant.

    Raises:
        UserError: there is no such kind.

    """
    _load_own()
    if kind not in _KINDS:
        known = ", ".join(sorted(_KINDS))
        raise UserError(f"unknown kind of costs '{kind}'{did_you_mean(kind, _KINDS)} (known: {known})")
    return _KINDS[kind]


@lru_cache(maxsize=1)
def _load_own() -> None:
    for module in pkgutil.iter_modules(importlib.import_module(_PACKAGE).__path__):
        importlib.import_module(f"{_PACKAGE}.{module.name}")


def _check(kind: object, model: object) -> None:
    """Refuse what annotations would, for callers that nobody checks."""
    if not isinstance(model, type) or not callable(getattr(model, "on", None)):
        raise UserError(f"costs {kind!r}: a cost model is a class with a method on(placement), not {model!r}")
    if not isinstance(kind, str) or not kind.strip():
        raise UserError(f"{model.__qualname__}: a kind of costs is a word, not {kind!r}")


def _name(model: type[Any]) -> str:
    return f"{model.__module__}.{model.__qualname__}"
