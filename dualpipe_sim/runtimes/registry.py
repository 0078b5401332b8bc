"""The runtimes there are: one file each in ``dualpipe_sim.runtimes``, found by themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

from dualpipe_sim.base.registry import Registry
from dualpipe_sim.errors import ScheduleError, did_you_mean, quoted
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.order.text import format_rows
from dualpipe_sim.runtimes.cells import Cell, Lines
from dualpipe_sim.schedules.registry import build

IDEAL = "ideal"
"""The runtime that is none: every tensor leaves when it is made."""


class Runtime(Protocol):
    """What turns a schedule into a program: a dataclass whose fields are the runtime's options."""

    def lines(self, ranks: int) -> Lines:
        """Return what streams lone messages go on."""
        ...

    def usual(self, schedule: str, ranks: int) -> dict[str, object]:
        """Return the options of a schedule that the runtime's own defaults differ in."""
        ...

    def program(self, schedule: Schedule) -> Sequence[Sequence[Cell]]:
        """Return what each rank issues.

        Raises:
            ScheduleError: sizes or options that the runtime refuses.

        """
        ...


@dataclass(frozen=True)
class RuntimeInUse:
    """A runtime with its options.

    >>> RUNTIMES.get("torch").with_options({"version": "2.11"}).name
    'torch'

    Attributes:
        name: what users call it.
        runtime: the runtime.
        spec: its registration.

    """

    name: str
    runtime: Runtime
    spec: RuntimeSpec = dataclasses.field(repr=False, compare=False)

    def usual(self, schedule: str, ranks: int) -> dict[str, object]:
        """Return the options of a schedule that the runtime's own defaults differ in."""
        return self.runtime.usual(schedule, ranks) if schedule in self.spec.schedules else {}

    def rows(self, schedule: Schedule) -> Sequence[Sequence[Cell]]:
        """Return what each rank issues.

        Raises:
            ScheduleError: a schedule, sizes or options that the runtime refuses.

        """
        # What lowers any chain of stages also runs a program that came with an order, whatever its pipes.
        single = len(schedule.placement.pipes) == 1 or schedule.program is not None
        runs_it = self.spec.chains and single and not schedule.beyond_torch
        if schedule.name not in self.spec.schedules and not runs_it:
            known = ", ".join(self.spec.schedules)
            chains = ", and any other chain of stages without slices, S and T, copies, or pairs but of F and B"
            others = chains if self.spec.chains else ""
            raise ScheduleError(f"runtime {self.name} has no schedule {schedule.name} (it has: {known}{others})")
        return self.runtime.program(schedule)


@dataclass(frozen=True)
class RuntimeSpec:
    """A registered runtime.

    Attributes:
        name: what users call it.
        make: its dataclass.
        schedules: the schedules that it has programs of its own for.
        chains: whether it runs any other schedule of one pipe, too.

    """

    name: str
    make: Callable[..., Runtime]
    schedules: tuple[str, ...]
    chains: bool = False

    @property
    def options(self) -> Mapping[str, object]:
        """Its options and their defaults."""
        return {field.name: field.default for field in dataclasses.fields(cast("type", self.make))}

    def with_options(self, given: Mapping[str, object]) -> RuntimeInUse:
        """Return the runtime with options, of which flags may be words.

        Raises:
            ScheduleError: an unknown option, or a value that it cannot have.

        """
        options = {}
        for key, value in given.items():
            if key not in self.options:
                known = ", ".join(self.options) or "none"
                hint = did_you_mean(key, self.options)
                raise ScheduleError(f"runtime {self.name} has no option {quoted(key)}{hint} (options: {known})")
            options[key] = self._value(key, value)
        return RuntimeInUse(self.name, self.make(**options), self)

    def _value(self, key: str, value: object) -> object:
        """Return an option's value; a flag whose default follows from others may also be None."""
        if isinstance(self.options[key], str):
            return str(value)
        words = {"true": True, "false": False}
        flag = words.get(value.lower(), value) if isinstance(value, str) else value
        if not isinstance(flag, bool):
            raise ScheduleError(f"runtime {self.name}: {key} must be true or false, not {quoted(value)}")
        return flag


RUNTIMES: Registry[RuntimeSpec] = Registry("runtime", "dualpipe_sim.runtimes", "dualpipe_sim.runtimes", ScheduleError)

Made = TypeVar("Made", bound=Callable[..., Runtime])


def register(
    name: str, *, schedules: Sequence[str], chains: bool = False, replace: bool = False
) -> Callable[[Made], Made]:
    """Return a decorator that registers a runtime, a dataclass whose fields are its options.

    Args:
        name: what users call it.
        schedules: the schedules that it has programs of its own for.
        chains: whether it runs any other schedule of one pipe, too.
        replace: take the place of a runtime of this name.

    """
    RUNTIMES.need_name(name)

    def registered(make: Made) -> Made:
        RUNTIMES.add(name, make, RuntimeSpec(name, make, tuple(schedules), chains), replace=replace)
        return make

    return registered


def runtimes() -> Mapping[str, RuntimeSpec]:
    """Return all runtimes by name."""
    return RUNTIMES.all()


def runtime_program(
    schedule: str,
    ranks: int,
    micro_batches: int,
    *,
    runtime: str,
    runtime_options: Mapping[str, object] | None = None,
    **options: object,
) -> str:
    """Return the program that a runtime makes of a schedule, as text: a row a rank, a cell for each thing it issues.

    >>> print(runtime_program("gpipe", 2, 1, runtime="torch"), end="")
    0F0,0SEND_F0,WAIT(0SEND_F0),0RECV_B0,WAIT(0RECV_B0),0B0,0REDUCE_GRAD
    1RECV_F0,WAIT(1RECV_F0),1F0,1B0,1SEND_B0,WAIT(1SEND_B0),1REDUCE_GRAD

    Args:
        schedule: name of the schedule.
        ranks: pipeline ranks.
        micro_batches: micro-batches of a step.
        runtime: name of the runtime.
        runtime_options: its own options.
        options: the schedule's.

    Raises:
        ScheduleError: an unknown runtime, schedule or option, or sizes that one of them refuses.

    """
    use = RUNTIMES.get(runtime).with_options(runtime_options or {})
    order = build(schedule, ranks, micro_batches, **{**use.usual(schedule, ranks), **options})
    return format_rows(use.rows(order))
