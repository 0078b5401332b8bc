"""What holds for the order of every schedule, on any sizes and options; a new schedule is tested on arrival."""

from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dualpipe_sim import Schedule, ScheduleError, build, format_order, parse_order
from dualpipe_sim.order.check import check_order, check_schedule
from dualpipe_sim.order.ops import PAIRED, B, F, I, W
from dualpipe_sim.order.placement import named
from dualpipe_sim.schedules.registry import ScheduleSpec, schedules

NAMES = sorted(schedules())


def values(annotation: Any) -> st.SearchStrategy[object] | None:  # noqa: ANN401
    """Small values of an option's type; None leaves the option at its default."""
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    if annotation in (int, int | None):
        return st.integers(-1, 6) if annotation is int else st.none() | st.integers(-1, 6)
    return st.booleans() if annotation is bool else None


def options_of(spec: ScheduleSpec) -> st.SearchStrategy[dict[str, object]]:
    drawn = {name: values(parameter.annotation) for name, parameter in spec.options.items()}
    return st.fixed_dictionaries(
        {}, optional={name: strategy for name, strategy in drawn.items() if strategy is not None}
    )


@st.composite
def orders(draw: st.DrawFn) -> Schedule:
    spec = schedules()[draw(st.sampled_from(NAMES))]
    options = draw(st.just({}) | options_of(spec))
    try:
        return spec.build(draw(st.integers(1, 8)), draw(st.integers(1, 20)), options)
    except ScheduleError:
        assume(False)
        raise


def placement_name(schedule: Schedule) -> Literal["loop", "v", "bidirectional"]:
    """The placement that a user gives to read the schedule's text back."""
    names: tuple[Literal["loop", "v", "bidirectional"], ...] = ("loop", "v", "bidirectional")
    fits = (name for name in names if _is_placed(schedule, name))
    return next(fits)


def _is_placed(schedule: Schedule, name: Literal["loop", "v", "bidirectional"]) -> bool:
    try:
        return named(name, schedule.ranks, schedule.placement.stages) == schedule.placement
    except ScheduleError:
        return False


def table(schedule: Schedule, kind: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """How often each (stage, slice of a micro-batch) has an op of this kind."""
    slices = max(schedule.micro_batches_of_pipe) * schedule.slices
    count = np.zeros((schedule.placement.stages, slices), dtype=np.int64)
    of_kind = schedule.kind == kind
    np.add.at(count, (schedule.stage[of_kind], schedule.unit[of_kind]), 1)
    return count


def assert_complete(schedule: Schedule) -> None:
    placement = schedule.placement
    slices = np.array(schedule.micro_batches_of_pipe)[placement.pipe_of_stage] * schedule.slices
    expected = (np.arange(slices.max()) < slices[:, None]).astype(np.int64)
    assert (table(schedule, F) == expected).all()
    assert (table(schedule, B) + table(schedule, I) == expected).all()
    assert (table(schedule, W) == table(schedule, I)).all()
    assert (placement.rank_of_stage[schedule.stage] == schedule.rank).all()
    assert (np.diff(schedule.rank) >= 0).all()


@given(orders())
def test_every_stage_does_every_micro_batch_once_forward_and_once_backward(schedule: Schedule) -> None:
    assert_complete(schedule)


@given(orders())
def test_nothing_is_wrong_with_it(schedule: Schedule) -> None:
    assert check_schedule(schedule) == []


@given(orders())
def test_its_text_says_it_all(schedule: Schedule) -> None:
    text = format_order(schedule)
    placement = placement_name(schedule)
    assert parse_order(text, placement) == schedule
    assert format_order(parse_order(text, placement)) == text
    assert check_order(text, placement, schedule.micro_batches) == []


@given(orders())
def test_pairs_are_a_forward_and_what_can_run_beside_it_of_one_rank(schedule: Schedule) -> None:
    first = np.flatnonzero(schedule.partner > np.arange(len(schedule.partner)))
    second = schedule.partner[first]
    assert (second == first + 1).all()
    assert (schedule.partner[second] == first).all()
    assert (schedule.kind[first] == F).all()
    assert np.isin(schedule.kind[second], PAIRED).all()
    assert (schedule.rank[first] == schedule.rank[second]).all()


@given(st.sampled_from(NAMES), st.integers(1, 10), st.integers(1, 30))
def test_it_runs_the_micro_batches_asked_for_or_refuses_in_one_clear_sentence(
    name: str, ranks: int, micro_batches: int
) -> None:
    try:
        schedule = build(name, ranks, micro_batches)
    except ScheduleError as error:
        said = str(error)
        assert "\n" not in said
        assert said.startswith(f"{name} needs ")
        asked = f"{ranks} rank{'s' * (ranks != 1)} and {micro_batches} micro-batch{'es' * (micro_batches != 1)}"
        assert f"got {asked}; the nearest that work" in said
        return
    assert (schedule.name, schedule.ranks, schedule.micro_batches) == (name, ranks, micro_batches)
    assert build(name, ranks, micro_batches) == schedule


@given(st.data(), st.sampled_from([name for name in NAMES if schedules()[name].options]))
def test_options_work_or_are_refused_in_one_clear_sentence(data: st.DataObject, name: str) -> None:
    spec = schedules()[name]
    sizes = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 16))
    try:
        schedule = spec.build(*sizes, data.draw(options_of(spec)))
    except ScheduleError as error:
        said = str(error)
        assert "\n" not in said
        assert said.startswith(name)
        return
    assert_complete(schedule)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("ranks", "micro_batches"), [(16, 64), (32, 128)])
def test_large_orders_are_complete(name: str, ranks: int, micro_batches: int) -> None:
    assert_complete(build(name, ranks, micro_batches))


@pytest.mark.parametrize("name", NAMES)
def test_its_first_line_says_what_it_is_and_where_it_comes_from(name: str) -> None:
    assert "https://" in schedules()[name].source or "torch" in schedules()[name].source
    assert len(schedules()[name].source.splitlines()) == 1
