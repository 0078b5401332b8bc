"""Systems that are not at hand: what only POSIX has is taken away from Python, and files are read in an old locale."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]

# Run by every Python that starts beside it, worker processes too. What of these is left is what Windows has, and
# SIGKILL and uname(), which the standard library and NumPy use on Linux.
WITHOUT_POSIX = """
import os, signal, sys
for module in ("curses", "fcntl", "grp", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"):
    sys.modules[module] = None  # its import fails
ELSEWHERE = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM", "SIG_DFL", "SIG_IGN", "SIGKILL"}
for name in {name for name in dir(signal) if name.startswith("SIG")} - ELSEWHERE:
    delattr(signal, name)
for name in (
    "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "chown", "fchmod", "fork", "getloadavg", "getpgid", "getpgrp", "geteuid",
    "getuid", "killpg", "mkfifo", "mknod", "nice", "posix_fallocate", "posix_spawn", "sched_getaffinity", "setpgid",
    "setsid", "sync", "sysconf", "wait3", "wait4",
):
    vars(os).pop(name, None)
"""

COMMANDS = """
import os, sys
from dualpipe_sim.__main__ import main
assert not hasattr(os, "fork")
for line in sys.stdin:
    sys.argv = ["dualpipe-sim", *line.split()]
    try:
        main()
    except SystemExit as ended:
        assert ended.code == 0, line
"""

WRITES = {
    "run figure5": "",
    "compare figure5 --plot chart.png": "chart.png",
    "sweep figure5 --over pipeline.micro_batches=16,20 --workers 2 -o rows.csv": "rows.csv",
    "report figure5 -o report.html": "report.html",
    "timeline figure5 -o timeline.csv": "timeline.csv",
    "trace figure5 -o trace.json": "trace.json",
    "init mine.yaml --from figure5": "mine.yaml",
    "check mine.csv --micro-batches 2": "",
    "why mine.yaml": "",
}


@pytest.mark.thorough
@pytest.mark.slow
def test_without_what_only_posix_has_and_in_a_locale_of_ascii_commands_run_and_write(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_POSIX, encoding="ascii")
    (tmp_path / "mine.csv").write_text("0F0,0F1,0B0,0B1\r\n1F0,1B0,1F1,1B1\r\n", encoding="utf-8", newline="")
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "cp1252"}
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        input="\n".join(WRITES),
        env={**os.environ, **locale, "PYTHONPATH": path, "COLUMNS": "80"},
        cwd=tmp_path,
        capture_output=True,
        encoding="cp1252",
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "dualpipe        66    9.1%" in done.stdout
    assert "mine.csv: nothing is wrong" in done.stdout
    assert [file for file in WRITES.values() if file and (tmp_path / file).stat().st_size == 0] == []
    assert "×" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_every_file_can_be_checked_out_on_windows_and_macos() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)  # noqa: S607
    names = listed.stdout.splitlines()
    assert "pyproject.toml" in names
    reserved = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
    for part in {part for name in names for part in PurePosixPath(name).parts}:
        assert not re.search(r'[<>:"\\|?*\x00-\x1f]|[. ]$', part), part
        assert not reserved.fullmatch(part), part
    assert len({name.casefold() for name in names}) == len(names)
    assert max(map(len, names)) < 120  # of the 260 that a whole path may have
