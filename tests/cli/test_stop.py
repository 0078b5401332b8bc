"""Ctrl-C, SIGTERM and SIGHUP end the program at any moment: one line, the code of shells, no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from dualpipe_sim.config.axes import parse_over
from dualpipe_sim.sweeps import read_table, sweep

if TYPE_CHECKING:
    from tests.conftest import CommandLine, WaitFor

HOW = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "ended by SIGTERM",
    signal.SIGHUP: "ended by SIGHUP",
}
"""What the program says of the signals that it ends by."""


AXES = ("noise.jitter=0.1", "noise.runs=" + ",".join(map(str, range(100, 112))))
ENDLESS = 10**9
"""Runs of one point more, which no sweep sees the end of."""


def ended(process: psutil.Process) -> bool:
    """Whether a process is no more, though its new parent may not have looked yet."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def heed_sigint() -> None:
    """Let a child be interrupted even where this process was started in the background, which ignores SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def end_of(process: subprocess.Popen[str]) -> str:
    """Return what a process says on stderr until its end; of one that does not end, say where it hangs, and end it."""
    try:
        return process.communicate(timeout=60)[1]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # PYTHONFAULTHANDLER: it prints where its threads are
        pytest.fail(f"it does not end:\n{process.communicate(timeout=60)[1]}")


@pytest.mark.parametrize(
    ("ended_by", "output", "log"),
    [
        (signal.SIGKILL, "table.parquet", "table.parquet.jsonl"),
        (signal.SIGINT, "table.csv", "table.csv"),
    ],
)
@pytest.mark.slow
def test_a_sweep_that_is_ended_midway_leaves_rows_and_no_process_behind(
    program: list[str], wait_for: WaitFor, tmp_path: Path, ended_by: signal.Signals, output: str, log: str
) -> None:
    file, rows = tmp_path / output, tmp_path / log
    axes = ("--over", AXES[0], "--over", f"{AXES[1]},{ENDLESS}")
    command = [*program, "sweep", "figure5", *axes, "-o", str(file), "--workers", "2"]
    env = {**os.environ, "PYTHONFAULTHANDLER": "1"}
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        preexec_fn=heed_sigint,  # noqa: PLW1509 - no threads here
    )
    wait_for(lambda: process.poll() is not None or (rows.exists() and rows.read_bytes().count(b"\n") >= 5))
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(ended_by)
    said = end_of(process)
    wait_for(lambda: all(map(ended, workers)))
    if ended_by in HOW:
        assert process.returncode == 128 + ended_by
        assert said == f"dualpipe-sim: {HOW[ended_by]}; {file} keeps the rows so far; --resume goes on\n"
    kept = len(read_table(rows))
    assert 4 <= kept <= 12
    seen: list[int] = []
    over = dict(map(parse_over, AXES))
    table = sweep("figure5", over, output=file, resume=True, progress=lambda done, _total: seen.append(done))
    assert seen == list(range(kept, 13))
    assert len(table) == 12
    assert {row["error"] for row in table} == {None}


SIGNALLED = "import os, signal\nos.kill(os.getpid(), signal.{})\n"
"""A plugin in the middle of which a signal arrives: no clock says when."""


@pytest.mark.parametrize("number", HOW)
def test_a_signal_in_the_middle_of_a_command_is_one_line(
    process: CommandLine, tmp_path: Path, number: signal.Signals
) -> None:
    plugin = tmp_path / "signalled.py"
    plugin.write_text(SIGNALLED.format(number.name))
    done = process("--plugin", plugin, "run", "figure5", preexec_fn=heed_sigint)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", f"dualpipe-sim: {HOW[number]}\n")


AT_AN_IMPORT = """
import os, signal, sys

class Signals:
    def find_spec(self, name, path, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.{number})

sys.meta_path.insert(0, Signals())
sys.argv = ["dualpipe-sim", "run", "figure5"]
from dualpipe_sim.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("module", "number"),
    [
        ("dualpipe_sim.cli", signal.SIGHUP),
        ("typer", signal.SIGINT),
        ("dualpipe_sim.cli.plan", signal.SIGTERM),
        ("numpy", signal.SIGINT),
        ("pydantic", signal.SIGTERM),
    ],
)
def test_a_signal_while_the_program_is_still_loaded_is_one_line(number: signal.Signals, module: str) -> None:
    code = AT_AN_IMPORT.format(module=module, number=number.name)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=heed_sigint,
    )
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", f"dualpipe-sim: {HOW[number]}\n")


def test_a_signal_while_the_program_comes_to_its_end_is_no_traceback(process: CommandLine, tmp_path: Path) -> None:
    """All is done by then; nobody is there any more to take an exception."""
    plugin = tmp_path / "late.py"
    plugin.write_text("import atexit, os, signal\natexit.register(os.kill, os.getpid(), signal.SIGTERM)\n")
    done = process("--plugin", plugin, "init", tmp_path / "new.yaml")
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "")
    assert done.stdout.endswith("new.yaml\n")


def test_who_asks_twice_does_not_wait(process: CommandLine, tmp_path: Path) -> None:
    plugin = tmp_path / "stubborn.py"
    kill = "    os.kill(os.getpid(), signal.SIGINT)\n"
    plugin.write_text(f"import os, signal\ntry:\n{kill}finally:\n{kill}    print('still here')\n")
    done = process("--plugin", plugin, "run", "figure5", preexec_fn=heed_sigint)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_signal_that_a_script_ignores_is_ignored(process: CommandLine, tmp_path: Path) -> None:
    """As SIGINT is for what a shell's script starts in the background."""
    plugin = tmp_path / "signalled.py"
    plugin.write_text(SIGNALLED.format("SIGINT"))
    done = process(
        "--plugin", plugin, "init", tmp_path / "new.yaml",
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
