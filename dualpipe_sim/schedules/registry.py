"""The schedules there are: one file each in ``dualpipe_sim.schedules``, found by themselves."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import MappingProxyType
from typing import TypeVar, cast

from dualpipe_sim.base.plain_data import plain_data
from dualpipe_sim.base.plugins import in_code_of
from dualpipe_sim.base.registry import Registry
from dualpipe_sim.base.show import brief
from dualpipe_sim.base.units import number_of
from dualpipe_sim.errors import ScheduleError, did_you_mean, quoted
from dualpipe_sim.order.builder import MOST_MICRO_BATCHES, MOST_STAGES
from dualpipe_sim.order.op_times import OpTimes
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.options import MOST, describe, fitted, is_in_range, options_of, parse, taken_by
from dualpipe_sim.schedules.size import Size, unknown

Generator = TypeVar("Generator", bound=Callable[..., Schedule])

_SIZES = ("ranks", "micro_batches")
_TIMES = {"forward": 1.0, "backward_input": 1.0, "backward_weight": 1.0, "transfer": 0.0}
"""Options of every schedule that adapts to times, with their defaults: seconds of a rank's share of the model."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SEARCH_RANKS = 16  # how far from the asked size to look for one that works
_SEARCHED = 10_000  # micro-batches, or values of an option, likewise


def _any_size(ranks: int, micro_batches: int, **_options: object) -> bool:
    return ranks > 0 and micro_batches > 0


def _no_options(limit: float) -> Mapping[str, object]:  # noqa: ARG001 - same shape for every schedule
    return {}


