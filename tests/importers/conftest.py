"""What tests of importers share: a run that takes some time, a refusal in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from dualpipe_sim import Result, simulate
from dualpipe_sim.errors import UserError

Runs: TypeAlias = Callable[[dict[str, Any]], Result]
Refusal: TypeAlias = Callable[[Callable[[], object]], str]


@pytest.fixture
def runs() -> Runs:
    """Return a function that returns the result of a configuration, which takes some time."""

    def run(config: dict[str, Any]) -> Result:
        result = simulate(config)
        assert result.step_time_s is not None
        assert result.step_time_s > 0
        return result

    return run


@pytest.fixture
def refusal() -> Refusal:
    """Return a function that returns in which words, on one line, something is refused."""

    def words(ask: Callable[[], object]) -> str:
        with pytest.raises(UserError) as error:
            ask()
        assert "\n" not in str(error.value)
        return str(error.value)

    return words
