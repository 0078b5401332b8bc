"""What every test shares: hypothesis profiles.

`dev` (the default) draws new examples on each run and prints how to repeat a failure; `ci` draws the same
ones every time. Neither has a deadline: a slow machine is not a wrong answer.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import settings

settings.register_profile("dev", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

CommandLine: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"


@pytest.fixture
def command_line() -> CommandLine:
    """Return a function that runs ``dualpipe-sim`` with arguments, on a terminal of 80 columns."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from dualpipe_sim.cli import main; main()", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"},
        )

    return run
