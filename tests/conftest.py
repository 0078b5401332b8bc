"""What tests of several folders share: hypothesis profiles, the command line, the count of work.

`dev` (the default) draws new examples on each run and prints how to repeat a failure; `ci` draws the same
ones every time. Neither has a deadline: a slow machine is not a wrong answer.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

import pytest
from hypothesis import settings

from dualpipe_sim import simulate
from dualpipe_sim.analysis.registry import METRICS
from dualpipe_sim.base.plugins import LOADED
from dualpipe_sim.costs.registry import KINDS
from dualpipe_sim.engine import by_node
from dualpipe_sim.result import Result
from dualpipe_sim.schedules.registry import SCHEDULES

sys.path.append(str(Path(__file__).parents[1]))  # for tests/strategies.py; last, so that no package is found here first

settings.register_profile("dev", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

by_node.WORTH_NODES = sys.maxsize  # compiled only where a test says so, not once tests before it have played much
# A shell starts what ends in `&` with SIGINT ignored, which programs that tests start would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

CommandLine: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"
Calls: TypeAlias = Callable[[Callable[[], object]], int]
WaitFor: TypeAlias = Callable[[Callable[[], bool]], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Know the option that lets no test be skipped."""
    parser.addoption("--none-skipped", action="store_true", help="fail where a test is skipped")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where a test was skipped and none may be; with workers, they tell the process that has the last word."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.option.none_skipped and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


PATIENCE_S = 60.0
"""How long the busiest machine may take for what a quiet one does at once."""


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Return a function that runs ``dualpipe-sim`` with arguments, on a terminal of 80 columns.

    It runs here, as the program itself begins: what is no mistake of the user's fails the test with its traceback.
    """
    from dualpipe_sim.cli import main

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # which Typer replaces

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        words = ["dualpipe-sim", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", words)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return subprocess.CompletedProcess(words, ended.value.code, *capsys.readouterr())  # type: ignore[arg-type]

    return run


@pytest.fixture(scope="session")
def program() -> list[str]:
    """The words that start ``dualpipe-sim`` in a process of its own."""
    return [sys.executable, "-m", "dualpipe_sim"]


@pytest.fixture
def process(program: list[str]) -> CommandLine:
    """Return a function that runs ``dualpipe-sim`` as `command_line` does, but in a process of its own.

    It costs the time of every import; it is for what only processes do: to end by a signal, to run out of disk, to
    start cold.
    """

    def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401
        environment = {**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"}
        command = [*program, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, **options)

    return run


@pytest.fixture(scope="session")
def wait_for() -> WaitFor:
    """Return a function that returns when something has happened in another process."""

    def wait(happened: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not happened():
            assert time.monotonic() < until
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="session")
def calls() -> Calls:
    """Return a function that says how many functions, Python's and C's, are called while some work is done.

    It is what tests measure work by: it is the same on every machine, however busy.
    """

    def count(work: Callable[[], object]) -> int:
        counted = Counter[str]()

        def note(frame: FrameType, event: str, arg: object) -> None:
            counted[event] += 1

        gc.disable()  # a collection calls whoever listens to it
        sys.setprofile(note)
        try:
            work()
        finally:
            sys.setprofile(None)
            gc.enable()
        return counted["call"] + counted["c_call"]

    return count


@pytest.fixture(autouse=True)
def nothing_stays_registered() -> Iterator[None]:
    """Forget at the end which plugins a test ran, and what was registered: rows of sweeps depend on all of it."""
    loaded = dict(LOADED)
    with SCHEDULES.restored(), KINDS.restored(), METRICS.restored():
        yield
    LOADED.clear()
    LOADED.update(loaded)


@pytest.fixture
def unit_config() -> dict[str, object]:
    """Return a small configuration: 1F1B of two ranks and two micro-batches; F, I and W take a second each."""
    return {
        "pipeline": {"ranks": 2, "micro_batches": 2},
        "schedule": "1f1b",
        "costs": {"forward": "1 s", "backward_input": "1 s", "backward_weight": "1 s"},
    }


@pytest.fixture(scope="session")
def v3() -> Result:
    """DeepSeek-V3 as the packaged configuration runs it: DualPipe on 16 ranks, layer by layer; only looked at."""
    return unchangeable(simulate("deepseek_v3"))


@pytest.fixture(scope="session")
def short_v3() -> Result:
    """The same with 32 micro-batches, not 120."""
    return unchangeable(simulate("deepseek_v3", micro_batches=32))


def unchangeable(result: Result) -> Result:
    """Return a run that tests may share, since none of them can write to its times."""
    for times_s in (result.played.start_s, result.played.end_s, result.played.graph.duration_s):
        times_s.flags.writeable = False
    return result
