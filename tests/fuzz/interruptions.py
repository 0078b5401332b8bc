"""Commands that write, hit by a signal or a fault at a moment made by chance, and then run again or resumed.

However it was hit, nothing is lost, repeated or half-written: what is there at the end is, byte for byte, what a run
that nothing happened to writes, and no process is left.
"""

from __future__ import annotations

import atexit
import errno
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from subprocess import PIPE, Popen
from typing import Any, TypeAlias, cast

import psutil

from dualpipe_sim.batch.rows import read_rows
from dualpipe_sim.errors import UserError
from tests.fuzz.kind import Kind

PATIENCE_S = 300.0
"""How long the busiest machine may take for what a quiet one does at once."""
Files: TypeAlias = "dict[str, bytes]"

_SWEEP = ("sweep", "figure5", "--over", "pipeline.micro_batches=16,18,20,22", "--over", "schedule=1f1b,gpipe")
_REGIMES = ("regimes", "small", "--x", "costs.transfer=0..2:3", "--y", "pipeline.micro_batches=8,12,16",
            "--set", "compare=[1f1b, zb-h1]")  # fmt: skip
_PLAN = ("plan", "plan_deepseek_v2_lite", "--all", "--confirm", "0", "--set",
         "plan={schedules: [1f1b, dualpipe, zb-h1]}")  # fmt: skip
_SEARCH = ("search", "small", "-j", "1", "--order", "best.csv", "--set",
           "search={rounds: 3, moves: 60, stages_per_rank: 1}", "--set", "pipeline={ranks: 2, micro_batches: 3}",
           "--set", "cluster.gpus_per_node=2", "-o", "state.json")  # fmt: skip
TABLES = tuple(
    (*words, "-o", f"table{suffix}")
    for words, suffixes in (
        (_SWEEP, (".csv", ".jsonl", ".parquet")),
        (_REGIMES, (".csv", ".jsonl")),
        (_PLAN, (".csv",)),
    )
    for suffix in suffixes
)
"""Commands whose output grows, and that ``--resume`` goes on with."""
WHOLE = (
    ("timeline", "small", "-o", "timeline.csv"),
    ("gantt", "small", "-o", "chart.svg"),
    ("report", "small", "-o", "page.html"),
    ("trace", "small", "-o", "trace.json"),
    ("trace", "small", "--format", "hta", "-o", "."),
    ("gantt", "figure5", "-o", "chart.png"),
    ("init", "mine.yaml", "--force"),
)
"""Commands that put their output in place at once."""
ENDS = ("SIGINT", "SIGTERM", "SIGHUP")


FAULTS: tuple[str, ...] = (
    *ENDS,
    *ENDS,
    "SIGKILL",
    "SIGKILL",
    "SIGKILL",
    "twice",
    "stopped",
    "full disk",
    "full stdout",
    "no reader",
)


def _make(chance: Random) -> bytes:
    """Make a case: a command, a fault, who is hit and when, and what stands in its way."""
    words: tuple[str, ...] = chance.choice([*TABLES * 4, *WHOLE * 2, _SEARCH])  # (the search takes the longest)
    faults = FAULTS
    case: dict[str, object] = {"words": words, "hit": "parent", "workers": 1}
    if words in TABLES:
        faults += ("second", "second", "two resume")
        case["after"] = {"bytes": chance.randint(0, chance.choice((300, 3_000, 10_000)))}
        case["workers"] = 1 if words[0] == "plan" else chance.choice((1, 1, 1, 1, 2))  # each costs its imports
    else:
        case["after"] = chance.choice(({"parts": 1}, {"seconds": round(chance.random() ** 2 * 0.4, 4)}))
    if case["workers"] == 2:
        case["hit"] = chance.choice(("parent", "worker", "both"))
        faults = faults if case["hit"] == "parent" else ("SIGKILL", "SIGTERM")
    case["fault"] = chance.choice(faults)
    case["most_bytes"] = chance.randint(300, 4_000)  # what it says of it goes to a file, too
    case["link"] = chance.choice((False, False, False, False, True))
    return json.dumps(case, indent=1).encode()


