"""Cost models by kind: what a stranger registers, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.costs.measured import MeasuredCosts
from dualpipe_sim.costs.registry import cost_model, cost_models, register
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.errors import UserError


class Nothing:
    """A class that is no cost model."""


def test_the_kinds_of_the_package_are_found_by_name() -> None:
    assert (cost_model("uniform"), cost_model("layers"), cost_model("measured")) == (
        UniformCosts,
        LayerCosts,
        MeasuredCosts,
    )  # fmt: skip
    assert {"layers", "measured", "uniform"} <= set(cost_models())


@pytest.mark.parametrize(
    ("kind", "model", "message"),
    [
        ("mine", Nothing, r"costs 'mine': a cost model is a class with a method on\(placement\), not <class"),
        ("mine", len, r"costs 'mine': a cost model is a class with a method on\(placement\), not <built-in"),
        ("", MeasuredCosts, "MeasuredCosts: a kind of costs is a word, not ''"),
        (3, MeasuredCosts, "MeasuredCosts: a kind of costs is a word, not 3"),
        ("uniform", MeasuredCosts, r"kind of costs 'uniform' is there already \(dualpipe_sim.costs.uniform"),
    ],
)
def test_what_is_no_cost_model_is_refused(kind: str, model: type[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        register(kind)(model)


def test_a_mistyped_kind_is_guessed() -> None:
    with pytest.raises(UserError, match="unknown kind of costs 'unifrom'; did you mean 'uniform'"):
        cost_model("unifrom")


def test_the_same_class_may_be_registered_again() -> None:
    assert register("uniform")(UniformCosts) is UniformCosts
