"""Bubble against activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from dualpipe_sim.errors import UserError
from dualpipe_sim.pictures.plot import (
    bubble_against_activations,
)

if TYPE_CHECKING:
    pass


class _Run(NamedTuple):
    caption: str
    bubble_ratio: float | None
    peak_activations_by_rank: list[float] | None


def test_the_front_joins_the_runs_that_no_other_beats() -> None:
    runs = [_Run("a", 0.1, [4.0, 8.0]), _Run("b", 0.3, [2.0]), _Run("c", 0.4, [4.0]), _Run("d", None, None)]
    ax = bubble_against_activations(runs)
    front = ax.lines[0]
    assert np.asarray(front.get_xydata()).tolist() == [[2, 30], [8, 10]]
    assert [line.get_label() for line in ax.lines[1:]] == ["a", "b", "c"]


def test_bubbles_of_nothing_are_refused() -> None:
    with pytest.raises(UserError, match=r"^there is no run to draw; give at least one that was not refused$"):
        bubble_against_activations([_Run("chimera", None, None)])