class _Launcher:
    """The process that starts commands; see ``launcher.py``."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.fuzz.launcher"]
        self._process = Popen(command, stdin=PIPE, stdout=PIPE, cwd=Path(__file__).parents[2])
        atexit.register(self._process.communicate)

    def __call__(self, **asked: object) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.flush()
        return cast("int", json.loads(self._process.stdout.readline()))


@cache
def _launcher() -> _Launcher:
    return _Launcher()


@dataclass
class _Run:
    """A command under way, in a folder for its files and another for what it says."""

    words: tuple[str, ...]
    folder: Path
    beside: Path
    stdout: str = os.devnull
    most_bytes: int | None = None

    def __post_init__(self) -> None:
        handle, name = tempfile.mkstemp(dir=self.beside)
        os.close(handle)
        self._stderr = Path(name)
        self.pid = _launcher()(
            start={
                "words": self.words,
                "folder": str(self.folder),
                "stdout": self.stdout,
                "stderr": name,
                "most_bytes": self.most_bytes,
            }
        )

    def going(self) -> bool:
        return bool(psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE)

    def kill(self, number: int) -> None:
        os.kill(self.pid, number)  # it is there, be it as a zombie, until it is waited for

    def stop(self) -> None:
        self.kill(signal.SIGSTOP)
        _wait(lambda: psutil.Process(self.pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE), "it runs on")

    def end(self, *, alone: bool = True) -> tuple[int, str]:
        """Wait for its end, and for that of all that it started; return its exit status and what it said on stderr."""
        status = _launcher()(end=self.pid)
        if alone:
            _wait(lambda: not _processes_in(self.folder), "a process is left")
        said = self._stderr.read_text(encoding="utf-8")
        assert "Traceback" not in said, said
        assert "Exception" not in said, said
        return status, said

    def workers(self) -> list[psutil.Process]:
        return list(psutil.Process(self.pid).children())


def _wait(happened: Callable[[], bool], otherwise: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < until, otherwise
        time.sleep(0.002)


def _processes_in(folder: Path) -> list[int]:
    """Return the processes that work in a folder, however they came to be there."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def _held(folder: Path) -> Files:
    """Return what files hold, by name; how long a search took is no part of it."""
    held = {path.name: path.read_bytes() for path in folder.iterdir() if path.exists()}
    if "state.json" in held:
        state = json.loads(held["state.json"])
        held["state.json"] = json.dumps({**state, "spent_s": 0.0}).encode()
    return held


