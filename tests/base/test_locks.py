"""One writer at a time, and none that is no more keeps the next one out."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dualpipe_sim.base.files import written_together, written_whole
from dualpipe_sim.base.locks import locked
from dualpipe_sim.errors import UserError

HOLDER = """
import sys
from pathlib import Path
from dualpipe_sim.base.locks import locked
with locked(Path(sys.argv[1]), "it"):
    print("has it", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the lock of ``table.csv``."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "table.csv")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "has it\n"
        yield process
        process.kill()


def test_another_process_is_named_and_a_killed_one_is_in_nobodys_way(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    file = tmp_path / "table.csv"
    link = tmp_path / "link.csv"
    link.symlink_to(file)
    for name in (file, link):
        with pytest.raises(UserError) as refused, written_whole(name):
            pass
        assert str(refused.value) == (
            f"{name}: is being written by another process (pid {holder.pid}); name another file or wait"
        )
    holder.kill()
    holder.wait()
    assert (tmp_path / ".table.csv.lock").exists()
    with written_whole(file) as part:
        part.write_text("new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.csv", "table.csv"]


def test_one_who_ends_lets_go(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    assert holder.stdin is not None
    holder.stdin.close()
    assert holder.wait() == 0
    assert not list(tmp_path.iterdir())


def test_this_process_is_kept_out_too_and_other_machines_are_told_of(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    with locked(file, "it"):
        with pytest.raises(UserError, match=r"^it: is being written by this process already; name"), locked(file, "it"):
            pass
        for said, told in (("17 far.away\n", r"\(pid 17 on far.away\)"), ("17 \x1b]0;\n", r"\(pid 17\)"), ("", ";")):
            (tmp_path / ".table.csv.lock").write_text(said)
            with pytest.raises(UserError, match=f"another process ?{told}"), locked(file, "it"):
                pass


def test_a_lock_file_that_its_holder_takes_along_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its holder ended after the file was opened, and before it was locked: others would not see it."""
    file, lock = tmp_path / "table.csv", tmp_path / ".table.csv.lock"
    real, opened = fcntl.flock, []

    def after_its_holder(descriptor: int, how: int) -> None:
        real(descriptor, how)
        opened.append(os.fstat(descriptor).st_ino)
        if len(opened) == 1:
            lock.unlink()

    monkeypatch.setattr(fcntl, "flock", after_its_holder)
    with locked(file, "it"):
        assert lock.stat().st_ino == opened[-1]
        with pytest.raises(UserError, match="this process already"), locked(file, "it"):
            pass


def test_where_a_file_system_has_no_locks_writers_go_on_each_with_parts_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    file = tmp_path / "table.csv"
    with written_whole(file) as one, written_whole(file) as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    assert file.read_text() == "one"  # the last one to be done


def test_of_files_that_belong_together_all_are_there_or_none(tmp_path: Path) -> None:
    files = [tmp_path / f"rank{rank}.json" for rank in range(3)]

    def write(text: str, most: int) -> None:
        with written_together(*files) as parts:
            for part in parts[:most]:
                part.write_text(text)
            if most < len(parts):
                raise RuntimeError

    write("old", 3)
    with pytest.raises(RuntimeError):
        write("new", 2)
    assert [file.read_text() for file in files] == ["old"] * 3
    assert len(list(tmp_path.iterdir())) == 3
