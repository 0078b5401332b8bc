"""What the shell offers, and what every command's help ends with."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dualpipe_sim.cli import complete

if TYPE_CHECKING:
    from tests.conftest import CommandLine

COMMANDS = {
    "init": "",
    "configs": "",
    "presets": "",
    "schema": "",
    "import": "needs a config.json",
    "run": "",
    "why": "",
    "compare": "",
    "gantt": "",
    "timeline": "",
    "animate": "",
    "report": "",
    "explore": "serves until it is stopped",
    "memory": "",
    "layers": "",
    "sweep": "",
    "robust": "",
    "regimes": "",
    "plan": "needs minutes",
    "search": "needs minutes",
    "score": "needs measured runs",
    "trace": "",
    "calibrate": "needs a trace",
    "compare-run": "needs a trace",
    "schedule": "",
    "schedules": "",
    "check": "needs an order",
    "mcp": "waits for a client",
}
"""All commands, and why an example cannot be run in an empty folder."""


FP = ("fp16", "fp8", "fp8-tensor", "fp8-block")


def offered(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    """Ask as bash does, with the cursor behind the last word."""
    monkeypatch.setenv("_DUALPIPE_SIM_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", " ".join(("dualpipe-sim", *words)))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    return command_line().stdout.split()


@pytest.mark.parametrize(
    ("words", "among"),
    [
        (("schedule", "zb"), ["zb-auto", "zb-h1", "zb-h2", "zb-v"]),
        (("run", "deepseek_v3"), ["deepseek_v3", "deepseek_v3_pair", "deepseek_v3_stage_level"]),
        (("presets", "h"), ["h100", "h100-hbm2e", "h20", "h200", "h800", "h100-ib", "h20-ib", "h800-ib"]),
        (("init", "--from", "gpt-"), ["gpt-1.5b", "gpt-14.6b", "gpt-28.3b", "gpt-6.2b", "gpt-oss-120b", "gpt-oss-20b"]),
        (("schema", "cluster.nv"), ["cluster.nvlink", "cluster.nvlink.bandwidth", "cluster.nvlink.latency"]),
        (("run", "figure5", "--set", "pipeline.m"), ["pipeline.micro_batches="]),
        (("run", "figure5", "--set", "costs.f"), ["costs.forward=", "costs.file="]),
        (("run", "figure5", "--set", "training.precision=f"), [f"training.precision={one}" for one in FP]),
        (("run", "figure5", "--set", "gpu=h"), ["gpu=h100", "gpu=h100-hbm2e", "gpu=h20", "gpu=h200", "gpu=h800"]),
        (("run", "figure5", "--set", "schedule=dual"), ["schedule=dualpipe", "schedule=dualpipev"]),
        (("run", "figure5", "--set", "training.causal="), ["training.causal=true", "training.causal=false"]),
    ],
)
def test_the_shell_is_offered_names(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], among: list[str]
) -> None:
    assert sorted(offered(command_line, monkeypatch, *words)) == sorted(among)


def test_files_are_offered_beside_packaged_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("figure_mine.yaml", "notes.txt", "folder/own.yml"):
        (tmp_path / name).touch()
    assert complete.config_names("fig") == ["figure5", "figure_mine.yaml"]
    assert complete.config_names("fo") == ["folder/"]
    assert complete.config_names("folder/") == ["folder/own.yml"]
    assert complete.config_names("nowhere/x") == []


def test_a_key_that_takes_numbers_offers_none() -> None:
    assert complete.settings("pipeline.micro_batches=") == []
    assert complete.settings("no.such.key=") == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_commands_help_ends_with_an_example(command_line: CommandLine, command: str) -> None:
    lines = command_line(command, "--help").stdout.strip().splitlines()
    assert lines[-1].strip().startswith(f"Example: dualpipe-sim {command}")


def test_all_commands_are_known_here(command_line: CommandLine) -> None:
    listed = re.findall(r"(?m)^  ([a-z-]+)  ", command_line("--help").stdout.partition("Commands:")[2])
    assert set(listed) == set(COMMANDS)


@pytest.mark.thorough
@pytest.mark.parametrize("command", [command for command, reason in COMMANDS.items() if not reason])
def test_the_example_runs_in_an_empty_folder(
    command_line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    line = command_line(command, "--help").stdout.strip().splitlines()[-1].partition("dualpipe-sim ")[2]
    monkeypatch.chdir(tmp_path)
    done = command_line(*shlex.split(line))
    assert done.returncode == 0, done.stderr
