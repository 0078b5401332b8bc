"""The commands robust and regimes: what they print, draw and refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dualpipe_sim import robust

if TYPE_CHECKING:
    from tests.conftest import CommandLine

AXES = ("--x", "costs.overlapped=2.5..3.5:11", "--y", "pipeline.micro_batches=20,24")
TWO = ("--set", "compare=[zb-h1,dualpipe]")


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("command", ["robust", "regimes"])
def test_help_fits_the_terminal(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, command: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = command_line(command, "--help").stdout.splitlines()
    assert max(map(len, lines)) <= width


def test_robust_prints_a_table_and_who_wins(command_line: CommandLine) -> None:
    done = command_line("robust", "figure5", "--runs", "100", "--seed", "3")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "8 × 20 (ranks × micro-batches), 100 scenarios"
    assert [line.split()[0] for line in lines[4:8]] == ["dualpipe", "zb-h1", "chimera,", "1f1b"]
    assert "p50: dualpipe is best; zb-h1 takes" in done.stdout
    assert "drawn: jitter 5%; 5% of ranks slow, by 20% at the mean; 5% of links slow" in done.stdout


def test_robust_as_json_is_what_python_gives(command_line: CommandLine) -> None:
    done = command_line("robust", "figure5", "--runs", "30", "--json", *TWO)
    told: dict[str, Any] = {"compare": ["zb-h1", "dualpipe"], "scenarios.runs": 30}
    told = {"schema": "dualpipe-sim/robust/1", **robust("figure5", **told).to_dict()}
    assert json.loads(done.stdout) == told


def test_regimes_prints_who_is_best_where(command_line: CommandLine) -> None:
    done = command_line("regimes", "figure5", *AXES, *TWO)
    assert (done.returncode, done.stderr) == (0, "")
    assert "micro_batches 20: dualpipe until overlapped 3.071, then zb-h1" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_regimes_draws_and_writes_rows(command_line: CommandLine, tmp_path: Path) -> None:
    chart, table = tmp_path / "map.svg", tmp_path / "map.csv"
    done = command_line("regimes", "figure5", *AXES, *TWO, "-o", chart, "-o", table, "--json", "-j", "2")
    assert done.returncode == 0
    assert ">dualpipe<" in chart.read_text()
    points = json.loads(done.stdout)["points"]
    lines = table.read_text().splitlines()
    assert lines[0] == "pipeline.micro_batches,costs.overlapped,zb-h1,dualpipe,unfit,error,point"
    assert len(points) == len(lines) - 1 == 22
    again = command_line("regimes", "figure5", *AXES, *TWO, "-o", table)
    assert again.returncode == 2
    assert "exists already; go on with it by --resume" in again.stderr
    assert (
        json.loads(command_line("regimes", "figure5", *AXES, *TWO, "-o", table, "--resume", "--json").stdout)["points"]
        == points
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--x", "ranks=4..", "--y", "micro_batches=8"), "--x ranks=4..: must be a range like 0 ms..5 ms"),
        (("--x", "ranks=4,8", "--y", "ranks=4,8"), "--y pipeline.ranks: is varied by --x already; take another key"),
        ((*AXES, "-o", "a.csv", "-o", "b.csv"), "--output b.csv: rows are in a.csv already; name one table"),
        ((*AXES, "-o", "map.txt"), "map.txt: the name must say the table's format by its end"),
        ((*AXES, "--resume"), "there is no output to resume; name its file"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(command_line: CommandLine, words: tuple[str, ...], said: str) -> None:
    done = command_line("regimes", "figure5", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"dualpipe-sim: {said}")
    assert done.stderr.count("\n") == 1
