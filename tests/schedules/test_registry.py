"""The registry as a door: what a stranger registers works or is refused in one sentence, and never fails later."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import pytest

from dualpipe_sim import Schedule, ScheduleError, build, format_order
from dualpipe_sim.order import OrderBuilder, linear
from dualpipe_sim.schedules.registry import SCHEDULES, register, schedules, spec


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Forget what a test registers."""
    with SCHEDULES.restored():
        yield


def gpipe(ranks: int, micro_batches: int) -> Schedule:
    return build("gpipe", ranks, micro_batches)


def no_type(ranks: int, micro_batches: int, depth=2) -> Schedule:  # type: ignore[no-untyped-def]  # noqa: ANN001
    return build("gpipe", ranks, micro_batches * depth)


def any_options(ranks: int, micro_batches: int, **kw: int) -> Schedule:
    return build("gpipe", ranks, micro_batches + len(kw))


def a_mapping(ranks: int, micro_batches: int, sizes: dict[str, int]) -> Schedule:
    return build("gpipe", ranks, micro_batches + len(sizes))


def of_no_type(ranks: int, micro_batches: int, what: Nothing = None) -> Schedule:  # type: ignore[name-defined]  # noqa: F821
    return build("gpipe", ranks, micro_batches + len(what))


def only_ranks(ranks: int) -> Schedule:
    return build("gpipe", ranks, 2)


def with_times(ranks: int, micro_batches: int, times: float | None = None) -> Schedule:
    return build("gpipe", ranks, micro_batches if times is None else 2)


def test_a_decorator_without_a_name_says_so_at_once() -> None:
    message = r"""schedule: register needs a name, as in @register\("mine"\), before gpipe"""
    with pytest.raises(ScheduleError, match=message):
        register(gpipe)  # type: ignore[arg-type]


def test_a_registered_function_is_built_by_its_name() -> None:
    register("mine")(gpipe)
    assert format_order(build("mine", 2, 2)) == format_order(build("gpipe", 2, 2))
    assert build("mine", 2, 2).name == "mine"
    assert "mine" in schedules()


@pytest.mark.parametrize(
    ("name", "function", "message"),
    [
        (
            "1f1b",
            gpipe,
            r"schedule '1f1b' is there already \(dualpipe_sim\.schedules\.one_f_one_b\.one_f_one_b\)",
        ),
        ("", gpipe, "schedule '': a name is one word of letters, digits, '-', '_' and '.', such as 'eager-1f1b'"),
        ("my own", gpipe, "schedule 'my own': a name is one word"),
        (7, gpipe, "schedule 7: a name is one word"),
        ("mine", 7, r"schedule 'mine': must be a function \(ranks, micro_batches, …\) -> Schedule, not 7"),
        ("mine", Schedule, r"schedule 'mine': must be a function \(ranks, micro_batches, …\) -> Schedule, not <class"),
        ("mine", no_type, "schedule 'mine': option depth needs a type, like depth: int"),
        (
            "mine",
            a_mapping,
            r"schedule 'mine': option sizes is a dict\[str, int\], which no configuration can hold; let it be an int",
        ),
        ("mine", of_no_type, "schedule 'mine': the type of an option is not known: name 'Nothing' is not defined"),
        ("mine", any_options, r"schedule 'mine': \*\*kw says nothing of its options; name each one"),
        (
            "mine",
            only_ranks,
            "schedule 'mine': its function must take ranks and micro_batches; micro_batches is missing",
        ),
        ("mine", with_times, "schedule 'mine': placement= and a parameter times go together"),
    ],
)
def test_what_could_only_fail_later_is_refused_at_once(name: str, function: Callable[..., Any], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        register(name)(function)


def test_a_known_name_may_be_replaced_on_purpose_and_a_cell_run_again() -> None:
    register("1f1b", replace=True)(gpipe)
    register("1f1b")(gpipe)
    assert format_order(build("1f1b", 2, 2)) == "0F0,0F1,0B0,0B1\n1F0,1F1,1B0,1B1\n"


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("0F0,0B0\n", r"mine: its generator must return a Schedule, got '0F0,0B0\\n'; an order in text becomes one by"),
        (None, "mine: its generator must return a Schedule, got None"),
        (build("gpipe", 2, 4), "was asked for 4 ranks and 4 micro-batches, but returned a Schedule of 2 and 4"),
        (build("gpipe", 4, 8), "was asked for 4 ranks and 4 micro-batches, but returned a Schedule of 4 and 8"),
    ],
)
def test_what_a_generator_returns_is_checked(returned: object, message: str) -> None:
    def wrong(ranks: int, micro_batches: int) -> Schedule:
        assert ranks == micro_batches
        return returned  # type: ignore[return-value]

    register("mine")(wrong)
    with pytest.raises(ScheduleError, match=message):
        build("mine", 4, 4)


def all_kinds(  # noqa: PLR0917 - one of each kind
    ranks: int,
    micro_batches: int,
    needed: int,
    counts: tuple[int, ...] = (),
    shares: list[float] | None = None,
    words: Sequence[str] = (),
    way: Literal["up", "down"] | None = None,
    flag: bool = False,
    either: int | str = 1,
) -> Schedule:
    """Return what came as the name of a schedule."""
    seen = (needed, counts, shares, words, way, flag, either)
    assert seen == EXPECTED.pop()
    return build("gpipe", ranks, micro_batches)


