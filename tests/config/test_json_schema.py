"""The JSON Schema of configurations takes and refuses what the program does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from dualpipe_sim.config import packaged_configs
from dualpipe_sim.config.json_schema import json_schema
from dualpipe_sim.config.presets import FOLDERS, presets

VALIDATOR = jsonschema.Draft202012Validator(json_schema())


@pytest.mark.parametrize("path", packaged_configs().values(), ids=lambda path: path.stem)
def test_every_packaged_configuration_fits_the_schema(path: Path) -> None:
    VALIDATOR.validate(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "change",
    [
        {"pipelin": {}},
        {"pipeline": {"ranks": 0}},
        {"engine": "fast"},
        {"cluster": {"nvlnk": {}}},
        {"costs": {"kind": "uniform"}},
        {"costs": {"forward": 1}},
        {"costs": {"forward": 1, "backward_input": 1}},
        {"compare": "everything"},
    ],
)
def test_the_schema_refuses_what_the_program_refuses(change: dict[str, Any]) -> None:
    config = yaml.safe_load(packaged_configs()["small"].read_text(encoding="utf-8"))
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(config | change)


@pytest.mark.parametrize("change", [{"costs": {"forward": 1, "backward": "2 s"}}, {"compare": "all"}])
def test_the_schema_takes_short_forms(change: dict[str, Any]) -> None:
    config = yaml.safe_load(packaged_configs()["small"].read_text(encoding="utf-8"))
    VALIDATOR.validate(config | change)


def test_what_is_compared_may_stand_for_the_schedule() -> None:
    config = yaml.safe_load(packaged_configs()["small"].read_text(encoding="utf-8"))
    del config["schedule"]
    jsonschema.validate(config, json_schema())
    del config["compare"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config, json_schema())


@pytest.mark.parametrize(
    "change",
    [
        {"model": "deepseek-v3", "gpu": {"preset": "h800", "hbm": "3 TB/s", "gemm": {"bf16": {"dense": 7e14}}}},
        {"cluster": {"preset": "h800-ib", "alltoall": {"launch": "20 us", "overlapped": None}}},
        {"cluster": {"alltoall": {"overlapped": {"wait": {"dispatch_forward": "2 ms"}}}}},
    ],
)
def test_presets_may_be_named_and_changed(change: dict[str, Any]) -> None:
    config = yaml.safe_load(packaged_configs()["small"].read_text(encoding="utf-8"))
    VALIDATOR.validate(config | change)


@pytest.mark.parametrize(("section", "folder"), FOLDERS.items())
def test_every_preset_fits_the_schema_of_its_section(section: str, folder: str) -> None:
    config = yaml.safe_load(packaged_configs()["small"].read_text(encoding="utf-8"))
    for path in presets(section).values():
        VALIDATOR.validate(config | {section: yaml.safe_load(path.read_text(encoding="utf-8"))})


@pytest.mark.parametrize(
    "change",
    [
        {"model": "deepsek-v3"},
        {"model": {"preset": "deepseek-v3", "hiden": 3}},
        {"model": {"hidden": 3}},
        {"gpu": {"preset": "h800", "sms": "many"}},
        {"gpu": {"preset": "h800", "gemm": {"bf16": {"dense": -1}}}},
        {"cluster": {"alltoall": {"lunch": 1}}},
        {"cluster": {"alltoall": {"overlapped": {"slowdown": {"dispatch_forward": "2 ms"}}}}},
        {"model": {"preset": "deepseek-v3", "activation": "relu"}},
    ],
)
def test_the_schema_refuses_wrong_keys_of_presets(change: dict[str, Any]) -> None:
    config = yaml.safe_load(packaged_configs()["small"].read_text(encoding="utf-8"))
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(config | change)


@pytest.mark.parametrize(
    "cls",
    [
        "Model",
        "SoftmaxAttention",
        "Mamba2",
        "GatedDelta",
        "Experts",
        "Gpu",
        "Peak",
        "Gemm",
        "GemmRates",
        "AttentionRates",
        "Other",
        "OtherCosts",
        "AllToAllKernel",
        "Overlapped",
        "PerStep",
    ],
)
def test_every_key_of_a_record_is_described(cls: str) -> None:
    about = json_schema()["$defs"][cls]
    assert about["description"]
    for key, value in about["properties"].items():
        assert value.get("description"), key
        assert value.keys() & {"type", "anyOf", "allOf", "oneOf", "enum", "$ref"}, key


def test_units_and_defaults_of_keys_are_told() -> None:
    defs = json_schema()["$defs"]
    gpu, model = defs["Gpu"]["properties"], defs["Model"]["properties"]
    assert (gpu["memory"]["x-unit"], gpu["hbm"]["x-unit"]) == ("B", "B/s")
    assert defs["Peak"]["properties"]["bf16"]["x-unit"] == "FLOP/s"
    assert defs["AllToAllKernel"]["properties"]["launch"]["x-unit"] == "s"
    assert (gpu["kernel_gap"]["default"], model["experts"]["default"], model["activation"]["default"]) == (
        0.0,
        None,
        "swiglu",
    )
    assert "default" not in model["hidden"]
    assert model["hidden"]["description"] == "width of the residual stream"
