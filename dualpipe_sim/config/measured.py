"""Reads the costs of a run that ``dualpipe-sim calibrate`` wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from dualpipe_sim.config.cost_section import LoadSection
from dualpipe_sim.config.problems import first_problem
from dualpipe_sim.config.section import Section
from dualpipe_sim.config.values import Count, Factor, Index, Seconds, Size
from dualpipe_sim.config.yaml_text import read_yaml
from dualpipe_sim.costs.measured import MeasuredCosts, OpTime, StageMemory
from dualpipe_sim.errors import ConfigError, quoted
from dualpipe_sim.order.ops import Kind

_PAIR = re.compile(r"(\d{1,9})F;(\d{1,9})B", re.ASCII)


class Timed(Section):
    """A measured time with its spread; a time alone will do."""

    time: Seconds
    launch: Seconds = 0.0
    cold: Seconds | None = None
    host: Seconds = 0.0
    host_after: Seconds = 0.0
    p5: Seconds | None = None
    p95: Seconds | None = None
    samples: Count | None = None

    @model_validator(mode="before")
    @classmethod
    def _time_alone(cls, value: object) -> object:
        return value if isinstance(value, Mapping) else {"time": value}

    def op_time(self, *, under_load: bool) -> OpTime:
        """Return what counts of it."""
        work_s = self.cold if under_load and self.cold is not None else self.time
        return OpTime(work_s, self.launch, self.host, self.host_after)


class Holds(Section):
    """Bytes that a stage holds for each micro-batch, and beside them."""

    activation: Size
    held_for_weight: Size = 0.0
    workspace: Size = 0.0
    gradients: Size = 0.0
    output: Size = 0.0


class Stage(Section):
    """Measured times of one stage."""

    F: Timed | None = None
    B: Timed | None = None
    I: Timed | None = None
    W: Timed | None = None
    R: Timed | None = None
    memory: Holds | None = None


class CostsFile(Section):
    """A whole file."""

    pipes: Count = 1
    load: LoadSection | None = None
    split: Factor = 1.0
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
    under_load = file.load is not None
    pairs = {_pair(key): timed.op_time(under_load=under_load) for key, timed in file.pairs.items()}
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
            (kind, stage): timed.op_time(under_load=under_load)
            for stage, section in file.stages.items()
            for kind in Kind
            if (timed := getattr(section, str(kind), None)) is not None
        },
        pairs=pairs,
        transfer_s=file.transfer.time,
        load=None if file.load is None else file.load.load,
        memory={
            stage: StageMemory(**section.memory.model_dump())
            for stage, section in file.stages.items()
            if section.memory is not None
        },
        split=file.split,
    )


def _pair(key: str) -> tuple[int, int]:
    match = _PAIR.fullmatch(key)
    if match is None:
        raise ValueError(f"pairs: {quoted(key)} must be the stages of a forward and a backward, like 0F;7B")
    return int(match[1]), int(match[2])
