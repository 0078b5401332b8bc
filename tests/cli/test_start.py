"""The commands to begin with: init writes a configuration to change, schema what editors know of its keys.

configs and presets say what there is to begin with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dualpipe_sim.config import packaged_configs
from dualpipe_sim.config.json_schema import json_schema
from dualpipe_sim.config.presets import presets

if TYPE_CHECKING:
    from tests.conftest import CommandLine


def test_what_init_writes_runs(command_line: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    assert command_line("init", file).returncode == 0
    assert file.read_text().startswith("# A first experiment")
    compared = command_line("compare", file)
    assert compared.returncode == 0, compared.stderr
    assert "refused" not in compared.stdout


def test_init_replaces_nothing_unasked(command_line: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("precious")
    refused = command_line("init", file)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "--force" in refused.stderr
    assert file.read_text() == "precious"
    assert command_line("init", file, "--force").returncode == 0


@pytest.mark.parametrize("name", sorted(packaged_configs()))
def test_init_begins_with_any_configuration(command_line: CommandLine, tmp_path: Path, name: str) -> None:
    file = tmp_path / "mine.yaml"
    done = command_line("init", file, "--from", name)
    command = "plan" if name.startswith("plan") else "compare"
    assert (done.returncode, done.stdout) == (0, f"{file} is written; try: dualpipe-sim {command} {file}\n")
    assert file.read_bytes() == packaged_configs()[name].read_bytes()
    again = tmp_path / "again.yaml"
    assert command_line("init", again, "--from", file).returncode == 0
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("deepseekv3", "deepseekv3: no such file, and no packaged config of this name; did you mean 'deepseek_v3'?"),
        ("gone.yaml", "gone.yaml: cannot be read: No such file or directory"),
    ],
)
def test_init_from_what_is_not_there_is_one_line(
    command_line: CommandLine, tmp_path: Path, start: str, message: str
) -> None:
    done = command_line("init", tmp_path / "mine.yaml", "--from", start)
    assert (done.returncode, done.stderr) == (2, f"dualpipe-sim: {message}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_preset_without_flash_attention_says_so_where_one_begins(command_line: CommandLine, tmp_path: Path) -> None:
    begun = {}
    for start in ("gpt-6.2b", "deepseek-v2-lite"):
        file = tmp_path / f"{start}.yaml"
        command_line("init", file, "--from", start)
        begun[start] = "attention: {stored_scores: false}" in file.read_text()
    assert begun == {"gpt-6.2b": True, "deepseek-v2-lite": False}


def test_what_comes_with_the_package_is_listed_and_printed(command_line: CommandLine) -> None:
    listed = command_line("configs").stdout
    assert [line for line in listed.splitlines() if not line.startswith(" ")] == list(packaged_configs())
    assert "    A first experiment: four pipeline ranks in one node, sixteen micro-batches." in listed
    assert max(map(len, listed.splitlines())) <= 80
    assert command_line("configs", "figure5").stdout == packaged_configs()["figure5"].read_text()
    listed = command_line("presets").stdout
    names = [line for line in listed.splitlines() if not line.startswith(" ")]
    assert names == ["model:", *presets("model"), "gpu:", *presets("gpu"), "cluster:", *presets("cluster")]
    assert command_line("presets", "h800").stdout == presets("gpu")["h800"].read_text()


@pytest.mark.parametrize("command", ["configs", "presets"])
def test_a_name_that_is_not_packaged_is_one_line(command_line: CommandLine, command: str) -> None:
    done = command_line(command, "h80")
    what, hint = {"configs": ("configuration", " (known: "), "presets": ("preset", "; did you mean 'h800'?")}[command]
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"dualpipe-sim: h80: no packaged {what} of this name{hint}")


def test_schema_prints_the_schema(command_line: CommandLine) -> None:
    assert json.loads(command_line("schema").stdout) == json_schema()
