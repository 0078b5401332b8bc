"""Problems for the engines: the referee (``tests/referee``) and both engines must say the same of when all runs."""

from __future__ import annotations

from pathlib import Path
from random import Random

from dualpipe_sim.errors import UserError
from tests.fuzz.kind import Kind
from tests.referee.compare import disagreements
from tests.referee.problem import read_problem
from tests.referee.random_problems import problem_of


def _make(chance: Random) -> bytes:
    # (one draw: a problem takes more of them than Hypothesis lets an example have)
    return problem_of(Random(chance.getrandbits(64))).to_json().encode()  # noqa: S311 - to be the same again


def _attempt(path: Path) -> None:
    try:
        found = disagreements(read_problem(path.read_text(encoding="utf-8")))
    except UserError as error:
        raise AssertionError(f"a problem that can be played is refused: {error}") from error
    assert not found, "\n".join(found[:10])


KIND = Kind("problems", ".json", _make, _attempt, in_tests=60, in_long=10_000)
