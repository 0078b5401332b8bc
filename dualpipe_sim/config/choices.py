"""The schedules that a configuration names, and the orders that it takes from files."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

from dualpipe_sim.config.schema import Root
from dualpipe_sim.config.values import ScheduleSection
from dualpipe_sim.errors import ScheduleError, UserError
from dualpipe_sim.experiment import Choice
from dualpipe_sim.files import read_text
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.runtimes.torch import read_either
from dualpipe_sim.schedules.registry import spec


def own_choice(root: Root, ranks: int, micro_batches: int, folder: Path) -> Choice:
    """Return the schedule that ``run`` plays.

    Raises:
        UserError: it is not there, or is of other sizes than the pipeline.

    """
    choice = _choice(root.schedule, ranks, micro_batches, folder, "schedule")
    if choice.order is not None and choice.micro_batches != micro_batches:
        raise UserError(
            f"schedule: {choice.name} has {choice.micro_batches} micro-batches, but pipeline.micro_batches is "
            f"{micro_batches}"
        )
    return choice


def compared(root: Root, ranks: int, micro_batches: int, folder: Path) -> tuple[Choice, ...]:
    """Return the schedules that ``compare`` plays; those with sizes of their own keep them."""
    return tuple(
        _choice(section, ranks, micro_batches, folder, f"compare[{position}]")
        for position, section in enumerate(root.compare)
    )


def each_option(section: ScheduleSection) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield a schedule of a plan with each combination of those of its options that are lists."""
    if section.placement is not None or section.ranks or section.micro_batches:
        raise UserError(f"plan.schedules: {section.name}: takes a registered schedule, whose sizes the plan sets")
    values = [value if isinstance(value, list) else [value] for value in section.options.values()]
    for chosen in product(*values):
        options = dict(zip(section.options, chosen, strict=True))
        _check_options(section.name, options, "plan.schedules")
        yield section.name, options


def _choice(section: ScheduleSection, ranks: int, micro_batches: int, folder: Path, where: str) -> Choice:
    if section.placement is None:
        _check_options(section.name, section.options, where)
        return Choice(section.name, section.ranks or ranks, section.micro_batches or micro_batches, section.options)
    order = _order_in(section, folder, where)
    if order.ranks != ranks:
        raise UserError(
            f"{where}: {section.name} has a row for each of {order.ranks} ranks, but the pipeline has {ranks}"
        )
    return Choice(section.name, order.ranks, order.micro_batches, order=order)


def _check_options(name: str, options: dict[str, object], where: str) -> None:
    try:
        spec(name).check_options(options)
    except ScheduleError as error:
        raise UserError(f"{where}: {error}") from error


def _order_in(section: ScheduleSection, folder: Path, where: str) -> Schedule:
    """Read an order from its file and refuse it with the first thing that is wrong."""
    text = read_text(folder / section.name)
    try:
        findings, order = read_either(text, section.placement or "explicit", name=section.name)
    except ScheduleError as error:
        raise UserError(f"{where}: {section.name}: {error}") from error
    if order is None:
        more = f" (and {len(findings) - 1} more; `dualpipe-sim check` names all)" if len(findings) > 1 else ""
        raise UserError(f"{where}: {section.name}: {findings[0]}{more}")
    return order
