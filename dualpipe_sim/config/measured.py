"""Reads the costs of a run that ``dualpipe-sim calibrate`` wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from dualpipe_sim.config.problems import first_problem
from dualpipe_sim.config.section import Section
from dualpipe_sim.config.values import Count, Index, Seconds
from dualpipe_sim.config.yaml_text import read_yaml
from dualpipe_sim.costs.measured import MeasuredCosts, OpTime
from dualpipe_sim.errors import ConfigError, quoted
from dualpipe_sim.order.ops import Kind

_PAIR = re.compile(r"(\d{1,9})F;(\d{1,9})B", re.ASCII)


class Timed(Section):
    """A measured time with its spread; a time alone will do."""

    time: Seconds
    launch: Seconds = 0.0
    p5: Seconds | None = None
    p95: Seconds | None = None
    samples: Count | None = None

    @model_validator(mode="before")
    @classmethod
    def _time_alone(cls, value: object) -> object:
        return value if isinstance(value, Mapping) else {"time": value}

    @property
    def op_time(self) -> OpTime:
        """What counts of it."""
        return OpTime(self.time, self.launch)


class Stage(Section):
    """Measured times of one stage."""

    F: Timed | None = None
    B: Timed | None = None
    I: Timed | None = None
    W: Timed | None = None


class CostsFile(Section):
    """A whole file."""

    pipes: Count = 1
    transfer: Timed = Field(default_factory=lambda: Timed.model_validate(0.0))
    stages: dict[Index, Stage] = Field(default_factory=dict)
    pairs: dict[str, Timed] = Field(default_factory=dict)


def read_measured(path: Path) -> MeasuredCosts:
    """Return the costs that a file holds.

    Raises:
        ConfigError: the file, the key, and what would be right.

    """
    data: Any = read_yaml(path)
    try:
        file = CostsFile.model_validate(data)
        return _costs(file, str(path))
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_problem(error.errors(include_url=False))}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _costs(file: CostsFile, source: str) -> MeasuredCosts:
    pairs = {_pair(key): timed.op_time for key, timed in file.pairs.items()}
    stages = max(file.stages.keys() | {stage for pair in pairs for stage in pair}, default=-1) + 1
    if not stages:
        raise ValueError("stages: must hold one stage at least, or pairs must")
    if stages % file.pipes:
        raise ValueError(f"pipes: {stages} stages do not make up {file.pipes} equally long pipes")
    return MeasuredCosts(
        source=source,
        stages=stages // file.pipes,
        pipes=file.pipes,
        ops={
            (kind, stage): timed.op_time
            for stage, section in file.stages.items()
            for kind in Kind
            if (timed := getattr(section, str(kind))) is not None
        },
        pairs=pairs,
        transfer_s=file.transfer.time,
    )


def _pair(key: str) -> tuple[int, int]:
    match = _PAIR.fullmatch(key)
    if match is None:
        raise ValueError(f"pairs: {quoted(key)} must be the stages of a forward and a backward, like 0F;7B")
    return int(match[1]), int(match[2])