@dataclass(frozen=True)
class ScheduleSpec:
    """A registered schedule: its generator and what a user must know to choose it.

    >>> one = spec("interleaved-1f1b")
    >>> one.adapts_to_times, list(one.options)
    (False, ['stages_per_rank', 'group'])

    Attributes:
        name: what users call it.
        generate: the function that writes the order down.
        requires: the sizes it works at, in words that follow "needs", or an empty string.
        accepts: whether it works at these sizes and options, or in words what is wrong with an option.
        place: ``(ranks, **options) -> Placement`` of a schedule that adapts to times, else None.
        tries: values of options worth trying where the best is sought.
        within: options that keep the schedule within a limit of activations, if it has such.
        cuts_vocabulary: of a schedule that adapts to times, whether ranks share the output layer out.
        size_of: how large its orders are, ``(ranks, micro_batches, **options) -> Size``.

    """

    name: str
    generate: Callable[..., Schedule]
    requires: str
    accepts: Callable[..., bool | str]
    place: Callable[..., Placement] | None = None
    tries: Mapping[str, Sequence[object]] = field(default_factory=dict)
    within: Callable[[float], Mapping[str, object]] = _no_options
    cuts_vocabulary: bool = False
    size_of: Callable[..., Size] = unknown

    __repr__ = brief

    @property
    def source(self) -> str:
        """Where the schedule comes from: the first line of its docstring."""
        return (inspect.getdoc(self.generate) or "").partition("\n")[0]

    @cached_property
    def options(self) -> Mapping[str, inspect.Parameter]:
        """Options beside the sizes, by name, with their type and default."""
        own = options_of(self.name, self.generate, (*_SIZES, "times"))
        if not self.adapts_to_times:
            return own
        keyword = inspect.Parameter.KEYWORD_ONLY
        return own | {name: inspect.Parameter(name, keyword, default=_TIMES[name], annotation=float) for name in _TIMES}

    @property
    def adapts_to_times(self) -> bool:
        """Whether the order depends on how long ops take, given as ``times`` or as uniform times by name."""
        return self.place is not None

    @property
    def is_own(self) -> bool:
        """Whether it is one of the package's own."""
        return self.generate.__module__.startswith(f"{_PACKAGE}.")

    def to_dict(self) -> dict[str, object]:
        """Return what a user must know to choose it, ready for JSON."""
        options = [
            {
                "name": name,
                "type": describe(one.annotation),
                "default": None if one.default is one.empty else plain_data(one.default),
                "required": one.default is one.empty,
            }
            for name, one in self.options.items()
        ]
        return {"name": self.name, "source": self.source, "needs": self.requires, "options": options}

    def placement(self, ranks: int, options: Mapping[str, object]) -> Placement:
        """Return where the stages of a schedule that adapts to times will be, so that their times can be found.

        Raises:
            ScheduleError: a schedule that does not adapt to times, or an option that it does not have.

        """
        if self.place is None:
            raise ScheduleError(f"{self.name} is the same for all times; its placement is that of the built schedule")
        fitting = taken_by(self.place, self.check_options(options))
        with in_code_of(self.place, f"{self.name}: its placement", ScheduleError):
            return self.place(ranks, **fitting)

    def size(self, ranks: int, micro_batches: int, options: Mapping[str, object]) -> Size:
        """Return how large an order is, without writing it down.

        Raises:
            ScheduleError: an option that the schedule does not have, or a value of another type.

        """
        usual = {name: one.default for name, one in self.options.items() if one.default is not one.empty}
        chosen = {**usual, **self.check_options(options)}
        if self.size_of is not unknown:
            chosen = taken_by(self.size_of, chosen)
        with in_code_of(self.size_of, f"{self.name}: its size", ScheduleError):
            return self.size_of(ranks, micro_batches, **chosen)

    def build(
        self,
        ranks: int,
        micro_batches: int,
        options: Mapping[str, object],
        times_on: Callable[[Placement], OpTimes] | None = None,
    ) -> Schedule:
        """Return the schedule at these sizes.

        Args:
            ranks: pipeline ranks.
            micro_batches: micro-batches of a step, all pipes together.
            options: the schedule's own options.
            times_on: gives the times of a placement's stages to a schedule that adapts to times, where no option does.

        Raises:
            ScheduleError: sizes or options that it cannot do, or a generator that returns something else.
            TooLargeError: there is no memory for such an order.

        """
        self._check_size("ranks", ranks, MOST_STAGES)
        self._check_size("micro_batches", micro_batches, MOST_MICRO_BATCHES)
        self.size(ranks, micro_batches, options).check(self.name, micro_batches)
        fitting = self.check_options(options)
        missing = [name for name, one in self.options.items() if one.default is one.empty and name not in fitting]
        if missing:
            raise ScheduleError(f"{self.name}: option {missing[0]} is missing; it has no default")
        sizing = taken_by(self.accepts, fitting)
        with in_code_of(self.accepts, f"{self.name}: its accepts", ScheduleError):
            answer = self.accepts(ranks, micro_batches, **sizing)
            if not _yes(answer):
                raise ScheduleError(self._refusal(ranks, micro_batches, sizing, answer))
        arguments = self._with_times(ranks, fitting, times_on)
        with in_code_of(self.generate, f"{self.name}: its generator", ScheduleError):
            generated = self.generate(ranks, micro_batches, **arguments)
        return dataclasses.replace(self._checked(generated, ranks, micro_batches), name=self.name)

    def check_options(self, options: Mapping[str, object]) -> dict[str, object]:
        """Return the options as the generator takes them.

        Raises:
            ScheduleError: an option that the schedule does not have, one that is missing, or a value of another type.

        """
        return {option: self._fitted(option, value) for option, value in options.items()}

    def parse_option(self, option: str, text: str) -> object:
        """Read an option's value from text, by the option's type."""
        expected = self._type_of(option)
        try:
            return parse(expected, text)
        except ValueError:
            raise ScheduleError(self._wrong(option, text)) from None

    def _with_times(
        self, ranks: int, options: Mapping[str, object], times_on: Callable[[Placement], OpTimes] | None
    ) -> Mapping[str, object]:
        """Return the options with uniform times by name, or those of ``times_on``, made into ``times``."""
        if not self.adapts_to_times:
            return options
        uniform = {name: value for name, value in options.items() if name in _TIMES}
        if uniform and "times" in options:
            raise ScheduleError(f"{self.name}: give either times or {' and '.join(uniform)}, not both")
        others = {name: value for name, value in options.items() if name not in uniform}
        if "times" in options or not (uniform or times_on):
            return options
        where = self.placement(ranks, others)
        if times_on is not None and not uniform:
            return {**others, "times": times_on(where)}
        return {**others, "times": OpTimes.uniform(where, **cast("dict[str, float]", _TIMES | uniform))}

    def _checked(self, generated: object, ranks: int, micro_batches: int) -> Schedule:
        """Refuse what is no schedule, or one of another size."""
        if not isinstance(generated, Schedule):
            hint = "; an order in text becomes one by parse_order" if isinstance(generated, str) else ""
            raise ScheduleError(f"{self.name}: its generator must return a Schedule, got {quoted(generated)}{hint}")
        whole = generated.micro_batches * generated.micro_batch_share
        if (generated.ranks, whole) != (ranks, micro_batches):
            raise ScheduleError(
                f"{self.name}: its generator was asked for {_asked(ranks, micro_batches)}, "
                f"but returned a Schedule of {generated.ranks} and {whole:g}"
            )
        return generated

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
            raise ScheduleError(f"{self.name}: {what} must be a whole number from 1 to {most - 1}, got {quoted(size)}")

    def _fitted(self, option: str, value: object) -> object:
        try:
            return fitted(self._type_of(option), value)
        except ValueError:
            raise ScheduleError(self._wrong(option, value)) from None

    def _wrong(self, option: str, value: object) -> str:
        beyond = isinstance(value, (int, float)) and not is_in_range(value)
        most = f", no larger than {MOST:g}" if beyond else ""
        return f"{self.name}: option {option} must be {describe(self._type_of(option))}{most}, got {quoted(value)}"

    def _refusal(self, ranks: int, micro_batches: int, sizing: Mapping[str, object], answer: object) -> str:
        """Say what is wrong, of an option where one is, and which values or sizes work."""
        if isinstance(answer, str):
            near, said = list(self._nearest_options(ranks, micro_batches, sizing)), f"{self.name}: {answer}"
        else:
            near = list(self._nearest(ranks, micro_batches, sizing))
            said = f"{self.name} needs {self.requires}; got {_asked(ranks, micro_batches)}"
        if not near:
            return said
        if near == [f"no {option}" for option in sizing]:
            return f"{said}; leave it out"
        return f"{said}; the nearest that work{'s' if len(near) == 1 else ''}: {' or '.join(near)}"

    def _nearest_options(self, ranks: int, micro_batches: int, sizing: Mapping[str, object]) -> Iterator[str]:
        """Yield the nearest values of options with which these sizes work, and which option to leave out."""
        for option, value in sizing.items():
            others = {name: one for name, one in sizing.items() if name != option}
            works = partial(self._works, ranks, micro_batches, others, option)
            if isinstance(value, int):
                down = range(value - 1, max(0, value - _SEARCHED), -1)
                up = range(value + 1, value + min(micro_batches + ranks, _SEARCHED))
                below, above = (next(filter(works, near), None) for near in (down, up))
                yield from (f"{option} {near}" for near in (below, above) if near is not None)
            if _yes(self.accepts(ranks, micro_batches, **others)):
                yield f"no {option}"

    def _works(self, ranks: int, micro_batches: int, others: Mapping[str, object], option: str, value: int) -> bool:
        return _yes(self.accepts(ranks, micro_batches, **others, **{option: value}))

    def _nearest(self, ranks: int, micro_batches: int, sizing: Mapping[str, object]) -> Iterator[str]:
        reach = micro_batches + min(4 * ranks, _SEARCHED)
        for near_ranks in sorted(
            range(max(1, ranks - _SEARCH_RANKS), ranks + _SEARCH_RANKS), key=lambda p: abs(p - ranks)
        ):
            lowest = max(0, micro_batches - _SEARCHED)
            below = (m for m in range(micro_batches, lowest, -1) if _yes(self.accepts(near_ranks, m, **sizing)))
            above = (m for m in range(micro_batches, reach) if _yes(self.accepts(near_ranks, m, **sizing)))
            found = sorted({m for m in (next(below, None), next(above, None)) if m is not None})
            if found:
                at = "" if near_ranks == ranks else f"{number_of(near_ranks, 'rank')} and "
                yield from (f"{at}{number_of(m, 'micro-batch')}" for m in found)
                return


