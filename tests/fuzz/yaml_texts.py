"""Packaged configurations, their text damaged."""

from __future__ import annotations

from random import Random

from dualpipe_sim.config.load import packaged_configs, read_config
from tests.fuzz.damage import damaged
from tests.fuzz.kind import Kind


def _make(chance: Random) -> bytes:
    path = chance.choice(sorted(packaged_configs().items()))[1]
    return damaged(path.read_bytes(), chance)


KIND = Kind("yaml_texts", ".yaml", _make, read_config, in_tests=300, in_long=10_000)
