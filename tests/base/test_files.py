"""Files are written whole, through links, and never in the place of what is no file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dualpipe_sim.base.files import written_whole
from dualpipe_sim.errors import UserError
from tests.conftest import CommandLine

TOO_LONG = "a" * 260

WRITERS = (
    "gantt small -o {}.png",
    "report small -o {}.html",
    "timeline small -o {}.csv",
    "compare small --plot {}.png",
    "trace small -o {}.json",
    "trace small --format chakra -o {}",
    "trace small --format hta -o {}",
    "sweep small --over pipeline.micro_batches=16 -o {}.csv",
    "sweep small --over pipeline.micro_batches=16 -o {}.parquet",
    "init {}.yaml",
)


@pytest.mark.parametrize("command", WRITERS)
def test_a_name_that_no_file_can_have_is_refused(
    command: str, command_line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command_line(*command.format(TOO_LONG).split())
    assert done.returncode == 2
    assert "File name too long" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [one for one in WRITERS if "hta" not in one])
def test_a_folder_is_not_written_over(
    command: str, command_line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = command.format("out").split()
    name = f"{words[-1]}.0.et" if "chakra" in words else words[-1]
    Path(name).mkdir()
    done = command_line(*words)
    assert done.returncode == 2
    assert f"{name}: is a folder; name a file" in " ".join(done.stderr.split())
    assert not list(Path(name).iterdir())


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    there, link = tmp_path / "folder" / "there.txt", tmp_path / "link.txt"
    there.parent.mkdir()
    link.symlink_to(there)
    with written_whole(link) as part:
        part.write_text("new")
    assert link.is_symlink()
    assert there.read_text() == "new"


def test_a_link_that_leads_to_itself_stays(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(link)
    with pytest.raises(UserError, match="is a link that leads to itself"), written_whole(link):
        pass
    assert link.is_symlink()


def test_a_link_that_leads_nowhere_yet_is_written_through(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("there")
    with written_whole(link) as part:
        part.write_text("new")
    assert link.is_symlink()
    assert (tmp_path / "there").read_text() == "new"


def test_who_may_read_and_write_a_file_stays_and_what_may_only_be_read_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "private.txt"
    file.write_text("old")
    file.chmod(0o600)
    with written_whole(file) as part:
        part.write_text("new")
    assert file.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(os, "access", lambda *_: False)  # (root may write to anything)
    with pytest.raises(UserError, match="may only be read; name another file"), written_whole(file):
        pass
    assert file.read_text() == "new"


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="is a device or pipe"), written_whole(pipe):
        pass
    assert pipe.is_fifo()


def test_a_name_as_long_as_can_be_is_written(tmp_path: Path) -> None:
    name = "a" * 251 + ".txt"
    with written_whole(tmp_path / name) as part:
        part.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    file = tmp_path / "old.txt"
    file.write_text("old")

    def fail_halfway() -> None:
        with written_whole(file) as part:
            part.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["old.txt"]
