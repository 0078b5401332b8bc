"""Some cases of each kind, the same ones on each run, and every file that was a fault once.

What Hypothesis finds it makes small, and keeps in ``examples/``, so that it is tried first from then on.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

from tests.fuzz.kind import Kind, refused
from tests.fuzz.kinds import KINDS


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_each_case_gives_a_result_or_one_clear_line(kind: Kind) -> None:
    @seed(0)
    @settings(
        max_examples=kind.in_tests,
        derandomize=False,
        database=DirectoryBasedExampleDatabase(Path(__file__).with_name("examples") / kind.name),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def each(chance: Random) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"case{kind.suffix}"
            path.write_bytes(kind.make(chance))
            refused(kind, path)

    each()


FOUND = {f"{kind.name}/{path.name}": (kind, path) for kind in KINDS.values() for path in kind.found}


@pytest.mark.parametrize(("kind", "path"), FOUND.values(), ids=FOUND.keys())
def test_what_was_a_fault_once_is_refused(kind: Kind, path: Path) -> None:
    assert refused(kind, path)
