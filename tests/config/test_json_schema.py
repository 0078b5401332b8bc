"""The JSON Schema of configurations takes and refuses what the program does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from dualpipe_sim.config import packaged_configs
from dualpipe_sim.config.json_schema import json_schema


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
