"""The shape of a configuration file. Field names are the file's keys; descriptions are what users read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from dualpipe_sim.config.axes import Factors
from dualpipe_sim.config.units import BYTES, BYTES_PER_S, SECONDS, quantity
from dualpipe_sim.errors import did_you_mean


def _seconds(value: object) -> float:
    return quantity(value, SECONDS, "a time like 5 us or 18.5 ms")


def _bytes(value: object) -> float:
    return quantity(value, BYTES, "a size like 58 MB or 80 GiB")


def _bandwidth(value: object) -> float:
    number = quantity(value, BYTES_PER_S, "a bandwidth like 160 GB/s")
    if number == 0:
        raise ValueError(f"must be more than zero, like 160 GB/s, got {value!r}")
    return number


def _whole(value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"must be a whole number, {least} or more, got {value!r}")
    return value


def _count(value: object) -> int:
    return _whole(value, 1)


def _index(value: object) -> int:
    return _whole(value, 0)


def _cost(value: object) -> float | tuple[float, ...]:
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError("must be a time or a list of times, got an empty list")
        return tuple(map(_seconds, value))
    return _seconds(value)


def _transfer(value: object) -> Transfer:
    text = str(value).strip()
    if isinstance(value, str) and text.endswith("B"):
        return Transfer(size_bytes=_bytes(value))
    return Transfer(seconds=quantity(value, SECONDS, "a time like 1.2 ms, or bytes like 58 MB"))


def _schedule(value: object) -> ScheduleSection:
    if isinstance(value, ScheduleSection):
        return value
    if isinstance(value, str):
        return ScheduleSection(name=value)
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        sizes = {key: _count_of(key, value[key]) for key in ("ranks", "micro_batches") if key in value}
        rest = {str(key): option for key, option in value.items() if key not in ("name", *sizes)}
        return ScheduleSection(name=value["name"], options=rest, **sizes)
    raise ValueError(f"must be a schedule's name, or a mapping with 'name' and its options, got {value!r}")


def _count_of(key: str, value: object) -> int:
    try:
        return _count(value)
    except ValueError as error:
        raise ValueError(f"{key} {error}") from error


Seconds = Annotated[float, BeforeValidator(_seconds)]
Bytes = Annotated[float, BeforeValidator(_bytes)]
Bandwidth = Annotated[float, BeforeValidator(_bandwidth)]
Count = Annotated[int, BeforeValidator(_count)]
Index = Annotated[int, BeforeValidator(_index)]
CostTime = Annotated[Any, BeforeValidator(_cost)]


class Section(BaseModel):
    """A mapping of known keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: object) -> object:
        if not isinstance(data, Mapping):
            raise PydanticCustomError("no_mapping", "must be a mapping of keys, got {value}", {"value": repr(data)})
        for key in data:
            if key not in cls.model_fields:
                hint = did_you_mean(str(key), cls.model_fields) or f" (known: {', '.join(cls.model_fields)})"
                raise PydanticCustomError("unknown_key", "unknown key{hint}", {"key": str(key), "hint": hint})
        return data


class Transfer(BaseModel):
    """A stage boundary's tensor: its time, or its size."""

    model_config = ConfigDict(frozen=True)

    seconds: float | None = None
    size_bytes: float = 0.0


class ScheduleSection(BaseModel):
    """A schedule by name, with options and, in a comparison, its own sizes."""

    model_config = ConfigDict(frozen=True)

    name: str
    ranks: int | None = None
    micro_batches: int | None = None
    options: dict[str, object] = {}


ScheduleChoice = Annotated[ScheduleSection, BeforeValidator(_schedule)]


class Pipeline(Section):
    """How many ranks and micro-batches."""

    ranks: Count = Field(description="pipeline ranks")
    micro_batches: Count = Field(description="micro-batches of a step, all pipes together")


class Uniform(Section):
    """Times of one micro-batch through 1/ranks of the model; a list has one entry for each 1/ranks of its depth."""

    kind: Literal["uniform"] = "uniform"
    forward: CostTime = Field(description="time of a forward")
    backward_input: CostTime = Field(description="time of a backward for the input")
    backward_weight: CostTime = Field(description="time of a backward for the weights")
    overlapped: CostTime | None = Field(None, description="time of an overlapped pair; default: forward + backward")
    transfer: Annotated[Transfer, BeforeValidator(_transfer)] = Field(
        Transfer(seconds=0.0), description="time of a stage boundary's tensor under way, or its bytes"
    )


class Tier(Section):
    """What a tier of the network achieves between two GPUs."""

    bandwidth: Bandwidth = Field(description="achieved bandwidth of a GPU, each way")
    latency: Seconds = Field(0.0, description="end-to-end latency of a small message")


class ClusterSection(Section):
    """Nodes of GPUs behind NVLink, a NIC for each GPU on one InfiniBand fabric."""

    gpus_per_node: Count = Field(8, description="GPUs behind one NVLink switch")
    nvlink: Tier = Field(Tier(bandwidth=160e9, latency=3e-6), description="links inside a node")
    infiniband: Tier = Field(Tier(bandwidth=50e9, latency=5e-6), description="links between nodes")
    mapping: tuple[Index, ...] | None = Field(None, description="GPU of each rank; default: rank r on GPU r")


class Root(Section):
    """A configuration file."""

    pipeline: Pipeline
    schedule: ScheduleChoice = Field(description="the schedule that `run` and `gantt` play")
    compare: tuple[ScheduleChoice, ...] = Field((), description="the schedules that `compare` plays")
    costs: Uniform
    cluster: ClusterSection = Field(default_factory=lambda: ClusterSection.model_validate({}))
    engine: Literal["auto", "simpy", "longest-path"] = Field("auto", description="what plays the task graph")
    sweep: Factors = Field((), description="what `sweep` varies")
    contention: Literal["none", "fair"] = Field(
        "none", description="whether all-to-alls and transfers given as bytes share links (max-min fair)"
    )
