"""What a newcomer starts with: a configuration to change, and a schema for the editor."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import jsonschema
import pytest
import yaml

from dualpipe_sim.config import packaged_configs
from dualpipe_sim.config.json_schema import json_schema

CommandLine: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"


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


@pytest.mark.parametrize("path", packaged_configs().values(), ids=lambda path: path.stem)
def test_every_packaged_configuration_fits_the_schema(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), json_schema())


@pytest.mark.parametrize(
    "change",
    [
        {"pipelin": {}},
        {"pipeline": {"ranks": 0}},
        {"engine": "fast"},
        {"cluster": {"nvlnk": {}}},
        {"costs": {"kind": "uniform"}},
    ],
)
def test_the_schema_refuses_what_the_program_refuses(change: dict[str, Any]) -> None:
    config = yaml.safe_load(packaged_configs()["small"].read_text(encoding="utf-8"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config | change, json_schema())


def test_schema_prints_the_schema(command_line: CommandLine) -> None:
    assert json.loads(command_line("schema").stdout) == json_schema()
