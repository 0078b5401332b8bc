"""Quantities: numbers with units."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim.base.units import BYTES, BYTES_PER_S, SECONDS, Measure, number_of, quantity


@pytest.mark.parametrize(
    ("text", "units", "expected"),
    [
        ("18.5 ms", SECONDS, 0.0185),
        ("5us", SECONDS, 5e-6),
        ("5 µs", SECONDS, 5e-6),
        ("1e-3", SECONDS, 1e-3),
        (2, SECONDS, 2.0),
        ("80 GiB", BYTES, 80 * 2**30),
        ("58 MB", BYTES, 58e6),
        ("160 GB/s", BYTES_PER_S, 160e9),
        ("400 Gb/s", BYTES_PER_S, 50e9),
        (1.6e11, BYTES_PER_S, 1.6e11),
    ],
)
def test_a_quantity_has_a_unit_or_is_in_si(text: object, units: Measure, expected: float) -> None:
    assert quantity(text, units, "right") == pytest.approx(expected, rel=1e-15)


@given(st.text(max_size=8) | st.booleans() | st.none() | st.lists(st.integers(), max_size=2))
def test_a_quantity_is_finite_and_not_negative_or_refused(value: object) -> None:
    try:
        number = quantity(value, SECONDS, "a time")
    except ValueError as error:
        assert "must be a time" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert 0 <= number < float("inf")


def test_one_is_no_plural() -> None:
    assert [number_of(n, "candidate") for n in (0, 1, 2)] == ["0 candidates", "1 candidate", "2 candidates"]
    assert [number_of(n, "micro-batch") for n in (1, 20)] == ["1 micro-batch", "20 micro-batches"]


@pytest.mark.parametrize(("value", "units"), [(5e-324, SECONDS), ("1e-20 us", SECONDS), (1e-9, BYTES)])
def test_what_rounding_leaves_is_nothing(value: object, units: Measure) -> None:
    assert quantity(value, units, "right") == 0


@pytest.mark.parametrize(("value", "said"), [(1e13, "up to 1e+12 s, got"), ("1e308 h", "finite and not negative, got")])
def test_what_cannot_be_computed_with_is_refused(value: object, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"must be a time, {said}")):
        quantity(value, SECONDS, "a time")
