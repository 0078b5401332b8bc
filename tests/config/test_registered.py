"""Cost models that a user registers, by their kind in a configuration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jsonschema
import pytest

from dualpipe_sim import ConfigError, UserError, simulate
from dualpipe_sim.config import load_experiment
from dualpipe_sim.config.json_schema import json_schema
from dualpipe_sim.costs import registry
from dualpipe_sim.costs.uniform import UniformCosts, UniformStageCosts
from dualpipe_sim.hardware.cluster import Cluster
from dualpipe_sim.hardware.gpu import Gpu
from dualpipe_sim.model.job import Job
from dualpipe_sim.order.placement import Placement


class OnStages:
    """What all of these lay on stages: a second for each op."""

    def on(self, placement: Placement) -> UniformStageCosts:
        return UniformCosts(1, 1, 1).on(placement)


@dataclass(frozen=True)
class Steady(OnStages):
    """All ops take the same.

    Attributes:
        op_s: seconds of an op.
        stretch: factor on it.

    """

    op_s: float
    stretch: float = 1.0
    mood: Any = None

    def __post_init__(self) -> None:
        if self.stretch > 10:
            raise UserError(f"a stretch of {self.stretch} is too much")
        if self.mood == "odd":
            raise ValueError("this mood is odd")
        if self.mood == "bad":
            raise KeyError("mood")

    def on(self, placement: Placement) -> UniformStageCosts:
        time_s = self.op_s * self.stretch
        return UniformCosts(time_s, time_s, time_s).on(placement)


@dataclass(frozen=True)
class Knowing(OnStages):
    """Costs that know a job, a GPU and, once told, a cluster."""

    gpu: Gpu
    job: Job | None = None
    cluster: Cluster | None = None

    def on_cluster(self, cluster: Cluster) -> Knowing:
        return Knowing(self.gpu, self.job, cluster)


@dataclass(frozen=True)
class Rooted(OnStages):
    """Costs that want a cluster from the start."""

    cluster: Cluster


class Plain(OnStages):
    """No dataclass."""

    def __init__(self, op_s: float) -> None:
        self.op_s = op_s


@pytest.fixture(autouse=True)
def _strangers() -> Iterator[None]:
    with registry.KINDS.restored():
        registry.register("steady")(Steady)
        registry.register("knowing")(Knowing)
        yield


@pytest.fixture
def _unfit_strangers() -> None:
    registry.register("rooted")(Rooted)
    registry.register("plain")(Plain)


def config(kind: str, **costs: object) -> dict[str, object]:
    return {
        "pipeline": {"ranks": 2, "micro_batches": 4},
        "schedule": "1f1b",
        "costs": {"kind": kind, **costs},
    }


def cost_model(config: dict[str, object], **overrides: object) -> object:
    return load_experiment(config, overrides).cost_model


def test_fields_are_keys_and_units_are_read() -> None:
    assert cost_model(config("steady", op="2 ms")) == Steady(2e-3)
    assert cost_model(config("steady", op_s="2 ms", stretch=3)) == Steady(2e-3, 3.0)
    # 1F1B of 2 ranks: 4 + 1 slots of F, I and W
    assert simulate(config("steady", op="2 ms", stretch=2)).makespan_s == pytest.approx(5 * 3 * 4e-3)


@pytest.mark.usefixtures("_unfit_strangers")
@pytest.mark.parametrize(
    ("costs", "said"),
    [
        ({"kind": "steady"}, "costs: the key 'op' is missing"),
        ({"kind": "steady", "op": "soon"}, "costs.op: must be a time like 5 us, got 'soon'"),
        ({"kind": "steady", "opp": 1}, "costs.opp: unknown key; did you mean 'op'?"),
        ({"kind": "steady", "op": 1, "job": 1}, "costs.job: unknown key (known: op, stretch, mood)"),
        (
            {"kind": "steady", "op": 1, "op_s": 1},
            "costs.op_s: is given twice, with the unit in the key and without; leave one out",
        ),
        ({"kind": "steady", "op": 1, "stretch": 11}, "costs: a stretch of 11.0 is too much"),
        ({"kind": "steady", "op": 1, "mood": "odd"}, "costs: this mood is odd"),
        ({"kind": "steady", "op": 1, "mood": "bad"}, "costs: Steady raised KeyError: 'mood'"),
        ({"kind": "plain", "op": 1}, "costs: Plain is no dataclass, so its keys are not known; make it one"),
        (
            {"kind": "rooted"},
            "costs: Rooted.cluster needs a default, such as None; a method on_cluster(cluster) is told the "
            "experiment's cluster",
        ),
        (
            {"kind": "stedy"},
            "costs: kind must be 'uniform', 'profile', 'layers', 'measured', 'knowing', 'plain', 'rooted' or 'steady', "
            "got 'stedy'; did you mean 'steady'?",
        ),
        ({"kind": ["steady"]}, "'rooted' or 'steady', got ['steady']; did you mean 'steady'?"),
        ({"kind": "knowing"}, "gpu: is missing; costs of kind 'knowing' need a preset's name, or a mapping"),
    ],
)
def test_a_mistake_names_file_and_key(costs: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_experiment(config("steady") | {"costs": costs}, source="mine.yaml")
    assert str(caught.value).startswith("mine.yaml: costs" if "gpu:" not in said else "mine.yaml: ")
    assert str(caught.value).endswith(said)


def test_a_field_gets_the_job_or_the_gpu_of_the_sections_beside() -> None:
    alone = cost_model(config("knowing"), gpu="h800")
    assert isinstance(alone, Knowing)
    assert (alone.gpu.name, alone.job, alone.cluster) == ("h800", None, None)
    whole = load_experiment(
        config("knowing"), {"gpu": "h800", "model": "gpt-1.5b", "training": {"sequence_length": 1024}}
    )
    assert isinstance(whole.costs, Knowing)
    assert whole.job is not None
    assert (whole.job.model.name, whole.job.sequence_length) == ("gpt-1.5b", 1024)
    assert whole.costs.cluster == whole.cluster


def test_half_a_job_is_refused() -> None:
    with pytest.raises(ConfigError, match="training: is missing; costs of kind 'knowing' need its sequence_length"):
        cost_model(config("knowing"), gpu="h800", model="gpt-1.5b")


@pytest.mark.parametrize("section", ["model", "gpu", "training", "overlap"])
def test_a_section_that_the_class_has_no_field_for_is_refused(section: str) -> None:
    given = {"model": "gpt-1.5b", "gpu": "h800", "training": {"sequence_length": 1}, "overlap": {}}[section]
    with pytest.raises(ConfigError, match=f"{section}: is only for costs of kind 'layers', but costs.kind is 'steady'"):
        cost_model(config("steady", op=1), **{section: given})


def test_another_class_may_take_the_place_of_the_packages_own() -> None:
    registry.register("uniform", replace=True)(Steady)
    assert cost_model(config("uniform", op=1)) == Steady(1.0)


def test_the_schema_knows_registered_kinds() -> None:
    schema = json_schema()
    jsonschema.validate(config("steady", op="2 ms"), schema)
    jsonschema.validate(config("uniform", forward=1, backward_input=1, backward_weight=1), schema)
    assert schema["$defs"]["Steady"]["properties"]["op"]["description"] == "seconds of an op"
    for wrong in (config("steady"), config("steady", op=1, opp=1), config("stedy", op=1), config("uniform")):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