def _yes(answer: bool | str) -> bool:
    return bool(answer) and not isinstance(answer, str)


def _asked(ranks: int, micro_batches: int) -> str:
    return f"{number_of(ranks, 'rank')} and {number_of(micro_batches, 'micro-batch')}"


_PACKAGE = "dualpipe_sim.schedules"
SCHEDULES: Registry[ScheduleSpec] = Registry("schedule", _PACKAGE, _PACKAGE, ScheduleError)


def register(  # noqa: PLR0913 - each is one thing to say of a schedule
    name: str,
    *,
    requires: str = "",
    accepts: Callable[..., bool | str] = _any_size,
    placement: Callable[..., Placement] | None = None,
    tries: Mapping[str, Sequence[object]] = MappingProxyType({}),
    within: Callable[[float], Mapping[str, object]] = _no_options,
    cuts_vocabulary: bool = False,
    size: Callable[..., Size] = unknown,
    replace: bool = False,
) -> Callable[[Generator], Generator]:
    """Add a generator ``(ranks, micro_batches, **options) -> Schedule`` under a name.

    >>> @register("forwards-first", requires="one rank", accepts=lambda ranks, micro_batches: ranks == 1)
    ... def forwards_first(ranks: int, micro_batches: int) -> Schedule:
    ...     return build("gpipe", ranks, micro_batches)
    >>> build("forwards-first", ranks=1, micro_batches=2).name
    'forwards-first'

    Args:
        name: what users call the schedule.
        requires: the sizes it works at, in words that complete "<name> needs …".
        accepts: ``(ranks, micro_batches) -> bool``, the same as code; it may also take options by their names, and
            answer in words what is wrong with one.
        placement: only for a generator with a parameter ``times`` (an OpTimes, or None for unit times):
            ``(ranks, **options) -> Placement``, where it will put its stages.
        tries: values of its options worth trying where the best is sought, by name.
        within: for a schedule that can be held within a limit of activations, the options that do so.
        cuts_vocabulary: of one that adapts to times, whether its ranks share the output layer out (S and T), so that no
            stage takes time for it.
        size: ``(ranks, micro_batches) -> Size``, which may also take options by their names: how many ops it writes
            down, asked before it does. Without it whole numbers among the options are taken to multiply stages.
        replace: whether it may take the place of another one; the same function may always be registered again.

    Raises:
        ScheduleError: no such function, no name, or one that is taken; an option without a type.

    """
    SCHEDULES.need_name(name)
    replaces = replace

    def add(generate: Generator) -> Generator:
        _check_registration(name, generate, adapts=placement is not None)
        made = ScheduleSpec(name, generate, requires, accepts, placement, tries, within, cuts_vocabulary, size)
        _ = made.options  # read once, and refused here
        SCHEDULES.add(name, generate, made, replace=replaces)
        return generate

    return add


