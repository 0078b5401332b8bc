"""The command animate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import CommandLine


def test_animate_writes_a_film_and_says_how_large_it_is(command_line: CommandLine, tmp_path: Path) -> None:
    film = tmp_path / "film.gif"
    done = command_line("animate", "figure5", "-o", film, "--seconds", "1", "--fps", "4")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{film}: 4 pictures, {film.stat().st_size / 1e3:,.0f} kB\n"
    assert film.read_bytes().startswith(b"GIF89a")


def test_a_page_is_refused_before_anything_is_run(command_line: CommandLine, tmp_path: Path) -> None:
    done = command_line("animate", "no_such_config", "-o", tmp_path / "film.html")
    assert done.returncode == 2
    assert done.stderr.strip().endswith("is what report writes; a film is a .gif or .mp4")
    assert not list(tmp_path.iterdir())
