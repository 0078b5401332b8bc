"""Whatever is asked of the system may fail, and may be the last thing that is asked of it: nothing is lost by that.

A table is written while each call is watched that changes a file: for every one of them, what it leaves where it fails,
where the program is killed before it or in the middle of a write, and where the machine loses its power, is what a
resumed run begins from.
"""

from __future__ import annotations

import errno
import linecache
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

import pytest

from dualpipe_sim import UserError
from dualpipe_sim.base import files, locks
from dualpipe_sim.base.signals import Stopped
from dualpipe_sim.batch import rows
from dualpipe_sim.batch import study as studies
from dualpipe_sim.batch.points import Row
from dualpipe_sim.batch.study import Study, collect
from dualpipe_sim.sweeps import read_table

SUFFIXES = (".csv", ".jsonl", ".parquet")
CALLS = ((os, "open"), (os, "write"), (os, "fsync"), (os, "ftruncate"), (Path, "write_bytes"), (Path, "replace"),
         (Path, "unlink"), (Path, "chmod"))  # fmt: skip
"""All calls by which a table comes to be, but what pyarrow writes to a file that has not its name yet."""
WRITING = {module.__file__ for module in (files, locks, rows, studies)}
BEFORE, AFTER = 2, 4
"""Points of a table that is there, and that it grows to."""
Folder: TypeAlias = "dict[str, bytes]"
"""What the files of a folder hold, by name."""
Step: TypeAlias = "Callable[[str, Callable[[float], object], tuple[Any, ...]], None]"


def study(points: int, asked: list[object]) -> Study:
    """A study whose evaluation notes down what it is asked."""

    def evaluate(point: Mapping[str, object]) -> Row:
        asked.append(point["x"])
        return {"y": f"a, {point['x']}", "error": None}

    return Study([{"x": x} for x in range(points)], evaluate, ["y", "error"], None)


@contextmanager
def watched(step: Step) -> Iterator[None]:
    """Call ``step`` before each call that changes a file, with its name, how to do a share of it, and its arguments."""
    with pytest.MonkeyPatch.context() as patch:
        for place, name in CALLS:
            patch.setattr(place, name, _called(name, getattr(place, name), step))
        yield


def _called(name: str, real: Callable[..., object], step: Step) -> Callable[..., object]:
    def call(*arguments: Any, **options: Any) -> object:  # noqa: ANN401
        def share(of: float) -> object:
            *first, last = arguments
            return real(*first, last[: int(of * len(last))], **options)

        step(name, share, arguments)
        return None if name == "fsync" else real(*arguments, **options)

    return call


def held(folder: Path) -> Folder:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def finished(folder: Path, suffix: str, points: int) -> Folder:
    """Return what a run without any fault leaves."""
    folder.mkdir()
    collect(study(points, []), output=folder / f"table{suffix}")
    return held(folder)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_whichever_call_fails_it_is_a_line_and_resuming_gives_the_same_table(suffix: str, tmp_path: Path) -> None:
    whole = finished(tmp_path / "whole", suffix, AFTER)
    refusals: list[str] = []
    failed: list[str] = []
    for fails in count():
        calls = count()

        def step(name: str, share: Callable[[float], object], _: tuple[Any, ...]) -> None:
            if next(calls) == fails:  # noqa: B023 - called within this round
                failed.append(name)
                if name == "write":
                    share(0.5)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        folder = tmp_path / str(fails)
        folder.mkdir()
        file = folder / f"table{suffix}"
        try:
            with watched(step):
                collect(study(AFTER, []), output=file)
        except UserError as refusal:
            refusals.append(str(refusal))
        if next(calls) <= fails:
            break
        assert failed[-1] == "unlink" or not list(folder.glob(".*"))
        log = file if suffix != ".parquet" or file.exists() else file.with_name(f"{file.name}.jsonl")
        asked: list[object] = []
        kept = [row["x"] for row in read_table(log)] if log.exists() else []
        collect(study(AFTER, asked), output=file, resume=True)
        assert held(folder) == whole
        assert asked == [x for x in range(AFTER) if x not in kept]
    assert len(refusals) > AFTER
    assert all(refusal.endswith("cannot be written: No space left on device") for refusal in refusals)


