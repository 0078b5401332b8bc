"""Things by name: the package's own, those that a user's files add, and those of other packages' entry points."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from dualpipe_sim.errors import UserError, did_you_mean, quoted

Thing = TypeVar("Thing")


class Registry(Generic[Thing]):
    """Things of one kind by name, each made of a function or a class.

    Args:
        word: what one is called, such as ``schedule``.
        package: whose modules register the package's own when they are imported, or an empty string.
        group: the entry points that name modules of other packages; ``dualpipe_sim.schedules``, say.
        error: what is raised.

    """

    def __init__(self, word: str, package: str, group: str, error: type[UserError]) -> None:
        self._word = word
        self._package = package
        self._group = group
        self._error = error
        self._things: dict[str, Thing] = {}
        self._made_of: dict[str, Any] = {}
        self._broken: dict[str, str] = {}
        self._has_own = self._has_others = False

    def need_name(self, name: object) -> None:
        """Refuse a decorator that is used without a name, before it takes the place of what it decorates.

        Raises:
            UserError: the name is the function or class itself.

        """
        if callable(name):
            itself = getattr(name, "__name__", name)
            raise self._error(f'{self._word}: register needs a name, as in @register("mine"), before {itself}')

    def add(self, name: str, made_of: Any, thing: Thing, *, replace: bool) -> None:  # noqa: ANN401 - function or class
        """Add a thing; the same function or class may be registered again, as a notebook does.

        Raises:
            UserError: another one has the name.

        """
        if not made_of.__module__.startswith(f"{self._package}."):
            self._load_own()  # so that a clash with one of them is seen
        known = self._made_of.get(name)
        if known is not None and not replace and not _is_same(known, made_of):
            raise self._error(
                f"{self._word} '{name}' is there already ({_home(known)}); take another name, or replace=True"
            )
        self._things[name] = thing
        self._made_of[name] = made_of

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Forget at the end what was registered inside."""
        self.all()
        things, made_of = dict(self._things), dict(self._made_of)
        try:
            yield
        finally:
            self._things, self._made_of = things, made_of

    def get(self, name: str) -> Thing:
        """Return a thing, or say which name may be meant.

        Raises:
            UserError: there is none of this name, or its entry point does not load.

        """
        self._load_own()
        if name not in self._things:
            self._load_others()
        if name in self._things:
            return self._things[name]
        if name in self._broken:
            raise self._error(self._broken[name])
        known = ", ".join(sorted(self._things))
        raise self._error(f"unknown {self._word} {quoted(name)}{did_you_mean(name, self._things)} (known: {known})")

    def all(self) -> Mapping[str, Thing]:
        """Return all things by name, as they were registered; an entry point that does not load is a warning."""
        self._load_own()
        self._load_others()
        return dict(self._things)

    def _load_own(self) -> None:
        if not self._has_own and self._package:
            self._has_own = True
            for module in pkgutil.iter_modules(importlib.import_module(self._package).__path__):
                importlib.import_module(f"{self._package}.{module.name}")

    def _load_others(self) -> None:
        if self._has_others:
            return
        self._has_others = True
        for entry in entry_points(group=self._group):
            try:
                entry.load()
            except Exception as error:  # noqa: BLE001 - another package's fault must not be everybody's
                where = f"entry point '{entry.name} = {entry.value}' of {self._group}"
                self._broken[entry.name] = f"{where} does not load: {type(error).__name__}: {error}"
                warnings.warn(self._broken[entry.name], stacklevel=2)


def _home(made_of: Any) -> str:  # noqa: ANN401 - function or class
    return f"{made_of.__module__}.{getattr(made_of, '__qualname__', made_of)}"


def _is_same(one: Any, other: Any) -> bool:  # noqa: ANN401 - function or class
    """Whether two functions or classes are the same one, of the same module or of one file that was run twice."""
    if _home(one) == _home(other):
        return True
    file = _file(one)
    return file is not None and file == _file(other) and one.__qualname__ == other.__qualname__


def _file(made_of: Any) -> Path | None:  # noqa: ANN401 - function or class
    file = getattr(sys.modules.get(made_of.__module__), "__file__", None)
    return None if file is None else Path(file).resolve()
