"""What is read: regular files and what is open already, up to a limit, in so much memory; the rest is one line."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import pytest

from dualpipe_sim.base.files import Limit, read_bytes, read_text, read_unpacked
from dualpipe_sim.base.json_text import DEEPEST, parse_json, parse_settings
from dualpipe_sim.base.memory import at_most
from dualpipe_sim.errors import UserError

SMALL = Limit(100, "such a file")


@pytest.mark.parametrize("size", [99, 100])
def test_a_file_up_to_the_limit_is_read(size: int, tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"a" * size)
    assert read_bytes(file, SMALL) == b"a" * size


def test_a_larger_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a"
    with file.open("wb") as sparse:
        sparse.truncate(2**40)
    with pytest.raises(UserError, match="is larger than 2 MiB, the most that is read of settings"):
        read_text(file)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/tty"])
def test_a_device_is_refused_unopened(device: str) -> None:
    if not Path(device).exists():
        pytest.skip("there is no such device here")
    with pytest.raises(UserError, match="is a device or pipe"):
        read_text(device)


def test_a_pipe_that_nobody_writes_to_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="is a device or pipe"):
        read_text(pipe)


def test_a_pipe_that_takes_a_files_place_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, usual = tmp_path / "pipe", Path.stat
    os.mkfifo(pipe)
    (tmp_path / "file").touch()
    monkeypatch.setattr(Path, "stat", lambda path: usual(tmp_path / "file") if path == pipe else usual(path))
    with pytest.raises(UserError, match="is a device or pipe"):
        read_text(pipe)


def test_what_a_shell_gives_for_a_file_is_read_as_often_as_one_asks() -> None:
    out, into = os.pipe()
    os.write(into, b"\xef\xbb\xbfa\r\nb")
    os.close(into)
    try:
        assert [read_text(f"/dev/fd/{out}") for _ in range(2)] == ["a\nb", "a\nb"]
    finally:
        os.close(out)


def test_what_comes_without_end_is_refused() -> None:
    code = "from dualpipe_sim.base.files import read_text; read_text('/dev/stdin')"
    endlessly = [sys.executable, "-c", "while True: print('0' * 65536)"]
    with subprocess.Popen(endlessly, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as endless:
        done = subprocess.run(
            [sys.executable, "-c", code], stdin=endless.stdout, capture_output=True, text=True, check=False
        )
        endless.kill()
    assert done.stderr.endswith("/dev/stdin: is larger than 2 MiB, the most that is read of settings\n")


def packed_zeros(size_gib: int) -> bytes:
    """A gzip file of many zeros, made without unpacking any: a deflate stream of one block, repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = packer.compress(bytes(2**26)) + packer.flush()
    return block * (16 * size_gib)  # which gzip takes for one file


def test_a_bomb_is_refused_in_little_memory(tmp_path: Path) -> None:
    bomb = tmp_path / "a.json.gz"
    bomb.write_bytes(packed_zeros(3))
    tracemalloc.start()
    with pytest.raises(UserError, match="is unpacked to more than 100 times its size"):
        read_unpacked(bomb)
    assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    tracemalloc.stop()


def test_an_unpacked_file_has_the_limit_too(tmp_path: Path) -> None:
    file = tmp_path / "a.gz"
    file.write_bytes(gzip.compress(b"a" * 101))
    with pytest.raises(UserError, match="is larger than"):
        read_unpacked(file, SMALL)
    file.write_bytes(gzip.compress(b"a" * 50) * 2)
    assert read_unpacked(file, SMALL) == "a" * 100


def test_what_no_memory_holds_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(f"[{'{},' * 6_000_000}1]")
    with at_most(20e6):
        with pytest.raises(UserError, match="takes more memory to read than there is"):
            read_unpacked(file)
        with pytest.raises(UserError, match="takes more memory than there is once it is read"):
            parse_json(f"[{'{},' * 1_500_000}1]", "a.json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 10**6, "it is nested too deeply to be read"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), f"is nested more than {DEEPEST} levels deep"),
        ('{"a":' * 80 + "1" + "}" * 80, f"is nested more than {DEEPEST} levels deep"),
        ("9" * 5000, "it has a number of thousands of digits"),
        ('{"a": [NaN]}', "nan is no number"),
        (f'{{"a": {"9" * 300}}}', "a number has more than 250 digits"),
        ('{"a": ["\\ud800"]}', r"'\\ud800' is no text: it holds half a character"),
        ('{"\\udfff": 1}', r"'\\udfff' is no text: it holds half a character"),
    ],
)
def test_json_of_settings_can_be_walked_and_written(text: str, said: str) -> None:
    with pytest.raises(UserError, match=f"^a.json: (is no JSON: )?{said}$"):
        parse_settings(text, "a.json")


def test_json_as_deep_as_may_be_is_read() -> None:
    text = "[" * DEEPEST + "]" * DEEPEST
    assert json.dumps(parse_settings(text, "a.json")) == text
