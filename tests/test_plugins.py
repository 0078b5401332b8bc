"""Files of a user's own: run once, and what is wrong with them in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualpipe_sim import UserError
from dualpipe_sim.plugins import load_plugin


def test_a_file_is_run_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from dataclasses import dataclass\n\n@dataclass\nclass A:\n    x: int = 3\n\nloaded = [A()]\n")
    module = load_plugin(file)
    module.loaded.append("again")
    assert len(load_plugin(str(file)).loaded) == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gone.py", None, "gone.py: no such file"),
        ("mine.txt", "x = 1\n", r"mine.txt: is no Python file \(\.py\)"),
        ("mine.py", "x = 1\ny = 1 / 0\n", "mine.py:2: ZeroDivisionError: division by zero"),
        ("mine.py", "x = 1\ndef f(:\n", "mine.py:2: SyntaxError: invalid syntax"),
        ("mine.py", "import no_such_module\n", "mine.py:1: ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(name: str, text: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=message):
        load_plugin(file)
    if text is not None and file.suffix == ".py":
        file.write_text("x = 1\n")
        assert load_plugin(file).x == 1  # a file that failed is tried again