def _check_registration(name: object, generate: object, *, adapts: bool) -> None:
    """Refuse what could only fail later, at first use."""
    if not callable(generate) or isinstance(generate, type):
        raise ScheduleError(
            f"schedule {name!r}: must be a function (ranks, micro_batches, …) -> Schedule, not {generate!r}"
        )
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ScheduleError(
            f"schedule {name!r}: a name is one word of letters, digits, '-', '_' and '.', such as 'eager-1f1b'"
        )
    parameters = inspect.signature(generate).parameters
    missing = [size for size in _SIZES if size not in parameters]
    if missing:
        raise ScheduleError(
            f"schedule '{name}': its function must take {' and '.join(_SIZES)}; {missing[0]} is missing"
        )
    if adapts != ("times" in parameters):
        raise ScheduleError(
            f"schedule '{name}': placement= and a parameter times go together: a schedule that adapts to times says "
            "where its stages will be, so that their times can be found"
        )


def schedules() -> Mapping[str, ScheduleSpec]:
    """Return all registered schedules by name, in alphabetical order.

    >>> "dualpipe" in schedules()
    True
    """
    return dict(sorted(SCHEDULES.all().items()))


def spec(name: str) -> ScheduleSpec:
    """Return a registered schedule, or say which name may be meant.

    >>> spec("dualpipe").requires
    'an even number of ranks and an even number of micro-batches, at least 2 × ranks'
    """
    return SCHEDULES.get(name)


def build(name: str, ranks: int, micro_batches: int, **options: object) -> Schedule:
    """Return the named schedule at these sizes.

    >>> schedule = build("interleaved-1f1b", ranks=4, micro_batches=8, stages_per_rank=2)
    >>> schedule.placement.stages, [str(task) for task in schedule.order[3][:3]]
    (8, ['3F0', '3F1', '3F2'])

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
