"""The schedules there are: one file each in ``dualpipe_sim.schedules``, found by themselves."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal, TypeVar, get_args, get_origin, get_type_hints

from dualpipe_sim.errors import ScheduleError, did_you_mean
from dualpipe_sim.schedule import MOST_MICROBATCHES, MOST_STAGES, Schedule

Generator = TypeVar("Generator", bound=Callable[..., Schedule])

_SIZES = ("ranks", "micro_batches")
_SEARCH_RANKS = 16  # how far from the asked size to look for one that works


def _any_size(ranks: int, micro_batches: int) -> bool:
    return ranks > 0 and micro_batches > 0


@dataclass(frozen=True)
class ScheduleSpec:
    """A registered schedule: its generator and what a user must know to choose it.

    Attributes:
        name: what users call it.
        generate: the function that writes the order down.
        needs: the sizes it works at, in words that follow "needs", or an empty string.
        accepts: whether it works at these sizes (and options).

    """

    name: str
    generate: Callable[..., Schedule]
    needs: str
    accepts: Callable[..., bool]

    @property
    def source(self) -> str:
        """Where the schedule comes from: the first line of its docstring."""
        return (inspect.getdoc(self.generate) or "").partition("\n")[0]

    @cached_property
    def options(self) -> Mapping[str, inspect.Parameter]:
        """Options beside the sizes, by name, with their type and default."""
        parameters = inspect.signature(self.generate).parameters
        hints = get_type_hints(self.generate)
        return {
            name: parameter.replace(annotation=hints[name])
            for name, parameter in parameters.items()
            if name not in (*_SIZES, "times")
        }

    @cached_property
    def adapts_to_times(self) -> bool:
        """Whether the order depends on how long ops take (a parameter ``times``)."""
        return "times" in inspect.signature(self.generate).parameters

    def build(self, ranks: int, micro_batches: int, options: Mapping[str, object]) -> Schedule:
        """Return the schedule at these sizes, or say why not in a ScheduleError."""
        self._check_size("ranks", ranks, MOST_STAGES)
        self._check_size("micro_batches", micro_batches, MOST_MICROBATCHES)
        self.check_options(options)
        sizing = {name: value for name, value in options.items() if name in inspect.signature(self.accepts).parameters}
        if not self.accepts(ranks, micro_batches, **sizing):
            raise ScheduleError(self._refusal(ranks, micro_batches, sizing))
        return replace(self.generate(ranks, micro_batches, **options), name=self.name)

    def check_options(self, options: Mapping[str, object]) -> None:
        """Raise a ScheduleError for an option that the schedule does not have, or a value of the wrong type."""
        for option, value in options.items():
            self._check_option(option, value)

    def parse_option(self, option: str, text: str) -> object:
        """Read an option's value from text, by the option's type."""
        expected = self._type_of(option)
        choices = [choice for choice in _choices(expected) if choice is not type(None)]
        for choice in choices:
            if isinstance(choice, type):
                try:
                    return _read(choice, text)
                except ValueError:
                    continue
            elif text == choice:
                return text
        raise ScheduleError(f"{self.name}: option {option} must be {_describe(expected)}, got {text!r}")

    def _type_of(self, option: str) -> object:
        if option == "times" and self.adapts_to_times:
            return object
        if option not in self.options:
            known = ", ".join(self.options) or "none"
            raise ScheduleError(
                f"{self.name}: unknown option '{option}'{did_you_mean(option, self.options)} (its options: {known})"
            )
        return self.options[option].annotation

    def _check_size(self, what: str, size: object, most: int) -> None:
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size < most:
            raise ScheduleError(f"{self.name}: {what} must be a whole number from 1 to {most - 1}, got {size!r}")

    def _check_option(self, option: str, value: object) -> None:
        expected = self._type_of(option)
        if not any(_fits(value, choice) for choice in _choices(expected)):
            raise ScheduleError(f"{self.name}: option {option} must be {_describe(expected)}, got {value!r}")

    def _refusal(self, ranks: int, micro_batches: int, sizing: Mapping[str, object]) -> str:
        near = list(self._nearest(ranks, micro_batches, sizing))
        way_out = f"; the nearest that work: {' or '.join(near)}" if near else ""
        return f"{self.name} needs {self.needs}; got {ranks} ranks and {micro_batches} micro-batches{way_out}"

    def _nearest(self, ranks: int, micro_batches: int, sizing: Mapping[str, object]) -> Iterator[str]:
        reach = 4 * ranks + micro_batches
        for near_ranks in sorted(
            range(max(1, ranks - _SEARCH_RANKS), ranks + _SEARCH_RANKS), key=lambda p: abs(p - ranks)
        ):
            below = (m for m in range(micro_batches, 0, -1) if self.accepts(near_ranks, m, **sizing))
            above = (m for m in range(micro_batches, reach) if self.accepts(near_ranks, m, **sizing))
            found = sorted({m for m in (next(below, None), next(above, None)) if m is not None})
            if found:
                at = "" if near_ranks == ranks else f"{near_ranks} ranks and "
                yield from (f"{at}{m} micro-batches" for m in found)
                return


def _choices(expected: object) -> list[object]:
    if get_origin(expected) is Literal:
        return list(get_args(expected))
    if get_args(expected):
        return [choice for part in get_args(expected) for choice in _choices(part)]
    return [expected]


def _fits(value: object, choice: object) -> bool:
    if not isinstance(choice, type):
        return bool(value == choice)
    if isinstance(value, bool):
        return choice in (bool, object)
    return isinstance(value, (int, float) if choice is float else choice)


_TYPE_NAMES: dict[object, str] = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}


def _describe(expected: object) -> str:
    choices = [choice for choice in _choices(expected) if choice is not type(None)]
    return " or ".join(_TYPE_NAMES.get(choice, f"'{choice}'") for choice in choices)


def _read(expected: type, text: str) -> object:
    if expected is bool:
        return {"true": True, "false": False}[text] if text in ("true", "false") else _refuse(text)
    return expected(text)


def _refuse(text: str) -> object:
    raise ValueError(text)


_SPECS: dict[str, ScheduleSpec] = {}


def register(
    name: str, *, needs: str = "", accepts: Callable[..., bool] = _any_size
) -> Callable[[Generator], Generator]:
    """Add a generator ``(ranks, micro_batches, **options) -> Schedule`` under a name.

    Args:
        name: what users call the schedule.
        needs: the sizes it works at, in words that complete "<name> needs …".
        accepts: ``(ranks, micro_batches) -> bool``, the same as code; it may also take options by their names.

    """

    def add(generate: Generator) -> Generator:
        _SPECS[name] = ScheduleSpec(name, generate, needs, accepts)
        return generate

    return add


@lru_cache(maxsize=1)
def _load_schedules() -> None:
    package = importlib.import_module("dualpipe_sim.schedules")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def schedules() -> Mapping[str, ScheduleSpec]:
    """Return all registered schedules by name, in alphabetical order."""
    _load_schedules()
    return dict(sorted(_SPECS.items()))


def spec(name: str) -> ScheduleSpec:
    """Return a registered schedule, or say which name may be meant."""
    _load_schedules()
    if name not in _SPECS:
        raise ScheduleError(
            f"unknown schedule '{name}'{did_you_mean(name, _SPECS)} (known: {', '.join(sorted(_SPECS))})"
        )
    return _SPECS[name]


def build(name: str, ranks: int, micro_batches: int, **options: object) -> Schedule:
    """Return the named schedule at these sizes.

    Args:
        name: a registered schedule, for example ``"dualpipe"``.
        ranks: pipeline ranks.
        micro_batches: micro-batches of a step, all pipes together.
        options: the schedule's own options, for example ``stages_per_rank=2``.

    Raises:
        ScheduleError: an unknown name or option, or sizes that the schedule cannot do.

    """
    return spec(name).build(ranks, micro_batches, options)
