"""The commands to begin with: init writes a configuration to change, schema what editors know of its keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from dualpipe_sim.config.json_schema import json_schema

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


def test_schema_prints_the_schema(command_line: CommandLine) -> None:
    assert json.loads(command_line("schema").stdout) == json_schema()
