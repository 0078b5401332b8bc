"""Runs as files, for every test of what is read from them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

import pytest

RunFile: TypeAlias = Callable[["str | Iterable[tuple[object, ...]]"], Path]


@pytest.fixture
def run_file(tmp_path: Path) -> RunFile:
    """Return a function that writes rows, as text or not, as the command ``timeline`` does: below their heading."""

    def write(rows: str | Iterable[tuple[object, ...]]) -> Path:
        path = tmp_path / "run.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            file.write("rank,lane,task,start_s,end_s\n")
            if isinstance(rows, str):
                file.write(rows)
            else:
                csv.writer(file).writerows(rows)
        return path

    return write
