"""The schedules that a configuration names, and the orders that it takes from files."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from pathlib import Path

from dualpipe_sim.base.files import ORDER, read_text
from dualpipe_sim.base.units import number_of
from dualpipe_sim.config.overlap import schedule_of
from dualpipe_sim.config.schema import Root
from dualpipe_sim.config.values import ScheduleSection
from dualpipe_sim.errors import ScheduleError, UserError
from dualpipe_sim.experiment import Choice
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import spec


def own_choice(root: Root, ranks: int | None, micro_batches: int | None, folder: Path) -> Choice:
    """Return the schedule that ``run`` plays.

    Args:
        root: the configuration.
        ranks: of the pipeline, or None where those of an order count.
        micro_batches: likewise.
        folder: where files are named from.

    Raises:
        UserError: it is not there, or is of other sizes than the pipeline, or nobody says what sizes.

    """
    section, where = root.schedule, "schedule"
    if section is None and root.compare:
        section, where = root.compare[0], "compare[0]"
    if section is None:
        if root.search is None:
            raise UserError("schedule: is missing")
        section = ScheduleSection(name="1f1b")
    choice = _choice(_overlapped(root, section, where), ranks, micro_batches, folder, where)
    if choice.order is not None and micro_batches not in (None, choice.micro_batches):
        raise UserError(
            f"{where}: {choice.name} has {number_of(choice.micro_batches, 'micro-batch')}, "
            f"but pipeline.micro_batches is {micro_batches}"
        )
    return choice


def compared(root: Root, own: Choice, folder: Path) -> tuple[Choice, ...]:
    """Return the schedules that ``compare`` plays; those with sizes of their own keep them."""
    return tuple(
        _choice(
            _overlapped(root, section),
            own.ranks,
            own.micro_batches,
            folder,
            f"compare[{position}]",
        )
        for position, section in enumerate(root.compare)
    )


_MOST_OF_SCHEDULE = 10_000
"""Ways of a schedule that a plan tries."""


def each_option(section: ScheduleSection) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield a schedule of a plan with each combination of those of its options that are lists."""
    if section.placement or section.order or section.ranks or section.micro_batches:
        raise UserError(f"plan.schedules: {section.name}: takes a registered schedule, whose sizes the plan sets")
    values = [value if isinstance(value, list) else [value] for value in section.options.values()]
    if (many := prod(map(len, values))) > _MOST_OF_SCHEDULE:
        raise UserError(f"plan.schedules: {section.name}: its lists make {many} ways, more than {_MOST_OF_SCHEDULE}")
    for chosen in product(*values):
        options = dict(zip(section.options, chosen, strict=True))
        _check_options(section.name, options, "plan.schedules")
        yield section.name, options


def _overlapped(root: Root, section: ScheduleSection, where: str = "") -> ScheduleSection:
    """Return a schedule in the form that ``overlap.ep_comm`` asks for; an order of one's own stays as it is."""
    if section.rows or section.order:
        return section
    return section.model_copy(update={"name": schedule_of(root, section.name, where)})


def _choice(section: ScheduleSection, ranks: int | None, micro_batches: int | None, folder: Path, where: str) -> Choice:
    order = _order(section, folder, where)
    if order is None:
        _check_options(section.name, section.options, where)
        return Choice(
            section.name,
            _either("pipeline.ranks", section.ranks or ranks, "parallel.pipeline"),
            _either("pipeline.micro_batches", section.micro_batches or micro_batches, "training.global_batch"),
            section.options,
        )
    if ranks not in (None, order.ranks):
        raise UserError(
            f"{where}: {section.name} has a row for each of {order.ranks} ranks, but the pipeline has {ranks}"
        )
    return Choice(section.name, order.ranks, order.micro_batches, order=order)


def _check_options(name: str, options: dict[str, object], where: str) -> None:
    try:
        spec(name).check_options(options)
    except ScheduleError as error:
        raise UserError(f"{where}: {error}") from error


def _either(key: str, size: int | None, other_key: str) -> int:
    if size is None:
        raise UserError(f"{key}: is missing, and so is {other_key}")
    return size


def _order(section: ScheduleSection, folder: Path, where: str) -> Schedule | None:
    """Return the order that is given, or None for a registered schedule; refuse rows with the first thing wrong."""
    if section.placement is None:
        return section.order
    from dualpipe_sim.order.check import read_order  # which most configurations need not load

    rows = read_text(folder / section.name, ORDER) if section.rows is None else section.rows
    try:
        findings, order = read_order(rows, section.placement, barriers=section.barriers, name=section.name)
    except ScheduleError as error:
        raise UserError(f"{where}: {section.name}: {error}") from error
    if order is None:
        names_all = "" if section.rows else "; `dualpipe-sim check` names all"
        more = f" (and {len(findings) - 1} more{names_all})" if len(findings) > 1 else ""
        raise UserError(f"{where}: {section.name}: {findings[0]}{more}")
    return order