EXPECTED: list[tuple[object, ...]] = []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"needed": 3}, (3, (), None, (), None, False, 1)),
        ({"needed": 3, "counts": [1, 2]}, (3, (1, 2), None, (), None, False, 1)),
        ({"needed": 3, "counts": (1,), "shares": (0.5, 2)}, (3, (1,), [0.5, 2], (), None, False, 1)),
        ({"needed": 3, "words": ["a"], "way": "up", "flag": True}, (3, (), None, ("a",), "up", True, 1)),
        ({"needed": 3, "shares": None, "way": None, "either": "x"}, (3, (), None, (), None, False, "x")),
    ],
)
def test_options_come_as_their_types_say(given: dict[str, object], expected: tuple[object, ...]) -> None:
    register("mine")(all_kinds)
    EXPECTED.append(expected)
    build("mine", 2, 2, **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "mine: option needed is missing; it has no default"),
        ({"needed": True}, "mine: option needed must be a whole number, got True"),
        ({"needed": 1, "counts": 3}, "mine: option counts must be a list of whole numbers, got 3"),
        ({"needed": 1, "counts": [1, "b"]}, r"mine: option counts must be a list of whole numbers, got \[1, 'b'\]"),
        ({"needed": 1, "shares": ["b"]}, r"mine: option shares must be a list of numbers, got \['b'\]"),
        ({"needed": 1, "words": "abc"}, "mine: option words must be a list of words, got 'abc'"),
        ({"needed": 1, "way": "left"}, "mine: option way must be 'up' or 'down', got 'left'"),
        ({"needed": 1, "flag": 1}, "mine: option flag must be true or false, got 1"),
        ({"needed": 1, "either": 1.5}, "mine: option either must be a whole number or a word, got 1.5"),
        ({"needed": 1, "count": 1}, "mine: unknown option 'count'; did you mean 'counts'?"),
    ],
)
def test_a_wrong_option_is_named_with_what_would_be_right(given: dict[str, object], message: str) -> None:
    register("mine")(all_kinds)
    with pytest.raises(ScheduleError, match=message):
        build("mine", 2, 2, **given)


def pairs_of(ranks: int, micro_batches: int, ends: tuple[int, int], fours: tuple[float, ...] = ()) -> Schedule:
    assert (ends, fours) == ((1, 2), ())
    return build("gpipe", ranks, micro_batches)


def test_a_list_of_fixed_length_has_that_length() -> None:
    register("mine")(pairs_of)
    build("mine", 2, 2, ends=[1, 2])
    assert spec("mine").parse_option("ends", "1,2") == (1, 2)
    for wrong in ([1], [1, 2, 3]):
        message = f"mine: option ends must be a list of 2 whole numbers, got {wrong}"
        with pytest.raises(ScheduleError, match=re.escape(message)):
            build("mine", 2, 2, ends=wrong)
    with pytest.raises(ScheduleError, match="mine: option ends must be a list of 2 whole numbers, got '1,2,3'"):
        spec("mine").parse_option("ends", "1,2,3")


def of_two_types(ranks: int, micro_batches: int, both: tuple[int, str]) -> Schedule:
    return build("gpipe", ranks, micro_batches + len(both))


def test_a_list_of_two_types_is_none_that_a_configuration_checks() -> None:
    with pytest.raises(ScheduleError, match=r"option both is a tuple\[int, str\], which no configuration can hold"):
        register("mine")(of_two_types)


def test_only_the_types_of_options_must_be_known() -> None:
    """Others may be imported for type checkers alone."""

    def mine(ranks: int, micro_batches: int, depth: int = 1) -> Schedule:
        return build("gpipe", ranks, micro_batches * depth)

    mine.__annotations__ |= {"return": "Schedules", "ranks": "Rank", "depth": "int"}
    register("mine")(mine)
    assert build("mine", 2, 2).name == "mine"


def test_what_goes_wrong_in_a_generator_has_the_schedules_name_and_the_line() -> None:
    def wrong(ranks: int, micro_batches: int) -> Schedule:
        order = OrderBuilder(linear(ranks), (micro_batches,))
        order.rank(0).weight()
        return order.schedule()

    register("mine", accepts=lambda ranks, micro_batches: micro_batches / (ranks - 2) > 0)(wrong)
    place = rf"{re.escape(__file__)}:\d+"
    with pytest.raises(ScheduleError, match=f"^mine: its generator fails: {place}: ValueError: there is no"):
        build("mine", 3, 2)
    with pytest.raises(ScheduleError, match=f"^mine: its accepts fails: {place}: ZeroDivisionError"):
        build("mine", 2, 2)


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("needed", "4", 4),
        ("counts", "1,2, 3", (1, 2, 3)),
        ("shares", "0.5,2", [0.5, 2.0]),
        ("words", "a,b", ("a", "b")),
        ("way", "down", "down"),
        ("flag", "true", True),
        ("either", "7", 7),
        ("either", "x", "x"),
    ],
)
def test_options_are_read_from_the_command_line(option: str, text: str, value: object) -> None:
    register("mine")(all_kinds)
    assert spec("mine").parse_option(option, text) == value


def test_text_that_is_no_such_option_is_refused() -> None:
    register("mine")(all_kinds)
    with pytest.raises(ScheduleError, match="mine: option counts must be a list of whole numbers, got '1;2'"):
        spec("mine").parse_option("counts", "1;2")
