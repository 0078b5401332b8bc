"""The cost models there are, by the kind that a configuration names: ``costs: {kind: uniform, …}``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from dualpipe_sim.base.registry import Registry
from dualpipe_sim.errors import UserError

CostModel = TypeVar("CostModel", bound=type[Any])

KINDS: Registry[type[Any]] = Registry("kind of costs", "dualpipe_sim.costs", "dualpipe_sim.costs", UserError)


def register(kind: str, *, replace: bool = False) -> Callable[[CostModel], CostModel]:
    """Add a cost model, a class with ``on(placement)``, under a kind.

    A configuration makes one where it is a dataclass. Its fields are the keys, without the unit that a name ends with:
    ``forward_s: float`` is read from ``costs: {kind: mine, forward: 2 ms}``. A field that holds a ``Job`` or a ``Gpu``
    gets what the sections ``model:``, ``training:`` and ``gpu:`` say.

    >>> from dataclasses import dataclass
    >>> from dualpipe_sim import simulate
    >>> from dualpipe_sim.costs import UniformCosts
    >>> @register("square")
    ... @dataclass(frozen=True)
    ... class Square:
    ...     side_s: float
    ...     def on(self, placement):
    ...         return UniformCosts(self.side_s, self.side_s, self.side_s).on(placement)
    >>> simulate(schedule="1f1b", ranks=2, micro_batches=2, costs={"kind": "square", "side": "2 s"}).makespan_s
    18.0

    Args:
        kind: what configurations call it.
        replace: whether it may take the place of another one.

    Raises:
        UserError: no class with ``on``, no kind, or one that is taken.

    """
    KINDS.need_name(kind)

    def add(model: CostModel) -> CostModel:
        _check(kind, model)
        KINDS.add(kind, model, model, replace=replace)
        return model

    return add


def cost_models() -> Mapping[str, type[Any]]:
    """Return all registered cost models by kind, in alphabetical order.

    >>> list(cost_models())
    ['layers', 'measured', 'profile', 'uniform']
    """
    return dict(sorted(KINDS.all().items()))


def cost_model(kind: str) -> type[Any]:
    """Return a registered cost model, or say which kind may be meant.

    >>> cost_model("uniform").__name__
    'UniformCosts'

    Raises:
        UserError: there is no such kind.

    """
    return KINDS.get(kind)


def _check(kind: object, model: object) -> None:
    """Refuse what annotations would, for callers that nobody checks."""
    if not isinstance(model, type) or not callable(getattr(model, "on", None)):
        raise UserError(f"costs {kind!r}: a cost model is a class with a method on(placement), not {model!r}")
    if not isinstance(kind, str) or not kind.strip():
        raise UserError(f"{model.__qualname__}: a kind of costs is a word, not {kind!r}")
