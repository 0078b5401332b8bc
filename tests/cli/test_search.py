"""The command search: what it prints, writes and refuses, and what stays when it is told to end."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dualpipe_sim.order import check_order

if TYPE_CHECKING:
    from tests.conftest import CommandLine, WaitFor

CONFIG = """\
pipeline: {ranks: 2, micro_batches: 4}
costs:
  kind: profile
  layers: [{forward: 1 ms, backward: 2 ms, count: 4}, {forward: 3 ms, backward_input: 2 ms, backward_weight: 1 ms}]
search: {rounds: 1, moves: 100, stages_per_rank: 2}
"""


def test_it_prints_what_it_found_and_writes_the_order(command_line: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(CONFIG)
    printed = command_line("search", f"{tmp_path}/mine.yaml", "--order", f"{tmp_path}/best.csv", "-j", "1").stdout
    assert "no order is below" in printed
    assert "best registered schedule: " in printed
    assert check_order((tmp_path / "best.csv").read_text()) == []
    told = json.loads(command_line("search", f"{tmp_path}/mine.yaml", "--json", "-j", "1").stdout)
    assert told["order"] == (tmp_path / "best.csv").read_text()
    assert sum(told["partition"]) == 5
    assert sorted(stage for own in told["stages_by_rank"] for stage in own) == list(range(len(told["partition"])))
    assert told["bound_s"] <= told["makespan_s"] <= min(told["named"].values())


def test_a_narrow_terminal_shows_all_lines_whole(
    command_line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text(CONFIG)
    monkeypatch.setenv("COLUMNS", "60")
    printed = command_line("search", f"{tmp_path}/mine.yaml", "-j", "1").stdout
    assert max(map(len, printed.splitlines())) <= 60


def test_what_is_wrong_is_a_line(command_line: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(CONFIG)
    for given, told in (
        (("--set", "search.activations=0.2"), "search.activations: must be 1 or more"),
        (("--set", "pipeline.ranks=9"), "5 layers cannot be shared out over 9 ranks"),
        (("--resume",), "no output to resume"),
        (("--seconds", "0"), "search.seconds"),
        (("--set", "costs.layers=[]"), "costs.layers"),
    ):
        refused = command_line("search", f"{tmp_path}/mine.yaml", *given)
        assert refused.returncode == 2
        assert told in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
        assert not refused.stdout


def test_an_interrupt_keeps_the_best_so_far(tmp_path: Path, program: list[str], wait_for: WaitFor) -> None:
    config, state = tmp_path / "mine.yaml", tmp_path / "state.json"
    config.write_text(CONFIG.replace("rounds: 1", "rounds: 100000"))
    command = [*program, "search", str(config), "--json", "-j", "1", "-o", str(state)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(state.exists)
    running.send_signal(signal.SIGTERM)
    printed, complaint = running.communicate()
    assert running.returncode == 143, complaint
    assert complaint == f"dualpipe-sim: ended by SIGTERM; {state} keeps where it stands; --resume goes on\n"
    told = json.loads(printed)
    assert told["interrupted"]
    assert check_order(told["order"]) == []
