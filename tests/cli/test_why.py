"""The command why: what it prints, in how wide a terminal, and what it draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dualpipe_sim.why import why

if TYPE_CHECKING:
    from tests.conftest import CommandLine


def test_it_says_what_the_step_depends_on_and_derives_the_formula(command_line: CommandLine) -> None:
    done = command_line("why", "figure5", "--set", "schedule=zb-h1")
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    words = " ".join(done.stdout.split())
    assert "zb-h1, 8 × 20: a step of 67" in words
    assert "7 F + 7 I - 7 W" in words
    assert "published: (P-1)(F+I-W) = (8-1)(1+1-1) = 7, exactly what it is here" in words


@pytest.mark.parametrize("width", [60, 80])
def test_it_fits_the_terminal(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for arguments in (["--help"], ["deepseek_v3", "--set", "pipeline.micro_batches=32"]):
        done = command_line("why", *arguments)
        assert done.returncode == 0
        assert max(map(len, done.stdout.splitlines())) <= width


def test_json_has_all_of_it(command_line: CommandLine) -> None:
    done = command_line("why", "figure5", "--json")
    told = json.loads(done.stdout)
    assert told == {"schema": "dualpipe-sim/why/1", **json.loads(json.dumps(why("figure5").to_dict()))}
    assert told["bubble"]["parts"]["warm_up"]["sum"] == "2 F"
    assert {one["key"] for one in told["costs"]} == {"F", "I", "W", "X"}
    assert [one["key"] for one in told["hardware"]] == ["compute"]


def test_it_draws_what_the_step_depends_on(command_line: CommandLine, tmp_path: Path) -> None:
    chart = tmp_path / "why.svg"
    done = command_line("why", "figure5", "--plot", str(chart), "--title", "What it depends on")
    assert done.returncode == 0
    drawn = chart.read_text(encoding="utf-8")
    assert "What it depends on" in drawn
    assert "backward for weights" in drawn


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["figure5", "--plot", "why.txt"], "why.txt"),
        (["figure5", "--set", "schedule=zb-h3"], "zb-h1"),
        (["nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_mistakes_are_one_line(command_line: CommandLine, arguments: list[str], says: str) -> None:
    done = command_line("why", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
