"""How often software passes over memory: no stack less than what has to be read and written, fused ones less often."""

from __future__ import annotations

from dataclasses import fields

import pytest

from dualpipe_sim.model.stacks import STACKS
from dualpipe_sim.model.traffic import COMPILED, EAGER, FUSED, IDEAL, MEGATRON, Passes, Traffic

NAMES = [one.name for one in fields(Traffic) if isinstance(getattr(IDEAL, one.name), Passes)]
BY_SHAPE = [stack for stack in STACKS.values() if stack.traffic is not None]


def both(traffic: Traffic, name: str) -> float:
    """Return passes of forward and backward over one thing."""
    found: Passes = getattr(traffic, name)
    return found.forward + found.backward


@pytest.mark.parametrize("stack", BY_SHAPE, ids=lambda stack: stack.name)
def test_nothing_passes_less_often_than_it_must(stack: object) -> None:
    traffic = stack.traffic  # type: ignore[attr-defined]
    assert {name for name in NAMES if both(traffic, name) < both(IDEAL, name)} == set()
    assert traffic.update >= IDEAL.update


@pytest.mark.parametrize("name", ["norm", "rotation", "gated"])
def test_fused_kernels_pass_less_often_than_eager_ones(name: str) -> None:
    assert both(COMPILED, name) < both(EAGER, name)
    assert both(FUSED, name) < both(EAGER, name)
    assert both(MEGATRON, name) < both(EAGER, name)


def test_the_least_is_what_has_to_be_read_and_written() -> None:
    """A gated FFN's F reads two halves and writes one; its backward reads those and a gradient, and writes two."""
    assert (IDEAL.gated.forward, IDEAL.gated.backward) == (3, 5)
    assert (IDEAL.plain.forward, IDEAL.plain.backward) == (2, 3)
    assert IDEAL.gated.of("W") == 0