class States:
    """What a folder may hold at the moments between all calls, and in the middle of them, if nothing comes after.

    Without power, of a file that is what was there at its last fsync; its name may be there or, until its folder is
    synced, that of before.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[Folder] = []
        self.synced = {path.stat().st_ino: path.read_bytes() for path in folder.iterdir()}
        self.names = self._names()

    def _names(self) -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in self.folder.iterdir()}

    def on_disk(self) -> Folder:
        """Return what surely is there of the files that are there now."""
        return self._synced(self._names())

    def _synced(self, names: Mapping[str, int]) -> Folder:
        return {name: self.synced.get(file, b"") for name, file in names.items()}

    def note(self) -> None:
        for state in (held(self.folder), self.on_disk(), self._synced(self.names)):
            if state not in self.seen:
                self.seen.append(state)

    def step(self, name: str, share: Callable[[float], object], arguments: tuple[Any, ...]) -> None:
        self.note()
        if name == "write":
            self._torn(share, arguments[0])
        if name == "fsync":
            now = os.fstat(arguments[0])
            if stat.S_ISDIR(now.st_mode):
                self.names = self._names()
            else:
                files = [path for path in self.folder.iterdir() if path.stat().st_ino == now.st_ino]
                self.synced[now.st_ino] = files[0].read_bytes()

    def _torn(self, share: Callable[[float], object], file: int) -> None:
        """Write half, look, and take it back."""
        length, place = os.fstat(file).st_size, os.lseek(file, 0, os.SEEK_CUR)
        share(0.5)
        self.note()
        os.truncate(file, length)
        os.lseek(file, place, os.SEEK_SET)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_wherever_a_program_or_its_machine_ends_resuming_gives_the_same_table(suffix: str, tmp_path: Path) -> None:
    """The rows of a table that was there are never asked for again."""
    whole = finished(tmp_path / "whole", suffix, AFTER)
    finished(tmp_path / "grows", suffix, BEFORE)
    states = States(tmp_path / "grows")
    with watched(states.step):
        collect(study(AFTER, []), output=tmp_path / "grows" / f"table{suffix}", resume=True)
    states.note()
    assert len(states.seen) > AFTER
    assert states.on_disk() == whole, "a power cut later would lose what was there"
    assert any(name.endswith(".part") for state in states.seen for name in state)
    assert any(name.endswith(".lock") for state in states.seen for name in state)
    for number, state in enumerate(states.seen):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, content in state.items():
            (folder / name).write_bytes(content)
        asked: list[object] = []
        collect(study(AFTER, asked), output=folder / f"table{suffix}", resume=True)
        assert held(folder) == whole
        assert not set(asked) & set(range(BEFORE))


class EndsAtALine:
    """Ends a program by a signal at one of the lines that write a table, if it has so many."""

    def __init__(self, number: int) -> None:
        self._left = number

    def __call__(self, frame: FrameType, event: str, _: object) -> EndsAtALine | None:
        if frame.f_code.co_filename not in WRITING:
            return None
        # (no signal arrives at a line that does nothing, after whatever was done before it)
        if event == "line" and linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip() != "try:":
            self._left -= 1
            if self._left == 0:
                sys.settrace(None)
                raise Stopped(signal.SIGTERM)
        return self


@pytest.mark.parametrize(
    "suffix", [".csv", *(pytest.param(suffix, marks=pytest.mark.thorough) for suffix in (".jsonl", ".parquet"))]
)
def test_a_signal_at_any_line_leaves_no_file_but_rows_and_no_lock(suffix: str, tmp_path: Path) -> None:
    whole = finished(tmp_path / "whole", suffix, AFTER)
    for number in count(1):
        folder = tmp_path / str(number)
        folder.mkdir()
        file = folder / f"table{suffix}"
        before = sys.gettrace()
        try:
            sys.settrace(EndsAtALine(number))
            collect(study(AFTER, []), output=file)
            break
        except Stopped:
            pass
        finally:
            sys.settrace(before)
        assert not list(folder.glob(".*"))
        collect(study(AFTER, []), output=file, resume=True)
        assert held(folder) == whole
    assert number > 100
