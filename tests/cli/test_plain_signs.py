"""Output in encodings that lack the signs of tables, as Windows gives it to a program whose output is no console."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from dualpipe_sim import cli

CODE = Path(cli.__file__).parents[1]


def written(monkeypatch: pytest.MonkeyPatch, encoding: str, *arguments: str) -> str:
    """What the program writes to a stdout of an encoding, read as that encoding."""
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "argv", ["dualpipe-sim", *arguments])
        patch.setattr(sys, "excepthook", sys.excepthook)
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert ended.value.code == 0
    stdout.flush()
    return stdout.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "cp932", "iso-8859-15", "koi8-r"])
@pytest.mark.parametrize("arguments", [("run", "figure5"), ("why", "figure5", "--help"), ("schedules",)])
def test_every_word_and_number_is_there_in_every_encoding(
    monkeypatch: pytest.MonkeyPatch, encoding: str, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    there = written(monkeypatch, encoding, *arguments)
    assert "\\" not in there
    words = re.compile(r"[\w.%]*\w%?", re.ASCII)
    assert words.findall(there.replace(" x ", " ")) == words.findall(written(monkeypatch, "utf-8", *arguments))


def test_lines_of_a_table_stay_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    there = written(monkeypatch, "cp1252", "run", "figure5").splitlines()
    assert there[3] == "--------  --------  ------  ----  -----  ----  -----"


def test_a_file_name_that_is_no_text_is_written_all_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = "run-\udcff.html"  # a byte that is no UTF-8, as Python holds it
    assert (
        written(monkeypatch, "utf-8", "report", "figure5", "-o", str(tmp_path / name))
        .split(":")[0]
        .endswith(r"run-\udcff.html")
    )


def test_every_sign_in_the_code_has_an_ascii_spelling() -> None:
    signs = {sign for file in CODE.rglob("*.py") for sign in file.read_text(encoding="utf-8") if not sign.isascii()}
    assert "×" in signs
    assert [sign for sign in sorted(signs) if "\\" in sign.encode("ascii", "dualpipe_sim.plain_signs").decode()] == []