@cache
def _undisturbed(words: tuple[str, ...]) -> Files:
    """Return the files of a command that nothing happens to."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as beside:
        status, said = _Run(words, Path(folder).resolve(), Path(beside)).end()
        assert (status, said) == (0, "")
        return _held(Path(folder))


def attempt(path: Path) -> bool:
    """Try a case, and return whether it was hit before its end; what is not as it must be is an ``AssertionError``."""
    case = json.loads(path.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as beside:
        tried = _Case(case, Path(folder).resolve(), Path(beside))
        try:
            tried()
        except UserError as error:  # of a table that cannot be read
            raise AssertionError(str(error)) from error
        finally:
            for pid in _processes_in(Path(folder).resolve()):
                os.kill(pid, signal.SIGKILL)
        return tried.hit


class _Case:
    """A case while it is tried."""

    def __init__(self, case: Mapping[str, Any], folder: Path, beside: Path) -> None:
        self._case, self._folder, self._beside = case, folder, beside
        self._words = tuple(case["words"])
        self._resumes = "-o" in self._words and self._words[0] in ("sweep", "regimes", "plan", "search")
        self._output = self._words[-1] if self._words[-1] not in (".", "--force") else None
        self._files = _undisturbed(self._words)
        self._before: Files = {}
        self.hit = False

    def __call__(self) -> None:
        """Hit the command, look at what it leaves, then let it come to its end."""
        if not self._resumes:
            self._before = dict.fromkeys(self._files, b"old\n")
        for name, content in self._before.items():
            (self._folder / name).write_bytes(content)
        if self._case["link"] and self._output is not None:
            there = self._beside / self._output
            if self._before:
                (self._folder / self._output).rename(there)
            (self._folder / self._output).symlink_to(there)
        getattr(self, "_" + self._how())()
        if self._how() == "two_resume":
            return
        self._look()
        self._complete()

    def _how(self) -> str:
        fault = str(self._case["fault"]).replace(" ", "_")
        return "signalled" if fault.startswith("SIG") else fault

    def _begun(self, **options: Any) -> _Run:  # noqa: ANN401
        workers = ("--workers", str(self._case["workers"])) if self._case["workers"] > 1 else ()
        return _Run((*self._words, *workers), self._folder, self._beside, **options)

    def _at_its_moment(self) -> _Run:
        """Return the command as far as the case says, or at its end."""
        run, after = self._begun(), self._case["after"]
        if "seconds" in after:
            time.sleep(after["seconds"])
            return run
        _wait(lambda: self._as_far_as(after) or not run.going(), "it hangs")
        return run

    def _as_far_as(self, after: Mapping[str, int]) -> bool:
        if "parts" in after:
            return any(path.suffix == ".part" for path in [*self._folder.iterdir(), *self._beside.iterdir()])
        return self._log.exists() and self._log.stat().st_size >= after["bytes"]

    @property
    def _log(self) -> Path:
        """The file that rows are appended to."""
        output = self._folder / str(self._output)
        return output if output.suffix != ".parquet" else output.with_name(f"{output.name}.jsonl")

    def _signalled(self) -> None:
        run = self._at_its_moment()
        number = signal.Signals[self._case["fault"]]
        if self._case["hit"] != "parent":
            workers = run.workers() if run.going() else []
            if workers:
                self.hit = True
                with suppress(psutil.NoSuchProcess):
                    workers[self._case["most_bytes"] % len(workers)].send_signal(number)
        if self._case["hit"] != "worker":
            run.kill(number)
            self._ended(run, number)
            return
        status, said = run.end()
        assert (status, said) == (0, "") or (status == 2 and "worker processes do not start" in said), (status, said)

    def _ended(self, run: _Run, number: int) -> None:
        """Wait for the end of a command that was told to end, if it was not at its end."""
        status, said = run.end()
        self.hit = status != 0
        if status == 0:
            assert not said
        elif status == 2 and self._case["hit"] == "both":
            assert "worker processes do not start" in said
        elif number == signal.SIGKILL:
            assert (status, said) == (-signal.SIGKILL, "")
        else:
            assert status == 128 + number, (status, said)
            if not said:  # all was done but to end
                assert _held(self._folder) == self._files
                return
            how = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
            assert said.startswith(f"dualpipe-sim: {how}"), said
            assert said.count("\n") == 1, said

    def _twice(self) -> None:
        run = self._at_its_moment()
        for number in (signal.SIGTERM, signal.SIGINT):
            run.kill(number)
        status, said = run.end()
        self.hit = status != 0
        assert status in (0, 128 + signal.SIGTERM, 128 + signal.SIGINT), status
        assert said.count("\n") <= 1, said

    def _stopped(self) -> None:
        run = self._at_its_moment()
        run.stop()
        self.hit = run.going()
        run.kill(signal.SIGCONT)
        assert run.end() == (0, "")

    def _full_disk(self) -> None:
        status, said = self._begun(most_bytes=self._case["most_bytes"]).end()
        self.hit = status != 0
        if status:
            assert status == 2, said
            assert said.endswith(f"cannot be written: {os.strerror(errno.EFBIG)}\n"), said
            assert said.count("\n") == 1, said

    def _full_stdout(self) -> None:
        status, said = self._begun(stdout="/dev/full").end()
        self.hit = status != 0
        if status:
            assert (status, said) == (2, f"dualpipe-sim: cannot print: {os.strerror(errno.ENOSPC)}\n")

    def _no_reader(self) -> None:
        pipe = self._beside / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        run = self._begun(stdout=str(pipe))
        if self._case["most_bytes"] % 2:
            time.sleep(float(self._case["most_bytes"]) / 10_000)
        os.close(reader)
        status, said = run.end()
        self.hit = status != 0
        assert status in (0, 1), status
        assert not said

    def _second(self) -> None:
        """Begin the same while the first one stands still, which then goes on as if nothing were."""
        run = self._at_its_moment()
        run.stop()
        for more in ((), ("--resume",)):
            holds = self._holds(run)
            self.hit |= holds
            status, said = _Run((*self._words, *more), self._folder, self._beside).end(alone=False)
            if holds:
                busy = f"is being written by another process (pid {run.pid}); name another file or wait"
                assert (status, said) == (2, f"dualpipe-sim: {self._output}: {busy}\n"), (status, said)
        run.kill(signal.SIGCONT)
        status, said = run.end()
        assert status == 0 or "is being written by" in said or "exists already" in said, (status, said)

    def _holds(self, run: _Run) -> bool:
        """Return whether the first one, which stands still, has the lock."""
        log = self._log.resolve()
        lock = log.with_name(f".{log.name}.lock")
        return run.going() and lock.exists() and lock.read_text().startswith(f"{run.pid} ")

    def _two_resume(self) -> None:
        """Kill it, and resume it twice at once: one of them does it, or one after the other."""
        run = self._at_its_moment()
        run.kill(signal.SIGKILL)
        self.hit = run.end()[0] != 0
        runs = [_Run((*self._words, "--resume"), self._folder, self._beside) for _ in range(2)]
        ended = [one.end(alone=False) for one in runs]
        assert 0 in [status for status, _ in ended], ended
        for status, said in ended:
            assert status == 0 or (status == 2 and "is being written by another process" in said), (status, said)
        assert _held(self._folder) == self._files

    def _look(self) -> None:
        """See that what is there is whole, before anything is mended."""
        hidden = [path.name for folder in (self._folder, self._beside) for path in folder.glob(".*")]
        killed = self._case["fault"] in ("SIGKILL", "twice")
        assert killed or not hidden, hidden
        held = _held(self._folder)
        if not self._resumes:
            for name, content in self._before.items():
                assert held[name] in (content, self._files[name]), name
        elif self._output in held and self._words[0] != "search" and held[str(self._output)]:
            whole = [json.dumps(row, sort_keys=True) for row in self._rows(self._files)]
            rows = [json.dumps(row, sort_keys=True) for row in self._rows(held)]
            assert len(set(rows)) == len(rows), "a row is there twice"
            if self._words[0] != "plan":  # (which says at its end what it did not run)
                assert set(rows) <= set(whole)

    def _rows(self, files: Files) -> list[dict[str, object]]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / str(self._output)
            path.write_bytes(files[path.name])
            return read_rows(path)

    def _complete(self) -> None:
        """Run it again, or go on with it: the same is there as if nothing had happened."""
        status, said = _Run((*self._words, *(("--resume",) if self._resumes else ())), self._folder, self._beside).end()
        assert (status, said) == (0, ""), (status, said)
        held = _held(self._folder)
        assert held.keys() == self._files.keys()
        assert held == self._files, [name for name in held if held[name] != self._files[name]]
        if self._case["link"] and self._output is not None:
            assert (self._folder / self._output).is_symlink()


KIND = Kind("interruptions", ".json", _make, attempt, in_tests=5, in_long=500)
