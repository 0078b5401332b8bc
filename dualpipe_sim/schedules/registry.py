"""The schedules there are: one file each in ``dualpipe_sim.schedules``, found by themselves."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from dualpipe_sim.errors import ScheduleError, did_you_mean
from dualpipe_sim.order.builder import MOST_MICRO_BATCHES, MOST_STAGES
from dualpipe_sim.order.op_times import OpTimes
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.order.schedule import Schedule

Generator = TypeVar("Generator", bound=Callable[..., Schedule])

_SIZES = ("ranks", "micro_batches")
_TIMES = {"forward": 1.0, "backward_input": 1.0, "backward_weight": 1.0, "transfer": 0.0}
"""Options of every schedule that adapts to times, with their defaults: seconds of a rank's share of the model."""
_SEARCH_RANKS = 16  # how far from the asked size to look for one that works


def _any_size(ranks: int, micro_batches: int, **_options: object) -> bool:
    return ranks > 0 and micro_batches > 0


def _no_options(limit: float) -> Mapping[str, object]:  # noqa: ARG001 - same shape for every schedule
    return {}


@dataclass(frozen=True)
class ScheduleSpec:
    """A registered schedule: its generator and what a user must know to choose it.

    Attributes:
        name: what users call it.
        generate: the function that writes the order down.
        needs: the sizes it works at, in words that follow "needs", or an empty string.
        accepts: whether it works at these sizes (and options).
        place: ``(ranks, **options) -> Placement`` of a schedule that adapts to times, else None.
        tries: values of options worth trying where the best is sought.
        within: options that keep the schedule within a limit of activations, if it has such.

    """

    name: str
    generate: Callable[..., Schedule]
    needs: str
    accepts: Callable[..., bool]
    place: Callable[..., Placement] | None = None
    tries: Mapping[str, Sequence[object]] = field(default_factory=dict)
    within: Callable[[float], Mapping[str, object]] = _no_options

    @property
    def source(self) -> str:
        """Where the schedule comes from: the first line of its docstring."""
        return (inspect.getdoc(self.generate) or "").partition("\n")[0]

    @cached_property
    def options(self) -> Mapping[str, inspect.Parameter]:
        """Options beside the sizes, by name, with their type and default."""
        parameters = inspect.signature(self.generate).parameters
        hints = get_type_hints(self.generate)
        own = {
            name: parameter.replace(annotation=hints[name])
            for name, parameter in parameters.items()
            if name not in (*_SIZES, "times")
        }
        if not self.adapts_to_times:
            return own
        keyword = inspect.Parameter.KEYWORD_ONLY
        return own | {name: inspect.Parameter(name, keyword, default=_TIMES[name], annotation=float) for name in _TIMES}

    @property
    def adapts_to_times(self) -> bool:
        """Whether the order depends on how long ops take, given as ``times`` or as uniform times by name."""
        return self.place is not None

    @property
    def time_options(self) -> frozenset[str]:
        """Options by which a schedule that adapts to times is told them."""
        return frozenset({"times", *_TIMES}) if self.adapts_to_times else frozenset()

    def placement(self, ranks: int, options: Mapping[str, object]) -> Placement:
        """Return where the stages of a schedule that adapts to times will be, so that their times can be found.

        Raises:
            ScheduleError: a schedule that does not adapt to times, or an option that it does not have.

        """
        if self.place is None:
            raise ScheduleError(f"{self.name} is the same for all times; its placement is that of the built schedule")
        self.check_options(options)
        return self.place(ranks, **_chosen(options, self.place))

    def build(self, ranks: int, micro_batches: int, options: Mapping[str, object]) -> Schedule:
        """Return the schedule at these sizes, or say why not in a ScheduleError."""
        self._check_size("ranks", ranks, MOST_STAGES)
        self._check_size("micro_batches", micro_batches, MOST_MICRO_BATCHES)
        self.check_options(options)
        sizing = _chosen(options, self.accepts)
        if not self.accepts(ranks, micro_batches, **sizing):
            raise ScheduleError(self._refusal(ranks, micro_batches, sizing))
        return replace(self.generate(ranks, micro_batches, **self._with_times(ranks, options)), name=self.name)

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

    def _with_times(self, ranks: int, options: Mapping[str, object]) -> Mapping[str, object]:
        """Return the options with uniform times by name made into ``times``."""
        uniform = {name: value for name, value in options.items() if self.adapts_to_times and name in _TIMES}
        if not uniform:
            return options
        if "times" in options:
            raise ScheduleError(f"{self.name}: give either times or {' and '.join(uniform)}, not both")
        seconds = cast("dict[str, float]", _TIMES | uniform)
        others = {name: value for name, value in options.items() if name not in uniform}
        return {**others, "times": OpTimes.uniform(self.placement(ranks, others), **seconds)}

    def _type_of(self, option: str) -> object:
        if option == "times" and self.adapts_to_times:
            return OpTimes
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


def _chosen(options: Mapping[str, object], function: Callable[..., object]) -> dict[str, Any]:
    """Return those of the options that a function takes."""
    taken = inspect.signature(function).parameters
    return {name: value for name, value in options.items() if name in taken}


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


_TYPE_NAMES: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    str: "a word",
    bool: "true or false",
    OpTimes: "an OpTimes",
}


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
    name: str,
    *,
    needs: str = "",
    accepts: Callable[..., bool] = _any_size,
    placement: Callable[..., Placement] | None = None,
    tries: Mapping[str, Sequence[object]] = MappingProxyType({}),
    within: Callable[[float], Mapping[str, object]] = _no_options,
) -> Callable[[Generator], Generator]:
    """Add a generator ``(ranks, micro_batches, **options) -> Schedule`` under a name.

    Args:
        name: what users call the schedule.
        needs: the sizes it works at, in words that complete "<name> needs …".
        accepts: ``(ranks, micro_batches) -> bool``, the same as code; it may also take options by their names.
        placement: only for a generator with a parameter ``times`` (an OpTimes, or None for unit times):
            ``(ranks, **options) -> Placement``, where it will put its stages.
        tries: values of its options worth trying where the best is sought, by name.
        within: for a schedule that can be held within a limit of activations, the options that do so.

    """

    def add(generate: Generator) -> Generator:
        _SPECS[name] = ScheduleSpec(name, generate, needs, accepts, placement, tries, within)
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
        options: the schedule's own options, for example ``stages_per_rank=2``; for one that adapts to times also
            ``times``, or uniform times by name: ``forward``, ``backward_input``, ``backward_weight``, ``transfer``.

    Raises:
        ScheduleError: an unknown name or option, or sizes that the schedule cannot do.

    """
    return spec(name).build(ranks, micro_batches, options)
